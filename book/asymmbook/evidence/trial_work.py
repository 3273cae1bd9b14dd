"""One run of the trial in a process of its own. Imports little, since hundreds of short runs start with it."""
import os
import shutil
import sys
import threading
from contextlib import suppress
from multiprocessing import parent_process
from typing import Any

import numpy as np

from asymmbook.evidence import folds
from asymmbook.evidence.trial import TrialRun
from asymmlib.base.files import atomic_write
from asymmlib.base.folders import runs_dir

__all__ = ["FAILURE", "NOBODY", "train_and_measure", "work"]

FAILURE = "failure.txt"  # in a run's folder: why its last attempt ended
NOBODY = 255  # the predicted class of a run that diverged: no class has this number


def work(planned: TrialRun, name: str) -> None:
    """Train one run in this process, everything that it prints into its log; leave the reason there if it fails."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    folder = runs_dir() / name
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    with suppress(FileNotFoundError):
        (folder / FAILURE).unlink()
    try:
        train_and_measure(planned, name)
    except Exception as error:
        with atomic_write(folder / FAILURE, "w") as file:
            file.write(" ".join(str(error).split()) or type(error).__name__)
        raise


def _end_with_parent():
    """A runner that was killed takes its training along; the same command goes on with it later."""
    parent_process().join()
    os._exit(1)


def train_and_measure(planned: TrialRun, name: str) -> None:
    """Train a `TrialRun` in this process, as runs/`name`; store what it says about its held-out pictures beside it.

    A loss, weights or outputs that are not finite are a result, too: such a run is wrong about every picture.
    """
    from asymmlib.base.startup import load_paddle
    load_paddle()
    from asymmbook.evidence.ablation import registered
    from asymmlib.data.sources import prepare
    from asymmlib.evaluation import evaluate, softmax
    from asymmlib.runs import find_run
    from asymmlib.training import train
    prepared = (prepare(planned.pictures, test_share=True, progress=False) if planned.recipe.test_share else
                folds.held_out(planned.pictures, planned.repeat, planned.fold))
    start: dict[str, Any] = {}
    if planned.start:
        start = {"start": runs_dir() / planned.start / "last.safetensors", "new_head": True}
    try:
        with registered():
            finished = train(planned.model, planned.recipe, **planned.settings, prepared=prepared, name=name, **start)
            network = finished.network("last")
        result = evaluate(network, finished.pictures("eval", prepared), finite=True)
        arrays = {"predicted": result.predicted.astype(np.uint8),
                  "confidence": softmax(result.logits).max(axis=1).astype(np.float16)}
        measured = {"last_eval_top1": result.top1}
    except FloatingPointError as error:
        print(error, flush=True)
        finished, held_out = find_run(name), int((prepared.manifest["split"] == "eval").sum())
        arrays = {"predicted": np.full(held_out, NOBODY, np.uint8), "confidence": np.zeros(held_out, np.float16)}
        measured = {"last_eval_top1": 0.0, "best_eval_top1": 0.0, "best_epoch": 0, "diverged": True}
    finished.write(result={**finished.info.get("result", {}), **measured, "peak_memory_mb": _peak_memory_mb()})
    with atomic_write(finished.folder / "predictions.npz") as file:
        np.savez_compressed(file, **arrays)
    shutil.rmtree(finished.folder / "checkpoints", ignore_errors=True)  # 100 MB a run, of no use any more
    (finished.folder / "best.safetensors").unlink(missing_ok=True)


def _peak_memory_mb():
    """Largest resident size of this process so far in MiB; None on Windows, which has no `resource` module."""
    if sys.platform == "win32":
        return None
    import resource
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)
