"""Recorded results: finished runs as two small tables that the repository keeps.

`results/runs.csv` has one row per run with everything its accuracy depends on; `results/curves.csv` one row per run and
epoch. Both are made by `python -m asymmlib collect`, never by hand; columns are explained in results/README.md.
"""
import json

import pandas as pd

from asymmlib.paths import atomic_write, locked, results_dir, sweep
from asymmlib.runs import find_run

__all__ = ["collect", "read_results"]

TABLES = ("curves", "runs")  # runs last: whose row is there is recorded, so its curve has to be there before


def collect(names, folder=None):
    """Add finished runs to the tables, replacing rows of the same name; return the table of runs.

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
            _merge(folder / f"{table}.csv", pd.DataFrame(new[table]), [run.name for run in runs])
    return read_results(folder)["runs"]


def _merge(path, frame, names):
    """Replace the rows of some runs in a table by new ones."""
    kept = read_results(path.parent)[path.stem]
    kept = kept[~kept["run"].isin(names)]
    frame = pd.concat([kept, frame], ignore_index=True) if len(kept) else frame
    frame = frame[["run", *(column for column in frame if column != "run")]]
    frame = frame.sort_values(["run", "epoch"] if path.stem == "curves" else "run")
    with atomic_write(path) as file:
        file.write(frame.to_csv(index=False, float_format="%.8g", lineterminator="\n").encode())


def read_results(folder=None):
    """Return {"runs": DataFrame, "curves": DataFrame}; empty ones with a column "run" where nothing is recorded."""
    folder = folder or results_dir()
    return {table: pd.read_csv(folder / f"{table}.csv") if (folder / f"{table}.csv").is_file()
            else pd.DataFrame({"run": pd.Series(dtype=str)}) for table in TABLES}


def _row(run):
    from asymmlib.baselines import MODELS, create_model
    from asymmlib.complexity import count
    info, recipe = run.info, run.info["recipe"]
    size = recipe["image_size"]
    cost = count(create_model(info["model"], len(info["classes"]), **info["settings"]), (1, 3, size, size))
    environment = info["environment"]
    return {"run": run.name, "model": info["model"], "label": MODELS[info["model"]].label, "recipe": recipe["name"],
            "data": recipe["data"], "seed": recipe["seed"], "image_size": size, "epochs": recipe["epochs"],
            "params": cost.params, "macs": cost.macs, **info["result"],
            "images_per_s": run.history["images_per_s"].median(),
            "train_pictures": info["pictures"]["train"], "eval_pictures": info["pictures"]["eval"],
            "manifest_sha256": info["manifest_sha256"], "settings": json.dumps(info["settings"]),
            "recipe_fields": json.dumps(recipe), "python": environment["python"],
            "packages": json.dumps(environment["packages"]), "device": environment["device"],
            "cpu": environment["cpu"], "threads": environment["threads"], "commit": environment["commit"]}
