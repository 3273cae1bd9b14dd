"""Do one kind of work many times, each time with a fault: python injector.py WORK FAULT TRIALS SEED.

Python and Paddle are loaded once; every trial is a forked child, so that a trial costs little and a child can be
killed, limited or stripped of its rights. Prints the line of `outcomes.Counts`. Survived means: nothing half-written
under a final name, every reported piece there, and the next run of the same work, undisturbed, ends as it should; where
the fault could be told, the message says what to do.
"""
import codecs
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import scenarios
from outcomes import Counts, Ended, expect

from asymmlib.base.startup import load_paddle

TOLD, RIDDLE, LIMIT_S = 7, 8, 300
NOBODY = 65534


class Trials:
    """Trials of one kind of work below one folder."""

    def __init__(self, work, root, seed):
        self.work, self.root, self.rng = scenarios.WORKS[work](root), root, random.Random(f"{work} {seed}")
        self.work.template.mkdir()
        self.check(self.child(self.work.make), "make the inputs")
        self.expected, self.seconds, self.bytes, self.largest = None, 0.0, 0, 0
        self.measure()

    def measure(self):
        """Undisturbed work: what it ends with, how long it takes, how much it writes."""
        self.reset()
        started = time.perf_counter()
        self.check(self.child(lambda: self.work.do(self.report)), "work undisturbed")
        self.seconds = time.perf_counter() - started
        self.expected = self.seen()
        sizes = [path.stat().st_size for path in self.work.out.rglob("*") if path.is_file()]
        self.bytes, self.largest = sum(sizes), max(sizes)

    def reset(self):
        shutil.rmtree(self.work.out, ignore_errors=True)
        shutil.copytree(self.work.template, self.work.out)
        (self.root / "reported").write_bytes(b"")

    def report(self):
        with open(self.root / "reported", "ab", buffering=0) as file:
            file.write(b".")

    def seen(self):
        """What `visible` says, asked in a child: its own process may not keep state between trials."""
        status, text = self.child(lambda: self.work.visible(), keep=True)
        expect(not status, ends_as(status, "lost"), text)
        return text

    def start(self, function, keep=False):
        """Fork; the child runs `function` and leaves what it returned or raised in a file. Returns its process id."""
        process = os.fork()
        if process:
            return process
        signal.alarm(LIMIT_S)
        status, text = 0, ""
        try:
            value = function()
            text = json.dumps(value) if keep else ""
        except OSError as error:
            status, text = TOLD if "cannot write in" in str(error) else RIDDLE, f"{type(error).__name__}: {error}"
        except BaseException as error:  # a child must not go on with its parent's work
            status, text = RIDDLE, f"{type(error).__name__}: {error}"
        os.write(self.channel[1], text.encode())
        os._exit(status)

    def child(self, function, keep=False):
        """(exit status or minus the signal, what the child said)."""
        self.channel = os.pipe()
        process = self.start(function, keep)
        os.close(self.channel[1])
        with open(self.channel[0]) as file:
            text = file.read()
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), text

    def check(self, outcome, what):
        expect(not outcome[0], ends_as(outcome[0], "crashed"), f"{what}: {outcome}")

    def recover(self):
        """Nothing torn, nothing lost, and the same work again ends well."""
        self.seen()
        status, pieces = self.child(self.work.pieces, keep=True)
        reported = len((self.root / "reported").read_bytes())
        expect(not status and int(pieces) >= reported, ends_as(status, "lost"),
               f"{reported} pieces were done, {pieces} are there")
        self.check(self.child(lambda: self.work.do(self.report)), "the next run")
        expect(self.seen() == self.expected, "silent", "the next run ends with something else")
        litter = [path.name for path in self.work.out.rglob(".*.tmp")]
        expect(not litter or self.work.__class__.__name__ == "Unpacking", "lost", f"left behind: {litter}")


def ends_as(status, how):
    """How a child ended badly: hung where its time was over, else `how`."""
    return "hung" if status == -signal.SIGALRM else how


def kill(trials):
    """kill -9 at a random moment of the work; True when it was still at work."""
    ready = self_pipe = os.pipe()
    trials.channel = os.pipe()

    def work():
        os.write(ready[1], b".")
        trials.work.do(trials.report)

    process = trials.start(work)
    os.close(trials.channel[1])
    os.read(ready[0], 1)
    time.sleep(trials.rng.uniform(0, trials.seconds))
    os.kill(process, signal.SIGKILL)
    killed = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    for end in (*self_pipe, trials.channel[0]):
        os.close(end)
    return killed


def limited(trials):
    """Writes beyond byte N of a file fail, as on a full disk."""
    limit = int(trials.rng.uniform(0, trials.largest))

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        trials.work.do(lambda: None)

    return told(trials.child(work))


def full(trials):
    """A real file system of random size, too small for the work."""
    out, held = trials.work.out, trials.root / "held"
    room = sum(4096 * (2 + path.stat().st_size // 4096) for path in out.rglob("*"))
    needed = trials.bytes + 4096 * sum(1 for _ in out.rglob("*"))
    size = int(room + 16384 + trials.rng.uniform(0, 0.9) * max(4096, needed - room))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(out)], check=True, capture_output=True)
    try:
        shutil.copytree(trials.work.template, out, dirs_exist_ok=True)
        outcome = trials.child(lambda: trials.work.do(lambda: None))
        shutil.rmtree(held, ignore_errors=True)
        shutil.copytree(out, held)
    finally:
        subprocess.run(["umount", str(out)], check=True)
    shutil.copytree(held, out, dirs_exist_ok=True)
    return told(outcome)


def read_only(trials):
    """Folders that this user may not write in; root becomes nobody first."""
    folders = [trials.work.out, *(path for path in trials.work.out.rglob("*") if path.is_dir())]

    def work():
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        trials.work.do(lambda: None)

    for folder in folders:
        folder.chmod(0o555)
    try:
        return told(trials.child(work))
    finally:
        for folder in folders:
            folder.chmod(0o755)


def twice(trials):
    """Two processes do the same at once, or record two runs at once."""
    trials.channel = os.pipe()
    processes = [trials.start(lambda number=number: trials.work.do(lambda: None, number)) for number in (0, 1)]
    ends = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    os.close(trials.channel[1])
    with open(trials.channel[0]) as file:
        text = file.read()
    expect(ends == [0, 0], ends_as(min(ends), "crashed"), f"{ends}: {text}")
    expect(trials.seen() == trials.expected, "silent", "two at once end with something else")
    return True


def clock(trials):
    """The clock runs backwards, and every file comes from tomorrow."""
    tomorrow = time.time() + 86_400
    for path in trials.root.rglob("*"):
        os.utime(path, (tomorrow, tomorrow))

    def work():
        before = [time.time()]

        def back():
            before[0] -= 3600
            return before[0]

        time.time = back
        trials.work.do(trials.report)

    trials.check(trials.child(work), "work while the clock runs backwards")
    return True


def told(outcome):
    """Whether a fault hit; raises where the message is a riddle."""
    status, text = outcome
    if status == 0:
        return False  # this time the limit was not in the way
    expect(status == TOLD, ends_as(status, "crashed"), f"status {status}, not said what to do: {text}")
    return True


FAULTS = {"kill -9": kill, "disk full at byte N": limited, "disk full": full, "read-only folder": read_only,
          "two processes at once": twice, "clock running backwards": clock}


def run(work, fault, count, seed):
    """Do `count` trials; the root folder is open to other users, since one of the faults makes us nobody."""
    counts = Counts()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        trials = Trials(work, root, seed)
        for attempt in range(4 * count):
            if counts.injected == count:
                break
            trials.reset()
            try:
                hit = FAULTS[fault](trials)
                trials.recover()
            except Ended as error:
                counts.add(f"attempt {attempt}", error)
            else:
                if hit:
                    counts.add(f"attempt {attempt}")
    return counts


if __name__ == "__main__":
    os.umask(0o022)
    load_paddle()
    for module in ("asymmlib.checkpoint", "asymmlib.complexity", "asymmlib.data.sources", "asymmlib.dataset",
                   "asymmlib.models", "asymmbook.evidence.records"):
        __import__(module)
    for codec in ("cp437", "gbk", "utf-8-sig"):  # nobody may not read root's Python, so all is loaded before
        codecs.lookup(codec)
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])).report()
