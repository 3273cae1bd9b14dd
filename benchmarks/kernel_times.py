"""How long every kernel of a training step takes: `python benchmarks/kernel_times.py` writes results/bench-kernels.csv.

The kernels get a network as a list of steps. Here they are called step by step, with the clock read in between, and
steps of a kind are added up; the arithmetic is the same. `make bench` runs this after the rest. Nothing here is a test.
"""
import argparse
import ctypes
import os
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "book")]
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
SIZES, BATCH, TURN_S = (256, 64), 32, 2.0
READS = {"forward": ("x", "side_x", "weight", "residual"), "backward": ("x", "side_x", "weight", "y", "gz")}
WRITES = {"forward": ("y", "z"), "backward": ("gx", "gside", "gweight")}


def named(layer):
    """What a step is, in words, from its numbers."""
    from asymmlib.fast.program import DENSE, DEPTHWISE, POOL
    side, single = layer["kernel"], layer["h"] * layer["w"] == 1
    return {DEPTHWISE: f"depthwise {side} × {side}", POOL: "means of planes", DENSE: (
        f"dense {side} × {side}" if side > 1 else "pointwise, single pixels" if single else "pointwise")}.get(
            layer["kind"], "change of layout")


def cost(layer, tensors, direction):
    """(operations, bytes that are read or written at least once) of a step."""
    from asymmlib.fast.program import DENSE, DEPTHWISE
    n, c, out, kernel, stride = (layer[name] for name in ("n", "c", "out", "kernel", "stride"))
    pixels = n * layer["h"] * layer["w"]
    after = n * ((layer["h"] - 1) // stride + 1) * ((layer["w"] - 1) // stride + 1) if stride else pixels
    weights = kernel**2 * out * (c if layer["kind"] == DENSE else 1)
    size = {"x": pixels * c, "side_x": pixels * layer["side"], "weight": weights, "y": after * out}
    size |= {"z": size["y"], "gz": size["y"], "residual": size["y"], "gx": size["x"], "gside": size["side_x"],
             "gweight": weights}
    there = {tensors[name]: size[name] for name in (*READS[direction], *WRITES[direction]) if tensors[name]}
    products = 1 if direction == "forward" else bool(tensors["gx"]) + bool(tensors["gweight"])
    computes = layer["kind"] in (DENSE, DEPTHWISE)
    if direction == "backward" and not tensors["gx"] and not tensors["gweight"]:
        return 0, 0  # such as a pool, whose part is done by the step before it
    return 2 * after * weights * products * computes, 4 * sum(there.values())


class Timed:
    """Stands for the compiled kernels and calls them step by step; `found`: {(kernel, direction): Counter}."""

    def __init__(self, library):
        self.library, self.found = library, {}

    def forward(self, count, *tables):
        self._each("forward", range(count.value), tables)

    def backward(self, count, *tables):
        self._each("backward", range(count.value)[::-1], tables)

    def momentum(self, *arguments):
        self._timed(("optimiser", "step"), self.library.momentum, arguments, (0, 0))

    def _each(self, direction, order, tables):
        from asymmlib.fast.program import LAYER, TENSORS
        widths = 8 * len(LAYER), 8 * len(TENSORS), 16  # the last: two constants of float64
        for i in order:
            places = [table.value + width * i for table, width in zip(tables, widths, strict=True)]
            layer, tensors = (dict(zip(names, (ctypes.c_int64 * len(names)).from_address(place), strict=True))
                              for names, place in ((LAYER, places[0]), (TENSORS, places[1])))
            self._timed((named(layer), direction), getattr(self.library, direction),
                        (ctypes.c_int64(1), *map(ctypes.c_void_p, places)), cost(layer, tensors, direction))

    def _timed(self, key, function, arguments, costs):
        started = time.perf_counter()
        function(*arguments)
        seconds = time.perf_counter() - started
        self.found.setdefault(key, Counter()).update(
            {"seconds": seconds, "calls": 1, "operations": costs[0], "bytes": costs[1]})


def measure(timed, size, rounds):
    """A row a kernel and direction, and one for the whole step: seconds in the median, fastest and slowest round."""
    import pandas as pd
    from cases import paddle_case

    from asymmbook.evidence.rounds import take_rounds
    step, turns = paddle_case("asymmnet_large", "ours", size, BATCH, 1.0), []

    def turn():
        timed.found, steps, started = {}, 0, time.perf_counter()
        while time.perf_counter() < started + TURN_S:
            step()
            steps += 1
        whole = (time.perf_counter() - started) / steps
        turns.append([{"kernel": "whole step", "direction": "step", "seconds": whole}, *(
            {"kernel": kernel, "direction": direction} | {name: value / steps for name, value in sums.items()}
            for (kernel, direction), sums in timed.found.items() if sums["bytes"] or direction == "step")])
        return whole
    step()
    table = take_rounds({size: turn}, int(os.environ["OMP_NUM_THREADS"]), rounds)
    kept = [turns[last - 1] for last in table["tries"].cumsum()]
    rows = pd.concat(map(pd.DataFrame, kept)).groupby(["kernel", "direction"], sort=False)
    seconds = rows["seconds"].agg(["median", "min", "max"]).set_axis(["seconds", "low", "high"], axis=1)
    facts = {"size": size, "batch": BATCH, "rounds": len(kept), "disturbed": int(table["disturbed"].sum()),
             "counters": Path("/sys/bus/event_source/devices/cpu").exists()}
    return seconds.join(rows[["calls", "operations", "bytes"]].median()).reset_index().assign(**facts)


def main():
    """Measure, show, record."""
    import pandas as pd
    from bench import provenance

    from asymmbook.evidence import speeds
    from asymmbook.evidence.rounds import ROUNDS
    from asymmlib.base.startup import load_paddle
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 px and two rounds only; writes nothing")
    quick = parser.parse_args().quick
    load_paddle()
    from asymmlib.fast import kernels, optimizer
    if kernels.library() is None:
        raise SystemExit(1)  # the reason has been said
    timed = Timed(kernels.library())
    kernels.library = optimizer.library = lambda: timed
    table = pd.concat([measure(timed, size, 2 if quick else ROUNDS) for size in (SIZES[-1:] if quick else SIZES)])
    print(table.to_string(index=False))
    if not quick:
        speeds.record_kernels(table.assign(**provenance()))


if __name__ == "__main__":
    main()
