"""What `book/results.md` shows of the trial's group b, the asymmetry at several widths: Markdown, one function a part.

Every function takes a folder of results (None: the project's).
"""
from pathlib import Path

import pandas as pd

from asymmbook.evidence import widths
from asymmbook.evidence.inference import points
from asymmbook.evidence.trial import MATCHED
from asymmbook.figures.style import thousands
from asymmbook.pages.tables import bullets, markdown_table, percent

__all__ = ["differences", "networks", "sentences"]

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
    """What group b says beside its tests: over all widths, without the tuning classes, and "the smaller, the more"."""
    missing = [f"× {width:g}" for width in MATCHED if width not in widths.done(folder)]
    if missing:
        return (f"Open: not all runs are recorded at the widths {', '.join(missing)}. The two tests, over all "
                "widths together, and the trend from the narrowest to the widest network wait for them.")
    items = [f"Over all widths, r = 1 less {name}: {points(*widths.together(name, folder=folder)[:3])}; without the "
             f"classes that chose the rates: {points(*widths.together(name, True, folder)[:3])}."
             for name in widths.AGAINST]
    ends = f"What r = 1 adds at × {min(MATCHED):g} less that at × {max(MATCHED):g}"
    items += [f"{ends}, against {name}: {points(*widths.trend(name, folder)[:3])}." for name in widths.AGAINST]
    return bullets(items)
