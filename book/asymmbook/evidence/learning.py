"""Learning curves of the trial's group `transfer`: accuracy by pictures a class, pre-trained and from scratch.

A point is there when its five folds are recorded; nothing else of the group decides about it (results/protocol.md).
"""
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from asymmbook.evidence import records
from asymmbook.evidence.folds import FOLDS
from asymmbook.evidence.inference import Difference, compare_networks
from asymmbook.evidence.transfer import GRID, NETWORKS, SCRATCH, SIZES, grid_runs

__all__ = ["KINDS", "Point", "grid", "learning_curves", "payoff"]

KINDS = {"pre-trained": "{size}", "from scratch": "scratch-{size}"}  # kind: recipe


class Point(NamedTuple):
    """One point of a curve; `result` is its mean with the interval, None while it has not all its runs."""

    network: str
    kind: str
    size: str
    runs: int
    result: Difference | None


def learning_curves(folder: Path | None = None) -> list[Point]:
    """Every `Point` that is planned. Accuracies are those after the last epoch; intervals count pictures and runs."""
    planned = [(network, kind, size) for network in NETWORKS for kind in KINDS for size in SIZES
               if kind == "pre-trained" or size in SCRATCH[network]]
    points = []
    for network, kind, size in planned:
        rows = _rows(network, KINDS[kind].format(size=size), folder)
        result = None
        if len(rows) == FOLDS:
            said = records.answers(rows, folder)
            result = compare_networks(said, said.assign(right=False))
        points.append(Point(network, kind, size, len(rows), result))
    return points


def payoff(network: str, size: str, folder: Path | None = None) -> Difference | None:
    """What pre-training is worth at one size: `Difference` to from scratch; None while one side is not complete."""
    sides = [_rows(network, recipe.format(size=size), folder) for recipe in KINDS.values()]
    if any(len(rows) < FOLDS for rows in sides):
        return None
    return compare_networks(*(records.answers(rows, folder) for rows in sides))


def _rows(network: str, recipe: str, folder: Path | None) -> pd.DataFrame:
    runs = records.read_runs(folder)
    if runs.empty:
        return runs
    chosen: dict[str, Any] = {"group": "transfer", "network": network, "recipe": recipe, "pictures": "caltech16"}
    return records.matching(runs, chosen)


def grid(folder: Path | None = None) -> pd.DataFrame:
    """A row a setting of the thaw: frozen, rate, runs (of those planned), mean over the runs that there are (else NaN).
    """
    scores, rows = records.scores(folder), []
    for thaw in GRID:
        names = grid_runs(thaw)
        found = [scores[name] for name in names if name in scores]
        rows.append({"frozen": thaw.frozen, "rate": thaw.rate, "runs": len(found), "planned": len(names),
                     "mean": sum(found) / len(found) if len(found) == len(names) else None})
    return pd.DataFrame(rows)
