"""Recorded results: finished runs as small files that the repository keeps in `results/`.

`runs.csv` has one row per run with everything its accuracy depends on, `curves.csv` one per run and epoch,
`pictures.csv` one per held-out picture, `predictions/<run>.npz` what the run says about each of these. All are made by
`python -m asymmbook experiments collect`, never by hand; columns are explained in results/README.md.
"""
import json
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from asymmbook.checkout import results_dir
from asymmlib.base.files import READ_ERRORS, atomic_write, has_file, locked, sweep
from asymmlib.base.tables import read_table
from asymmlib.runs import find_run

__all__ = ["collect", "read_pictures", "read_predictions", "read_results", "write_pictures"]

# runs last: whose row is there is recorded, so its curve has to be there before
TABLES = ("curves", "runs")
TEXTS = dict.fromkeys(("commit", "manifest_sha256", "python"), str)  # some would read as a number
KEYS = {"runs": ("run",), "curves": ("run", "epoch")}  # columns with a value in every row
PREDICTED = ("predicted", "confidence")  # arrays of a predictions file, by weights and split, beside the labels


def collect(names: Iterable[str], folder: Path | None = None, only: Collection[str] | None = None) -> pd.DataFrame:
    """Add finished runs to the tables, replacing rows of the same name; return the table of runs.

    only: the names that the tables may hold; rows and predictions of other runs are removed. None keeps all.
    Killed at any moment, or run by two processes at once, it loses no row that was there. Raises `FileNotFoundError`
    for an unknown run and `ValueError` for one that has not reached its last epoch.
    """
    folder = folder or results_dir()
    runs = [find_run(name) for name in names]
    unfinished = [run.name for run in runs if not run.finished]
    if unfinished:
        raise ValueError(f"not finished: {', '.join(unfinished)}; train them to their last epoch first")
    new = {"runs": [_row(run) for run in runs],
           "curves": [row for run in runs for row in run.history.assign(run=run.name).to_dict("records")]}
    with locked(folder / "results"):
        for table in TABLES:
            sweep(folder, f"{table}.csv")
            _merge(folder / f"{table}.csv", pd.DataFrame(new[table]), [run.name for run in runs], only)
        for path in (folder / "predictions").glob("*.npz"):
            if only is not None and path.stem not in only:
                path.unlink()
    return read_results(folder)["runs"]


def _merge(path, frame, names, only):
    """Replace the rows of some runs in a table by new ones."""
    kept = read_results(path.parent)[path.stem]
    kept = kept[~kept["run"].isin(names)]
    kept = kept if only is None else kept[kept["run"].isin(only)]
    frame = pd.concat([part for part in (kept, frame) if len(part)] or [kept], ignore_index=True)
    frame = frame[["run", *(column for column in frame if column != "run")]]
    frame = frame.sort_values(["run", "epoch"] if "epoch" in frame else "run")
    with atomic_write(path) as file:
        file.write(frame.to_csv(index=False, float_format="%.8g", lineterminator="\n").encode())


def read_results(folder: Path | None = None) -> dict[str, pd.DataFrame]:
    """Return {"runs": DataFrame, "curves": DataFrame}; empty ones with a column "run" where nothing is recorded.

    Raises `ValueError` that names a table which is damaged or has other columns.
    """
    folder, empty = folder or results_dir(), pd.DataFrame({"run": pd.Series(dtype=str)})
    return {table: read_table(folder / f"{table}.csv", KEYS[table], TEXTS, empty) for table in TABLES}


def write_pictures(manifest: pd.DataFrame, folder: Path | None = None) -> None:
    """Write the held-out pictures of a manifest, in its order, as `pictures.csv`: name, class, split."""
    held_out = manifest[manifest["split"] != "train"]
    with atomic_write((folder or results_dir()) / "pictures.csv", "w") as file:
        held_out.to_csv(file, columns=["name", "class", "split"], index=False, lineterminator="\n")


def read_pictures(split: str = "test", folder: Path | None = None) -> pd.DataFrame:
    """The pictures of a held-out split in the order of all predictions: name, class. Empty where none is recorded.

    Raises `ValueError` for a damaged table.
    """
    path, columns = (folder or results_dir()) / "pictures.csv", ["name", "class", "split"]
    pictures = read_table(path, columns, absent=pd.DataFrame(columns=columns))
    return pictures[pictures["split"] == split].drop(columns="split").reset_index(drop=True)


def read_predictions(run: str, weights: str = "best", split: str = "test", folder: Path | None = None) -> pd.DataFrame:
    """What a recorded run says about each picture of a split: DataFrame with label, predicted, confidence, right.

    weights: "best" epoch by eval top-1 or "last". Raises `FileNotFoundError` for a run without recorded predictions and
    `ValueError` for one that has none for this split, or whose file is damaged.
    """
    path = (folder or results_dir()) / "predictions" / f"{run}.npz"
    if not has_file(path):
        raise FileNotFoundError(f"no predictions {path}: python -m asymmbook experiments collect records them")
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = dict(file)
        measured = f"{split}_labels" in stored
        frame = pd.DataFrame({"label": stored[f"{split}_labels"],
                              **{name: stored[f"{weights}_{split}_{name}"] for name in PREDICTED}} if measured else {})
    except (*READ_ERRORS, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): python -m asymmbook experiments "
                         "collect records it anew") from error
    if not measured:
        raise ValueError(f"{run} was not measured on the {split} split")
    return frame.assign(right=frame["label"] == frame["predicted"])


def _row(run):
    from asymmlib.complexity import count
    from asymmlib.models import MODELS, create_model
    info, recipe = run.info, run.info["recipe"]
    size = recipe["image_size"]
    cost = count(create_model(info["model"], len(info["classes"]), **info["settings"]), (1, 3, size, size))
    environment, history = info["environment"], run.history
    return {"run": run.name, "model": info["model"], "label": MODELS[info["model"]].label, "recipe": recipe["name"],
            "data": recipe["data"], "seed": recipe["seed"], "image_size": size, "epochs": recipe["epochs"],
            "epochs_done": len(history), "params": cost.params, "macs": cost.macs, **info["result"],
            "images_per_s": history["images_per_s"].median(), "accelerated": info["accelerated"],
            "train_pictures": info["pictures"]["train"], "eval_pictures": info["pictures"]["eval"],
            "manifest_sha256": info["manifest_sha256"], "settings": json.dumps(info["settings"]),
            "recipe_fields": json.dumps(recipe), "python": environment["python"],
            "packages": json.dumps(environment["packages"]), "device": environment["device"],
            "cpu": environment["cpu"], "threads": environment["threads"], "commit": environment["commit"]}
