"""Start a second job on a run that is being trained: python second.py TRIALS FOLDER.

The second one has to say at once that it waits, and for which process on which machine. Then, in turn: the first is
killed, and the second goes on from its last epoch; the second gives up, and the first goes on undisturbed; the first is
ended by a signal, and the second goes on. No epoch is lost or done twice. Prints the line of `outcomes.Counts`.
"""
import os
import platform
import re
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import storm
from outcomes import Counts, expect

SOON_S = 300  # for a line to be printed on a machine with much other work; on any other it comes in a second


def line(job, pattern, how="hung"):
    """The match of a pattern in what a job prints, as soon as it is there; a job that has ended prints nothing more."""
    process, said, spoken = job
    begun, ended = time.monotonic(), None
    while not (found := re.search(pattern, spoken.read_text(), re.M)):
        seen = f"{pattern!r}: {spoken.read_text()[-300:]} {said.read_text()[-300:]}"
        expect(ended is None, "crashed", f"ended ({ended}) without {seen}")
        expect(time.monotonic() - begun < SOON_S, how, f"never printed {seen}")
        ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        time.sleep(0.02)
    return found


@contextmanager
def jobs_of_one_trial():
    """A list for jobs, which are killed at the end of the block. Each is a fork, which leaves this block, too, when it
    ends: that one may not touch the others."""
    parent, jobs = os.getpid(), []
    try:
        yield jobs
    finally:
        for process, *_ in jobs if os.getpid() == parent else ():
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)


def epochs(root):
    """Epochs in the record of the run, each one once and in order."""
    rows = pd.read_csv(root / "runs" / "r0" / "history.csv")["epoch"].tolist()
    expect(rows == list(range(1, len(rows) + 1)), "silent", f"epochs {rows[-5:]} are recorded")
    return len(rows)


def takes_over(root, first, second, number):
    """End the first job by a signal; the second goes on where it stopped."""
    os.kill(first[0], number)
    status = storm.wait(first[0])
    expect(status == (-number if number == signal.SIGKILL else 128 + number), "crashed", f"status {status}")
    done = int(re.findall(r"^epoch +(\d+)", first[2].read_text(), re.M)[-1])  # the record is the second job's already
    found = int(line(second, r"goes on after epoch (\d+)")[1])
    expect(found in (done, done - 1), "lost", f"{done} epochs were done, the second job goes on after {found}")
    line(second, rf"^epoch +{found + 1}\b")
    os.kill(second[0], signal.SIGINT)
    storm.promised(second[0], second[1], signal.SIGINT)


def gives_up(root, first, second):
    """Ctrl-C for the second job; the first one does not notice."""
    os.kill(second[0], signal.SIGINT)
    storm.promised(second[0], second[1], signal.SIGINT)
    done = epochs(root)
    line(first, rf"^epoch +{done + 2}\b")
    os.kill(first[0], signal.SIGTERM)
    storm.promised(first[0], first[1], signal.SIGTERM)


def trial(root, number):
    with jobs_of_one_trial() as jobs:
        jobs.append(first := storm.start(root, 2 * number, storm.command(root, 0)))
        line(first, r"^epoch +2\b")  # the checkpoint of the first one is on the disk by then
        jobs.append(second := storm.start(root, 2 * number + 1, storm.command(root, 0)))
        told = line(second, r"waiting for another process .*: process (\d+) on (.*);", "silent")
        expect(told.groups() == (str(first[0]), platform.node()), "silent", f"told: {told[0]}")
        ends = (lambda: takes_over(root, first, second, signal.SIGKILL), lambda: gives_up(root, first, second),
                lambda: takes_over(root, first, second, signal.SIGTERM))
        ends[number % len(ends)]()
        epochs(root)
        storm.whole(root / "runs")


if __name__ == "__main__":
    trials, root = int(sys.argv[1]), Path(sys.argv[2])
    storm.ready(root)
    counts = Counts()
    for number in range(trials):
        with counts.trial(number):
            trial(root, number)
    counts.report()
