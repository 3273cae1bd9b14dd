"""`make bench`: time everything in one interleaved run and write results/bench.csv.

Every case lives in a process of its own (malloc settings cannot spread); in each round every case does a few steps in
turn, so that whatever else the machine does hits all of them. Nothing here is a test.
"""
import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

STOCK = "stock"
CASES = (STOCK, "article", "ours", "ours_data", "data", "mobilenet_v2", "mobilenet_v3_large", "torch_channels_last",
         "torch_tuned")
GROWTH = tuple(("ours", size, batch, width) for size, batch, width in (
    (128, 8, 1.0), (128, 64, 1.0), (96, 32, 1.0), (192, 32, 1.0), (128, 32, 0.5)))


class Worker:
    """One case in its own process."""

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


def measure(cases, rounds, budget_s):
    """Rows of one group of cases, interleaved; each turn takes about `budget_s` seconds, one step at least."""
    workers = [Worker(*case) for case in cases]
    for worker in workers:
        worker.turn = max(1, int(budget_s / worker.ask(2)[-1]))
    seconds = {worker: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            time.sleep(0.3)  # OpenMP's threads of the case before stop spinning
            seconds[worker].append(np.median(worker.ask(worker.turn)))
    rows = []
    for worker in workers:
        name, size, batch, width = worker.case
        speed = batch / np.array(seconds[worker])
        rows.append({"case": name, "size": size, "batch": batch, "width": width, "images_per_s": np.median(speed),
                     "low": speed.min(), "high": speed.max(), "rounds": rounds, "steps": worker.turn,
                     "peak_mib": worker.ask("")})
        worker.process.stdin.close()
        worker.process.wait()
    return rows


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


def book():
    """The row of the book: seconds of building all of it, notebooks executed, as `make book` does once set up."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "--all",
                   "--path-output", folder]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"the book could not be built:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return {"case": "book", "rounds": 1, "seconds": time.perf_counter() - started}


def provenance():
    """Columns that are the same for all rows."""
    from asymmlib.base.environment import PACKAGES, environment, package_versions
    gflops, bandwidth = machine()
    facts = environment()
    same = {key: facts[key] for key in ("cpu", "cores", "threads", "python", "commit")}
    return {"peak_gflops": gflops, "bandwidth_gb_s": bandwidth, **same,
            "versions": json.dumps(package_versions((*PACKAGES, "torch")))}


def write(rows, same):
    """Write results/bench.csv with ratios to stock Paddle at the same picture size."""
    table = pd.DataFrame(rows)
    stock = table[table["case"] == STOCK].set_index("size")
    table["ratio_to_stock"] = table["images_per_s"] / table["size"].map(stock["images_per_s"])
    table["memory_to_stock"] = table["peak_mib"] / table["size"].map(stock["peak_mib"])
    table = table.assign(seconds=table.get("seconds"), **same)  # the book's row comes last; the page reads the column
    table.to_csv(ROOT / "results/bench.csv", index=False, float_format="%.5g", lineterminator="\n")


def main():
    """Measure and write; what is measured so far is written after every group of cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 px and two rounds only; prints, writes nothing")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every case (default 5)")
    parser.add_argument("--no-book", action="store_true", help="leave out building the book, which takes minutes")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    same, rows = provenance(), []
    cases = [case for case in CASES if importlib.util.find_spec("torch") or not case.startswith("torch")]
    groups = [tuple((case, size, 32, 1.0) for case in cases) for size in (256, 128, 64)] + [GROWTH]
    for group in groups[2:3] if options.quick else groups:
        rows += measure(group, 2 if options.quick else options.rounds, 0.6)
        print(pd.DataFrame(rows).to_string(), flush=True)
        if not options.quick:
            write(rows, same)
    if not options.quick and not options.no_book:
        write([*rows, book()], same)


if __name__ == "__main__":
    main()
