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
import time
from importlib import metadata
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


def machine():
    """Measured peak of the matrix product (GFLOP/s) and of copying (GB/s), of all threads."""
    code = ("import time,numpy as np,paddle\n"
            "def best(f):\n ts=[]\n for _ in range(12): t=time.perf_counter(); f(); ts.append(time.perf_counter()-t)\n"
            " return min(ts)\n"
            "import ctypes,pathlib\n"
            "lib=ctypes.CDLL(str(next(pathlib.Path(paddle.__file__).parent.glob('libs/libdnnl.so*'))))\n"
            "n=2048; a,b,c=(np.ones((n,n),'float32') for _ in range(3)); i=ctypes.c_int64(n); p=lambda t:ctypes.c_void_p(t.ctypes.data)\n"
            "one,zero,tr=ctypes.c_float(1),ctypes.c_float(0),ctypes.c_char(b'N')\n"
            "g=best(lambda: lib.dnnl_sgemm(tr,tr,i,i,i,one,p(a),i,p(b),i,zero,p(c),i))\n"
            "x=paddle.ones([1<<26]); y=paddle.ones([1<<26]); m=best(lambda: paddle.add_(y,x))\n"
            "print(2*n**3/g/1e9, 3*4*(1<<26)/m/1e9)")
    return map(float, subprocess.run([sys.executable, "-c", code], check=True, capture_output=True,
                                     text=True).stdout.split()[-2:])


def main():
    """Measure, add ratios and provenance, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 px and two rounds only; prints, writes nothing")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    cases = [case for case in CASES if importlib.util.find_spec("torch") or not case.startswith("torch")]
    rows = []
    for size in (64,) if options.quick else (64, 128, 256):
        rows += measure([(case, size, 32, 1.0) for case in cases], 2 if options.quick else options.rounds, 1.0)
        print(pd.DataFrame(rows).to_string(), flush=True)
    if options.quick:
        return
    rows += measure(GROWTH, 3, 1.0)
    table = pd.DataFrame(rows)
    stock = table[table["case"] == STOCK].set_index("size")
    table["ratio_to_stock"] = table["images_per_s"] / table["size"].map(stock["images_per_s"])
    table["memory_to_stock"] = table["peak_mib"] / table["size"].map(stock["peak_mib"])
    table["peak_gflops"], table["bandwidth_gb_s"] = machine()
    table["cpu"] = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                         if line.startswith("model name")), "unknown")
    table["cores"], table["threads"] = os.cpu_count(), os.environ["OMP_NUM_THREADS"]
    table["versions"] = json.dumps({name: metadata.version(name) for name in ("paddlepaddle", "numpy", "torch")
                                    if importlib.util.find_spec(name.replace("paddlepaddle", "paddle"))})
    table.to_csv(ROOT / "results/bench.csv", index=False, float_format="%.5g", lineterminator="\n")


if __name__ == "__main__":
    main()
