"""Faults on work and damaged files for readers. A small part by default; all, counted into results/faults.csv, with
ASYMMLIB_FAULTS=full (`make faults`)."""
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from jupyter_client.manager import start_new_kernel
from outcomes import BAD
from processes import run_python

from asymmbook.checkout import project_root, results_dir
from asymmlib.base.files import atomic_write, locked

HERE = Path(__file__).parent
FULL = os.environ.get("ASYMMLIB_FAULTS") == "full"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(project_root()), "OMP_NUM_THREADS": "1"}
WORKS = ("unpacking", "caching", "splitting", "checkpointing", "recording")
# fault: (trials in full, kinds of work, kind of work that the small part tries once)
FAULTS = {
    "kill -9": (20, WORKS, WORKS),
    "disk full at byte N": (20, WORKS, ("unpacking",)),
    "disk full": (10, ("unpacking", "caching", "checkpointing"), ()),
    "read-only folder": (3, WORKS, ("splitting",)),
    "two processes at once": (5, ("unpacking", "caching", "splitting", "recording"), ("recording",)),
    "clock running backwards": (3, WORKS, ("caching",)),
}
# kind of file: damaged ones in full; 19,000 together
FILES = {"zip": 2000, "tar": 1000, "tar.gz": 1000, "JPEG": 1500, "PNG": 500, "params": 1000, "safetensors": 1000,
         "manifest": 1000, "run.json": 1000, "npz": 1000, "pth": 1000}
FILES |= {"checkpoint": 1000, "pixel cache": 1000, "table": 500, "card": 500, "pdparams": 1000}
FILES |= {f"pth {form}": 1000 for form in ("from before 1.6", "of a module", "of a checkpoint")}
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
MACHINES = ("the same work", "no shared folder", "another number of epochs", "other pictures", "another model")
ENDS = {-signal.SIGALRM: "hung"} if hasattr(signal, "SIGALRM") else {}  # how a process ended that died
PAIRS = [(fault, work) for fault, (_, every, few) in FAULTS.items() for work in (every if FULL else few)]
PART = 500  # files a process: one that dies costs the rest of its part
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32",
                                                   reason="kill -9, limits and forks are POSIX")]


@pytest.fixture
def tally():
    """A row for results/faults.csv, which replaces the one of the same work and fault; in full rounds alone."""
    rows, path = [], results_dir() / "faults.csv"
    yield rows
    if not FULL:
        return
    with locked(path):
        old = pd.read_csv(path) if path.is_file() else pd.DataFrame()
        table = pd.concat([old, pd.DataFrame(rows)]).drop_duplicates(["kind", "how", "what"], keep="last")
        with atomic_write(path, "w") as file:
            table = table[["kind", "what", "how", "tried", "well", "rejected", *BAD]]
            table.sort_values(["kind", "how", "what"]).to_csv(file, index=False, lineterminator="\n")


def run_script(script, *arguments, patience=1500):
    """The lines of JSON that a script of this folder prints; skipped where it says by 77 that it cannot be tried."""
    done = run_python(HERE / f"{script}.py", *arguments, env=ENVIRONMENT, timeout=patience)
    if done.returncode == 77:
        pytest.skip(f"{script}: this machine has no such disks or networks, or not for this user {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", "["))], done


def count(tally, what, how, script, *arguments, trials=None, patience=1500):
    """Run a script that injects faults, note its counts, and fail for every one that was not survived."""
    lines, done = run_script(script, *arguments, patience=patience)
    assert done.returncode == 0, done.stderr
    counts = lines[-1]
    tally.append({"kind": "fault", "what": what, "how": how, "tried": counts["injected"], "well": counts["survived"],
                  "rejected": 0, **{end: counts[end] for end in BAD}})
    assert counts["survived"] == counts["injected"] == (trials or counts["injected"]) > 0, counts["notes"]


@pytest.mark.parametrize(("fault", "work"), PAIRS)
def test_work_survives(tally, fault, work):
    if fault == "disk full" and os.getuid():
        pytest.skip("only root can mount a small file system; 'disk full at byte N' needs no rights")
    count(tally, work, fault, "injector", work, fault, FAULTS[fault][0] if FULL else 2, 0)


@pytest.mark.parametrize("kind", FILES if FULL else ("zip", "tar", "JPEG", "params", "npz", "pth", "pth of a module",
                                                    "run.json", "checkpoint", "pixel cache", "table", "card"))
def test_damaged_files_are_read_or_rejected(tally, kind):
    tried, outcomes = FILES[kind] if FULL else 60, {}
    while len(outcomes) < tried:
        first = len(outcomes)
        lines, done = run_script("fuzzer", kind, first, min(PART, tried - first))
        outcomes |= dict(lines)
        if done.returncode:  # the input after the last one that was reported ended the process
            outcomes[len(outcomes)] = f"{ENDS.get(done.returncode, 'crashed')}: {done.returncode} {done.stderr[-300:]}"
    ends = Counter(text.partition(":")[0] for text in outcomes.values())
    tally.append({"kind": "file", "what": kind, "how": "damaged", "tried": len(outcomes), "well": ends["right"],
                  "rejected": ends["rejected"], **{end: ends[end] for end in BAD}})
    bad = [(index, text) for index, text in outcomes.items() if text not in ("right", "rejected")]
    assert not bad, bad[:5]


@pytest.mark.parametrize("name", SIGNALS if FULL else ("SIGINT",))
def test_signals_at_random_moments(tally, name, tmp_path):
    count(tally, "training", name, "storm", name, 30 if FULL else 2, 0, tmp_path, patience=3000)


@pytest.mark.parametrize("kind", ["checkpoint", "pixel cache", "released weights", "weights of a run"])
def test_one_flipped_bit(tally, kind):
    count(tally, f"reading: {kind}", "one flipped bit", "digests", kind, 100 if FULL else 3)


def test_another_program_s_folder_stays_as_it_is(tally, tmp_path):
    count(tally, "training", "another program's folder or files", "foreign", tmp_path)


@pytest.mark.serial
def test_a_second_job_is_told_for_whom_it_waits(tally, tmp_path):
    count(tally, "training", "a second job on one run", "second", 9 if FULL else 1, tmp_path)


@pytest.mark.serial
@pytest.mark.parametrize("case", MACHINES if FULL else MACHINES[:2])
def test_two_machines(tally, case, tmp_path):
    count(tally, "training", f"two machines: {case}", "machines", case, tmp_path)


def test_what_is_no_file_is_refused_by_name(tally, tmp_path):
    count(tally, "reading and writing", "pipe, socket or device in a file's place", "odd", tmp_path)


@pytest.mark.parametrize("work", ["unpacking", "checkpointing"])
def test_a_power_cut(tally, work, tmp_path):
    """What was reported as done is there on a copy of the disk that nobody has flushed; the rest is made again."""
    if os.getuid() or subprocess.run(["mke2fs", "-V"], capture_output=True).returncode:
        pytest.skip("only root can mount a file system in a file")
    trials = 5 if FULL else 1
    count(tally, work, "power cut", "power", work, trials, tmp_path, trials=trials)


EPOCHS = 5000  # more than a busy machine can do before it passes on what the second one printed
CELL = """
from asymmlib.recipes import Recipe
from asymmlib.data.sources import prepare
from asymmlib.training import train
run = train("asymmnet_small", Recipe("long", image_size=32, epochs={epochs}, batch_size=8, accelerate=False),
            prepared=prepare({pictures!r}, progress=False), name="long")
print("ended after", len(run.history))
"""


def run_cell(client, code, interrupt=None):
    """Run one cell; call `interrupt` when it has printed two epochs. Returns (status or error's name, text).

    Python loses an interrupt that arrives in a destructor: as a person would, it interrupts again at the next epoch.
    """
    request, printed, seen = client.execute(code), "", 1
    while True:
        message = client.get_iopub_msg(timeout=300)
        if message["parent_header"].get("msg_id") != request:
            continue
        printed += message["content"].get("text", "")
        epochs = len(re.findall(r"^epoch ", printed, re.M))
        if interrupt and epochs > seen:
            interrupt()
            seen = epochs
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            reply = client.get_shell_msg(timeout=60)
            while reply["parent_header"].get("msg_id") != request:  # a slow kernel still answers who it is
                reply = client.get_shell_msg(timeout=60)
            return reply["content"].get("ename", reply["content"]["status"]), printed


def test_interrupting_a_cell_leaves_the_kernel_usable(tally, home, picture_folder):
    manager, client = start_new_kernel(env=ENVIRONMENT | {"ASYMMLIB_HOME": str(home / "data"),
                                                          "ASYMMLIB_RUNS": str(home / "runs")})
    try:
        cell = CELL.format(epochs=EPOCHS, pictures=str(picture_folder))
        name, printed = run_cell(client, cell, manager.interrupt_kernel)
        assert name == "KeyboardInterrupt", printed[-1000:]
        assert run_cell(client, "print(6 * 7)") == ("ok", "42\n")
        history = pd.read_csv(home / "runs" / "long" / "history.csv")
        _, printed = run_cell(client, cell, manager.interrupt_kernel)
        assert re.search(f"goes on after epoch ({len(history)}|{len(history) - 1}) of {EPOCHS}", printed)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    tally.append({"kind": "fault", "what": "training in a notebook", "how": "Ctrl-C", "tried": 1, "well": 1,
                  "rejected": 0, **dict.fromkeys(BAD, 0)})
