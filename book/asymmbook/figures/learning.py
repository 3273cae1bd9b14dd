"""Accuracy by pictures a class: what pre-training is worth, and until when."""
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from asymmbook.evidence.learning import KINDS, Point
from asymmbook.evidence.transfer import CLASSES, SIZES, trained_pictures
from asymmbook.evidence.verdicts import LABELS
from asymmbook.figures.plots import require
from asymmbook.figures.style import WIDTH, colour_of, in_style

__all__ = ["plot_learning"]

LINES = {"pre-trained": ("o-", True), "from scratch": ("s--", False)}  # kind: line, whether its marks are filled
APART = 1.03  # what marks of the second kind are moved by, so that bars do not cover each other


@in_style()
def plot_learning(points: Sequence[Point]) -> Figure:
    """Curves of `asymmbook.evidence.learning.learning_curves`, a colour a network, with 95 % intervals.

    Points that are not complete are left out; without any, empty axes say so. Raises `ValueError` for no points at all.
    """
    require(points)
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
    places = {size: trained_pictures(size) / CLASSES for size in SIZES}
    for network in dict.fromkeys(point.network for point in points):
        for number, kind in enumerate(KINDS):
            mine = sorted((places[point.size] * APART**number, point.result) for point in points
                          if (point.network, point.kind) == (network, kind) and point.result is not None)
            if mine:
                middles = [100 * result.mean for _, result in mine]
                ends = [[100 * (result.mean - result.low) for _, result in mine],
                        [100 * (result.high - result.mean) for _, result in mine]]
                line, filled = LINES[kind]
                colour = colour_of(LABELS[network])
                axes.errorbar([place for place, _ in mine], middles, yerr=ends, fmt=line,
                              color=colour, capsize=3, markerfacecolor=colour if filled else "white",
                              label=f"{LABELS[network]}, {kind}")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=1)
    else:
        axes.text(0.5, 0.5, "no point has all its runs yet", transform=axes.transAxes, ha="center")
    axes.set(xscale="log", xlabel="pictures a class", ylabel="top-1 (%)")
    axes.set_xticks(list(places.values()), [f"all ({place:.0f})" if size == "all" else str(SIZES[size])
                                            for size, place in places.items()])
    axes.minorticks_off()
    figure.suptitle("At equal cost, and for few pictures")
    return figure
