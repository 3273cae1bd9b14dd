"""The drawings of the book: the block, the network, where its costs sit, the way from a zip to a batch.

Everything is drawn from `plan_blocks` and `formula`, so a drawing cannot disagree with the code. `write_images` stores
the fixed ones for the pages. Curves and bars of results are in `asymmbook.figures.plots`, colours and type in
`asymmbook.figures.style`.
"""
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon
from matplotlib.ticker import EngFormatter

from asymmbook.checkout import project_root
from asymmbook.editions.catalogue import catalogue
from asymmbook.editions.twins import spoken
from asymmbook.figures.style import (
    COLOURS,
    WIDTH,
    arrow,
    bar,
    blank_axes,
    colour_key,
    in_style,
    thousands,
    tint,
    trapezoid,
)
from asymmlib.complexity import PARTS, costs_by_block, formula
from asymmlib.network import plan_blocks

__all__ = ["ALT", "IMAGES", "PART_COLOURS", "draw_bottlenecks", "draw_copies", "draw_costs", "draw_network",
           "draw_pipeline", "write_images"]

COPY, NEW, INK = COLOURS["sky"], COLOURS["blue"], "#444444"
# Parts of a block: pointwise ones in cool colours, the depthwise one in a warm one
PART_COLOURS = dict(zip(PARTS, (NEW, COLOURS["orange"], COLOURS["purple"], COLOURS["green"]), strict=True))


@in_style()
def draw_bottlenecks(rates: Sequence[int] = (0, 1), variant: str = "large", index: int = 2) -> Figure:
    """Draw one block at several asymmetry rates side by side, channels as widths to one scale.

    Blocks side by side, input at the top, output at the bottom, widths to scale with channel counts. With rate 0 a
    first pointwise convolution makes all channels that the depthwise convolution filters; with a higher rate it makes
    fewer, and copies of the input are set on both sides of them, so that the second pointwise convolution sees more.

    The block is number `index` of `plan_blocks(variant)`; squeeze-and-excitation, where it has one, is not drawn.
    Returns the Figure. Raises `ValueError` where the block cannot be built or has no first pointwise convolution.
    """
    networks = [plan_blocks(variant, asymmrate=rate) for rate in rates]
    if not networks or not 0 <= index < len(networks[0]):
        raise ValueError(f"rates are {tuple(rates)}, index is {index}; give at least one rate and the number of a "
                         "block")
    plans = [network[index] for network in networks]
    if not all(plan.expands for plan in plans):
        raise ValueError(f"block {index} of {variant} has no first pointwise convolution at rates {tuple(rates)}: "
                         "nothing to compare; draw another block")
    widest, side = max(plan.depthwise for plan in plans), 1.2 * plans[0].c_in  # side: room for the shortcut
    figure, grid = plt.subplots(1, len(plans), figsize=(WIDTH, 4.6), squeeze=False)
    for axes, plan, rate in zip(grid[0], plans, rates, strict=True):
        name = "inverted residual" if rate == 0 else "asymmetrical bottleneck"
        axes.set_title(f"r = {rate}\n" + (name if len(plans) < 3 else name.replace(" ", "\n")), size=10)
        _block(blank_axes(axes, widest + 1.3 * side, 18), plan, widest / 2 + 0.2 * side, side,
               size=10 if len(plans) < 3 else 9)
    colour_key(figure, {"input and its copies": COPY, "new channels": NEW,
                        "filtered channels": PART_COLOURS["depthwise"], "output": PART_COLOURS["second pointwise"]})
    return figure


def _block(axes, plan, middle, side, size):
    """One block around the vertical line x = middle, its shortcut `side` to the right; y runs from 0 to 18."""
    def around(channels):
        return middle - channels / 2, middle + channels / 2

    narrow, wide, out = around(plan.c_in), around(plan.depthwise), around(plan.out)
    bar(axes, narrow[0], 0, plan.c_in, 1.2, COPY, plan.c_in, size)
    trapezoid(axes, narrow, around(plan.new), 1.4, 3, PART_COLOURS["first pointwise"], "1×1", size)
    for x, channels, colour in _segments(plan.c_in, plan.new, plan.copies, wide[0]):
        bar(axes, x, 4.6, channels, 1.2, colour, channels, size)
        if colour == COPY:
            left = x < middle
            arrow(axes, (narrow[not left], 0.6), (x + channels / 2, 4.6), COPY, curve=0.35 if left else -0.35)
    if plan.copies:
        axes.text(wide[0] + plan.c_in * 0.4, 2, "copies", ha="right", size=9)
    trapezoid(axes, wide, wide, 6, 2.6, PART_COLOURS["depthwise"], f"{plan.kernel}×{plan.kernel}\ndepthwise", size)
    bar(axes, wide[0], 8.8, plan.depthwise, 1.2, PART_COLOURS["depthwise"], plan.depthwise, size)
    trapezoid(axes, wide, out, 10.2, 3, PART_COLOURS["second pointwise"], "1×1", size)
    bar(axes, out[0], 13.4, plan.out, 1.2, PART_COLOURS["second pointwise"], plan.out, size)
    if plan.shortcut:
        _shortcut(axes, narrow[1], wide[1] + side / 2, middle)
    weights = plan.c_in * plan.new, plan.kernel**2 * plan.depthwise, plan.depthwise * plan.out
    axes.text(middle, 17.1, " + ".join(f"{number:,}" for number in weights), ha="center", size=9)
    axes.text(middle, 17.9, f"= {sum(weights):,} weights", ha="center", size=9)


def _segments(c_in, new, copies, x=0):
    """(left edge, channels, colour) of the copies and of the new channels, from left to right."""
    for place, channels in enumerate([c_in] * copies + [new] + [c_in] * copies):
        yield x, channels, NEW if place == copies else COPY
        x += channels


def _shortcut(axes, start, side, middle):
    """The way around the block, from the input's right end to the sum below the output."""
    axes.plot([start, side, side], [0.6, 0.6, 15.6], color=INK, linewidth=1.2)
    arrow(axes, (side, 15.6), (middle, 15.6), short=9)
    arrow(axes, (middle, 14.6), (middle, 15.6), short=7)
    axes.text(middle, 15.6, "+", ha="center", va="center_baseline", size=11,
              bbox={"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": INK})


@in_style()
def draw_network(variant: str = "large", width: float = 1.0, asymmrate: int = 1, size: int = 224) -> Figure:
    """Draw the whole network as a strip, one line a block from the picture to the classes.

    One line per block from top to bottom: the side of the map that it puts out, its channels as a bar to scale with
    copies and new channels in two colours, kernel and squeeze-and-excitation, and its multiply-accumulate operations
    as a second bar. The map shrinks from half the picture's side to a single point while the channels grow.

    Arguments as for `asymmlib.complexity.formula`, 1000 classes. Returns the Figure.
    """
    cost = formula(variant, width, asymmrate, size=size)
    rows = _network_rows(cost.layers, plan_blocks(variant, width, asymmrate))
    figure, axes = plt.subplots(figsize=(WIDTH, 0.27 * len(rows) + 1.2))
    blank_axes(axes, 100, len(rows) + 2)
    scale = 24 / rows["channels"].map(sum).max(), 6 / rows["macs"].max()
    header = "layer", "map", "channels", "in → filter → out", "kernel", "MACs"
    for x, text in zip(NETWORK_COLUMNS, header, strict=True):
        axes.text(x, 0.4, text, weight="bold", size=9, va="center", ha="center" if text == "channels" else "left")
    for number, row in enumerate(rows.itertuples(), start=1):
        _network_row(axes, number, row, *scale)
    axes.set_title(f"AsymmNet-{variant.title()} ×{width}, r = {asymmrate}, {size}² pixels")
    for x, text in ((0, "total"), (NETWORK_COLUMNS[3], f"{cost.params / 1e6:.2f} M parameters"),
                    (NETWORK_COLUMNS[5], thousands(cost.macs))):
        axes.text(x, len(rows) + 1.45, text, weight="bold", size=9, va="center_baseline")
    colour_key(figure, {"the input or copies of it": COPY, "new channels": NEW, "MACs": COLOURS["orange"]}, columns=3)
    return figure


NETWORK_COLUMNS = (0, 13.5, 33.5, 47, 73, 84)  # where the columns of the strip begin, of 100; the third one is centred


def _network_rows(layers, plans):
    """One row a line of the strip: name, map, channels (numbers), colours, way, kernel, macs."""
    owner = layers["name"].str.extract(r"^(blocks\.\d+|\w+)")[0]
    macs, last = layers["macs"].groupby(owner, sort=False).sum(), layers.groupby(owner, sort=False).last()
    rows = []
    for name, shape in last["out_shape"].items():
        if name.startswith("blocks."):
            plan = plans[int(name.removeprefix("blocks."))]
            segments = [pair for _, *pair in _segments(plan.c_in, plan.new, plan.copies)]
            segments = segments if plan.expands else [(plan.c_in, COPY)]
            way, kernel = (plan.c_in, plan.depthwise, plan.out), f"{plan.kernel}×{plan.kernel}" + plan.se * " SE"
            name = f"block {plan.index}"
        else:
            first = layers[owner == name].iloc[0]
            segments, way = [(shape[0], NEW)], (first["in_shape"][0], shape[0])
            kernel = f"{first['kernel']}×{first['kernel']}"
        side = f"{shape[1]}²" if len(shape) == 3 and shape[1] > 1 else "1"
        rows.append((name, side, *zip(*segments, strict=True), " → ".join(map(str, way)), kernel,
                     macs.iloc[len(rows)]))
    return pd.DataFrame(rows, columns=["name", "map", "channels", "colours", "way", "kernel", "macs"])


def _network_row(axes, y, row, channel_scale, macs_scale):
    if y % 2:
        axes.axhspan(y - 0.05, y + 0.95, color="#F5F5F5", zorder=0)
    x = NETWORK_COLUMNS[2] - sum(row.channels) * channel_scale / 2
    for channels, colour in zip(row.channels, row.colours, strict=True):
        bar(axes, x, y + 0.1, channels * channel_scale, 0.7, colour, gap=0.15)
        x += channels * channel_scale
    name, side, _, way, kernel, macs = NETWORK_COLUMNS
    bar(axes, macs, y + 0.1, row.macs * macs_scale, 0.7, COLOURS["orange"])
    for x, text in ((name, row.name), (side, row.map), (way, row.way), (kernel, row.kernel),
                    (macs + row.macs * macs_scale + 0.8, thousands(row.macs))):
        axes.text(x, y + 0.45, text, size=9, va="center_baseline")


@in_style()
def draw_costs(variant: str = "large", width: float = 1.0, rates: Sequence[int] = (0, 1, 2), size: int = 224) -> Figure:
    """Draw where multiply-accumulate operations and parameters of the blocks sit, for several asymmetry rates.

    Two rows of area charts, one column per asymmetry rate; every block is a step. The upper row stacks the
    multiply-accumulate operations of its first pointwise, depthwise, squeeze-and-excitation and second pointwise
    layers, the lower row their parameters. A higher rate moves area from the first pointwise layers to the second.

    Stem and head are left out: they do not depend on the rate. Returns the Figure.
    """
    if not len(rates):
        raise ValueError("no rates to draw; give at least one, such as rates=(0, 1, 2)")
    figure, grid = plt.subplots(2, len(rates), figsize=(WIDTH, 4.8), sharex=True, sharey="row", squeeze=False)
    for column, rate in enumerate(rates):
        tables = costs_by_block(formula(variant, width, rate, size=size))
        for axes, table in zip(grid[:, column], tables.values(), strict=True):
            heights = np.vstack([table, table.iloc[-1:]]).T  # a step needs its right edge, too
            edges = np.arange(len(table) + 1) - 0.5
            axes.stackplot(edges, heights, step="post", colors=PART_COLOURS.values(), linewidth=0)
            axes.text(0.04, 0.99, f"total {thousands(table.to_numpy().sum())}", size=9, va="top",
                      transform=axes.transAxes, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
        grid[0, column].set_title(f"r = {rate}")
        axes.set_xlabel("block")
    for axes, label in zip(grid[:, 0], ("MACs of a block", "parameters of a block"), strict=True):
        axes.set_ylabel(label)
        axes.yaxis.set_major_formatter(EngFormatter())
        axes.margins(x=0, y=0.12)
    colour_key(figure, PART_COLOURS)
    return figure


@in_style()
def draw_copies(c_in: int = 16, new: int = 48, asymmrate: int = 1) -> Figure:
    """Draw which input channels reach which channels of the depthwise convolution.

    Input channels in a row at the top, channels of the depthwise convolution in a row below. Straight bundles lead from
    each input channel to its own copies on both sides; the new channels in the middle are each reached by all input
    channels. The lines of one input channel are drawn dark.

    Arguments are channel counts and the asymmetry rate r: the lower row has `new + 2 * r * c_in` channels. Returns the
    Figure. Raises `ValueError` for counts below 1 or a rate below 0.
    """
    if c_in < 1 or new < 1 or asymmrate < 0:
        raise ValueError(f"c_in is {c_in}, new {new}, asymmrate {asymmrate}; channel counts start at 1, rates at 0")
    copies = asymmrate * c_in
    total = new + 2 * copies
    figure, axes = plt.subplots(figsize=(WIDTH, 2.6))
    blank_axes(axes, total, 9.6)
    left, chosen = (total - c_in) / 2, c_in // 3
    for x, channels, colour in _segments(c_in, new, asymmrate):
        corners = [(left, 2), (left + c_in, 2), (x + channels, 7), (x, 7)]
        axes.add_patch(Polygon(corners, facecolor=colour, alpha=0.18, linewidth=0))
        ends = range(channels) if colour == NEW else [chosen]
        axes.plot([[left + chosen + 0.5] * len(ends), [x + end + 0.5 for end in ends]], [2, 7],
                  color=COLOURS["vermilion"], linewidth=0.7)
        _cells(axes, x, 7, channels, colour)
        axes.text(x + channels / 2, 9, f"{channels} new" if colour == NEW else "copy", ha="center", size=9)
    _cells(axes, left, 1, c_in, COPY)
    bar(axes, left + chosen, 1, 1, 1, COLOURS["vermilion"], gap=0.5)
    axes.text(total / 2, 0.6, f"{c_in} input channels", ha="center", size=9)
    axes.set_title(f"r = {asymmrate}: from an input channel to {total} filtered ones")
    return figure


def _cells(axes, x, y, channels, colour):
    for channel in range(channels):
        bar(axes, x + channel, y, 1, 1, colour, gap=0.5)


# what there is, what it holds or looks like, and what in asymmlib leads to the next one
PIPELINE = (
    ("Images.zip", "class folders with pictures of any size", "data.archive.unpack"),
    ("Images/class/file", "nothing copied, nothing renamed", "data.manifest.make_manifest"),
    ("manifest.csv", "path, class, split, sha256, name", "data.pictures.cached_pixels"),
    ("pixels-S.npy", "uint8 [pictures, S, S, 3], decoded once", "dataset.Pictures, train split only"),
    ("turned by up to 10°", "uint8 [S, S, 3]", "data.pictures.normalise"),
    ("item", "float32 [3, S, S], int64 [1]", "dataset.make_loader"),
    ("batch", "float32 [B, 3, S, S], int64 [B, 1]", "network"),
    ("logits", "float32 [B, classes]", ""),
)


@in_style()
def draw_pipeline() -> Figure:
    """Draw the way of the data from an archive to the network's output.

    Boxes from top to bottom, each with a name and what it holds: archive, folders of pictures, manifest, file of
    decoded pixels, augmented picture, normalised item, batch, logits. Arrows between them bear the function that makes
    one from the other.

    S is the picture's side in pixels, B the batch size. Returns the Figure.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 5.6))
    blank_axes(axes, 100, 2 * len(PIPELINE) - 0.7)
    axes.set_title("From an archive to the network's output")
    for number, (name, content, function) in enumerate(PIPELINE):
        y, colour = 2 * number, COLOURS["blue" if number < 4 else "orange"]
        axes.add_patch(FancyBboxPatch((1, y + 0.1), 98, 1.1, boxstyle="round,pad=0,rounding_size=0.6",
                                      mutation_aspect=0.2, facecolor=tint(colour), edgecolor=colour))
        axes.text(4, y + 0.65, name, weight="bold", va="center_baseline")
        axes.text(38, y + 0.65, content, size=9, va="center_baseline")
        if function:
            arrow(axes, (20, y + 1.2), (20, y + 2.1))
            axes.text(24, y + 1.65, function, size=9, va="center_baseline", family="DejaVu Sans Mono", color=INK)
    colour_key(figure, {"on disk": tint(COLOURS["blue"]), "in memory": tint(COLOURS["orange"])})
    return figure


def _alt(function):
    """The second paragraph of a docstring, as one line."""
    return " ".join((function.__doc__ or "").split("\n\n")[1:2]).replace("\n    ", " ").strip()


# What each drawing shows, for readers who cannot see it
ALT = {function.__name__: _alt(function)
       for function in (draw_bottlenecks, draw_network, draw_costs, draw_copies, draw_pipeline)}

# File in book/images/ -> the drawing and its settings
IMAGES: dict[str, tuple[Callable[..., Figure], dict[str, str]]] = {
    "bottleneck.svg": (draw_bottlenecks, {}), "network-large.svg": (draw_network, {"variant": "large"}),
    "network-small.svg": (draw_network, {"variant": "small"}), "costs.svg": (draw_costs, {}),
    "pipeline.svg": (draw_pipeline, {})}


def write_images(folder: Path | str | None = None, language: str = "zh_CN") -> list[Path]:
    """Store the drawings of the pages as SVG in a folder (default: `book/images/`), the same bytes each time.

    Each is stored twice, such as `costs.svg`, and with the other edition's words `costs.zh_CN.svg`, where Sphinx looks.
    Returns their paths.

    Letters are stored as shapes, so that no font is needed; comments in the file repeat the text.
    """
    folder = Path(folder) if folder else project_root() / "book" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with in_style():
        for name, (draw, settings) in IMAGES.items():
            figure, about = draw(**settings), {"Date": None, "Title": draw.__name__}
            written += [folder / name, (folder / name).with_suffix(f".{language}.svg")]
            figure.savefig(written[-2], metadata=about)
            with spoken(figure, catalogue(language)):
                figure.savefig(written[-1], metadata=about)
            plt.close(figure)
    return written
