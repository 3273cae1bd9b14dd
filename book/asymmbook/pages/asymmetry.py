"""What the trial says of the asymmetry beside its tests, as Markdown: at several widths (b), and with other copies (f).

A function that reads records takes a folder of results (None: the project's).
"""
from pathlib import Path

import pandas as pd

from asymmbook.evidence import records, widths
from asymmbook.evidence.inference import compare_networks, points
from asymmbook.evidence.trial import MATCHED, PAIR, PLAIN
from asymmbook.evidence.verdicts import answered
from asymmbook.figures.style import thousands
from asymmbook.pages.tables import bullets, markdown_table, percent

__all__ = ["ablations", "differences", "networks", "singles", "together"]

OPEN = "Open: no width has all its runs recorded."


def networks(folder: Path | None = None) -> str:
    """Cost and accuracy of the networks of each complete width."""
    table = widths.accuracies(folder)
    if table.empty:
        return OPEN
    return markdown_table(pd.DataFrame({
        "network": [f"r = {row.rate}, × {row.own_width:g}" for row in table.itertuples()],
        "MACs": table["macs"].map(thousands), "parameters": table["params"].map(thousands), "runs": table["runs"],
        "top-1": [f"{percent(row.top1)} ± {percent(row.sd)}" for row in table.itertuples()]}))


def differences(by_width: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """{opponent: label, mean, low, high, shown} of `widths.by_width` for `plot_differences`, on all pictures.

    Nothing is shown, as a single width has no test.
    """
    table = by_width[~by_width["untuned"].astype(bool)]
    return {f"Less {name}": rows.assign(label=rows["width"].map("× {:g}".format), shown=False)
            for name, rows in table.groupby("against", sort=False)}


def singles(by_width: pd.DataFrame) -> str:
    """The differences of `widths.by_width` as a table: in points, with and without the tuning classes."""
    if by_width.empty:
        return OPEN
    every, untuned = (by_width[by_width["untuned"] == kind].reset_index(drop=True) for kind in (False, True))
    shown = pd.DataFrame({
        "width": every["width"].map("× {:g}".format), "r = 1 less": every["against"],
        "points": _points(every), "without the tuning classes": _points(untuned),
        "could be missed": [f"below {100 * bound:.1f}" for bound in every["missed"]]})
    return (f"{markdown_table(shown)}\n\nThe last column: if this row alone were tested, at 5 %, a smaller true "
            "difference would be missed more than one time in five.")


def _points(table):
    return [points(*row, unit="") for row in table[["mean", "low", "high"]].itertuples(index=False)]


def together(folder: Path | None = None) -> str:
    """What group b says beside its tests over all widths: also without the tuning classes, and "the smaller, the
    more"."""
    done = widths.done(folder)
    missing = [f"× {width:g}" for width in MATCHED if width not in done]
    if missing:
        return (f"Not run, or not complete: the widths {', '.join(missing)}. What holds for all widths together, and "
                "whether the asymmetry pays more in narrower networks, is open.")
    every, untuned, trend = widths.together(folder=folder), widths.together(True, folder), widths.trend(folder)
    items = [f"Over all widths, r = 1 less {name}: {points(*every[name][:3])}; without the tuning classes: "
             f"{points(*untuned[name][:3])}." for name in widths.AGAINST]
    ends = f"What r = 1 adds at × {min(MATCHED):g} less that at × {max(MATCHED):g}"
    items += [f"{ends}, against {name}: {points(*trend[name][:3])}." for name in widths.AGAINST]
    return bullets(items)


def ablations(folder: Path | None = None) -> str:
    """What the networks of group f cost beside the original, and how far left and right, which are one, lie apart."""
    if answered("f", folder) is None:
        return "Open: not all runs are recorded."
    runs = records.read_runs(folder)
    original = records.matching(runs, {"group": "a", "network": PAIR[0], "recipe": PLAIN.name}).iloc[0]
    changed = runs[runs["group"] == "f"]
    macs, params = (100 * (changed[cost] / original[cost] - 1) for cost in ("macs", "params"))
    said = [records.answers(changed[changed["network"] == f"ablation_{side}"], folder) for side in ("left", "right")]
    return (f"Beside the original, MACs of the changed networks differ by {macs.min():+.1f} to {macs.max():+.1f} %, "
            f"parameters by {params.min():+.1f} to {params.max():+.1f} %.\n\nLeft and right are one network whose "
            "channels are numbered in two ways, since the layers behind treat all channels alike. So the two, which no "
            "test compares, should differ by luck alone, which leaves 0 out of such an interval one time in twenty. "
            f"Left less right: {points(*compare_networks(*said)[:3])}.")
