"""The first comparison, as it was recorded: `results/archive/`, read-only, since the trial (`records.py`) replaces it.

`runs.csv` has one row per run with everything its accuracy depends on, `curves.csv` one per run and epoch,
`pictures.csv` one per held-out picture, `predictions/<run>.npz` what the run says about each of these. The program of
then made all of them; why they were replaced, and their columns, stand in results/archive/README.md.
"""
from pathlib import Path

import numpy as np
import pandas as pd

from asymmbook.checkout import results_dir
from asymmlib.base.files import READ_ERRORS, has_file
from asymmlib.base.tables import read_table

__all__ = ["archive_dir", "read_pictures", "read_predictions", "read_results"]

TEXTS = dict.fromkeys(("commit", "manifest_sha256", "python"), str)  # some would read as a number
KEYS = {"runs": ("run",), "curves": ("run", "epoch")}  # columns with a value in every row
PREDICTED = ("predicted", "confidence")  # arrays of a predictions file, by weights and split, beside the labels


def archive_dir(folder: Path | None = None) -> Path:
    """`results/archive/`, or the same in another folder of results."""
    return (folder or results_dir()) / "archive"


def read_results(folder: Path | None = None) -> dict[str, pd.DataFrame]:
    """Return {"runs": DataFrame, "curves": DataFrame}; empty ones with a column "run" where nothing is recorded.

    Raises `ValueError` that names a table which is damaged or has other columns.
    """
    archive, empty = archive_dir(folder), pd.DataFrame({"run": pd.Series(dtype=str)})
    return {table: read_table(archive / f"{table}.csv", keys, TEXTS, empty) for table, keys in KEYS.items()}


def read_pictures(split: str = "test", folder: Path | None = None) -> pd.DataFrame:
    """The pictures of a held-out split in the order of all predictions: name, class. Empty where none is recorded.

    Raises `ValueError` for a damaged table.
    """
    path, columns = archive_dir(folder) / "pictures.csv", ["name", "class", "split"]
    pictures = read_table(path, columns, absent=pd.DataFrame(columns=columns))
    return pictures[pictures["split"] == split].drop(columns="split").reset_index(drop=True)


def read_predictions(run: str, weights: str = "best", split: str = "test", folder: Path | None = None) -> pd.DataFrame:
    """What a recorded run says about each picture of a split: DataFrame with label, predicted, confidence, right.

    weights: "best" epoch by eval top-1 or "last". Raises `FileNotFoundError` for a run without recorded predictions and
    `ValueError` for one that has none for this split, or whose file is damaged.
    """
    path, again = archive_dir(folder) / "predictions" / f"{run}.npz", "git restore brings the recorded file back"
    if not has_file(path):
        raise FileNotFoundError(f"no predictions {path}: {again}")
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = dict(file)
        measured = f"{split}_labels" in stored
        frame = pd.DataFrame({"label": stored[f"{split}_labels"],
                              **{name: stored[f"{weights}_{split}_{name}"] for name in PREDICTED}} if measured else {})
    except (*READ_ERRORS, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): {again}") from error
    if not measured:
        raise ValueError(f"{run} was not measured on the {split} split")
    return frame.assign(right=frame["label"] == frame["predicted"])
