"""By which recipe the released networks are trained: candidates, what each costs, and the rule that picks one.

The candidates are tried on next16, whose pictures are none of the sixteen classes', by two networks; the best of them
trains all released networks, each from weights of its own that were pre-trained on classes which nobody asks about.
Protocol: the section "Released weights" of results/protocol.md.
"""
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from asymmbook.evidence.transfer import NETWORKS, SOURCES

__all__ = ["CANDIDATES", "FOLD", "NETWORKS", "RELEASED", "REPEAT", "SIZE", "SOURCE", "SOURCES", "Candidate",
           "candidate_run", "chosen", "cost", "source_run"]

# NETWORKS: who the recipe is chosen by; SOURCES: what is pre-trained on. Both are those of the group `transfer`.
RELEASED = (NETWORKS[0], "asymmnet_small-r1", NETWORKS[1])
SIZE = 128  # pixels
SOURCE: dict[str, Any] = {"epochs": 40, "augmentation": "crop-flip"}  # of the pre-training
REPEAT, FOLD = 1, 0  # the fold of next16 that candidates are measured on


class Candidate(NamedTuple):
    """pretrained: whether it starts from other classes' weights; changes: fields of the trial's base recipe."""

    pretrained: bool
    changes: dict[str, Any]


LONG = {"epochs": 60, "augmentation": "crop-flip"}
CANDIDATES = {
    "scratch": Candidate(False, {"epochs": 30}), "scratch-flip": Candidate(False, LONG),
    "pre": Candidate(True, {"epochs": 30}), "pre-flip": Candidate(True, LONG),
    "pre-slow": Candidate(True, LONG | {"backbone_rate": 0.1}),
    "pre-colour": Candidate(True, LONG | {"augmentation": "crop-flip-colour"}),
    "pre-smooth": Candidate(True, LONG | {"label_smoothing": 0.1, "weight_decay": 1e-3})}


def candidate_run(network: str, name: str) -> str:
    """Name of the run by which a network tries a candidate."""
    return f"weights-{network}-{name}-next16-r{REPEAT}f{FOLD}"


def chosen(scores: Mapping[str, float]) -> str | None:
    """The candidate with the highest mean over `NETWORKS`; None while a run is missing.

    scores: {run: top-1}. Ties go to the one that stands first in `CANDIDATES`.
    """
    runs = {name: [candidate_run(network, name) for network in NETWORKS] for name in CANDIDATES}
    if any(run not in scores for tried in runs.values() for run in tried):
        return None
    return max(CANDIDATES, key=lambda name: np.mean([scores[run] for run in runs[name]]))


def cost(candidate: Candidate, pictures: int, source_pictures: int) -> int:
    """Pictures that go forward and back, its whole pre-training included.

    pictures, source_pictures: that an epoch of either goes through.
    """
    return candidate.changes["epochs"] * pictures + candidate.pretrained * SOURCE["epochs"] * source_pictures


def source_run(network: str, pictures: str) -> str:
    """Name of the pre-training that a network's runs on a set start from."""
    return f"weights-{network}-source-{SOURCES[pictures]}-rule"
