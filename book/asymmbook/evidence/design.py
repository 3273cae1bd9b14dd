"""What the trial can see and what it costs, computed before its first run: the tables of results/protocol.md."""
from pathlib import Path

import pandas as pd

from asymmbook.evidence.findings import recorded
from asymmbook.evidence.folds import FOLDS
from asymmbook.evidence.inference import Components, components, resolution, standard_error
from asymmbook.evidence.results import read_pictures, read_predictions
from asymmbook.evidence.trial import GROUPS, LIGHT, PICTURES, TrialRun, hours, plan

__all__ = ["DESIGNS", "LEFT_OUT", "cost_table", "foreseen_plan", "power_table", "recorded_components"]

LEFT_OUT = "MobileNetV3-Large"  # its recorded runs collapsed by a batch norm that the trial no longer has
# question: (pictures, runs a network, repeats, tests that are corrected together)
DESIGNS = {"a, 64 px, five opponents": (PICTURES["caltech16"], 2 * FOLDS, 2, len(LIGHT) - 1),
           "a, 128 px, five opponents": (PICTURES["caltech16"], FOLDS, 1, len(LIGHT) - 1),
           "b, four widths together, two opponents": (PICTURES["hundred"], 4 * FOLDS, 4, 2),
           "b, one width": (PICTURES["hundred"], FOLDS, 1, 2),
           "d, one network, six recipes": (PICTURES["caltech16"], FOLDS, 1, 6),
           "e, one network, the recommended change": (PICTURES["caltech16"], FOLDS, 1, 1),
           "f, five ablations": (PICTURES["caltech16"], FOLDS, 1, 5),
           "transfer, one size, two networks": (PICTURES["caltech16"], FOLDS, 1, 2),
           "one run a network": (PICTURES["caltech16"] // FOLDS, 1, 1, 1)}


def recorded_components(folder: Path | None = None) -> Components:
    """`Components` of a difference of two networks, mean over all pairs of the first comparison's three seeds.

    By the last epoch on the 366 test pictures, without `LEFT_OUT`.
    """
    runs = recorded("compare", folder)
    runs = runs[(runs.groupby("name")["seed"].transform("size") > 1) & (runs["label"] != LEFT_OUT)]
    names = read_pictures("test", folder)["name"]
    right = {name: pd.concat([pd.DataFrame({"picture": names, "run": row.seed,
                                            "right": read_predictions(row.run, "last", folder=folder)["right"]})
                              for row in rows.itertuples()]) for name, rows in runs.groupby("name", sort=False)}
    pairs = [(first, second) for place, first in enumerate(right) for second in list(right)[place + 1:]]
    return Components(*pd.DataFrame([components(right[first], right[second]) for first, second in pairs]).mean())


def power_table(folder: Path | None = None) -> pd.DataFrame:
    """A row a question: standard error of a difference, and the difference shown with 80 % chance, in points.

    `at once` counts all tests that are corrected together, `alone` is one test at the same level. Twice: with the
    recorded variance between runs, and with none, between which the truth should lie where training sets are larger.
    """
    parts, rows = recorded_components(folder), []
    for question, (pictures, runs, repeats, tests) in DESIGNS.items():
        error, least = (standard_error(one, pictures, runs, repeats) for one in (parts, parts._replace(run=0)))
        rows.append({"question": question, "pictures": pictures, "runs a network": runs,
                     "standard error": f"{100 * error:.2f}", "shown alone": f"{100 * resolution(error):.1f}",
                     "shown at once": f"{100 * resolution(error, tests):.1f}",
                     "at once, if runs did not differ": f"{100 * resolution(least, tests):.1f}"})
    return pd.DataFrame(rows)


def foreseen_plan() -> tuple[TrialRun, ...]:
    """The plan as it will be if every network's best rate is 0.05, for counting hours before any run is made."""
    scores: dict[str, float] = {}
    before = -1
    while len(scores) > before:
        before = len(scores)
        scores = {run.name: 0.9 - abs(run.recipe.base_lr - 0.05) - run.recipe.weight_decay for run in plan(scores)}
    return plan(scores)


def cost_table() -> pd.DataFrame:
    """A row a group, in the order of the work: runs, hours of one thread, hours with two runs side by side."""
    runs, rows = foreseen_plan(), []
    for group, question in GROUPS.items():
        mine = [run for run in runs if run.group == group]
        spent = hours(mine)
        rows.append({"group": group, "question": question, "runs": len(mine), "hours of one thread": f"{spent:.1f}",
                     "two side by side": f"{spent / 2:.1f}"})
    spent = hours(runs)
    return pd.DataFrame([*rows, {"group": "all", "question": "", "runs": len(runs),
                                 "hours of one thread": f"{spent:.1f}", "two side by side": f"{spent / 2:.1f}"}])
