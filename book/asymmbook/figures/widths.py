"""Accuracy over cost of one network at several widths, with the asymmetry and without it."""
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from asymmbook.figures.plots import UNITS, require
from asymmbook.figures.style import COLOURS, WIDTH, in_style, thousands

__all__ = ["plot_widths"]

LOOKS = {0: ("r = 0", "o-", "grey"), 1: ("r = 1", "s", "blue")}  # label, mark, colour


@in_style()
def plot_widths(table: pd.DataFrame) -> Figure:
    """Top-1 against MACs: a point a network, those of r = 0 joined; whiskers are the standard deviation of runs.

    table: rate (0 or 1), own_width, macs, top1, sd (shares). Raises `ValueError` for no rows.
    """
    require(table)
    figure, axis = plt.subplots(figsize=(WIDTH, 3.6))
    for rate, (label, mark, colour) in LOOKS.items():
        rows = table[table["rate"] == rate].sort_values("macs")
        axis.errorbar(rows["macs"], rows["top1"], yerr=rows["sd"], fmt=mark, ms=6, capsize=3, linewidth=1.2,
                      color=COLOURS[colour], label=label)
    for row in table[table["rate"] == 1].itertuples():
        axis.annotate(f"× {row.own_width:g}", (row.macs, row.top1 + row.sd), (0, 5), textcoords="offset points",
                      ha="center")
    axis.set(title="Accuracy over cost, by width", xscale="log", xlabel=f"{UNITS['macs']} (logarithmic)",
             ylabel="top-1 (%)")
    axis.margins(x=0.12, y=0.12)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))
    axis.set_xticks(table.loc[table["rate"] == 1, "macs"])
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    figure.legend(loc="outside lower center", ncols=2)
    return figure
