"""Drawings of single layers: what one output of a convolution sees, squeeze-and-excitation, and what a start does.

The block and the network are drawn by `asymmbook.figures.diagrams`, results by `asymmbook.figures.plots`.
"""
from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from asymmbook.figures.plots import require
from asymmbook.figures.style import COLOURS, WIDTH, arrow, bar, blank_axes, in_style, tint, trapezoid

__all__ = ["draw_convolutions", "draw_excitation", "plot_scales"]

SIDE = 5  # pixels of the small maps in a drawing
SCALES = {"filters": "deviation of filters\nover He's", "kept": "variance left\nafter epsilon",
          "step": "gradient over\nweights"}  # columns of asymmbook.evidence.scales.layer_scales
MAP, SEEN, MADE, INK = tint(COLOURS["sky"], 0.3), COLOURS["orange"], COLOURS["blue"], "#444444"


@in_style()
def draw_convolutions(c_in: int = 3, m: int = 5, d: int = 3) -> Figure:
    """Draw which numbers of the input one number of the output is computed from, for both convolutions of a block.

    Left a pointwise convolution from `c_in` to `m` channels: one pixel of every channel. Right a depthwise one of
    kernel side `d` over `m` channels: `d` x `d` pixels of a single channel. Every square is a channel, blue the output.

    Returns the Figure. Raises `ValueError` for counts below 1, and for a kernel side that is even or above 5.
    """
    if min(c_in, m) < 1 or d not in (1, 3, 5):
        raise ValueError(f"c_in is {c_in}, m is {m}, d is {d}; channels start at 1, kernel sides are 1, 3 or 5")
    figure, grid = plt.subplots(1, 2, figsize=(WIDTH, 1.9))
    wide, middle = max(c_in, m) * (SIDE + 1), m // 2
    for axes, title, inputs, reach, seen in (
            (grid[0], f"pointwise, 1 × 1: {c_in} → {m}", c_in, 1, range(c_in)),
            (grid[1], f"depthwise, {d} × {d}: {m} → {m}", m, d, (middle,))):
        axes.set_title(title, size=10)
        blank_axes(axes, wide, 3.6 * SIDE)
        axes.set_aspect("equal")
        for channel in range(m):
            _map(axes, _left(channel, m, wide), 2.5 * SIDE, channel == middle, MADE)
        target = _left(middle, m, wide) + SIDE / 2, 3 * SIDE - 0.5
        for channel in range(inputs):
            x = _left(channel, inputs, wide)
            _map(axes, x, 0, reach if channel in seen else 0, SEEN)
            if channel in seen:
                arrow(axes, (x + SIDE / 2, (SIDE + reach) / 2), target, short=1)
    return figure


def _left(channel, channels, wide):
    """The left edge of a channel's map in a centred row."""
    return (wide - channels * (SIDE + 1) + 1) / 2 + channel * (SIDE + 1)


def _map(axes, x, y, marked, colour):
    """A map of SIDE x SIDE pixels with a square of `marked` pixels in its middle."""
    axes.add_patch(Rectangle((x, y), SIDE, SIDE, facecolor=MAP, edgecolor=INK, linewidth=0.6))
    corner = (SIDE - marked) / 2
    for row in range(marked):
        for column in range(marked):
            axes.add_patch(Rectangle((x + corner + column, y + corner + row), 1, 1, facecolor=colour, edgecolor="white",
                                     linewidth=0.4))


@in_style()
def draw_excitation(channels: int = 96, squeezed: int = 24) -> Figure:
    """Draw squeeze-and-excitation from top to bottom, channels as widths to one scale.

    The mean of every channel goes through a narrow layer and back to one factor a channel; each channel of the map is
    multiplied by its factor. The map itself goes around the small network, on the right.

    Returns the Figure. Raises `ValueError` unless 1 <= squeezed <= channels.
    """
    if not 1 <= squeezed <= channels:
        raise ValueError(f"channels are {channels}, squeezed are {squeezed}; squeezed is from 1 to the channels")
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
    blank_axes(axes, 2.2 * channels, 14.6)
    wide, narrow = (0.0, float(channels)), ((channels - squeezed) / 2, (channels + squeezed) / 2)
    middle, around = channels / 2, 1.2 * channels
    filtered, small = COLOURS["orange"], COLOURS["purple"]
    bar(axes, 0, 0, channels, 1.4, filtered, f"{channels} maps of H × W")
    arrow(axes, (middle, 1.4), (middle, 3))
    for y, (left, right), colour, text in ((3, wide, small, f"{channels} means"), (7, narrow, small, squeezed),
                                           (11, wide, small, f"{channels} factors, 0 to 1")):
        bar(axes, left, y, right - left, 1.2, colour, text)
    trapezoid(axes, wide, narrow, 4.4, 2.4, small, "1×1, ReLU", size=9)
    trapezoid(axes, narrow, wide, 8.4, 2.4, small, "1×1, hard sigmoid", size=9)
    axes.plot([channels, around, around], [0.7, 0.7, 13.6], color=INK, linewidth=1.2)
    arrow(axes, (around, 13.6), (middle, 13.6), short=9)
    arrow(axes, (middle, 12.2), (middle, 13.6), short=7)
    axes.text(middle, 13.6, "×", ha="center", va="center_baseline", size=11,
              bbox={"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": INK})
    for height, text in ((0.7, "filtered channels"), (3.6, "squeeze: mean over the map"), (9.6, "excite"),
                         (13.6, "each map times its factor")):
        axes.text(around + 0.06 * channels, height, text, size=9, va="center_baseline")
    return figure


@in_style()
def plot_scales(tables: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Filters, signal and first step of every depthwise layer: a column a network, a row a measure, a colour a start.

    tables: {network: {start: DataFrame of `asymmbook.evidence.scales.layer_scales`}}. Logarithmic, to the left the
    layer next to the picture. Raises `ValueError` where there is nothing to draw.
    """
    require(tables)
    figure, grid = plt.subplots(len(SCALES), len(tables), figsize=(WIDTH, 5.2), sharex="col", sharey="row",
                                squeeze=False)
    for column, (network, starts) in enumerate(tables.items()):
        grid[0, column].set_title(network, size=10)
        grid[-1, column].set_xlabel("depthwise layer")
        for (start, table), colour, marker in zip(starts.items(), ("vermilion", "blue"), "os", strict=True):
            layers = table[table["kind"] == "depthwise"].reset_index(drop=True)
            for axis, measure in zip(grid[:, column], SCALES, strict=True):
                axis.plot(layers.index + 1, layers[measure], marker, color=COLOURS[colour], ms=4, label=start)
    for axes, text in zip(grid, SCALES.values(), strict=True):
        axes[0].set(yscale="log", ylabel=text)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    figure.suptitle("Depthwise layers before the first step")
    return figure
