"""How every figure of the book looks: one palette, one type, one width, and a few shapes to draw with.

The colours are those of Okabe and Ito (2008), which people with the usual colour deficiencies tell apart. Figures have
an opaque white ground with some padding, so that they read the same on a light and on a dark page.
"""
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch, Polygon, Rectangle

from asymmbook.editions import font

__all__ = ["COLOURS", "MODEL_COLOURS", "STYLE", "WIDTH", "arrow", "bar", "blank_axes", "colour_key", "colour_of",
           "in_style", "ink_on", "thousands", "tint", "trapezoid", "use_style"]

Colour = str | tuple[float, ...]
Span = tuple[float, float]

WIDTH = 4.7  # inches: 9 pt type is still 9 px high when a phone shows the figure 358 px wide

COLOURS = {"blue": "#0072B2", "orange": "#E69F00", "green": "#009E73", "vermilion": "#D55E00", "purple": "#CC79A7",
           "sky": "#56B4E9", "yellow": "#F0E442", "black": "#000000", "grey": "#7F7F7F"}

# Model names in lower case without separators, so that "AsymmNet-Large" and "asymmnet_large" share a colour
MODEL_COLOURS = {"asymmnetlarge": "blue", "asymmnetsmall": "sky", "resnet50": "vermilion", "vgg19": "purple",
                 "mobilenetv2": "green", "mobilenetv3large": "orange", "asymmnetlarger0": "black",
                 "asymmnetlarger1": "blue", "asymmnetlarger2": "grey", "asymmnetsmallr1": "sky"}
CYCLE = ("blue", "orange", "green", "vermilion", "purple", "sky", "black", "grey")
# For Chinese letters: the book's own font, and for rare ones what the machine may have
FALLBACK_FONTS = (font.FAMILY, "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "PingFang SC",
                  "Microsoft YaHei", "SimHei")
font.register()


def _families(installed):
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


STYLE = {
    "font.family": _families(font_manager.get_font_names()), "font.size": 10,
    "axes.titlesize": 11, "axes.titleweight": "bold", "axes.labelsize": 10, "figure.titlesize": 12,
    "figure.titleweight": "bold", "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9,
    "legend.frameon": False, "axes.prop_cycle": mpl.cycler(color=[COLOURS[name] for name in CYCLE]),
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#444444", "axes.axisbelow": True,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#E3E3E3", "lines.linewidth": 1.8,
    "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white", "figure.dpi": 120,
    "figure.figsize": (WIDTH, 3.0), "figure.constrained_layout.use": True, "savefig.bbox": "tight",
    "savefig.pad_inches": 0.12, "svg.fonttype": "path", "svg.hashsalt": "asymmlib",
}


def use_style() -> None:
    """Apply the style to all figures that follow; the functions of `figures` and `plots` use it in any case."""
    mpl.rcParams.update(STYLE)


@contextmanager
def in_style() -> Iterator[None]:
    """Draw in the style, and put back the settings that it changes afterwards; also a decorator.

    `matplotlib.rc_context` would put back all settings. One is `interactive`, which a notebook's backend turns on when
    the first figure loads it: turned off again, no later cell of the notebook would show its figure.
    """
    before = {key: mpl.rcParams[key] for key in STYLE}
    mpl.rcParams.update(STYLE)
    try:
        yield
    finally:
        mpl.rcParams.update(before)


def colour_of(name: object, position: int = 0) -> str:
    """The fixed colour of a model, by its name or label; for any other name the colour of its position."""
    key = "".join(letter for letter in str(name).lower() if letter.isalnum())
    return COLOURS[MODEL_COLOURS.get(key, CYCLE[position % len(CYCLE)])]


def tint(colour: Colour, share: float = 0.25) -> tuple[float, ...]:
    """Mix `share` of a colour into white."""
    return tuple(1 - share * (1 - value) for value in to_rgb(colour))


def ink_on(colour: Colour) -> str:
    """Black or white, whichever has the higher contrast on `colour` by the WCAG's luminance."""
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def thousands(number: float) -> str:
    """A count as a person writes it: 216.9 M, 13.5 k, 950."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.1f} {unit}"
    return f"{number:.0f}"


def colour_key(figure: Figure, colours: Mapping[str, Colour], columns: int = 2) -> None:
    """A legend below a figure: {text: colour}."""
    patches = [Patch(color=colour) for colour in colours.values()]
    figure.legend(patches, list(colours), loc="outside lower center", ncols=columns)


def blank_axes(axes: Axes, width: float, height: float) -> Axes:
    """Turn axes into a sheet with x from 0 to `width` and y from 0 at the top to `height` at the bottom."""
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def bar(axes: Axes, x: float, y: float, width: float, height: float, colour: Colour, text: object = "",
        size: float = 10, gap: float = 0.8) -> None:
    """Draw a filled box from its upper left corner, with text in readable ink in its middle; `gap` in points."""
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="white", linewidth=gap))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center_baseline", size=size, color=ink_on(colour))


def trapezoid(axes: Axes, top: Span, bottom: Span, y: float, height: float, colour: Colour, text: str = "",
              size: float = 10) -> None:
    """Draw a convolution as a trapezoid between two spans (left, right) of channels."""
    corners = [(top[0], y), (top[1], y), (bottom[1], y + height), (bottom[0], y + height)]
    axes.add_patch(Polygon(corners, facecolor=tint(colour), edgecolor=colour, linewidth=0.8))
    axes.text(sum(x for x, _ in corners) / 4, y + height / 2, text, ha="center", va="center_baseline", size=size)


def arrow(axes: Axes, start: Span, end: Span, colour: Colour = "#444444", curve: float = 0.0,
          short: float = 0.0) -> None:
    """Draw an arrow between two points; `curve` bends it, and it ends `short` points before its end."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color=colour, linewidth=1.2,
                                   connectionstyle=f"arc3,rad={curve}", shrinkA=0, shrinkB=short))
