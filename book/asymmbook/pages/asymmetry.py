"""What the trial says of the asymmetry beside its tests, as Markdown: at several widths (b), and with other copies (f).

Every function takes a folder of results (None: the project's).
"""
from pathlib import Path

import pandas as pd

from asymmbook.evidence import records, widths
from asymmbook.evidence.inference import compare_networks, points
from asymmbook.evidence.trial import MATCHED, PAIR, PLAIN
from asymmbook.evidence.verdicts import answered
from asymmbook.figures.style import thousands
from asymmbook.pages.tables import bullets, markdown_table, percent

__all__ = ["ablations", "differences", "networks", "sentences"]

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


def differences(folder: Path | None = None) -> dict[str, pd.DataFrame]:
    """{opponent: label, mean, low, high, shown} for `plot_differences`; nothing is shown, as a width has no test."""
    table = widths.by_width(folder)
    return {f"Less {name}": rows.assign(label=rows["width"].map("× {:g}".format), shown=False)
            for name, rows in table.groupby("against", sort=False)}


def sentences(folder: Path | None = None) -> str:
    """What group b says beside its tests: what single widths could show, then all widths together, without the tuning
    classes, and "the smaller, the more"."""
    table = widths.by_width(folder)
    if table.empty:
        return OPEN
    alone = (f"At a single width, a test would show a true difference of {100 * table['missed'].min():.1f} to "
             f"{100 * table['missed'].max():.1f} points with a chance of four in five; smaller ones may be missed.")
    missing = [f"× {width:g}" for width in MATCHED if width not in set(table["width"])]
    if missing:
        return (f"{alone}\n\nOpen: not all runs are recorded at the widths {', '.join(missing)}. The two tests, over "
                "all widths together, and the trend from the narrowest to the widest network wait for them.")
    every, untuned, trend = widths.together(folder=folder), widths.together(True, folder), widths.trend(folder)
    items = [f"Over all widths, r = 1 less {name}: {points(*every[name][:3])}; without the classes that chose the "
             f"rates: {points(*untuned[name][:3])}." for name in widths.AGAINST]
    ends = f"What r = 1 adds at × {min(MATCHED):g} less that at × {max(MATCHED):g}"
    items += [f"{ends}, against {name}: {points(*trend[name][:3])}." for name in widths.AGAINST]
    return f"{alone}\n\n{bullets(items)}"


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
