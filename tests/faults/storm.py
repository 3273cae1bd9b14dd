"""Send one signal to a command at random moments: python storm.py SIGNAL TRIALS SEED FOLDER.

Paddle is loaded once; every trial is a forked child that trains on small pictures with the fast kernels and gets the
signal somewhere between its first step and a few epochs later, then goes through the interpreter's own end. Survived:
exit status 128 + the signal's number, the promised line alone on stderr, no torn file, and every checkpoint that is
there is whole. Prints the line of `outcomes.Counts`.
"""
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from outcomes import Counts, Ended, expect
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


def start(root, number, arguments):
    """Fork a child that runs a command; in the parent (its process id, what it says on stderr and on stdout)."""
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
    sys.argv[1:] = arguments
    os.write(ready[1], b".")
    console()
    raise AssertionError("a command ends its process")


def wait(process):
    """The exit status of a child, which gets its time; `Ended` where it hangs, and it is killed then."""
    begun, ended = time.monotonic(), 0
    while not ended and time.monotonic() - begun < LIMIT_S:
        ended, status = os.waitpid(process, os.WNOHANG)
        time.sleep(0.01)
    if not ended:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        raise Ended("hung", "it did not end")
    return os.waitstatus_to_exitcode(status)


def promised(process, said, number):
    """Judge how a command ends that got a signal."""
    status, text = wait(process), said.read_text()
    lines = [line for line in text.splitlines() if line.strip()]
    expect(status == 128 + number and len(lines) == 1 and lines[0].startswith("interrupted; "), "crashed",
           f"status {status}: {text[:400]}")


def strike(root, process, said, spoken, number, delay):
    """Send a signal after `delay` seconds and judge how the command ends."""
    begun = time.monotonic()
    while delay > SHORT and b"epoch " not in spoken.read_bytes() and time.monotonic() - begun < LIMIT_S:
        time.sleep(0.01)
    time.sleep(delay)
    os.kill(process, number)
    promised(process, said, number)
    whole(root / "runs")


def whole(runs):
    """Raise `Ended` for a checkpoint that is torn, or a temporary file that was left."""
    from asymmlib.checkpoint import is_checkpoint
    litter = [path.name for path in runs.rglob(".*.tmp")]
    bad = [path.name for path in runs.glob("*/checkpoints/*") if not is_checkpoint(path)]
    expect(not litter and not bad, "lost", f"left behind: {litter}, torn: {bad}")


SHORT = 0.3  # seconds: a shorter delay is counted from the start of the command, a longer one from its first epoch

def ready(root):
    """Paddle and the library loaded, pictures drawn, signals as in a terminal: for children that are forked."""
    warnings.simplefilter("ignore")
    os.environ |= {"ASYMMLIB_HOME": str(root / "data"), "ASYMMLIB_RUNS": str(root / "runs")}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # nohup ignores some
        signal.signal(getattr(signal, name), signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
    load_paddle()
    for module in ("training", "__main__", "data.sources", "callbacks"):
        __import__(f"asymmlib.{module}")
    draw(root / "pictures")


if __name__ == "__main__":
    name, trials, seed, root = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    ready(root)
    counts, rng = Counts(), random.Random(f"{name} {seed}")
    for trial in range(trials):
        delay = rng.choice((rng.uniform(0.02, SHORT), rng.uniform(SHORT, 2), rng.uniform(SHORT, 2)))
        with counts.trial(f"after {delay:.3f} s"):
            strike(root, *start(root, trial, command(root, trial)), getattr(signal, name), delay)
    counts.report()
