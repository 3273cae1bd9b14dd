"""Plots of data and results: grids of pictures, curves, bars, trade-offs, confusion.

Every function takes plain data, returns a matplotlib figure, and labels it: title, axes with units, legend. Shares
between 0 and 1 are shown in per cent. How things look is `asymmbook.figures.style`'s business; drawings of the network
are in `asymmbook.figures.diagrams`, figures of the recorded evidence in `asymmbook.figures.comparison`.
"""
from collections.abc import Mapping, Sequence, Sized

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import ArrayLike

from asymmbook.figures.style import WIDTH, colour_of, thousands, use_style

__all__ = ["UNITS", "plot_bars", "plot_confusion", "plot_curves", "plot_mistakes", "plot_schedule", "plot_tradeoff",
           "require", "sample_grid"]

UNITS = {"macs": "MACs per picture", "params": "trainable parameters", "train_ms": "ms of training per picture"}


def sample_grid(pictures: Sequence[ArrayLike], labels: Sequence[str], rows: int = 4, columns: int = 4) -> Figure:
    """Show pictures (uint8 `[H, W, 3]` or grey `[H, W]`) in a grid of 12 x 12 inches, titled `label: <class>`.

    Raises `ValueError` when there are not as many labels as pictures, or none.
    """
    require(pictures, labels)
    figure, axes = plt.subplots(rows, columns, figsize=(12, 12), dpi=60)
    for axis, picture, label in zip(axes.flat, pictures, labels, strict=False):
        axis.imshow(_as_rgb(picture))
        axis.set_title(f"label: {label}", fontsize=22)
    for axis in axes.flat:
        axis.axis("off")
    return figure


def _as_rgb(picture):
    picture = np.asarray(picture)
    return np.stack([picture] * 3, axis=-1) if picture.ndim == 2 else picture


def require(values: Sized, labels: Sized | None = None) -> None:
    """Raise `ValueError` where there is nothing to plot, or not as many labels as values."""
    if not len(values):
        raise ValueError("there is nothing to plot: the data is empty")
    if labels is not None and len(labels) != len(values):
        raise ValueError(f"{len(values)} pictures or values but {len(labels)} labels")


def plot_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss and top-1 per epoch of several runs: {name: DataFrame with the columns of history.csv}.

    Dashed lines are the train split (with augmentation and dropout), full lines the eval split.
    """
    require(histories)
    use_style()
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 5.4), sharex=True)
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
    figure.legend(handles, [*names, "train split (dashed)"], loc="outside lower center", ncols=2)
    return figure


def plot_schedule(real: Sequence[float], intended: Sequence[float], batches_per_epoch: int) -> Figure:
    """The learning rate of every batch, as the article's code really sets it beside what it means."""
    require(real, intended)
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 3.0))
    epochs = np.arange(len(real)) / batches_per_epoch
    axis.plot(epochs, real, color=colour_of("real", 3), linewidth=1.0, label="as published: one step per batch")
    axis.plot(epochs, intended, color=colour_of("intended", 0), linewidth=2.4, label="as intended: one step per epoch")
    axis.set(title="The learning rate of the article", xlabel="epoch", ylabel="learning rate")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def plot_bars(names: Sequence[str], values: Sequence[float] | np.ndarray, low: ArrayLike | None = None,
              high: ArrayLike | None = None, title: str = "Top-1 on the eval split", note: str = "") -> Figure:
    """One bar a name; `low` and `high` are ends of an interval (seeds' spread or Wilson's) drawn as a whisker."""
    require(values, names)
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


def plot_tradeoff(frame: pd.DataFrame, x: str = "macs", y: str = "last_eval_top1", label: str = "label") -> Figure:
    """Accuracy against cost, one point a row of `frame`; `x` is "macs" or "params", on a logarithmic axis."""
    require(frame)
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


def plot_confusion(matrix: ArrayLike, class_names: Sequence[str], title: str = "Confusion on the eval split") -> Figure:
    """A heat map of counts `[C, C]`: rows are true classes, columns predicted ones."""
    matrix = np.asarray(matrix)
    require(matrix, class_names)
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, WIDTH))
    shown = np.where(matrix > 0, matrix.astype(str), "")
    sns.heatmap(matrix, annot=shown, fmt="", annot_kws={"size": 9}, cmap="Blues", square=True, cbar=False,
                xticklabels=class_names, yticklabels=class_names, linewidths=0.4, linecolor="#EEEEEE", ax=axis)
    axis.set(title=title, xlabel="predicted class", ylabel="true class")
    axis.tick_params(axis="x", rotation=90)
    return figure


def plot_mistakes(pictures: Sequence[ArrayLike], true: Sequence[str], predicted: Sequence[str],
                  confidence: Sequence[float], columns: int = 3) -> Figure:
    """Pictures that were classified wrongly, each with its true class, the prediction and its probability."""
    require(pictures, true)
    use_style()
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 2.2 * rows), squeeze=False)
    for axis, *shown in zip(axes.flat, pictures, true, predicted, confidence, strict=False):
        axis.imshow(_as_rgb(shown[0]))
        axis.set_title(f"{shown[1]}\nseen as\n{shown[2]} ({shown[3]:.0%})", fontsize=9, fontweight="normal")
    for axis in axes.flat:
        axis.axis("off")
    return figure
