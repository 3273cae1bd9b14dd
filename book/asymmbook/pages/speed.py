"""What `book/speed.md` shows: tables and sentences out of `results/bench.csv`, as Markdown, one function a part.

Functions take the table that `read` returns. Which sentence stands is chosen by the numbers.
"""
import json
from pathlib import Path

import pandas as pd

from asymmbook.checkout import results_dir
from asymmbook.figures.comparison import CASES
from asymmbook.pages.tables import markdown_table
from asymmlib.base.startup import load_paddle

__all__ = ["TARGETS", "book_time", "growth", "machine", "ratios", "read", "roofline", "shares", "targets", "whole"]

BATCH = 32  # of every comparison
MARGIN = 0.5  # a limit of which less than this share is used is not what holds a step up
# what, case, beside which, pixels, column, the least or the largest ratio that was wanted
TARGETS = (("images per second", "ours", "stock", 256, "images_per_s", 7.0),
           ("images per second", "ours", "stock", 128, "images_per_s", 6.5),
           ("images per second", "ours", "torch_channels_last", 256, "images_per_s", 2.0),
           ("images per second", "ours", "torch_tuned", 256, "images_per_s", 1.2),
           ("peak memory", "ours", "stock", 256, "peak_mib", 0.8))


def read(path: Path | None = None) -> pd.DataFrame:
    """The table of `make bench` (default: the checkout's)."""
    return pd.read_csv(path or results_dir() / "bench.csv")


def whole(bench: pd.DataFrame) -> pd.DataFrame:
    """The cases at batch 32 and width 1, of the sizes at which they can be compared with Paddle as it comes."""
    rows = bench[(bench["batch"] == BATCH) & (bench["width"] == 1.0)].drop_duplicates(["case", "size"])
    return rows.dropna(subset="ratio_to_stock").astype({"size": int})


def machine(bench: pd.DataFrame) -> str:
    """What it was measured on, and how far one case differs from itself."""
    first = bench.iloc[0]
    versions = ", ".join(f"`{name} {version}`" for name, version in json.loads(first["versions"]).items())
    facts = {"processor": f"`{first['cpu']}`", "cores": first["cores"], "threads": first["threads"],
             "measured peak, GFLOP/s": f"{first['peak_gflops']:.0f}",
             "measured bandwidth, GB/s": f"{first['bandwidth_gb_s']:.1f}",
             "versions": versions, "commit": f"`{first['commit']}`", "rounds": first["rounds"],
             "largest ratio of two rounds of one case": f"{(bench['high'] / bench['low']).max():.1f}"}
    return markdown_table(pd.DataFrame({"": facts.keys(), "value": facts.values()}))


def ratios(bench: pd.DataFrame) -> str:
    """Every case's speed as a multiple of Paddle's as it comes, sizes across."""
    table = whole(bench).pivot(index="case", columns="size", values="ratio_to_stock")
    table = table.reindex([case for case in CASES if case in table.index]).rename(index=CASES)
    table.columns = [f"{size} px" for size in table]
    return markdown_table(table.rename_axis("case").reset_index(), dict.fromkeys(table, "{:.2f}".format))


def _ratio(bench, case, other, size, column):
    values = whole(bench).query("size == @size").set_index("case")[column]
    return values[case] / values[other] if {case, other} <= set(values.index) else float("nan")


def targets(bench: pd.DataFrame) -> str:
    """What was aimed for beside what was measured, and the sentence that follows from it."""
    rows, missed = [], []
    for what, case, other, size, column, limit in TARGETS:
        measured = _ratio(bench, case, other, size, column)
        met = measured >= limit if limit >= 1 else measured <= limit
        name = f"{what} at {size} px, beside {CASES[other]}"
        missed += [name] * bool(not met and pd.notna(measured))
        rows.append({"target": name, "wanted": f"{'≥' if limit >= 1 else '≤'} {limit}",
                     "measured": f"{measured:.2f}" if pd.notna(measured) else None,
                     "met": "not measured" if pd.isna(measured) else "yes" if met else "no"})
    verdict = (f"Missed: {'; '.join(missed)}." if missed else
               "Every target that was measured is met." if any(row["measured"] for row in rows) else
               "No target was measured.")
    return f"{markdown_table(pd.DataFrame(rows))}\n\n{verdict}"


def growth(bench: pd.DataFrame) -> str:
    """Speed and memory of our kernels by picture size, batch and width."""
    rows = bench[bench["case"] == "ours"].sort_values(["size", "batch", "width"])
    rows = rows.astype({"size": int, "batch": int})
    names = {"size": "pixels", "batch": "batch", "width": "width", "images_per_s": "images per second",
             "low": "slowest round", "high": "fastest round", "peak_mib": "peak memory (MiB)"}
    one = dict.fromkeys(list(names.values())[3:], "{:.1f}".format)
    return markdown_table(rows[list(names)].rename(columns=names), {"width": "{:g}".format, **one})


def roofline(bench: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """{case: (operations per byte, GFLOP/s)} of a training step at the largest size, for `plot_roofline`.

    A step costs three times the MACs of a forward pass, two operations each. At the very least every layer's output is
    written once and read twice, and its gradient written and read once: five transfers of four bytes.
    """
    load_paddle()
    from asymmlib.complexity import count
    from asymmlib.network import asymmnet_large
    rows = whole(bench)
    size = int(rows["size"].max())
    cost = count(asymmnet_large(16), (1, 3, size, size))
    operations, transferred = 2 * 3 * cost.macs, 5 * 4 * cost.activations
    speeds = rows[rows["size"] == size].set_index("case")["images_per_s"]
    return {CASES[case]: (operations / transferred, operations * speeds[case] / 1e9) for case in ("stock", "ours")}


def shares(bench: pd.DataFrame) -> str:
    """How much of the processor's arithmetic and of its memory's bandwidth a step uses, and what follows from it."""
    first, rows, used = bench.iloc[0], [], []
    for name, (intensity, speed) in roofline(bench).items():
        parts = speed / first["peak_gflops"], speed / intensity / first["bandwidth_gb_s"]
        used.append(max(parts))
        rows.append({"case": name, "GFLOP/s": f"{speed:.1f}", "of the peak": f"{parts[0]:.0%}",
                     "GB/s at least": f"{speed / intensity:.1f}", "of the bandwidth": f"{parts[1]:.0%}"})
    free = max(used) < MARGIN
    return (f"{markdown_table(pd.DataFrame(rows))}\n\n"
            + ("Neither of the two limits is near: a step waits for something else than arithmetic or plain bandwidth."
               if free else "One of the two limits is near: there is little left to gain without fewer operations or "
               "fewer passes over memory."))


def book_time(bench: pd.DataFrame) -> str:
    """The time of `make book` in training steps of the network that it is about."""
    steps = whole(bench).query("case == 'ours' and size == 256")["images_per_s"].iloc[0] / BATCH
    seconds = bench[bench["case"] == "book"]["seconds"]
    rows = pd.DataFrame({"minutes": (seconds / 60).map("{:.1f}".format),
                         f"steps of batch {BATCH} at 256 px with our kernels": (seconds * steps).map("{:.0f}".format)})
    return markdown_table(rows)
