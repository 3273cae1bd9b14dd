"""Recorded speeds of training: tables by `make bench`, with one set of rows for every processor that was measured.

`bench-rounds.csv` holds every round, `bench.csv` a row a case: medians, spread, memory, and where it ran. Ratios are
taken within a round, then their median and their range over rounds; rows that were recorded before rounds were kept
have only the ratio of two medians. `bench-kernels.csv` has the parts of a training step. results/README.md explains the
columns.
"""
import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from asymmbook.checkout import project_root, results_dir
from asymmlib.base.tables import read_table, replace_rows

__all__ = ["ASYMMNET", "BOOK", "STOCK", "Ratio", "kernels_digest", "of_processor", "processors", "ratio",
           "read_kernels", "read_rounds", "read_speeds", "record", "record_kernels", "shown", "summarise", "training",
           "with_memory"]

ASYMMNET, STOCK, BOOK = "asymmnet_large", "stock", "book"
SAME = ["cpu", "network", "size", "batch", "width"]  # what the contestants of a ratio have in common
CASE = [*SAME, "case"]
ROUNDS = [*CASE, "round", "images_per_s", "load", "steal", "others", "disturbed", "tries"]
ORDER = ["network", "case", "size", "batch", "width", "images_per_s", "low", "high", "rounds", "disturbed", "steps",
         "peak_mib", "seconds", "ratio_to_stock", "ratio_low", "ratio_high", "memory_to_stock", "peak_gflops",
         "bandwidth_gb_s", "cpu", "cores", "threads", "python", "commit", "kernels", "versions"]
KERNELS = ["kernel", "direction", "size", "batch", "seconds", "low", "high", "calls", "operations", "bytes", "rounds",
           "disturbed", "counters", *ORDER[ORDER.index("peak_gflops"):]]


class Ratio(NamedTuple):
    """Median, least and largest over rounds; the last two are NaN where only two medians are known, and `rounds` is 0.
    """

    middle: float = math.nan
    low: float = math.nan
    high: float = math.nan
    rounds: int = 0


def read_speeds(folder: Path | None = None) -> pd.DataFrame:
    """The rows of bench.csv; the processor that was measured last comes first."""
    return read_table((folder or results_dir()) / "bench.csv", ("case", "cpu"), {"commit": str, "kernels": str})


def read_rounds(folder: Path | None = None) -> pd.DataFrame:
    """The rows of bench-rounds.csv; none where no rounds were kept."""
    return read_table((folder or results_dir()) / "bench-rounds.csv", (*CASE, "round", "images_per_s"),
                      absent=pd.DataFrame(columns=ROUNDS))


def read_kernels(folder: Path | None = None) -> pd.DataFrame:
    """The rows of bench-kernels.csv, the seconds of a training step by kernel; none where none was recorded."""
    return read_table((folder or results_dir()) / "bench-kernels.csv", (*KERNELS[:5], "cpu"), {"kernels": str},
                      absent=pd.DataFrame(columns=KERNELS))


def kernels_digest() -> str:
    """The kernels of this checkout, as the column `kernels` names those that were measured."""
    return hashlib.sha256((project_root() / "asymmlib" / "fast" / "kernels.cc").read_bytes()).hexdigest()[:12]


def processors(speeds: pd.DataFrame) -> list[str]:
    """The processors that were measured, the last one first."""
    return list(dict.fromkeys(speeds["cpu"]))


def of_processor(table: pd.DataFrame, cpu: str | None = None) -> pd.DataFrame:
    """The rows of one processor, default: the one that was measured last. Raises `ValueError` for an unknown one, or
    where none was measured."""
    known = processors(table)
    if not known:
        raise ValueError("no rows of any processor were recorded: `make bench` measures this one")
    if cpu is not None and cpu not in known:
        raise ValueError(f"no row of processor {cpu!r}; there are {', '.join(known)}")
    return table[table["cpu"] == (known[0] if cpu is None else cpu)]


def training(speeds: pd.DataFrame, network: str | None = ASYMMNET) -> pd.DataFrame:
    """The rows of one network (None: of all) at full width in batches of 32, with whole sizes."""
    rows = speeds[(speeds["batch"] == 32) & (speeds["width"] == 1)]
    rows = rows if network is None else rows[rows["network"] == network]
    return rows.astype({"size": int, "batch": int})


def ratio(speeds: pd.DataFrame, rounds: pd.DataFrame, case: str, other: str, size: int,
          network: str = ASYMMNET) -> Ratio:
    """How many times as fast as another case one trains, on the processor of these rows, in batches of 32.

    All NaN where one of the two was not measured.
    """
    found = _ratios(training(rounds, network), case, other)
    found = found[found.index.get_level_values("size") == size]
    if len(found):
        return Ratio(found.median(), found.min(), found.max(), len(found))
    return Ratio(quotient(speeds, case, other, size, network))


def quotient(speeds: pd.DataFrame, case: str, other: str, size: int, network: str = ASYMMNET,
             column: str = "images_per_s") -> float:
    """A case's number over another's; NaN where one of them is missing."""
    rows = training(speeds, network)
    values = rows[rows["size"] == size].drop_duplicates("case").set_index("case")[column]
    return float(values[case] / values[other]) if {case, other} <= set(values.index) else math.nan


def _ratios(rounds, case, other):
    """Speed over speed in each round in which both cases took their turn."""
    by_case = rounds.set_index([*SAME, "round", "case"])["images_per_s"].unstack("case")
    if not {case, other} <= set(by_case):
        return pd.Series(index=pd.MultiIndex.from_arrays([[]] * 6, names=[*SAME, "round"]), dtype=float)
    return (by_case[case] / by_case[other]).dropna()


def shown(found: Ratio, form: str = "{:.2f}") -> str:
    """A ratio for readers: 7.70 (7.41–7.93), without the range where no rounds were kept, "" where it is missing."""
    middle, low, high = (form.format(value) for value in found[:3])
    return "" if math.isnan(found.middle) else f"{middle} ({low}–{high})" if found.rounds else middle


def summarise(rounds: pd.DataFrame) -> pd.DataFrame:
    """A row a case of its rounds: median, slowest and fastest round, how many, and how many stayed disturbed.

    ratio_to_stock, ratio_low, ratio_high: over stock Paddle in the same rounds, missing where stock took no part.
    """
    grouped = rounds.groupby(CASE, sort=False)
    speed = grouped["images_per_s"]
    table = pd.DataFrame({"images_per_s": speed.median(), "low": speed.min(), "high": speed.max(),
                          "rounds": speed.size(), "disturbed": grouped["disturbed"].sum().astype(int)})
    to_stock = pd.concat({case: _ratios(rounds, case, STOCK) for case in rounds["case"].unique()}, names=["case"])
    ratios = to_stock.groupby(level=["case", *SAME]).agg(["median", "min", "max"]).reorder_levels(CASE)
    ratios = ratios.set_axis(["ratio_to_stock", "ratio_low", "ratio_high"], axis=1)
    return table.join(ratios).reset_index()


def with_memory(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with memory_to_stock: peak memory over that of stock Paddle on the same processor, pictures and network."""
    stock = rows[rows["case"] == STOCK].set_index(SAME)["peak_mib"]
    own = rows.set_index(SAME)["peak_mib"]
    return rows.assign(memory_to_stock=(own / stock.reindex(own.index)).to_numpy())


def record(rows: pd.DataFrame, rounds: pd.DataFrame | None = None, folder: Path | None = None) -> pd.DataFrame:
    """Put rows of one processor in the place of its earlier ones of the same kind in both tables; return bench.csv's.

    The kinds are training and building the book. No row of another processor changes. rounds: those of the rows.
    """
    folder = folder or results_dir()
    _replace(folder / "bench.csv", rows.reindex(columns=ORDER), "book" if rounds is None else "training")
    if rounds is not None:
        _replace(folder / "bench-rounds.csv", rounds.reindex(columns=ROUNDS), "training")
    return read_speeds(folder)


def record_kernels(rows: pd.DataFrame, folder: Path | None = None) -> pd.DataFrame:
    """Put one processor's seconds by kernel in the place of its earlier ones; return all rows of bench-kernels.csv."""
    _replace((folder or results_dir()) / "bench-kernels.csv", rows.reindex(columns=KERNELS))
    return read_kernels(folder)


def _replace(path, rows, kind=None):
    """Put the rows of a processor, or of one kind of it, where its earlier ones were."""
    def earlier(old):
        mine = old["cpu"].isin(rows["cpu"])
        return mine if kind is None else mine & ((old["case"] == BOOK) == (kind == "book"))
    replace_rows(rows, path, earlier, ("cpu",))
