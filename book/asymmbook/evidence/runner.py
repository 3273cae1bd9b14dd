"""The runs of the plan: which are done, and one command that does the missing ones.

`python -m asymmbook experiments status` lists it, `... run` trains what is missing, one run after the
other, each in a process of its own, and may be killed at any moment: a started run goes on where it was. `... collect`
writes finished runs and their predictions to `results/`. The test split is read once per run, after its last epoch.
What the recorded runs say is `asymmbook.evidence.findings`'s business.
"""
import fnmatch
import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from asymmbook.checkout import results_dir
from asymmbook.evidence.plan import PLAN, Planned
from asymmbook.evidence.results import collect, read_results, write_pictures
from asymmlib.base.files import atomic_write
from asymmlib.base.folders import home, runs_dir
from asymmlib.base.tables import read_table
from asymmlib.data.manifest import manifest_hash, read_manifest
from asymmlib.data.sources import MANIFESTS
from asymmlib.runs import find_run

__all__ = ["collect_experiments", "run_experiments", "status", "time_left"]

REPORT_S = 300  # seconds between two lines about the time left for all runs
FAILURE = "failure.txt"  # in a run's folder: why its last attempt ended

# How far a planned run is: (state, reason) as `status` shows them
STAGES = {
    "recorded": ("done", "recorded, {done} epochs"),
    "trained": ("done", "trained here, {done} epochs; `experiments collect` records it"),
    "unmeasured": ("not run", "trained, but its predictions are missing; `experiments run` makes them"),
    "failed": ("not run", "failed after {done} of {epochs} epochs: {failure}"),
    "started": ("not run", "{done} of {epochs} epochs; `experiments run` goes on"),
    "new": ("not run", "never started here"),
}


def status(pattern: str = "*") -> pd.DataFrame:
    """Return a table with a row per planned run that matches: run, state ("done" or "not run"), reason.

    Raises `ValueError` where no run matches.
    """
    recorded, rows = _recorded_epochs(), []
    for planned in _matching(pattern):
        stage, done = _stage(planned, recorded)
        failure = runs_dir() / planned.name / FAILURE
        state, reason = STAGES[stage]
        rows.append({"run": planned.name, "state": state, "reason": reason.format(
            done=done, epochs=planned.recipe.epochs, failure=failure.read_text("utf-8") if stage == "failed" else "")})
    return pd.DataFrame(rows)


def _matching(pattern):
    found = [planned for planned in PLAN if fnmatch.fnmatch(planned.name, pattern)]
    if not found:
        raise ValueError(f"no planned run matches {pattern!r}; `experiments status` lists them")
    return found


def _recorded_epochs():
    """{run: epochs} of the recorded runs."""
    tables = read_results()
    return tables["curves"].groupby("run").size().reindex(tables["runs"]["run"], fill_value=0).to_dict()


def _stage(planned, recorded):
    """(key of `STAGES`, finished epochs) of a planned run."""
    folder, history = runs_dir() / planned.name, runs_dir() / planned.name / "history.csv"
    if planned.name in recorded:
        return "recorded", recorded[planned.name]
    done = len(read_table(history, ("epoch",), absent=pd.DataFrame()))
    if (folder / FAILURE).is_file():
        return "failed", done
    if not (folder / "run.json").is_file():
        return "new", done
    if not find_run(folder).finished:
        return "started", done
    return ("trained" if (folder / "predictions.npz").is_file() else "unmeasured"), done


def run_experiments(pattern: str = "*") -> None:
    """Train every planned run that matches and is not done; print progress and the time left.

    A run that fails does not stop the others; at the end `RuntimeError` names the failed ones.
    """
    recorded, failed = _recorded_epochs(), []
    missing = [planned for planned in _matching(pattern)
               if STAGES[_stage(planned, recorded)[0]][0] != "done"]
    for number, planned in enumerate(missing, start=1):
        print(f"--- {number} of {len(missing)}: {planned.name}; {time_left(missing[number - 1:])}", flush=True)
        if not _train_apart(planned, missing[number - 1:]):
            failed.append(planned.name)
    if failed:
        raise RuntimeError(f"failed, with messages above: {', '.join(failed)}. The same command goes on from their "
                           "last epoch")


def time_left(missing: Sequence[Planned]) -> str:
    """How long runs of the plan will take, as text, by the epochs of earlier runs of the same model and size.

    Runs of a model that was never timed are counted, not guessed.
    """
    paces: dict[tuple[str, int], list[float]] = {}
    done: dict[str, int] = {}
    curves = read_results()["curves"]
    for planned in PLAN:
        history = runs_dir() / planned.name / "history.csv"
        rows = read_table(history, ("epoch", "seconds"), absent=curves[curves["run"] == planned.name])
        done[planned.name] = len(rows)
        if len(rows):
            paces.setdefault((planned.model, planned.recipe.image_size), []).extend(rows["seconds"])
    known = [planned for planned in missing if (planned.model, planned.recipe.image_size) in paces]
    seconds = sum((planned.recipe.epochs - done[planned.name]) * np.median(paces[planned.model,
                  planned.recipe.image_size]) for planned in known)
    left = f"about {timedelta(seconds=round(seconds))} left for {len(known)} runs" if known else "time left unknown"
    return left + (f", {len(missing) - len(known)} more cannot be timed yet" if 0 < len(known) < len(missing) else "")


def _train_apart(planned, missing):
    """Train in a process of its own, so that memory is measured and returned; whether it succeeded."""
    process = multiprocessing.get_context("spawn").Process(target=_train, args=(planned,))
    process.start()
    try:
        while process.is_alive():
            process.join(REPORT_S)
            if process.is_alive():
                print(f"    all: {time_left(missing)}", flush=True)
    finally:
        process.kill()
    return process.exitcode == 0


def _train(planned):
    """Train one run in this process; leave the reason in its folder if that fails."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    failure = runs_dir() / planned.name / FAILURE
    with suppress(FileNotFoundError):
        failure.unlink()
    try:
        _train_and_measure(planned)
    except Exception as error:
        with atomic_write(failure, "w") as file:
            file.write(" ".join(str(error).split()) or type(error).__name__)
        raise


def _end_with_parent():
    """A runner that was killed takes its training along; the same command goes on with it later."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _train_and_measure(planned):
    """Train, then store the predictions and the peak memory of this process beside the run."""
    from asymmlib.base.startup import load_paddle
    load_paddle()
    from asymmlib.data.sources import prepare
    from asymmlib.training import train
    recipe = planned.recipe
    prepared = prepare(recipe.data, test_share=recipe.test_share)
    run = train(planned.model, recipe, **planned.settings, prepared=prepared, name=planned.name)
    peak = _peak_memory_mb()
    predictions, measured = _predict(run, prepared)
    run.write(result={**run.info["result"], **measured, "peak_memory_mb": peak})
    with atomic_write(run.folder / "predictions.npz") as file:
        np.savez_compressed(file, **predictions)


def _peak_memory_mb():
    """Largest resident size of this process so far in MiB; None on Windows, which has no `resource` module."""
    if sys.platform == "win32":
        return None
    import resource
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def _predict(run, prepared):
    """Predicted class (uint8) and its probability (float16) per picture, for both weights and all held-out splits."""
    from asymmlib.evaluation import evaluate, softmax
    arrays, measured = {}, {}
    splits = [split for split in ("eval", "test") if split in set(prepared.manifest["split"])]
    for which in ("last", "best"):
        network = run.network(which)
        for split in splits:
            pictures = run.pictures(split, prepared)
            result = evaluate(network, pictures)
            arrays[f"{which}_{split}_predicted"] = result.predicted.astype(np.uint8)
            arrays[f"{which}_{split}_confidence"] = softmax(result.logits).max(axis=1).astype(np.float16)
            arrays[f"{split}_labels"] = pictures.labels.astype(np.uint8)
            measured[f"{which}_{split}_top1"] = result.top1
    return arrays, measured


def collect_experiments(pattern: str = "*", folder: Path | None = None) -> pd.DataFrame:
    """Record every finished run that matches, with its predictions; return the table of all recorded runs.

    Rows of runs that are not in the plan are removed, since nothing here could make them again. Raises `ValueError`
    where the manifest of a run is not the one on disk.
    """
    folder = folder or results_dir()
    recorded = _recorded_epochs()
    trained = [planned for planned in _matching(pattern) if _stage(planned, recorded)[0] == "trained"]
    for planned in trained:
        with atomic_write(folder / "predictions" / f"{planned.name}.npz") as file:
            file.write((runs_dir() / planned.name / "predictions.npz").read_bytes())
    tested = [planned.name for planned in trained if planned.recipe.test_share]
    if tested:
        write_pictures(_manifest(find_run(tested[0])), folder)
    return collect([planned.name for planned in trained], folder, only={planned.name for planned in PLAN})


def _manifest(run):
    """The manifest that a run was trained by, read from the data's folder and checked by its hash."""
    path = home() / run.info["recipe"]["data"] / MANIFESTS[run.info["recipe"]["test_share"]]
    manifest = read_manifest(path)
    if manifest_hash(manifest) != run.info["manifest_sha256"]:
        raise ValueError(f"{path} is not the manifest that {run.name} was trained by; set ASYMMLIB_HOME to its data")
    return manifest
