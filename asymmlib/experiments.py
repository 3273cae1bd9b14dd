"""The recorded comparison: which runs are planned, which are done, and one command that does the missing ones.

The plan is data. `python -m asymmlib experiments status` lists it, `... run` trains what is missing, one run after the
other, each in a process of its own, and may be killed at any moment: a started run goes on where it was. `... collect`
writes finished runs and their predictions to `results/`. The test split is read once per run, after its last epoch.
"""
import fnmatch
import multiprocessing
import sys
import time
from typing import NamedTuple

import numpy as np
import pandas as pd

from asymmlib.paths import atomic_write, results_dir, runs_dir
from asymmlib.recipes import RECIPES, Recipe
from asymmlib.results import collect, read_results
from asymmlib.runs import find_run

__all__ = ["PLAN", "Planned", "collect_experiments", "run_experiments", "status"]


class Planned(NamedTuple):
    """One run of the plan; `name` is its folder below runs/ and its row in results/runs.csv."""

    group: str
    model: str
    recipe: Recipe
    settings: dict

    @property
    def name(self):
        """group-model-settings-recipe-seed, readable and unique."""
        settings = [f"{key}{value}" for key, value in self.settings.items()]
        return "-".join([self.group, self.model, *settings, self.recipe.name, f"seed{self.recipe.seed}"])


# Small pictures, so that all of it fits two cores; a fifth of the pictures is kept for the test split.
FAIR = Recipe("fair", image_size=64, epochs=30, batch_size=32, base_lr=0.05, data="caltech16", test_share=True)
# For networks of which an epoch takes as long as ten of the others: one seed, and the rule to stop is stated here
PATIENT = FAIR.replace(name="fair-patient", patience=8)

# The article's recipe at this size, flaws and all, and with one of them mended at a time.
FLAWED = RECIPES["article"].replace(name="flawed", image_size=64, epochs=30, data="caltech16", test_share=True)
MENDED = {"schedule": {"schedule": "cosine"}, "weight-decay": {"asymmnet_weight_decay": None},
          "normalisation": {"normalisation": "measured"}, "interpolation": {"augmentation": "rotate"}}
ALL_MENDED = {key: value for change in MENDED.values() for key, value in change.items()}

COMPARED = (  # model, settings
    ("asymmnet_large", {"asymmrate": 1}), ("asymmnet_large", {"asymmrate": 0}), ("asymmnet_large", {"asymmrate": 2}),
    ("asymmnet_small", {"asymmrate": 1}), ("mobilenet_v2", {}), ("mobilenet_v3_large", {}))
HEAVY = ("resnet50", "vgg19")
SEEDS = (0, 1, 2)
FLAW_RECIPES = (FLAWED, *(FLAWED.replace(name=f"mended-{name}", **change) for name, change in MENDED.items()),
                FLAWED.replace(name="mended-all", **ALL_MENDED))
# Beside them, the runs at 128 px that the book shows first
LAPTOP = tuple(Planned("laptop", model, RECIPES["laptop"].replace(data="caltech16"), {})
               for model in ("asymmnet_large", "mobilenet_v2"))

PLAN = (
    *(Planned("compare", model, FAIR.replace(seed=seed), settings) for seed in SEEDS for model, settings in COMPARED),
    *(Planned("flaws", model, recipe, {}) for recipe in FLAW_RECIPES for model in ("asymmnet_large", "mobilenet_v2")
      # weight decay differs for AsymmNet alone, so the baseline has nothing to mend there
      if not (model == "mobilenet_v2" and recipe.name == "mended-weight-decay")),
    *(Planned("compare", model, PATIENT, {}) for model in HEAVY),
    *LAPTOP,
)


def status(pattern="*"):
    """Return a table with a row per planned run: name, state ("recorded", "finished", "n of m epochs", "not run")."""
    recorded = set(read_results()["runs"]["run"])
    rows = [{"run": planned.name, "state": _state(planned, recorded)} for planned in PLAN
            if fnmatch.fnmatch(planned.name, pattern)]
    if not rows:
        raise ValueError(f"no planned run matches {pattern!r}; `experiments status` lists them")
    return pd.DataFrame(rows)


def _state(planned, recorded):
    if planned.name in recorded:
        return "recorded"
    if not (runs_dir() / planned.name / "run.json").is_file():
        return "not run"
    if find_run(planned.name).finished:
        return "finished" if (runs_dir() / planned.name / "predictions.npz").is_file() else "without predictions"
    history = runs_dir() / planned.name / "history.csv"
    done = len(pd.read_csv(history)) if history.is_file() else 0
    return f"{done} of {planned.recipe.epochs} epochs"


def run_experiments(pattern="*"):
    """Train every planned run that matches and is neither recorded nor finished; print progress and the time left.

    A run that fails does not stop the others; at the end `RuntimeError` names the failed ones.
    """
    table = status(pattern)
    missing = [planned for planned in PLAN if planned.name in set(table["run"][~table["state"].isin(
        ("recorded", "finished"))])]
    seconds, failed = [], []
    for number, planned in enumerate(missing, start=1):
        left = f", about {np.mean(seconds) * (len(missing) - number + 1) / 60:.0f} minutes left" if seconds else ""
        print(f"--- {number} of {len(missing)}: {planned.name}{left}", flush=True)
        started = time.perf_counter()
        process = multiprocessing.get_context("spawn").Process(target=_train, args=(planned,))
        process.start()
        try:
            process.join()
        finally:
            process.kill()
        if process.exitcode:
            failed.append(planned.name)
        seconds.append(time.perf_counter() - started)
    if failed:
        raise RuntimeError(f"failed, with messages above: {', '.join(failed)}. The same command goes on from their "
                           "last epoch")


def _train(planned):
    """Train one run in this process, then store its predictions and its peak memory beside it."""
    from asymmlib.startup import load_paddle
    load_paddle()
    from asymmlib.sources import prepare
    from asymmlib.training import train
    recipe = planned.recipe
    prepared = prepare(recipe.data, test_share=recipe.test_share)
    run = train(planned.model, recipe, **planned.settings, prepared=prepared, name=planned.name)
    predictions, measured = _predict(run, prepared)
    with atomic_write(run.folder / "predictions.npz") as file:
        np.savez_compressed(file, **predictions)
    run.write(result={**run.info["result"], **measured, "peak_memory_mb": _peak_memory_mb()})


def _peak_memory_mb():
    """Largest resident size of this process so far in MiB; None on Windows, which has no `resource` module."""
    if sys.platform == "win32":
        return None
    import resource
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def _predict(run, prepared):
    """Predicted class (uint8) and its probability (float16) per picture, for both weights and all held-out splits."""
    from asymmlib.dataset import Pictures
    from asymmlib.evaluation import evaluate, softmax
    arrays, measured = {}, {}
    splits = [split for split in ("eval", "test") if split in set(prepared.manifest["split"])]
    for which in ("last", "best"):
        network = run.network(which)
        for split in splits:
            pictures = Pictures(prepared, split, run.info["recipe"]["image_size"], mean=run.info["mean"],
                                std=run.info["std"])
            result = evaluate(network, pictures)
            arrays[f"{which}_{split}_predicted"] = result.predicted.astype(np.uint8)
            arrays[f"{which}_{split}_confidence"] = softmax(result.logits).max(axis=1).astype(np.float16)
            arrays[f"{split}_labels"] = pictures.labels.astype(np.uint8)
            measured[f"{which}_{split}_top1"] = result.top1
    return arrays, measured


def collect_experiments(pattern="*", folder=None):
    """Record every finished run that matches, with its predictions; return the table of all recorded runs."""
    folder = folder or results_dir()
    table = status(pattern)
    names = list(table["run"][table["state"] == "finished"])
    for name in names:
        (folder / "predictions").mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "predictions" / f"{name}.npz") as file:
            file.write((runs_dir() / name / "predictions.npz").read_bytes())
    return collect(names, folder) if names else read_results(folder)["runs"]
