"""How each light network gets its learning rate and weight decay: one grid and one rule for all.

Each setting of the grid is trained on the five folds of next16; the best by the mean is the network's. Where its rate
is at an edge of the grid, the next rate of the series joins with both weight decays, and the rule is applied again, at
most `WIDENINGS` times. All scores are those after the last epoch; a run that diverged scores 0. Ties go to the smaller
rate, then to the smaller weight decay.
"""
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from asymmbook.evidence.folds import FOLDS

__all__ = ["DECAYS", "NETWORKS", "RATES", "Setting", "Tuned", "grid_scores", "network_key", "tuning"]

SERIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)  # the grid before it is widened
DECAYS = (1e-4, 1e-3)
WIDENINGS = 2
# key: model, settings
NETWORKS = {**{f"asymmnet_large-r{rate}": ("asymmnet_large", {"asymmrate": rate}) for rate in (1, 0, 2)},
            "asymmnet_small-r1": ("asymmnet_small", {"asymmrate": 1}), "mobilenet_v2": ("mobilenet_v2", {}),
            "mobilenet_v3_large": ("mobilenet_v3_large", {})}


class Setting(NamedTuple):
    """A learning rate and a weight decay; settings sort by them."""

    rate: float
    decay: float

    @property
    def name(self) -> str:
        """As it stands in the names of runs."""
        return f"lr{self.rate:g}_wd{self.decay:g}"


class Tuned(NamedTuple):
    """runs: (setting, fold) that the rule asks for so far. best: the chosen `Setting`; None while a run is missing."""

    runs: tuple[tuple[Setting, int], ...]
    best: Setting | None


def network_key(model: str, settings: Mapping[str, Any]) -> str:
    """A network's key in names of runs: the model, its rate and its width."""
    rate = f"-r{settings['asymmrate']}" if "asymmrate" in settings else ""
    return f"{model}{rate}" + (f"-w{settings['width']:g}" if "width" in settings else "")


def tuning(network: str, scores: Mapping[str, float]) -> Tuned:
    """What the rule asks for, and chooses, given the scores of finished runs (`Tuned`).

    scores: {run name: top-1}, names as `asymmbook.evidence.trial` makes them.
    """
    rates, found = list(RATES), grid_scores(network, scores)
    for widening in range(WIDENINGS + 1):
        grid = [Setting(rate, decay) for rate in rates for decay in DECAYS]
        wanted = tuple((setting, fold) for fold in range(FOLDS) for setting in grid)
        if not found.keys() >= set(grid):
            return Tuned(wanted, None)
        best = min(grid, key=lambda setting: (-np.mean(found[setting]), setting))
        further = _next_rate(best.rate, rates)
        if further is None or widening == WIDENINGS:
            return Tuned(wanted, best)
        rates.append(further)
    raise AssertionError("the last round returns")


def grid_scores(network: str, scores: Mapping[str, float]) -> dict[Setting, list[float]]:
    """{setting: top-1 on each fold} of all settings of a network that have been trained on every fold."""
    runs = {setting: [f"tune-{network}-{setting.name}-next16-r0f{fold}" for fold in range(FOLDS)]
            for setting in itertools.starmap(Setting, itertools.product(SERIES, DECAYS))}
    return {setting: [scores[run] for run in of_folds] for setting, of_folds in runs.items()
            if scores.keys() >= set(of_folds)}


def _next_rate(rate, rates):
    """The rate of the series beyond the edge of the grid at which `rate` lies; None inside the grid or at its end."""
    place = SERIES.index(rate)
    if rate == max(rates) and place + 1 < len(SERIES):
        return SERIES[place + 1]
    return SERIES[place - 1] if rate == min(rates) and place else None
