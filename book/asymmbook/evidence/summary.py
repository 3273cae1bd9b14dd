"""The findings that stand on top of the book: a heading, a sentence with its interval, and the page that shows it.

The fair trial answers where a family of its tests is complete; until then the first comparison does, whose networks
were not treated alike, and the sentence says so. Nothing here needs pictures; `folder` is another folder of results.
"""
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from asymmbook.evidence import findings, records
from asymmbook.evidence.inference import Difference, compare_networks, points
from asymmbook.evidence.reference import PUBLISHED
from asymmbook.evidence.results import read_predictions
from asymmbook.evidence.statistics import LEVEL
from asymmbook.evidence.trial import LIGHT, PAIR, plan
from asymmbook.evidence.verdicts import CHANGES, LABELS, verdicts
from asymmlib.complexity import count
from asymmlib.network import AsymmNet

__all__ = ["Finding", "accuracies", "first_difference", "group_a", "summary"]

WITHOUT = "AsymmNet-Large r = 0"  # in the first comparison
IMAGENET = (1, 3, 224, 224)  # what costs are published for


class Finding(NamedTuple):
    """What was found in a few words, the sentence with the numbers, and the page of the book that shows them."""

    head: str
    text: str
    page: str


def first_difference(second: str, first: str = findings.REFERENCE, folder: Path | None = None) -> Difference | None:
    """Two networks of the first comparison after the last epoch, over pictures and seeds; None where one has no run."""
    sides = [_answers(name, folder) for name in (first, second)]
    if any(side.empty for side in sides):
        return None
    shared = set(sides[0]["run"]) & set(sides[1]["run"])
    return compare_networks(*(side[side["run"].isin(shared)] for side in sides))


def _answers(name, folder):
    runs = findings.recorded("compare", folder)
    frames = [read_predictions(row.run, "last", folder=folder).assign(run=row.seed)
              for row in runs[runs["name"] == name].itertuples()] if len(runs) else []
    empty = pd.DataFrame(columns=["picture", "run", "right"])
    return pd.concat([frame.assign(picture=range(len(frame))) for frame in frames])[[*empty]] if frames else empty


def accuracies(folder: Path | None = None) -> pd.DataFrame:
    """A row a network for a figure: name, macs, top1 (share, last epoch), low and high (least and largest run), runs.

    Of the trial at 64 px once all its light networks are done, otherwise of the first comparison.
    """
    mine, done, planned = group_a("64px", folder)
    if done == planned:
        mine = mine.assign(name=mine["network"].map(LABELS))
    else:
        mine = findings.recorded("compare", folder).assign(top1=lambda table: table["last_test_top1"])
    by_name = mine.groupby("name", sort=False)
    return by_name.agg(macs=("macs", "first"), top1=("top1", "mean"), low=("top1", "min"), high=("top1", "max"),
                       runs=("top1", "size")).reset_index()


def group_a(recipe: str, folder: Path | None = None) -> tuple[pd.DataFrame, int, int]:
    """The trial's recorded runs of "which network?" by a recipe, and how many of the light networks' are done, planned.
    """
    runs, names = records.read_runs(folder), {run.name for run in plan(records.scores(folder)) if run.group == "a"
                                              and run.recipe.name == recipe and run.network in LIGHT}
    mine = runs[(runs["group"] == "a") & (runs["recipe"] == recipe)] if len(runs) else runs
    return mine, len(set(mine["run"]) & names), len(names)


def _answered(folder):
    """The trial's tests of "which network?" by the opponent; None while one has no answer."""
    table = verdicts("a, 64px", folder)
    return table.set_index("second") if len(table) and table["mean"].notna().all() else None


def _better(answered, folder):
    page = "trial.md"
    if answered is not None:
        row = answered.loc[LABELS[PAIR[1]]]
        head = "Better than MobileNetV2" if row["p_holm"] < LEVEL and row["mean"] > 0 else "Much better? Not shown"
        return Finding(head, "Treated alike, AsymmNet-Large against MobileNetV2: "
                             f"{points(*row[['mean', 'low', 'high']])}.", page)
    found, scores = first_difference(LABELS[PAIR[1]], folder=folder), records.scores(folder)
    if found is None:
        return None
    runs = plan(scores)
    done = sum(run.name in scores for run in runs)
    return Finding("Much better? Not shown yet",
                   f"AsymmNet-Large against MobileNetV2: {points(*found[:3])} in a first comparison that favoured it. "
                   f"The fair trial has {done} of its {len(runs)} runs.", page)


def _asymmetry(answered, folder):
    if answered is not None:
        row = answered.loc[LABELS["asymmnet_large-r0"]]
        found, shown, page = tuple(row[["mean", "low", "high"]]), row["p_holm"] < LEVEL, "trial.md"
    else:
        result = first_difference(WITHOUT, folder=folder)
        if result is None:
            return None
        found, shown, page = result[:3], result.decidable and result.p < LEVEL, "results.md"
    head = ("The asymmetry helps" if found[0] > 0 else "The asymmetry costs accuracy") if shown else \
        "The asymmetry itself: no gain is shown"
    return Finding(head, f"The same network with and without it: {points(*found)}.", page)


def _flaws(folder):
    families = {LABELS[network]: verdicts(f"d, {network}", folder) for network in PAIR}
    mended = {name: table[table["first"].str.endswith(CHANGES["mended-all"])].iloc[0]
              for name, table in families.items()}
    if any(row.isna()["mean"] for row in mended.values()):
        return Finding("The article makes twelve mistakes", "Each is named, shown by a measurement, and mended.",
                       "critical-reading.md")
    shown = [name for name, row in mended.items() if row["p_holm"] < LEVEL and row["mean"] > 0]
    head = "The article's mistakes cost accuracy" if shown else "The article's mistakes: no cost in accuracy is shown"
    texts = "; ".join(f"{name} {points(*row[['mean', 'low', 'high']])}" for name, row in mended.items())
    return Finding(head, f"With all of them mended: {texts}.", "critical-reading.md")


def _same_network():
    (variant, width), published = next(iter(PUBLISHED.items()))
    cost = count(AsymmNet(variant, 1000, width), IMAGENET)
    macs, params = f"{cost.macs / 1e6:.1f}", f"{cost.params / 1e6:.2f}"
    page, head = "../notebooks/06_paper_check.ipynb", "The network is the authors'"
    if macs != published.macs:
        return Finding("The network is not the authors'", f"{macs} M multiplications a picture, where the paper has "
                       f"{published.macs} M.", page)
    return Finding(head, f"{macs} M multiplications a picture, as published; {params} M parameters, where the paper "
                         f"counts {published.params} M.", page)


def summary(folder: Path | None = None) -> list[Finding]:
    """The findings, most asked first; those without any recorded run are left out."""
    answered = _answered(folder)
    found = (_better(answered, folder), _asymmetry(answered, folder), _flaws(folder), _same_network())
    return [finding for finding in found if finding is not None]
