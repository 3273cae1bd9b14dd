"""The figures of *How fast is it?*, from rows of results/bench.csv."""
import matplotlib.pyplot as plt
import numpy as np

from asymmlib.style import COLOURS, WIDTH, use_style

__all__ = ["plot_roofline", "plot_speeds"]


def plot_speeds(table, size):
    """Training speed of every case at one picture size: bars are medians, whiskers the slowest and fastest round."""
    rows = table[(table["size"] == size) & (table["batch"] == 32)].sort_values("images_per_s")
    if rows.empty:
        raise ValueError(f"no row for {size} px; there are {sorted(table['size'].unique())}")
    use_style()
    figure, axis = plt.subplots(figsize=(1.3 * WIDTH, 0.35 * len(rows) + 1.2))
    middle = rows["images_per_s"]
    axis.barh(rows["case"], middle, xerr=[middle - rows["low"], rows["high"] - middle], capsize=3,
              color=[COLOURS["orange" if case == "ours" else "sky"] for case in rows["case"]])
    axis.set(title=f"Training at {size} px, batch 32", xlabel="images per second (median; whiskers: all rounds)")
    axis.grid(axis="y", visible=False)
    return figure


def plot_roofline(points, peak_gflops, bandwidth_gb_s):
    """Speed against arithmetic intensity under the measured roof.

    `points` is {name: (operations per byte, GFLOP/s)}; both axes are logarithmic.
    """
    use_style()
    figure, axis = plt.subplots(figsize=(1.2 * WIDTH, 3.4))
    x = np.logspace(-1, 3, 200)
    axis.plot(x, np.minimum(peak_gflops, x * bandwidth_gb_s), color=COLOURS["black"], label="measured roof")
    for (name, (intensity, speed)), colour in zip(points.items(), ("vermilion", "blue", "green"), strict=False):
        axis.plot(intensity, speed, "o", color=COLOURS[colour], label=name)
    axis.set(title="Where a training step lies under the roof", xscale="log", yscale="log",
             xlabel="floating-point operations per byte of memory traffic", ylabel="GFLOP per second")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
