"""`make bench`: time training in interleaved rounds; write results/bench.csv and results/bench-rounds.csv.

Every case lives in a process of its own (malloc settings cannot spread). In each round every case of a group does a few
steps in turn; a round in which the machine was disturbed is run again (`asymmbook.evidence.rounds` and `quiet` say
when). Rows of this processor's earlier run are replaced, those of other processors stay. Nothing here is a test.
"""
import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "book")]

from asymmbook.evidence import speeds  # noqa: E402
from asymmbook.evidence.quiet import look  # noqa: E402
from asymmbook.evidence.rounds import ROUNDS, take_rounds  # noqa: E402

OPPONENTS = ("stock", "ours", "torch_channels_last", "torch_tuned")
# AsymmNet's cases by size: small pictures, at which a step is short, also with what feeds it
SIZES = {256: (*OPPONENTS, "ours_data", "ours_workers", "data"), 128: (*OPPONENTS, "ours_data", "ours_workers", "data"),
         64: (*OPPONENTS, "article", "ours_data", "ours_workers", "data"), 40: OPPONENTS}
BASELINES = ("mobilenet_v2", "mobilenet_v3_large", "resnet50")
BASELINE_SIZES = (128, 64)
GROWTH = tuple((speeds.ASYMMNET, "ours", 128, batch, width) for batch, width in ((8, 1.0), (64, 1.0), (32, 0.5)))
TURN_S = 0.6  # length of a turn; one step at least
MINUTES = 15  # after which no round is run again


class Worker:
    """One case in its own process: network, name, picture size, batch, width."""

    def __init__(self, *case):
        command = [sys.executable, str(ROOT / "benchmarks/cases.py"), *map(str, case)]
        self.case = case
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        stderr=subprocess.DEVNULL)

    def ask(self, steps):
        """Seconds of each of so many steps; for "" the peak memory in MiB."""
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"benchmark case {' '.join(map(str, self.case))} died; run benchmarks/cases.py by hand")
        return json.loads(answer)

    def warm_up(self):
        """Do what the first steps alone do, and size the turn by time."""
        seconds = self.ask(1)[-1]
        if seconds < 2 * TURN_S:
            seconds = self.ask(2)[-1]
        self.steps = max(1, int(TURN_S / seconds))

    def turn(self):
        """Seconds of a step: the median of a turn's."""
        return float(np.median(self.ask(self.steps)))

    def end(self):
        """The peak memory in MiB; the process is gone then."""
        peak = self.ask("")
        self.process.stdin.close()
        self.process.wait()
        return peak


def plan(quick, has_torch):
    """Groups of cases that take turns."""
    groups = [[(speeds.ASYMMNET, case, size, 32, 1.0) for case in cases] for size, cases in SIZES.items()]
    groups += [[(network, case, size, 32, 1.0) for case in ("stock", "ours")]
               for network in BASELINES for size in BASELINE_SIZES]
    groups = [[(speeds.ASYMMNET, case, 64, 32, 1.0) for case in OPPONENTS]] if quick else [*groups, list(GROWTH)]
    return [[case for case in group if has_torch or not case[1].startswith("torch")] for group in groups]


def measure(group, rounds, deadline):
    """Rounds of a group of cases, a row a case and round, and {case: steps a turn, peak memory}."""
    workers = [Worker(*case) for case in group]
    try:
        for worker in workers:
            worker.warm_up()
        ids = [worker.process.pid for worker in workers]
        table = take_rounds({worker.case: worker.turn for worker in workers}, int(os.environ["OMP_NUM_THREADS"]),
                            rounds, watch=partial(look, ids), may_repeat=lambda: time.monotonic() < deadline)
        facts = {worker.case: {"steps": worker.steps, "peak_mib": worker.end()} for worker in workers}
    finally:
        for worker in workers:
            worker.process.kill()
    columns = ["network", "case", "size", "batch", "width"]
    table = pd.concat([pd.DataFrame(table.pop("contestant").tolist(), columns=columns), table], axis=1)
    return table.assign(images_per_s=table["batch"] / table["seconds"]), facts


MACHINE = """
import ctypes, pathlib, time
import numpy as np
import paddle

def best(run):
    seconds = []
    for _ in range(12):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)

library = ctypes.CDLL(str(next(pathlib.Path(paddle.__file__).parent.glob("libs/libdnnl.so*"))))
n, one, zero = ctypes.c_int64(2048), ctypes.c_float(1), ctypes.c_float(0)
a, b, c = (np.ones((2048, 2048), "float32") for _ in range(3))
pointers = [ctypes.c_void_p(array.ctypes.data) for array in (a, b, c)]
plain = ctypes.c_char(b"N")
product = best(lambda: library.dnnl_sgemm(plain, plain, n, n, n, one, pointers[0], n, pointers[1], n, zero,
                                          pointers[2], n))
x, y = paddle.ones([1 << 26]), paddle.ones([1 << 26])
addition = best(lambda: y.add_(x))  # reads two numbers and writes one
print(2 * 2048**3 / product / 1e9, 3 * 4 * 2**26 / addition / 1e9)
"""


def machine():
    """Measured peak of the matrix product (GFLOP/s) and of adding long vectors (GB/s), with all threads."""
    done = subprocess.run([sys.executable, "-c", MACHINE], check=True, capture_output=True, text=True)
    return map(float, done.stdout.split()[-2:])


def provenance():
    """Columns that are the same for all rows."""
    from asymmlib.base.environment import PACKAGES, environment, package_versions
    gflops, bandwidth = machine()
    facts = environment()
    same = {key: facts[key] for key in ("cpu", "cores", "threads", "python", "commit")}
    return {"peak_gflops": gflops, "bandwidth_gb_s": bandwidth, **same, "kernels": speeds.kernels_digest(),
            "versions": json.dumps(package_versions((*PACKAGES, "torch")))}


def book():
    """The row of the book: seconds of `make book-en`, which executes every notebook, once all is set up."""
    started = time.perf_counter()
    done = subprocess.run(["make", "book-en"], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"the book could not be built:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return {"case": speeds.BOOK, "rounds": 1, "seconds": time.perf_counter() - started}


def told(table):
    """A group's rows as lines for whoever waits."""
    rows = table.groupby(["network", "case", "size", "batch", "width"], sort=False)["images_per_s"]
    lines = rows.agg(["median", "min", "max"]).to_string(float_format="{:.1f}".format)
    again, disturbed = (table.loc[which, "round"].nunique() for which in (table["tries"] > 1, table["disturbed"]))
    return f"{lines}\n{again} rounds were run again, {disturbed} stayed disturbed\n"


def main():
    """Measure all groups, then write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="AsymmNet at 64 px and two rounds only; writes nothing")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of every case (default {ROUNDS})")
    parser.add_argument("--book", action="store_true", help="time building the book instead, which takes minutes")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    if options.book:
        return speeds.record(pd.DataFrame([{**book(), **provenance()}]))
    deadline, has_torch = time.monotonic() + 60 * MINUTES, importlib.util.find_spec("torch") is not None
    if not has_torch:
        print("left out: PyTorch, which is not installed: python -m pip install 'asymmlib[bench]'", flush=True)
    same, parts, facts = provenance(), [], {}
    for group in plan(options.quick, has_torch):
        try:
            table, more = measure(group, 2 if options.quick else options.rounds, deadline)
        except RuntimeError as error:  # such as no memory left for a case: the other groups are worth having
            print(f"left out, with all that take turns with it: {error}", flush=True)
            continue
        print(told(table), flush=True)
        parts, facts = [*parts, table], facts | more
    if not options.quick:
        write(pd.concat(parts), facts, same)


def write(rounds, facts, same):
    """Put the tables of this run in the place of the processor's earlier ones."""
    rounds = rounds.assign(cpu=same["cpu"])
    rows = speeds.summarise(rounds)
    keys = list(zip(*(rows[name] for name in ("network", "case", "size", "batch", "width")), strict=True))
    rows = pd.concat([rows, pd.DataFrame([facts[key] for key in keys])], axis=1).assign(**same)
    speeds.record(speeds.with_memory(rows), rounds)


if __name__ == "__main__":
    main()
