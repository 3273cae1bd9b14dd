"""Do the runs of the trial: several side by side, one thread each, resumable, killed at any moment without loss.

`python -m asymmbook experiments status|run|collect` and `run --again NAME`. Each run is a process of its own
(`trial_work`) with OMP_NUM_THREADS=1. Tuning decides by its own finished runs which ones come
next, so the plan is asked again after each run.
"""
import fnmatch
import multiprocessing
import os
import shutil
import time
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import numpy as np
import pandas as pd

from asymmbook.evidence import folds, records
from asymmbook.evidence.statistics import compare
from asymmbook.evidence.trial import GROUPS, TrialRun, hours, plan
from asymmbook.evidence.trial_work import FAILURE, work
from asymmlib.base.folders import runs_dir
from asymmlib.data.sources import prepare
from asymmlib.runs import find_run

__all__ = ["again", "collect", "run", "scores", "status"]

STATES = ("recorded", "trained", "started", "new", "waiting", "failed")


def scores() -> dict[str, float]:
    """{run: top-1 on its held-out pictures after the last epoch} of the runs that are recorded, or finished here."""
    known = records.scores()
    for path in runs_dir().glob("*/predictions.npz"):
        name = path.parent.name
        if name not in known:
            known[name] = records.round_score(find_run(path.parent).info["result"]["last_eval_top1"])
    return known


def _state(planned, recorded, finished):
    folder = runs_dir() / planned.name
    if planned.name in recorded:
        return "recorded"
    if (folder / "predictions.npz").is_file():
        return "trained"
    if (folder / FAILURE).is_file():
        return "failed"
    if planned.awaits or (planned.start and planned.start not in finished):
        return "waiting"
    return "started" if (folder / "run.json").is_file() else "new"


def _matching(pattern):
    """(runs of the plan that match, state of each by name). `ValueError` where none matches."""
    done, recorded = scores(), set(records.read_runs()["run"])
    runs = [planned for planned in plan(done) if fnmatch.fnmatch(planned.name, pattern)]
    if not runs:
        raise ValueError(f"no planned run matches {pattern!r}; names begin with {', '.join(GROUPS)}, as 'a-*' does")
    return runs, {planned.name: _state(planned, recorded, done) for planned in runs}


def status(pattern: str = "*") -> pd.DataFrame:
    """A row a group: how many runs are in which state, and hours of one thread that are left; then a row of sums."""
    runs, states = _matching(pattern)
    rows = []
    for group, question in GROUPS.items():
        mine = [planned for planned in runs if planned.group == group]
        left = [planned for planned in mine if states[planned.name] not in ("recorded", "trained")]
        if mine:
            counts = {state: sum(states[planned.name] == state for planned in mine) for state in STATES}
            rows.append({"group": group, "question": question, "planned": len(mine), **counts,
                         "hours left": round(hours(left, records.paces()), 1)})
    table = pd.DataFrame(rows)
    return pd.concat([table, pd.DataFrame([{"group": "all", "question": "", **table.sum(numeric_only=True)}])],
                     ignore_index=True).astype(dict.fromkeys(("planned", *STATES), int))


def run(pattern: str = "*", jobs: int = 1) -> None:
    """Train every run that matches, can start and is not done, `jobs` side by side; go on where tuning adds runs.

    With more than one job the group "time" is left out, whose runs need the machine for themselves. Failed runs are
    tried once each; at the end `RuntimeError` names those that failed again. The pictures are checked
    once, before the first run.
    """
    if jobs < 1:
        raise ValueError(f"--jobs is {jobs}; it must be at least 1")
    _matching(pattern)
    prepare(folds.SOURCE, progress=False)
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes to come inherit it
    active: dict[BaseProcess, tuple[TrialRun, float]] = {}  # run, when it was started
    tried, failed = set(), []
    try:
        while True:
            runs, states = _matching(pattern)
            ready = [planned for planned in runs if planned.name not in tried
                     and states[planned.name] in ("new", "started", "failed") and not planned.awaits
                     and not (planned.group == "time" and jobs > 1)]
            while ready and len(active) < jobs:
                planned = ready.pop(0)
                tried.add(planned.name)
                active[_start(planned)] = planned, time.monotonic()
            if not active:
                break
            _report(runs, states, active)
            for process in _ended(active):
                planned, started = active.pop(process)
                seconds = timedelta(seconds=round(time.monotonic() - started))
                print(f"{planned.name}: {'done' if not process.exitcode else 'FAILED'} after {seconds}", flush=True)
                failed += [planned.name] if process.exitcode else []
    finally:
        for process in active:
            process.kill()
    if failed:
        raise RuntimeError(f"failed, see {FAILURE} and log.txt in their folders: {', '.join(failed)}. The same command "
                           "goes on from their last epoch")


def _report(runs, states, active):
    left = [planned for planned in runs if states[planned.name] in ("new", "started", "failed", "waiting")]
    print(f"--- {', '.join(planned.name for planned, _ in active.values())}; {len(left)} runs left, about "
          f"{hours(left, records.paces()):.1f} hours of one thread", flush=True)


def _ended(active):
    sentinels = {process.sentinel: process for process in active}
    ended = [sentinels[sentinel] for sentinel in wait(list(sentinels))]
    for process in ended:
        process.join()
    return ended


def _start(planned, name=None):
    process = multiprocessing.get_context("spawn").Process(target=work, args=(planned, name or planned.name))
    process.start()
    return process


def collect(pattern: str = "*") -> pd.DataFrame:
    """Record every finished run that matches; return the table of all recorded runs."""
    runs, states = _matching(pattern)
    return records.record([planned for planned in runs if states[planned.name] == "trained"])


def again(name: str) -> tuple[pd.DataFrame, str]:
    """Train a run once more into runs/again/, and say what is equal: (table of curves, sentence).

    Raises `ValueError` for a run that is not recorded.
    """
    table = records.read_runs()
    planned = next((one for one in plan(scores()) if one.name == name), None)
    if planned is None or name not in set(table["run"]):
        raise ValueError(f"{name!r} is not a recorded run of the plan; `experiments status` and results/trial/runs.csv "
                         "list them")
    prepare(folds.SOURCE, progress=False)
    os.environ["OMP_NUM_THREADS"] = "1"
    shutil.rmtree(runs_dir() / "again" / name, ignore_errors=True)
    process = _start(planned, f"again/{name}")
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the run failed; see log.txt in {runs_dir() / 'again' / name}")
    return _held_against(planned, table[table["run"] == name])


def _held_against(planned, row):
    repeated = find_run(runs_dir() / "again" / planned.name)
    curves = records.read_curves()
    columns = ["epoch", "train_loss", "eval_loss", "eval_top1"]
    before = curves[curves["run"] == planned.name][columns].reset_index(drop=True)
    both = before.merge(repeated.history[columns], on="epoch", how="outer", suffixes=("", " again"))
    recorded = records.answers(row)
    with np.load(repeated.folder / "predictions.npz") as stored:
        predicted = stored["predicted"]
    right = predicted == recorded["label"].to_numpy()
    changed = int((predicted != recorded["predicted"].to_numpy()).sum())
    only_before, only_again, p = compare(recorded["right"], right)
    equal = int((before == repeated.history[columns]).all(axis=1).sum()) if len(before) == len(repeated.history) else 0
    facts = {key: (row[key].iloc[0], repeated.info["environment"][key]) for key in ("cpu", "commit", "threads")}
    moved = "; ".join(f"{key} {old} then {new}" for key, (old, new) in facts.items() if str(old) != str(new))
    return both, (f"{planned.name}: {100 * recorded['right'].mean():.1f} recorded, {100 * right.mean():.1f} again; "
                  f"{equal} of {len(before)} rows of the curve are equal; {changed} of {len(right)} pictures are seen "
                  f"as another class ({only_before} right only before, {only_again} only again, McNemar's p = "
                  f"{p:.2f}). {'Other: ' + moved if moved else 'Same processor, commit and threads'}.")
