"""Plots of data and results: grids of pictures, curves, bars, trade-offs, confusion.

Every function takes plain data, returns a matplotlib figure, and labels it: title, axes with units, legend. Shares
between 0 and 1 are shown in per cent. How things look is `asymmlib.style`'s business; drawings of the network are in
`asymmlib.figures`.
"""
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, PercentFormatter

from asymmlib.style import WIDTH, colour_of, thousands, use_style

__all__ = ["plot_bands", "plot_bars", "plot_confusion", "plot_curves", "plot_fronts", "plot_gains", "plot_imagenet_log",
           "plot_mistakes", "plot_rates", "plot_reach", "plot_schedule", "plot_sizes", "plot_tradeoff", "sample_grid"]

UNITS = {"macs": "MACs per picture", "params": "trainable parameters", "train_ms": "ms of training per picture"}


def sample_grid(pictures, labels, rows=4, columns=4):
    """Show pictures (uint8 `[H, W, 3]` or grey `[H, W]`) in a grid of 12 x 12 inches, titled `label: <class>`.

    Raises `ValueError` when there are not as many labels as pictures, or none.
    """
    _require(pictures, labels)
    figure, axes = plt.subplots(rows, columns, figsize=(12, 12), dpi=60)
    for axis, picture, label in zip(axes.flat, pictures, labels, strict=False):
        axis.imshow(_as_rgb(picture))
        axis.set_title(f"label: {label}", fontsize=16)
    for axis in axes.flat:
        axis.axis("off")
    return figure


def _as_rgb(picture):
    picture = np.asarray(picture)
    return np.stack([picture] * 3, axis=-1) if picture.ndim == 2 else picture


def _require(values, labels=None):
    if not len(values):
        raise ValueError("there is nothing to plot: the data is empty")
    if labels is not None and len(labels) != len(values):
        raise ValueError(f"{len(values)} pictures or values but {len(labels)} labels")


def plot_curves(histories):
    """Loss and top-1 per epoch of several runs: {name: DataFrame with the columns of history.csv}.

    Dashed lines are the train split (with augmentation and dropout), full lines the eval split.
    """
    _require(histories)
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(1.6 * WIDTH, 3.3))
    for position, (name, history) in enumerate(histories.items()):
        colour = colour_of(name, position)
        for axis, column in zip(axes, ("loss", "top1"), strict=True):
            axis.plot(history["epoch"], history[f"train_{column}"], "--", color=colour, alpha=0.6)
            axis.plot(history["epoch"], history[f"eval_{column}"], color=colour, label=name)
    losses = [history[["train_loss", "eval_loss"]].to_numpy() for history in histories.values()]
    axes[0].set(title="Loss", xlabel="epoch", ylabel="cross-entropy (nats)",
                ylim=(0, min(1.05 * max(map(np.max, losses)), 2 * max(loss[:, 0].max() for loss in losses))))
    axes[1].set(title="Top-1 accuracy", xlabel="epoch", ylabel="top-1 (%)", ylim=(0, 1))
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    handles, names = axes[0].get_legend_handles_labels()
    handles.append(plt.Line2D([], [], color="grey", linestyle="--", alpha=0.8))
    figure.legend(handles, [*names, "train split (dashed)"], loc="outside lower center", ncols=min(3, len(names) + 1))
    return figure


def plot_schedule(real, intended, batches_per_epoch):
    """The learning rate of every batch, as the article's code really sets it beside what it means."""
    _require(real, intended)
    use_style()
    figure, axis = plt.subplots(figsize=(1.4 * WIDTH, 3.0))
    epochs = np.arange(len(real)) / batches_per_epoch
    axis.plot(epochs, real, color=colour_of("real", 3), linewidth=1.0, label="as published: one step per batch")
    axis.plot(epochs, intended, color=colour_of("intended", 0), linewidth=2.4, label="as intended: one step per epoch")
    axis.set(title="The learning rate of the article", xlabel="epoch", ylabel="learning rate")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def plot_bars(names, values, low=None, high=None, title="Top-1 on the eval split", note=""):
    """One bar a name; `low` and `high` are ends of an interval (seeds' spread or Wilson's) drawn as a whisker."""
    _require(values, names)
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 0.5 * len(names) + 1.4))
    values = np.asarray(values, float)
    errors = None if low is None else np.abs([values - np.asarray(low), np.asarray(high) - values])
    places = np.arange(len(names))[::-1]
    axis.barh(places, values, color=[colour_of(name, i) for i, name in enumerate(names)], xerr=errors, capsize=4,
              height=0.62)
    ends = values if high is None else np.asarray(high, float)
    for place, value, end in zip(places, values, ends, strict=True):
        axis.text(end + 0.015, place, f"{value:.1%}", va="center", size=9)
    axis.set(title=title, xlabel=f"top-1 (%){note}", yticks=places, yticklabels=names,
             xlim=(0, min(1.15, 1.25 * max(ends))))
    axis.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    axis.grid(axis="y", visible=False)
    return figure


def plot_tradeoff(frame, x="macs", y="last_eval_top1", label="label"):
    """Accuracy against cost, one point a row of `frame`; `x` is "macs" or "params", on a logarithmic axis."""
    _require(frame)
    if x not in UNITS:
        raise ValueError(f"unknown cost {x!r}; known: {', '.join(UNITS)}")
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 3.4))
    for position, (_, row) in enumerate(frame.iterrows()):
        axis.scatter(row[x], row[y], s=70, color=colour_of(row[label], position), zorder=3)
        axis.annotate(row[label], (row[x], row[y]), xytext=(0, 8), textcoords="offset points", ha="center", size=9)
    axis.set(title=f"Accuracy against {UNITS[x]}", xscale="log", xlabel=f"{UNITS[x]} (logarithmic)", ylabel="top-1 (%)")
    axis.margins(x=0.25, y=0.25)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))
    axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    axis.minorticks_off()
    return figure


def plot_fronts(frame, costs=tuple(UNITS), y="top1", label="name", error=None):
    """Accuracy against several costs, a panel each: one point a row, and the Pareto front as a line of steps.

    error: column of a half-width, drawn as a whisker where it is known.
    """
    from asymmlib.evidence import on_front
    _require(frame)
    use_style()
    figure, axes = plt.subplots(1, len(costs), figsize=(1.6 * WIDTH, 3.6), sharey=True, squeeze=False)
    for axis, cost in zip(axes.flat, costs, strict=True):
        best = frame[on_front(frame[cost], frame[y])].sort_values(cost)
        axis.step(best[cost], best[y], where="post", color="#999999", linewidth=1.0, zorder=1)
        for position, row in enumerate(frame.to_dict("records")):
            axis.errorbar(row[cost], row[y], yerr=None if error is None else np.nan_to_num(row[error]), fmt="o", ms=7,
                          color=colour_of(row[label], position), capsize=3, label=row[label])
        axis.set(xscale="log", xlabel=f"{UNITS[cost]}\n(logarithmic)")
        axis.margins(x=0.15, y=0.1)
        wide = frame[cost].max() > 50 * frame[cost].min()  # then labels at every decade alone have room
        axis.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 3)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value).replace(".0", "")))
        axis.minorticks_off()
    axes[0, 0].set_ylabel("top-1 (%)")
    axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    axes[0, 0].yaxis.set_major_locator(MultipleLocator(0.05))
    figure.suptitle("Accuracy against cost")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)))
    return figure


def plot_bands(bands, title="Top-1 on the eval split, by epoch"):
    """Mean curves with a band from the lowest to the highest seed: {name: DataFrame with epoch, mean, low, high}."""
    _require(bands)
    use_style()
    figure, axis = plt.subplots(figsize=(1.4 * WIDTH, 3.8))
    for position, (name, band) in enumerate(bands.items()):
        colour = colour_of(name, position)
        axis.plot(band["epoch"], band["mean"], color=colour, label=f"{name} ({band['seeds'].max()})", linewidth=1.4)
        axis.fill_between(band["epoch"], band["low"], band["high"], color=colour, alpha=0.15, linewidth=0)
    axis.set(title=title, xlabel="epoch", ylabel="top-1 (%)", ylim=(0, 1))
    axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    figure.legend(loc="outside lower center", ncols=min(3, len(bands)))
    return figure


def plot_gains(frame, noise=None, title="What each mended flaw is worth"):
    """Bars of `points` gained, by `change` and in a colour for each `name`; `noise` is a half-width shaded around 0."""
    _require(frame)
    use_style()
    changes, names = list(dict.fromkeys(frame["change"])), list(dict.fromkeys(frame["name"]))
    figure, axis = plt.subplots(figsize=(WIDTH, 0.55 * len(changes) + 1.7))
    if noise:
        axis.axvspan(-noise, noise, color="#EEEEEE", zorder=0, label="seeds alone (± 2 standard deviations)")
    for position, name in enumerate(names):
        rows = frame[frame["name"] == name]
        places = [-changes.index(change) - 0.36 * (position - (len(names) - 1) / 2) for change in rows["change"]]
        bars = axis.barh(places, rows["points"].astype(float), height=0.34, color=colour_of(name, position), label=name)
        axis.bar_label(bars, fmt="%+.1f", padding=3, size=8)
    axis.axvline(0, color="#444444", linewidth=0.8)
    axis.set(title=title, xlabel="gain in test top-1 (points)", yticks=-np.arange(len(changes)), yticklabels=changes)
    axis.margins(x=0.2)
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=1 if noise else 2)
    return figure


def plot_confusion(matrix, class_names, title="Confusion on the eval split"):
    """A heat map of counts `[C, C]`: rows are true classes, columns predicted ones."""
    matrix = np.asarray(matrix)
    _require(matrix, class_names)
    use_style()
    side = max(4.0, 0.42 * len(class_names) + 1.5)
    figure, axis = plt.subplots(figsize=(side, side * 0.92))
    shown = np.where(matrix > 0, matrix.astype(str), "")
    sns.heatmap(matrix, annot=shown, fmt="", cmap="Blues", square=True, cbar=False, xticklabels=class_names,
                yticklabels=class_names, linewidths=0.4, linecolor="#EEEEEE", ax=axis)
    axis.set(title=title, xlabel="predicted class", ylabel="true class")
    axis.tick_params(axis="x", rotation=60)
    return figure


def plot_mistakes(pictures, true, predicted, confidence, columns=4):
    """Pictures that were classified wrongly, each with its true class, the prediction and its probability."""
    _require(pictures, true)
    use_style()
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.1 * columns, 2.5 * rows), squeeze=False)
    for axis, *shown in zip(axes.flat, pictures, true, predicted, confidence, strict=False):
        axis.imshow(_as_rgb(shown[0]))
        axis.set_title(f"{shown[1]}\nseen as {shown[2]} ({shown[3]:.0%})", fontsize=9, fontweight="normal")
    for axis in axes.flat:
        axis.axis("off")
    return figure


def plot_imagenet_log(log, rates, gpus):
    """The authors' run on ImageNet over its epochs: accuracy, learning rate, GPU hours.

    log: DataFrame with the columns of official_imagenet_log.csv; rates: the learning rate at the start of each epoch.
    """
    _require(log, rates)
    use_style()
    figure, axes = plt.subplots(3, 1, figsize=(1.2 * WIDTH, 5.6), sharex=True, height_ratios=(2, 1, 1))
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


def plot_rates(fresh, recorded):
    """Eval top-1 per epoch at several asymmetry rates: `fresh` dashed, `recorded` full, one thin line a seed.

    fresh: {rate: history}. recorded: DataFrame with the columns asymmrate, seed, epoch and eval_top1; may be empty.
    """
    _require(fresh)
    use_style()
    figure, axis = plt.subplots(figsize=(1.3 * WIDTH, 3.4))
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
                      label=f"r = {rate}, recorded, mean of seeds ({runs['seed'].nunique()})")
    axis.set(title="Top-1 by asymmetry rate", xlabel="epoch", ylabel="top-1 on the eval split (%)", ylim=(0, 1))
    axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    axis.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def plot_sizes(sizes, limit, title, xlabel, limit_label):
    """Positive numbers of very different size, {name: value}, as bars on a logarithmic axis beside a limit."""
    _require(sizes)
    use_style()
    figure, axis = plt.subplots(figsize=(1.2 * WIDTH, 0.42 * len(sizes) + 1.5))
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


def plot_reach(matrices):
    """Which filtered channels depend on which input channels, {title: bool `[c_in, filtered]`}, one below the other."""
    _require(matrices)
    use_style()
    widest = max(np.asarray(matrix).shape[1] for matrix in matrices.values())
    figure, axes = plt.subplots(len(matrices), 1, figsize=(1.3 * WIDTH, 1.75 * len(matrices) + 0.3), squeeze=False)
    for axis, (title, matrix) in zip(axes[:, 0], matrices.items(), strict=True):
        axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1.25, aspect="auto", interpolation="nearest")
        axis.set(title=title, ylabel="input channel", xlim=(-0.5, widest - 0.5))
        axis.grid(False)
    axes[-1, 0].set_xlabel("filtered channel; dark where the input channel reaches it")
    return figure
