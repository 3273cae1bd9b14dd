"""A small drawing without words for each page that the first page leads to, for both editions and both grounds.

Drawn from what the pages are about: recorded results, the authors' log, the project's own pictures, costs of layers.
`make figures` stores them; what is drawn from `results/` changes with it.
"""
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from asymmbook.checkout import project_root, results_dir
from asymmbook.evidence import which
from asymmbook.evidence.reference import read_table
from asymmbook.evidence.speeds import of_processor, read_speeds, training
from asymmbook.figures.style import COLOURS, colour_of, in_style
from asymmlib.base.tables import read_table as read_csv
from asymmlib.data.sample import CLASSES, draw
from asymmlib.network import plan_blocks

__all__ = ["CARDS", "write_thumbnails"]

SIZE = (3.2, 1.5)  # inches
MIDDLE = "#8A8A8A"  # a grey that is seen on white and on black


def _seen(colour):
    """A colour that is also seen on a dark page."""
    return MIDDLE if colour == COLOURS["black"] else colour


def _split(axes):
    """Every fifth picture."""
    for place in range(60):
        axes.add_patch(plt.Rectangle((place % 15, place // 15), 0.85, 0.85,
                                     color=COLOURS["orange" if place % 5 == 0 else "blue"]))
    axes.set(xlim=(-0.3, 15.2), ylim=(-0.3, 4.2))


def _grid(axes, rows=2, columns=5, size=48):
    pictures = [np.asarray(draw(name, np.random.default_rng([0, place]), size).resize((size, size)).convert("RGB"))
                for place, name in enumerate(CLASSES[:rows * columns])]
    lines = [np.hstack(pictures[start:start + columns]) for start in range(0, len(pictures), columns)]
    axes.imshow(np.vstack(lines), interpolation="none")


def _curves(axes):
    for place, (name, band) in enumerate(which.curve_bands().items()):
        axes.plot(band["epoch"], band["mean"], color=_seen(colour_of(name, place)), linewidth=1.2)


def _block(axes):
    """Channels of a bottleneck, from its output down to its input: the new ones between two copies of the input."""
    plan = plan_blocks()[2]
    copies = plan.c_in * plan.copies
    for y, parts in enumerate(((plan.out,), (copies, plan.new, copies), (plan.c_in,))):
        left = -sum(parts) / 2
        for part in parts:
            colour = COLOURS["orange" if part == copies else "blue"]
            axes.add_patch(plt.Rectangle((left, -y), part * 0.97, 0.6, color=colour))
            left += part
    axes.set(xlim=(-0.6 * plan.depthwise, 0.6 * plan.depthwise), ylim=(-2.2, 0.8))


def _intervals(axes):
    for place, row in enumerate(which.accuracies().itertuples()):
        colour = _seen(colour_of(row.name, place))
        axes.plot([row.low, row.high], [-place] * 2, color=colour, linewidth=3)
        axes.plot(row.top1, -place, "o", color=colour)


def _log(axes):
    log = read_table("official_imagenet_log")
    for column, colour in (("val_top5", "sky"), ("val_top1", "blue"), ("train_top1", "orange")):
        axes.plot(log["epoch"], log[column], color=COLOURS[colour], linewidth=1.2)


def _rates(axes):
    """Operations of a width at each rate, over those without copies."""
    table = read_table("official_complexity").query("variant == 'large'")
    macs = table.pivot(index="width", columns="asymmrate", values="macs")
    for rate in macs:
        axes.plot(macs.index, macs[rate] / macs[0], "o-", color=_seen(colour_of(rate, rate)), linewidth=1.2)


def _speeds(axes):
    table = of_processor(read_speeds())
    rows = table[(table["size"] == 64) & (table["batch"] == 32)].sort_values("images_per_s")
    axes.set(xscale="log")
    axes.barh(range(len(rows)), rows["images_per_s"],
              color=[COLOURS["orange" if case == "ours" else "sky"] for case in rows["case"]])


def _engines(axes):
    table = of_processor(read_csv(results_dir() / "bench_infer.csv", ("engine", "cpu")))
    rows = table[table["batch"] == table["batch"].min()].sort_values("images_per_s")
    axes.bar(range(len(rows)), rows["images_per_s"],
             color=[_seen(colour_of(name, place)) for place, name in enumerate(rows["engine"])])


def _maps(axes, size=64):
    """What simple filters see in a picture."""
    grey = np.asarray(draw(CLASSES[3], np.random.default_rng([0, 3]), size).resize((size, size)).convert("L"), float)
    down, across = np.gradient(grey)
    axes.imshow(np.hstack([abs(down), abs(across), np.hypot(down, across)]), cmap="viridis", interpolation="none")


def _swings(axes, per_epoch=45, period=100):
    steps = np.arange(9 * per_epoch)
    axes.plot(steps, 1 + np.cos(np.pi * steps / period), color=COLOURS["vermilion"], linewidth=1.2)
    axes.plot(steps, 1 + np.cos(np.pi * (steps // per_epoch) / period), color=COLOURS["blue"], linewidth=2.4)


def _points(axes):
    table = which.accuracies()
    for place, row in enumerate(table.itertuples()):
        axes.errorbar(row.macs, row.top1, yerr=[[row.top1 - row.low], [row.high - row.top1]], fmt="o", capsize=2,
                      color=_seen(colour_of(row.name, place)))
    axes.set(xscale="log", ylim=(table["top1"].nlargest(len(table) - 1).min() - 0.15, None))
    axes.minorticks_off()


def _folds(axes):
    """Five folds, each held out once."""
    for run in range(5):
        for fold in range(5):
            axes.add_patch(plt.Rectangle((fold, -run), 0.9, 0.75, color=COLOURS["orange" if run == fold else "blue"]))
    axes.set(xlim=(-4, 9), ylim=(-4.3, 1))


def _costs(axes):
    """Channels that each block's depthwise convolution sees, and those that the first mixing computes."""
    plans = plan_blocks()
    axes.bar(range(len(plans)), [plan.depthwise for plan in plans], color=COLOURS["sky"])
    axes.bar(range(len(plans)), [plan.new for plan in plans], color=COLOURS["blue"])


def _ranges(axes):
    """How much the widest channel of each depthwise layer exceeds the median one."""
    table = read_csv(results_dir() / "int8-layers.csv", ("layer", "network")).query("kind == 'depthwise'")
    for place, (name, layers) in enumerate(table.groupby("network", sort=False)):
        axes.semilogy(np.linspace(0, 1, len(layers)), layers["largest"] / layers["median"], "o-", markersize=3,
                      color=_seen(colour_of(name, place)), linewidth=1.2)
    axes.minorticks_off()


def _heads(axes):
    """A network twice: its blocks stay, its last layer is another."""
    widths = [plan.out for plan in plan_blocks()]
    for y, colour in ((1, "sky"), (0, "orange")):
        for place, width in enumerate([*widths, widths[-1] * 1.6]):
            height = 0.2 + 0.6 * width / widths[-1] / 1.6
            axes.add_patch(plt.Rectangle((place, y - height / 2), 0.8, height,
                                         color=COLOURS[colour if place == len(widths) else "blue"]))
    axes.set(xlim=(-1, len(widths) + 2), ylim=(-0.6, 1.6))


def _two(axes):
    _grid(axes, 1, 3, 64)


def _roof(axes):
    row = training(read_speeds()).iloc[0]
    x = np.logspace(-1, 3, 100)
    axes.plot(x, np.minimum(row["peak_gflops"], x * row["bandwidth_gb_s"]), color=MIDDLE, linewidth=2.4)
    axes.set(xscale="log", yscale="log")
    axes.minorticks_off()


# {page of the book: what its card shows}
CARDS: dict[str, Callable[[Axes], None]] = {
    "critical-reading": _swings, "results": _points, "trial": _folds, "01_data_split": _split, "02_sample_grid": _grid,
    "03_baseline_training": _curves, "04_asymmnet": _block, "05_accuracy_plots": _intervals, "06_paper_check": _log,
    "07_asymmetry": _rates, "10_look_inside": _maps, "explorer": _costs, "08_make_it_fast": _speeds,
    "09_ship_it": _engines, "int8": _ranges, "transfer": _heads, "live": _two, "speed": _roof}


def write_thumbnails(folder: Path | str | None = None) -> list[Path]:
    """Store every card's drawing as SVG in a folder (default: `book/images/cards/`), and return their paths."""
    folder = Path(folder) if folder else project_root() / "book" / "images" / "cards"
    folder.mkdir(parents=True, exist_ok=True)
    with in_style():
        for page, draw_card in CARDS.items():
            figure, axes = plt.subplots(figsize=SIZE)
            draw_card(axes)
            axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
            axes.grid(False)
            axes.spines[:].set_visible(False)
            axes.patch.set_visible(False)
            figure.savefig(folder / f"{page}.svg", transparent=True, metadata={"Date": None, "Title": page})
            plt.close(figure)
    return [folder / f"{page}.svg" for page in CARDS]
