"""The findings that stand on top of the book: a heading, a sentence with its interval, and the page that shows it.

The fair trial answers where a family of its tests is complete; until then the first comparison does, whose networks
were not treated alike, and the sentence says so. Nothing here needs pictures; `folder` is another folder of results.
"""
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from asymmbook.evidence import findings, records
from asymmbook.evidence.inference import Difference, compare_networks
from asymmbook.evidence.reference import PUBLISHED
from asymmbook.evidence.results import read_predictions
from asymmbook.evidence.statistics import LEVEL
from asymmbook.evidence.trial import PAIR, plan
from asymmbook.evidence.verdicts import LABELS, verdicts
from asymmlib.complexity import count
from asymmlib.network import AsymmNet

__all__ = ["Finding", "accuracies", "first_difference", "summary"]

FIRST = {PAIR[0]: findings.REFERENCE, "asymmnet_large-r0": "AsymmNet-Large r=0"}  # names in the first comparison
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
    runs = records.read_runs(folder)
    mine = runs[(runs["group"] == "a") & (runs["recipe"] == "64px")] if len(runs) else runs
    if _complete("a, 64px", folder):
        mine = mine.assign(name=mine["network"].map(LABELS))
    else:
        mine = findings.recorded("compare", folder).assign(top1=lambda table: table["last_test_top1"])
    by_name = mine.groupby("name", sort=False)
    return by_name.agg(macs=("macs", "first"), top1=("top1", "mean"), low=("top1", "min"), high=("top1", "max"),
                       runs=("top1", "size")).reset_index()


def _complete(family, folder):
    table = verdicts(family, folder)
    return len(table) > 0 and bool(table["mean"].notna().all())


def _points(mean, low, high):
    return f"{100 * mean:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def _better(folder):
    page = "trial.md"
    if _complete("a, 64px", folder):
        row = verdicts("a, 64px", folder).set_index("second").loc[LABELS[PAIR[1]]]
        head = "Better than MobileNetV2" if row["p_holm"] < LEVEL and row["mean"] > 0 else "Much better? Not shown"
        points = _points(*row[["mean", "low", "high"]])
        return Finding(head, f"Treated alike, AsymmNet-Large against MobileNetV2: {points}.", page)
    found, scores = first_difference(LABELS[PAIR[1]], folder=folder), records.scores(folder)
    if found is None:
        return None
    runs = plan(scores)
    done = sum(run.name in scores for run in runs)
    return Finding("Much better? Not shown yet",
                   f"AsymmNet-Large against MobileNetV2: {_points(*found[:3])} in a first comparison that favoured it. "
                   f"The fair trial has {done} of its {len(runs)} runs.", page)


def _asymmetry(folder):
    if _complete("a, 64px", folder):
        row = verdicts("a, 64px", folder).set_index("second").loc[LABELS["asymmnet_large-r0"]]
        found, shown, page = tuple(row[["mean", "low", "high"]]), row["p_holm"] < LEVEL, "trial.md"
    else:
        result = first_difference(FIRST["asymmnet_large-r0"], folder=folder)
        if result is None:
            return None
        found, shown, page = result[:3], result.decidable and result.p < LEVEL, "results.md"
    head = ("The asymmetry helps" if found[0] > 0 else "The asymmetry costs accuracy") if shown else \
        "The asymmetry itself: no gain is shown"
    return Finding(head, f"The same network with and without it: {_points(*found)}.", page)


def _flaws(folder):
    families = {LABELS[network]: verdicts(f"d, {network}", folder) for network in PAIR}
    mended = {name: table[table["first"].str.endswith("with everything mended")].iloc[0]
              for name, table in families.items()}
    if any(row.isna()["mean"] for row in mended.values()):
        return Finding("The article makes twelve mistakes", "Each is named, shown by a measurement, and mended.",
                       "critical-reading.md")
    shown = [name for name, row in mended.items() if row["p_holm"] < LEVEL and row["mean"] > 0]
    head = "The article's mistakes cost accuracy" if shown else "The article's mistakes: no cost in accuracy is shown"
    texts = "; ".join(f"{name} {_points(*row[['mean', 'low', 'high']])}" for name, row in mended.items())
    return Finding(head, f"With all of them mended: {texts}.", "critical-reading.md")


def _same_network(folder):
    (variant, width), published = next(iter(PUBLISHED.items()))
    cost = count(AsymmNet(variant, 1000, width), IMAGENET)
    macs, params = f"{cost.macs / 1e6:.1f}", f"{cost.params / 1e6:.2f}"
    page, head = "../notebooks/06_paper_check.ipynb", "The network is the authors'"
    if macs != published.macs:
        return Finding("The network is not the authors'", f"{macs} M multiplications a picture, where the paper has "
                       f"{published.macs} M.", page)
    return Finding(head, f"{macs} M multiplications a picture, as published; {params} M parameters, where the paper "
                         f"counts {published.params} M.", page)


FINDINGS: tuple[Callable[[Path | None], Finding | None], ...] = (_better, _asymmetry, _flaws, _same_network)


def summary(folder: Path | None = None) -> list[Finding]:
    """The findings, most asked first; those without any recorded run are left out."""
    return [finding for make in FINDINGS if (finding := make(folder)) is not None]
