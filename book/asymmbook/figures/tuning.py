"""Accuracy by learning rate: what a network loses at a rate that is not its own."""
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from asymmbook.figures.plots import require
from asymmbook.figures.style import WIDTH, colour_of, in_style

__all__ = ["plot_settings"]

MARKS = "osD^vP"  # so that lines are told apart without their colours, too
RING = {"s": 120, "facecolors": "none", "linewidths": 1.4, "zorder": 3}


@in_style()
def plot_settings(table: pd.DataFrame) -> Figure:
    """Mean top-1 by learning rate, a panel a weight decay, a line a network; a ring marks what the rule has chosen.

    table: a row a setting with network, decay, rate, mean (a share) and chosen (bool). Raises `ValueError` for no rows.
    """
    require(table)
    decays, tried = sorted(set(table["decay"])), sorted(set(table["rate"]))
    figure, axes = plt.subplots(len(decays), 1, figsize=(WIDTH, 2.6 * len(decays) + 1.4), sharex=True, sharey=True,
                                squeeze=False)
    for axis, decay in zip(axes.flat, decays, strict=True):
        for place, (network, rows) in enumerate(table[table["decay"] == decay].groupby("network", sort=False)):
            rows, colour = rows.sort_values("rate"), colour_of(network, place)
            axis.plot(rows["rate"], rows["mean"], f"{MARKS[place % len(MARKS)]}-", color=colour, markersize=4,
                      linewidth=1.3, label=network)
            chosen = rows[rows["chosen"]]
            axis.scatter(chosen["rate"], chosen["mean"], edgecolors=colour, **RING)
        axis.set(title=f"weight decay {decay:g}", ylabel="top-1 (%)", xscale="log")
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    axes[-1, 0].set(xlabel="learning rate (logarithmic)")
    axes[-1, 0].set_xticks(tried, [f"{rate:g}" for rate in tried])
    axes[-1, 0].minorticks_off()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle("Every setting, mean of five folds")
    return figure
