"""Pre-trained or from scratch at equal total cost: sizes, costs and settings of the trial's group `transfer`.

A network is pre-trained on classes that are never asked about, gets a new last layer and is fine-tuned on a few
pictures of each of the sixteen. Against it stands one from random weights that is trained on the same few pictures for
as many epochs as make both cost the same (`scratch_epochs`). How the fine-tuning thaws is one setting for both networks
and all sizes, chosen on next16 (`thawing`) by networks whose pre-training left those classes out, too.
"""
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

__all__ = ["EPOCHS", "GRID", "GRID_FOLDS", "GRID_SIZE", "PASSES", "SCRATCH", "SIZES", "SOURCES", "SOURCE_EPOCHS",
           "SOURCE_PICTURES", "TESTED", "Thaw", "cost", "grid_run", "grid_runs", "scratch_epochs", "thawing",
           "trained_pictures"]

NETWORKS = ("asymmnet_large-r1", "mobilenet_v2")
SOURCES = {"caltech16": "pretrain74", "next16": "pretrain58"}
SOURCE_PICTURES = 4775  # of pretrain74 that an epoch of the pre-training goes through
SOURCE_EPOCHS, EPOCHS = 8, 15  # of the pre-training, and of each fine-tuning
CLASSES, LARGEST = 16, 1454  # of caltech16; pictures of four of its folds, on average
SIZES = {"n5": 5, "n10": 10, "n20": 20, "n40": 40, "all": None}  # pictures a class; None: all of four folds
TESTED = "n20"  # the size at which a difference is tested
# From scratch: sizes by network (an epoch of few pictures repeats them, or most of the time would go into measuring)
SCRATCH = {"asymmnet_large-r1": (TESTED, "n5", "all"), "mobilenet_v2": (TESTED,)}
PASSES = {"n5": 16, "n10": 8, "n20": 4, "n40": 2, "all": 1}


class Thaw(NamedTuple):
    """How a fine-tuning treats all but the last layer: epochs frozen, then its share of the learning rate."""

    frozen: int
    rate: float

    @property
    def name(self) -> str:
        """As it stands in the names of runs."""
        return f"frozen{self.frozen}_rate{self.rate:g}"


GRID = (Thaw(0, 1.0), Thaw(0, 0.1), Thaw(5, 1.0), Thaw(5, 0.1))
GRID_SIZE, GRID_FOLDS = TESTED, 3


def trained_pictures(size: str) -> int:
    """Pictures of a fine-tuning's train split of one of `SIZES`; of "all" on average over folds."""
    few = SIZES[size]
    return LARGEST if few is None else CLASSES * few


def cost(size: str) -> int:
    """Pictures that go forward and back for one fine-tuned network, its whole pre-training and frozen epochs included.
    """
    return SOURCE_EPOCHS * SOURCE_PICTURES + EPOCHS * trained_pictures(size)


def scratch_epochs(size: str) -> int:
    """Epochs, of `PASSES` each, from random weights that cost as much as pre-training and fine-tuning, or a bit more.
    """
    return math.ceil(cost(size) / (trained_pictures(size) * PASSES[size]))


def grid_run(network: str, thaw: Thaw, fold: int) -> str:
    """Name of a run that the setting is chosen by."""
    return f"transfer-{network}-{thaw.name}-next16-r1f{fold}"


def grid_runs(thaw: Thaw) -> list[str]:
    """Names of all runs of one setting of `GRID`."""
    return [grid_run(network, thaw, fold) for network in NETWORKS for fold in range(GRID_FOLDS)]


def thawing(scores: Mapping[str, float]) -> Thaw | None:
    """The setting of the grid with the highest mean over networks and folds; None while a run is missing.

    scores: {run: top-1}. Ties go to the one that stands first in `GRID`.
    """
    if any(run not in scores for thaw in GRID for run in grid_runs(thaw)):
        return None
    return max(GRID, key=lambda thaw: np.mean([scores[run] for run in grid_runs(thaw)]))
