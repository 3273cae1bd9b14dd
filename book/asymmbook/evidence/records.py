"""The recorded trial: finished runs as small files in `results/trial/`, and what they say about each picture.

runs.csv has one row a run, curves.csv one a run and epoch, predictions-<group>.npz the predicted class (uint8) and its
probability (float16) for every held-out picture of every run of a group, folds.csv the pictures and the folds they are
in. All are made by `python -m asymmbook experiments collect`; columns are explained in results/README.md.
"""
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from asymmbook.checkout import results_dir
from asymmbook.evidence.folds import PRETRAIN, class_sets, copies_of_others, fold_table
from asymmbook.evidence.inference import calibration_error, per_class_accuracy
from asymmbook.evidence.trial import TrialRun
from asymmlib.base.files import atomic_write, has_file, locked
from asymmlib.base.tables import read_table
from asymmlib.data.manifest import EVERY
from asymmlib.runs import find_run

__all__ = ["answers", "matching", "paces", "read_curves", "read_folds", "read_runs", "record", "round_score", "scores",
           "trial_dir", "write_folds"]

TEXTS = dict.fromkeys(("commit", "manifest_sha256", "python"), str)
ARRAYS = ("predicted", "confidence")


def trial_dir(folder: Path | None = None) -> Path:
    """`results/trial/`, or the same in another folder of results."""
    return (folder or results_dir()) / "trial"


def _read(table, folder):
    path = trial_dir(folder) / f"{table}.csv"
    return read_table(path, ("run",), TEXTS, pd.DataFrame({"run": pd.Series(dtype=str)}))


def read_runs(folder: Path | None = None) -> pd.DataFrame:
    """One row a recorded run; empty with a column "run" where none is."""
    return _read("runs", folder)


def scores(folder: Path | None = None) -> dict[str, float]:
    """{run: top-1 on its held-out pictures after the last epoch} of the recorded runs, rounded by `round_score`."""
    table = read_runs(folder)
    pairs = [] if table.empty else zip(table["run"], table["top1"], strict=True)
    return {run: round_score(top1) for run, top1 in pairs}


def paces(folder: Path | None = None) -> dict[tuple[str, int], float]:
    """{(model, size): images a second of one thread}, the median of the recorded runs at the network's full width."""
    table = read_runs(folder)
    if table.empty:
        return {}
    plain = table[~table["settings"].str.contains("width") & table["images_per_s"].notna()]
    return plain.groupby(["model", "image_size"])["images_per_s"].median().to_dict()


def round_score(top1: float) -> float:
    """So that ties are ties whether a number comes from a table or from a run."""
    return round(float(top1), 6)


def read_curves(folder: Path | None = None) -> pd.DataFrame:
    """One row a recorded run and epoch."""
    return _read("curves", folder)


def read_folds(folder: Path | None = None) -> pd.DataFrame:
    """Every picture of Caltech-101's categories: name, class, repeat0, repeat1 (the fold that holds it out)."""
    return read_table(trial_dir(folder) / "folds.csv", ("name", "class"))


def write_folds(manifest: pd.DataFrame, folder: Path | None = None) -> None:
    """Record the folds of a manifest of Caltech-101."""
    _write(trial_dir(folder) / "folds.csv", fold_table(manifest, folder))


def _write(path, frame):
    with atomic_write(path) as file:
        file.write(frame.to_csv(index=False, float_format="%.8g", lineterminator="\n").encode())


def held_out_pictures(pictures: str, repeat: float | None, fold: float | None,
                      folder: Path | None = None) -> pd.DataFrame:
    """The pictures that a run of a set and fold held out, in the order of its predictions: name, class, label."""
    path = trial_dir(folder) / "folds.csv"
    return _held_out(pictures, repeat, fold, folder, path, path.stat().st_mtime_ns if path.is_file() else 0).copy()


@lru_cache(maxsize=64)
def _held_out(pictures, repeat, fold, folder, path, changed):
    """The same once for all networks of a page; path and changed: the folds that were read."""
    table = read_folds(folder)
    chosen = table[table["class"].isin(class_sets(Counter(table["class"]))[pictures])]
    rule = chosen.groupby("class").cumcount() % EVERY == 0
    classes = list(dict.fromkeys(chosen["class"]))
    chosen = chosen[rule if fold is None or pd.isna(fold) else chosen[f"repeat{repeat:.0f}"] == fold]
    if pictures.startswith(PRETRAIN):
        chosen = chosen[~chosen["name"].isin(copies_of_others(table["name"][table["class"].isin(classes)], folder))]
    return chosen[["name", "class"]].assign(label=chosen["class"].map(classes.index)).reset_index(drop=True)


def matching(runs: pd.DataFrame, chosen: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a table of runs that have these values; chosen: {column: value}."""
    return runs[(runs[list(chosen)] == pd.Series(dict(chosen))).all(axis=1)]


def answers(runs: pd.DataFrame, folder: Path | None = None) -> pd.DataFrame:
    """What recorded runs say: picture, run ("r0f3"), label, predicted, confidence, right; one row a picture and run.

    runs: rows of `read_runs`, of one network or recipe, as `asymmbook.evidence.inference.compare_networks` takes them.
    """
    parts = []
    for group, rows in runs.groupby("group"):
        with np.load(trial_dir(folder) / f"predictions-{group}.npz", allow_pickle=False) as stored:
            for row in rows.itertuples():
                pictures = held_out_pictures(row.pictures, row.repeat, row.fold, folder)
                said = {name: stored[f"{row.run}/{name}"] for name in ARRAYS}
                where = "rule" if pd.isna(row.fold) else f"r{row.repeat:.0f}f{row.fold:.0f}"
                parts.append(pictures[["name", "label"]].rename(columns={"name": "picture"}).assign(run=where, **said))
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(right=frame["label"] == frame["predicted"])


def record(runs: Sequence[TrialRun], folder: Path | None = None) -> pd.DataFrame:
    """Add finished `TrialRun`s to the tables, replacing rows of the same name; return the table of all runs."""
    target = trial_dir(folder)
    target.mkdir(parents=True, exist_ok=True)
    with locked(target / "record"):
        for group in dict.fromkeys(run.group for run in runs):
            _add_predictions(target / f"predictions-{group}.npz", [run.name for run in runs if run.group == group])
        rows = pd.DataFrame(_rows(runs, folder))
        curves = [_history(run.name) for run in runs]
        names = [run.name for run in runs]
        for table, new in (("curves", pd.concat(curves) if curves else rows), ("runs", rows)):
            kept = _read(table, folder)
            parts = [part for part in (kept[~kept["run"].isin(names)], new) if len(part)]
            frame = pd.concat(parts, ignore_index=True) if parts else kept
            _write(target / f"{table}.csv", frame.sort_values(["run", "epoch"] if "epoch" in frame else "run"))
    return read_runs(folder)


def _history(name):
    path = find_run(name).folder / "history.csv"
    frame = read_table(path, ("epoch",), absent=pd.DataFrame()).copy()
    frame.insert(0, "run", name)
    return frame


def _add_predictions(path, names):
    arrays = {}
    if has_file(path):
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    for name in names:
        with np.load(find_run(name).folder / "predictions.npz", allow_pickle=False) as stored:
            arrays.update({f"{name}/{key}": stored[key] for key in ARRAYS})
    with atomic_write(path) as file:
        np.savez_compressed(file, **dict(sorted(arrays.items())))


def _rows(runs, folder):
    from asymmbook.evidence.ablation import registered
    with registered():
        return [_row(run, folder) for run in runs]


def _row(planned, folder):
    from asymmlib.complexity import count
    from asymmlib.models import MODELS, create_model
    run = find_run(planned.name)
    info, recipe, facts, history = run.info, run.info["recipe"], run.info["environment"], _history(run.name)
    size = recipe["image_size"]
    cost = count(create_model(info["model"], len(info["classes"]), **info["settings"]), (1, 3, size, size))
    with np.load(run.folder / "predictions.npz", allow_pickle=False) as stored:
        predicted, confidence = stored["predicted"], stored["confidence"]
    labels = held_out_pictures(planned.pictures, planned.repeat, planned.fold, folder)["label"].to_numpy()
    right = labels == predicted
    last = history.iloc[-1] if len(history) else {}
    return {"run": run.name, "group": planned.group, "network": planned.network, "model": info["model"],
            "label": MODELS[info["model"]].label, "settings": json.dumps(info["settings"]), "recipe": recipe["name"],
            "pictures": planned.pictures, "repeat": planned.repeat, "fold": planned.fold, "seed": recipe["seed"],
            "image_size": size, "epochs": recipe["epochs"], "epochs_done": len(history),
            "diverged": info["result"].get("diverged", False), "top1": right.mean(),
            "per_class_top1": per_class_accuracy(labels, predicted),
            "calibration_error": calibration_error(confidence, right), "held_out_loss": last.get("eval_loss"),
            "train_top1": last.get("train_top1"), "params": cost.params, "macs": cost.macs,
            "train_pictures": info["pictures"]["train"], "held_out_pictures": len(labels),
            "train_seconds": history["seconds"].sum() if len(history) else None,
            "images_per_s": history["images_per_s"].median() if len(history) else None,
            "peak_memory_mb": info["result"].get("peak_memory_mb"), "accelerated": info["accelerated"],
            "cpu": facts["cpu"], "threads": facts["threads"], "device": facts["device"], "python": facts["python"],
            "packages": json.dumps(facts["packages"]), "commit": facts["commit"],
            "sessions": json.dumps(info["sessions"]), "manifest_sha256": info["manifest_sha256"],
            "recipe_fields": json.dumps(recipe)}
