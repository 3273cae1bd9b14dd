"""The findings that stand on top of the book: a heading, a sentence with its interval, and the page that shows it.

Each is answered by the trial, where a family of its tests is complete. Nothing here needs pictures; `folder` is another
folder of results.
"""
from pathlib import Path
from typing import NamedTuple

from asymmbook.evidence.inference import points
from asymmbook.evidence.reference import PUBLISHED
from asymmbook.evidence.statistics import LEVEL
from asymmbook.evidence.trial import PAIR, PLAIN
from asymmbook.evidence.verdicts import CHANGES, LABELS, answered
from asymmlib.complexity import count
from asymmlib.network import AsymmNet

__all__ = ["Finding", "summary"]

IMAGENET = (1, 3, 224, 224)  # what costs are published for


class Finding(NamedTuple):
    """What was found in a few words, the sentence with the numbers, and the page of the book that shows them."""

    head: str
    text: str
    page: str


def _better(tests):
    row = tests.set_index("second").loc[LABELS[PAIR[1]]]
    head = "Better than MobileNetV2" if row["p_holm"] < LEVEL and row["mean"] > 0 else "Much better? Not shown"
    return Finding(head, "Treated alike, AsymmNet-Large against MobileNetV2: "
                         f"{points(*row[['mean', 'low', 'high']])}.", "results.md")


def _asymmetry(tests):
    row = tests.set_index("second").loc[LABELS["asymmnet_large-r0"]]
    head = ("The asymmetry helps" if row["mean"] > 0 else "The asymmetry costs accuracy") \
        if row["p_holm"] < LEVEL else "The asymmetry itself: no gain is shown"
    return Finding(head, f"The same network with and without it: {points(*row[['mean', 'low', 'high']])}.",
                   "results.md")


def _flaws(folder):
    families = {LABELS[network]: answered(f"d, {network}", folder) for network in PAIR}
    mended = {name: table[table["first"].str.endswith(CHANGES["mended-all"])].iloc[0]
              for name, table in families.items() if table is not None}
    if len(mended) < len(families):
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
    """The findings, most asked first; without all runs of "which network?" those about it are left out."""
    tests = answered(f"a, {PLAIN.name}", folder)
    found = () if tests is None else (_better(tests), _asymmetry(tests))
    return [*found, _flaws(folder), _same_network()]
