"""Send one signal to a command at random moments: python storm.py SIGNAL TRIALS SEED FOLDER.

Paddle is loaded once; every trial is a forked child that trains on small pictures with the fast kernels and gets the
signal somewhere between its first step and a few epochs later, then goes through the interpreter's own end. Prints one
line of JSON: how many were sent, how many ended as promised, and what went wrong. As promised: exit status 128 + the
signal's number, the promised line alone on stderr, no torn file, and every checkpoint that is there is whole.
"""
import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from asymmlib.base.startup import load_paddle

LIMIT_S = 120
PROMISE = "goes on from the last finished epoch"


def draw(folder):
    rng = np.random.default_rng(0)
    for label in "abc":
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(20):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def command(root, number):
    return ["train", "--model", "asymmnet_small", "--data", str(root / "pictures"), "--epochs", "5000", "--image-size",
            "32", "--batch-size", "16", "--name", f"r{number % 3}"]  # a few runs, which go on again and again


def start(root, number):
    """Fork a child that runs the command; in the parent (its process id, what it says on stderr and on stdout)."""
    said = root / f"stderr{number}"
    spoken, ready = root / f"stdout{number}", os.pipe()
    spoken.touch()
    process = os.fork()
    if process:
        os.read(ready[0], 1)  # before that the child is a copy of this process, and no command
        return process, said, spoken
    for descriptor, path in ((1, spoken), (2, said)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    from asymmlib.__main__ import console
    sys.argv[1:] = command(root, number)
    os.write(ready[1], b".")
    console()
    raise AssertionError("a command ends its process")


def wrong(root, process, said, spoken, number, delay):
    """Send a signal after `delay` seconds and judge how the command ends; what went wrong, else None."""
    begun = time.monotonic()
    while delay > SHORT and b"epoch " not in spoken.read_bytes() and time.monotonic() - begun < LIMIT_S:
        time.sleep(0.01)
    time.sleep(delay)
    os.kill(process, number)
    begun, ended = time.monotonic(), 0
    while not ended and time.monotonic() - begun < LIMIT_S:
        ended, status = os.waitpid(process, os.WNOHANG)
        time.sleep(0.01)
    if not ended:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return "it did not end"
    text = said.read_text()
    lines = [line for line in text.splitlines() if line.strip()]
    if os.waitstatus_to_exitcode(status) != 128 + number or len(lines) != 1 or not lines[0].startswith("interrupted; "):
        return f"{os.waitstatus_to_exitcode(status)}: {text[:400]}"
    return torn(root / "runs")


def torn(runs):
    from asymmlib.checkpoint import is_checkpoint
    litter = [path.name for path in runs.rglob(".*.tmp")]
    bad = [path.name for path in runs.glob("*/checkpoints/*") if not is_checkpoint(path)]
    return f"left behind: {litter}, torn: {bad}" if litter or bad else None


SHORT = 0.3  # seconds: a shorter delay is counted from the start of the command, a longer one from its first epoch

if __name__ == "__main__":
    name, trials, seed, root = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    warnings.simplefilter("ignore")
    os.environ |= {"ASYMMLIB_HOME": str(root / "data"), "ASYMMLIB_RUNS": str(root / "runs")}
    signal.signal(getattr(signal, name), signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)  # nohup
    load_paddle()
    for module in ("training", "__main__", "data.sources", "callbacks"):
        __import__(f"asymmlib.{module}")
    draw(root / "pictures")
    number, rng, notes = getattr(signal, name), random.Random(f"{name} {seed}"), []
    for trial in range(trials):
        delay = rng.choice((rng.uniform(0.02, SHORT), rng.uniform(SHORT, 2), rng.uniform(SHORT, 2)))
        found = wrong(root, *start(root, trial), number, delay)
        notes += [f"after {delay:.3f} s: {found}"] if found else []
    print(json.dumps({"injected": trials, "survived": trials - len(notes), "lost": len(notes), "notes": notes[:5]}))
