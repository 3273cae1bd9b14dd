"""Figures of the recorded evidence: accuracy against cost, seeds, flaws, differences, rates, the authors' log, speed.

Like `asymmbook.figures.plots`, every function takes plain data and returns a labelled matplotlib figure.
"""
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, PercentFormatter
from numpy.typing import ArrayLike

from asymmbook.evidence.which import on_front
from asymmbook.figures.plots import UNITS, require
from asymmbook.figures.style import COLOURS, WIDTH, colour_of, thousands, use_style

__all__ = ["plot_accuracy", "plot_bands", "plot_differences", "plot_fronts", "plot_imagenet_log", "plot_rates",
           "plot_reach", "plot_roofline", "plot_sizes", "plot_speeds"]

FAR = 3  # times the middle half's spread below it: as statisticians mark what lies far out
ROOF_COLOURS = ("vermilion", "blue", "green", "purple", "orange")
LABEL = 30  # characters of a line beside an axis
EDGE = 0.008  # how far above the lower edge such a mark stands
BESIDE = 0.03  # of the axis: the least distance of two points of nearly equal cost


def _floor(values, lows=None):
    """Where an axis begins so that values far below all others do not set it."""
    first, third = values.quantile([0.25, 0.75])
    return (values if lows is None else lows)[values > first - FAR * max(third - first, 0.01)].min() - 0.03


def _set_axis(axis, cost, floor):
    """Top-1 in per cent from a floor up, against a cost of `UNITS` on a logarithmic axis."""
    axis.set(xscale="log", xlabel=f"{UNITS[cost]} (logarithmic)", ylabel="top-1 (%)")
    axis.set_ylim(floor, None)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value < 1000
                                                 else thousands(value).replace(".0", "")))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    axis.minorticks_off()


def _ticks(costs):
    """Where labels stand on a logarithmic axis: as many as there is room for."""
    span = max(costs) / min(costs)
    return LogLocator(subs=(1,) if span > 50 else (1, 3) if span > 10 else (1, 2, 5))


def _side_by_side(costs):
    """Costs in their order, moved apart as little as lets a reader see each point on a logarithmic axis."""
    order, logs = np.argsort(costs, kind="stable"), np.log(np.sort(costs))
    gap = BESIDE * (logs[-1] - logs[0])
    places = gap * np.arange(len(logs)) + np.maximum.accumulate(logs - gap * np.arange(len(logs)))
    moved = np.empty(len(logs))
    moved[order] = np.exp(places - (places - logs).mean())
    return moved


def plot_speeds(table: pd.DataFrame, size: int) -> Figure:
    """Training speed of every case at one picture size: bars are medians, whiskers the slowest and fastest round.

    The data path alone, which trains nothing and would set the axis, is left out.
    """
    rows = table[(table["size"] == size) & (table["batch"] == 32) & (table["case"] != "data")]
    rows = rows.sort_values("images_per_s")
    if rows.empty:
        raise ValueError(f"no row for {size} px; there are {sorted(table['size'].unique())}")
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 0.35 * len(rows) + 1.2))
    middle = rows["images_per_s"]
    axis.barh(rows["case"], middle, xerr=[middle - rows["low"], rows["high"] - middle], capsize=3,
              color=[COLOURS["orange" if case == "ours" else "sky"] for case in rows["case"]])
    axis.set_title(f"Training at {size} px, batch 32")
    axis.set_xlabel("images per second (median; whiskers: all rounds)", loc="right")  # wider than the axes
    axis.grid(axis="y", visible=False)
    return figure


def plot_roofline(points: Mapping[str, tuple[float, float]], peak_gflops: float, bandwidth_gb_s: float,
                  title: str = "Where a training step lies under the roof") -> Figure:
    """Speed against arithmetic intensity under the measured roof.

    `points` is {name: (operations per byte, GFLOP/s)}; both axes are logarithmic. Where there are many, the second half
    has the first half's colours.
    """
    use_style()
    half = len(points) if len(points) <= len(ROOF_COLOURS) else -(-len(points) // 2)
    looks = [(marker, colour) for marker in "os" for colour in ROOF_COLOURS[:half]]
    figure, axis = plt.subplots(figsize=(WIDTH, 3.0 + 0.2 * len(points)))
    x = np.logspace(-1, 3, 200)
    axis.plot(x, np.minimum(peak_gflops, x * bandwidth_gb_s), color=COLOURS["black"], label="measured roof")
    for (name, (intensity, speed)), (marker, colour) in zip(points.items(), looks, strict=False):
        axis.plot(intensity, speed, marker, color=COLOURS[colour], label=name)
    axis.set(title=title, xscale="log", yscale="log",
             xlabel="floating-point operations per byte of memory traffic", ylabel="GFLOP per second")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def plot_fronts(frame: pd.DataFrame, costs: Sequence[str] = tuple(UNITS), y: str = "top1", label: str = "name",
                error: str | None = None) -> Figure:
    """Accuracy against several costs, one below the other: a point a row, and the Pareto front as a line of steps.

    error: column of a half-width, drawn as a whisker where it is known.
    """
    require(frame)
    use_style()
    floor = _floor(frame[y], None if error is None else frame[y] - frame[error].fillna(0))
    figure, axes = plt.subplots(len(costs), 1, figsize=(WIDTH, 2.3 * len(costs) + 1.0), squeeze=False)
    for axis, cost in zip(axes.flat, costs, strict=True):
        best = frame[on_front(frame[cost], frame[y])].sort_values(cost)
        axis.step(best[cost], best[y], where="post", color="#999999", linewidth=1.0, zorder=1)
        for position, row in enumerate(frame.to_dict("records")):
            below, colour = row[y] < floor, colour_of(row[label], position)
            axis.errorbar(row[cost], row[y], yerr=None if error is None else np.nan_to_num(row[error]), fmt="o", ms=7,
                          color=colour, capsize=3,
                          label=f"{row[label]} ({100 * row[y]:.0f} %)" if below else row[label])
            if below:
                axis.scatter(row[cost], floor + EDGE, s=40, color=colour, marker="v")
        axis.margins(x=0.15, y=0.1)
        _set_axis(axis, cost, floor)
        axis.xaxis.set_major_locator(_ticks(frame[cost]))
        axis.yaxis.set_major_locator(MultipleLocator(0.1))
    figure.suptitle("Accuracy against cost")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(2, len(names)))
    return figure


def plot_bands(bands: Mapping[str, pd.DataFrame], title: str = "Top-1 on the held-out fold, by epoch") -> Figure:
    """Mean curves with a band from lowest to highest run: {name: DataFrame with epoch, mean, low, high, runs}."""
    require(bands)
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 3.8))
    for position, (name, band) in enumerate(bands.items()):
        colour = colour_of(name, position)
        axis.plot(band["epoch"], band["mean"], color=colour, label=f"{name} ({band['runs'].max()})", linewidth=1.4)
        axis.fill_between(band["epoch"], band["low"], band["high"], color=colour, alpha=0.15, linewidth=0)
    axis.set(title=title, xlabel="epoch", ylabel="top-1 (%)", ylim=(0, 1))
    axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    figure.legend(loc="outside lower center", ncols=min(2, len(bands)))
    return figure


def plot_differences(tables: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Differences of two accuracies with their intervals around 0, a panel for each {name: table}, a row a comparison.

    table: label, mean, low and high (shares; drawn in points) and shown (bool: in colour, with a filled point).
    """
    require(tables)
    use_style()
    rows = [len(table) for table in tables.values()]
    figure, axes = plt.subplots(len(tables), 1, figsize=(WIDTH, 0.33 * sum(rows) + 0.55 * len(rows) + 0.7),
                                sharex=True, squeeze=False, height_ratios=rows)
    for axis, (name, table) in zip(axes.flat, tables.items(), strict=True):
        axis.axvline(0, color="#444444", linewidth=0.8)
        for place, row in enumerate(table.itertuples()):
            colour = COLOURS["blue" if row.shown else "grey"]
            axis.plot([100 * row.low, 100 * row.high], [place, place], color=colour)
            axis.plot(100 * row.mean, place, "o", color=colour, markerfacecolor=colour if row.shown else "white")
        labels = [textwrap.fill(label, LABEL) for label in table["label"]]
        axis.set(yticks=range(len(table)), yticklabels=labels, ylim=(len(table) - 0.5, -0.5))
        axis.set_title(name if len(tables) > 1 else "")  # of a single panel, the figure's title says it
        axis.grid(axis="x")
        axis.grid(axis="y", visible=False)
    axes[-1, 0].set_xlabel("points, 95 % interval")
    axes[-1, 0].xaxis.get_major_locator().set_params(integer=True, nbins=5)
    figure.suptitle(title)
    return figure


def plot_imagenet_log(log: pd.DataFrame, rates: Sequence[float], gpus: int) -> Figure:
    """The authors' run on ImageNet over its epochs: accuracy, learning rate, GPU hours.

    log: DataFrame with the columns of official_imagenet_log.csv; rates: the learning rate at the start of each epoch.
    """
    require(log, rates)
    use_style()
    figure, axes = plt.subplots(3, 1, figsize=(WIDTH, 5.6), sharex=True, height_ratios=(2, 1, 1))
    for position, (column, name) in enumerate((("val_top5", "validation, top-5"), ("val_top1", "validation, top-1"),
                                               ("train_top1", "train, top-1"))):
        axes[0].plot(log["epoch"], log[column], color=colour_of(column, position), linewidth=1.2, label=name)
    axes[0].set(title="The authors' 360 epochs on ImageNet", ylabel="accuracy (%)", ylim=(0, 1))
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    axes[0].legend(loc="lower right")
    axes[1].plot(log["epoch"], rates, color=colour_of("rate", 3))
    axes[1].set(ylabel="learning rate")
    axes[2].plot(log["epoch"], gpus * log["seconds"].cumsum() / 3600, color=colour_of("hours", 4))
    axes[2].set(ylabel="GPU hours", xlabel="epoch")
    return figure


def plot_rates(fresh: Mapping[int, pd.DataFrame], recorded: pd.DataFrame) -> Figure:
    """Held-out top-1 per epoch at several asymmetry rates: `fresh` dashed, `recorded` full, a thin line a run.

    fresh: {rate: history}. recorded: DataFrame with the columns asymmrate, seed, epoch and eval_top1; may be empty.
    """
    require(fresh)
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 3.4))
    for position, (rate, history) in enumerate(fresh.items()):
        axis.plot(history["epoch"], history["eval_top1"], "--", color=colour_of(rate, position), marker=".",
                  label=f"r = {rate}, this page")
    for position, rate in enumerate(fresh):
        runs = recorded[recorded["asymmrate"] == rate]
        for _, run in runs.groupby("seed"):
            axis.plot(run["epoch"], run["eval_top1"], color=colour_of(rate, position), linewidth=0.6, alpha=0.6)
        if len(runs):
            mean = runs.groupby("epoch")["eval_top1"].mean()
            axis.plot(mean.index, mean, color=colour_of(rate, position),
                      label=f"r = {rate}, recorded, mean of runs ({runs['seed'].nunique()})")
    axis.set(title="Top-1 by asymmetry rate", xlabel="epoch", ylabel="top-1 on held-out pictures (%)", ylim=(0, 1))
    axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    axis.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def plot_sizes(sizes: Mapping[str, float], limit: float, title: str, xlabel: str, limit_label: str) -> Figure:
    """Positive numbers of very different size, {name: value}, as bars on a logarithmic axis beside a limit."""
    require(sizes)
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 0.42 * len(sizes) + 1.5))
    places = np.arange(len(sizes))[::-1]
    colours = [colour_of("right", 2) if value <= limit else colour_of("wrong", 3) for value in sizes.values()]
    axis.barh(places, list(sizes.values()), color=colours, height=0.6)
    for place, value in zip(places, sizes.values(), strict=True):
        axis.text(value * 1.3, place, f"{value:.1e}" if value < 0.01 else f"{value:.2f}", va="center", size=9)
    axis.axvline(limit, color="black", linestyle="--", linewidth=1, label=limit_label)
    axis.set(title=title, xscale="log", xlabel=xlabel, yticks=places, yticklabels=list(sizes),
             xlim=(min(*sizes.values(), limit) / 10, max(sizes.values()) * 30))
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", visible=True)
    figure.legend(loc="outside lower center")
    return figure


def plot_reach(matrices: Mapping[str, ArrayLike]) -> Figure:
    """Which filtered channels depend on which input channels, {title: bool `[c_in, filtered]`}, one below the other."""
    require(matrices)
    use_style()
    widest = max(np.asarray(matrix).shape[1] for matrix in matrices.values())
    figure, axes = plt.subplots(len(matrices), 1, figsize=(WIDTH, 1.75 * len(matrices) + 0.3), squeeze=False)
    for axis, (title, matrix) in zip(axes[:, 0], matrices.items(), strict=True):
        axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1.25, aspect="auto", interpolation="nearest")
        axis.set(title=title, ylabel="input channel", xlim=(-0.5, widest - 0.5))
        axis.grid(False)
    axes[-1, 0].set_xlabel("filtered channel; dark where the input channel reaches it")
    return figure


def plot_accuracy(table: pd.DataFrame) -> Figure:
    """Top-1 against MACs, a labelled point a network; whiskers reach from its least to its best run.

    table: DataFrame with name, macs, top1, low, high (shares). Points of nearly equal cost stand side by side. A
    network far below all others sets no axis: a mark at the lower edge says where it is.
    """
    require(table)
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 3.6))
    floor = _floor(table["top1"], table["low"])
    table = table.assign(place=_side_by_side(table["macs"]))
    for position, row in enumerate(table.sort_values("top1", ascending=False).to_dict("records")):
        below = row["top1"] < floor
        height, colour = floor + EDGE if below else row["top1"], colour_of(row["name"], position)
        spread = None if below else [[height - row["low"]], [row["high"] - height]]
        axis.errorbar(row["place"], height, yerr=spread, fmt="v" if below else "o", ms=7, color=colour, capsize=3,
                      label=f"{row['name']} ({100 * row['top1']:.0f} %)")
    axis.set_title("Accuracy against cost")
    axis.margins(x=0.12)
    _set_axis(axis, "macs", floor)
    axis.xaxis.set_major_locator(_ticks(table["macs"]))
    figure.legend(loc="outside lower center", ncols=2)
    return figure
