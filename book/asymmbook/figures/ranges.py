"""How far apart the channels of a layer are, which decides whether one step of 8 bits serves them all."""
from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from asymmbook.figures.plots import require
from asymmbook.figures.style import COLOURS, WIDTH, in_style

__all__ = ["plot_ranges"]


@in_style()
def plot_ranges(ranges: Mapping[str, pd.DataFrame], alone: Mapping[str, pd.DataFrame]) -> Figure:
    """Depthwise layers of networks, a column each: above every channel's range, below what one layer alone costs.

    ranges: {network: DataFrame of `asymmbook.evidence.int8_layers.channel_ranges`}; logarithmic, with a bar at half a
    step of 8 bits, under which a channel is rounded to nothing. alone: {network: DataFrame of `layer_by_layer`}.
    Raises `ValueError` where there is nothing to draw.
    """
    require(ranges)
    figure, grid = plt.subplots(2, len(ranges), figsize=(WIDTH, 4.6), sharex="col", sharey="row", squeeze=False,
                                height_ratios=(2, 1))
    for (above, below), network in zip(grid.T, ranges, strict=True):
        table = ranges[network][ranges[network]["kind"] == "depthwise"]
        layers = [part for _, part in table.groupby("layer", sort=False)]
        for place, part in enumerate(layers, 1):
            above.plot([place] * len(part), part["range"], "o", color=COLOURS["blue"], ms=3, alpha=0.5)
        half = [part["range"].max() / 254 for part in layers]
        above.hlines(half, [place - 0.4 for place in range(1, len(half) + 1)],
                     [place + 0.4 for place in range(1, len(half) + 1)], color=COLOURS["vermilion"], linewidth=1.6)
        above.set_title(network, size=10)
        rows = alone[network][alone[network]["kind"] == "depthwise"]
        below.bar(range(1, len(rows) + 1), 100 * rows["right"] / rows["pictures"], color=COLOURS["orange"])
        below.set_xlabel("depthwise layer")
    grid[0, 0].set(yscale="log", ylabel="largest weight\nof a channel")
    grid[1, 0].set(ylabel="top-1 (%), this\nlayer in 8 bits")
    figure.suptitle("One step for all channels of a layer")
    return figure
