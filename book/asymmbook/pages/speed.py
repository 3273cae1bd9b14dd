"""The tables and sentences of the page about speed, all of them computed from `asymmbook.evidence.speeds`."""
import json
import math
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from asymmbook.evidence.speeds import (
    ASYMMNET,
    STOCK,
    Ratio,
    kernels_digest,
    of_processor,
    processors,
    quotient,
    ratio,
    shown,
    training,
)
from asymmlib.complexity import count
from asymmlib.models import MODELS, create_model

__all__ = ["CASES", "TARGETS", "baselines", "comparison", "facts", "goals", "growth", "rounds_sentence", "seen",
           "used", "verdict", "workers_sentence"]

CASES = {STOCK: "stock Paddle", "article": "the article's code", "ours": "ours", "ours_data": "ours with its data path",
         "ours_workers": "ours, two threads that read", "data": "the data path alone",
         "torch_channels_last": "PyTorch, channels last", "torch_tuned": "PyTorch, tuned"}
PASSES = 3  # forward passes that a training step costs
TRANSFERS = 5  # of each output and its gradient, at least


class Target(NamedTuple):
    """What was aimed for; `what`: speed or memory (over those of `other`), or peak (its share that a step reaches)."""

    what: str
    size: int
    limit: float
    other: str = ""
    network: str = ASYMMNET

    def measured(self, part: pd.DataFrame, rounds: pd.DataFrame) -> Ratio:
        """On the processor of these rows; all NaN where it was not measured."""
        if self.what == "speed":
            return ratio(part, rounds, "ours", self.other, self.size, self.network)
        if self.what == "memory":
            return Ratio(quotient(part, "ours", self.other, self.size, self.network, "peak_mib"))
        shares = used(part, self.size)["of the peak"]
        return Ratio(shares["ours"]) if "ours" in shares else Ratio()

    def met(self, found: Ratio) -> str:
        """Whether the median is on the right side of the limit."""
        if math.isnan(found.middle):
            return "not measured yet"
        return "yes" if (found.middle <= self.limit if self.what == "memory" else found.middle >= self.limit) else "no"

    def words(self) -> tuple[str, str]:
        """What is aimed for, and how much."""
        who = "" if self.network == ASYMMNET else f"{MODELS[self.network].label}: "
        if self.what == "peak":
            return f"share of the measured peak, {self.size} px", f"at least {self.limit:.0%}"
        what, sign = ("peak memory", "at most") if self.what == "memory" else ("speed", "at least")
        return f"{who}{what} of {CASES[self.other]}, {self.size} px", f"{sign} {self.limit:g} times"


TARGETS = (
    *(Target("speed", size, limit, "torch_tuned") for size, limit in ((40, 1.15), (64, 1.15), (128, 1.4), (256, 1.6))),
    Target("speed", 64, 12, STOCK), Target("speed", 256, 9, STOCK),
    *(Target("speed", size, limit, STOCK, network) for network, limit in (
        ("mobilenet_v2", 4), ("mobilenet_v3_large", 4), ("resnet50", 1.5)) for size in (64, 128)),
    Target("peak", 64, 0.18), Target("peak", 256, 0.35),
    Target("memory", 256, 0.56, STOCK),  # what it was on the first processor when the target was set
)


def facts(speeds: pd.DataFrame) -> pd.DataFrame:
    """What was measured on which processor, a column each."""
    return pd.DataFrame({cpu: dict(_facts(of_processor(speeds, cpu))) for cpu in processors(speeds)})


def _facts(part: pd.DataFrame) -> Iterator[tuple[str, str]]:
    rows = part[part["size"].notna()]
    first, spread = rows.iloc[0], (rows["high"] / rows["low"]).max()
    yield "cores, threads", f"{first['cores']}, {first['threads']}"
    yield from ((name, version.partition("+")[0]) for name, version in json.loads(first["versions"]).items())
    yield "commit", first["commit"]
    yield "kernels", {True: "those of this book", False: "earlier ones"}[first["kernels"] == kernels_digest()] if (
        pd.notna(first["kernels"])) else "not recorded"
    yield "rounds", f"{rows['rounds'].max():.0f}"
    yield "measured peak, GFLOP/s", f"{first['peak_gflops']:.0f}"
    yield "measured bandwidth, GB/s", f"{first['bandwidth_gb_s']:.1f}"
    yield "fastest over slowest round, at most", f"{spread:.1f}"


def seen(speeds: pd.DataFrame) -> str:
    """Which processors this page knows."""
    names = processors(speeds)
    if len(names) == 1:
        return f"One processor has been measured: {names[0]}. On another one the ratios are others."
    return f"{len(names)} processors have been measured: {' and '.join(names)}. On another one the ratios are others."


def rounds_sentence(speeds: pd.DataFrame, rounds: pd.DataFrame) -> str:
    """What the ranges of ratios are, and how many rounds were disturbed, for each processor."""
    said = []
    for cpu in processors(speeds):
        own = rounds[rounds["cpu"] == cpu]
        turns = own.drop_duplicates(["network", "size", "round"])
        said.append(
            f"{cpu}: {own['round'].max():.0f} rounds of each group; {int(turns['disturbed'].sum())} of "
            f"{len(turns)} stayed disturbed." if len(own) else
            f"{cpu}: the rounds were not kept, so its ratios are those of two medians, without a range.")
    return "\n\n".join(said)


def comparison(part: pd.DataFrame, rounds: pd.DataFrame) -> pd.DataFrame:
    """A row a case, a column a picture size: times stock Paddle, for the processor of these rows."""
    cases = [case for case in CASES if case in set(training(part)["case"])]
    return _by_size(part, {CASES[case]: (case, ASYMMNET) for case in cases}, rounds)


def _by_size(part, pairs, rounds):
    """A row for each {label: (case, network)}, a column for each size at which one of them was measured with stock."""
    table = pd.DataFrame({f"{size} px": {label: shown(ratio(part, rounds, case, STOCK, size, network))
                                         for label, (case, network) in pairs.items()}
                          for size in sorted(training(part, None)["size"].unique())})
    return table.loc[:, (table != "").any()].rename_axis("times stock Paddle", axis=1)


def baselines(part: pd.DataFrame, rounds: pd.DataFrame) -> pd.DataFrame:
    """A row a network, a column a size: its training with our kernels, in times of its own with Paddle's."""
    rows = training(part, None)
    names = [name for name in MODELS if {"ours", STOCK} <= set(rows.loc[rows["network"] == name, "case"])]
    return _by_size(part, {MODELS[name].label: ("ours", name) for name in names}, rounds)


def goals(speeds: pd.DataFrame, rounds: pd.DataFrame) -> pd.DataFrame:
    """A row a target and processor: what was wanted, what was measured, whether it is met."""
    rows = []
    for target in TARGETS:
        what, wanted = target.words()
        form = "{:.0%}" if target.what == "peak" else "{:.2f}"
        for cpu in processors(speeds):
            part = of_processor(speeds, cpu)
            found = target.measured(part, rounds[rounds["cpu"] == cpu])
            rows.append({"target": what, "wanted": wanted, "processor": cpu, "measured": shown(found, form),
                         "met": target.met(found)})
    return pd.DataFrame(rows).set_index("target").rename_axis(None)


def verdict(met: pd.Series) -> str:
    """How many targets are met, from the column of `goals`."""
    counts = met.value_counts()
    yes, no, unknown = (int(counts.get(word, 0)) for word in ("yes", "no", "not measured yet"))
    text = f"Met: {yes} of {yes + no} targets that were measured."
    text += f" Not measured: {unknown}." if unknown else ""
    return text + (" For what is missed, the diagram below shows how much of the machine is left unused." if no else "")


def workers_sentence(part: pd.DataFrame, rounds: pd.DataFrame) -> str:
    """Whether threads that read pictures make training faster, on the processor of these rows."""
    found = {size: ratio(part, rounds, "ours_workers", "ours_data", size)
             for size in sorted(training(part)["size"].unique())}
    found = {size: each for size, each in found.items() if each.rounds}
    if not found:
        return "Whether more threads that read pictures would help was not measured here."
    text = "With two threads that share the pictures of a batch, training is " + ", ".join(
        f"{shown(each)} times as fast at {size} px" for size, each in found.items()) + ". "
    faster = [f"{size} px" for size, each in found.items() if each.low > 1]
    return text + (f"In every round they were faster at {', '.join(faster)}." if faster else
                   "At no size were they faster in every round: the loader starts none by itself.")


def growth(part: pd.DataFrame) -> pd.DataFrame:
    """Speed and memory of ours by picture size, batch and width."""
    rows = part[(part["case"] == "ours") & (part["network"] == ASYMMNET)].sort_values(["size", "batch", "width"])
    tenths = ["images_per_s", "low", "high", "peak_mib"]
    rows = rows.astype({"size": int, "batch": int})
    rows[tenths] = rows[tenths].map("{:.1f}".format)
    return rows.set_index(["size", "batch"])[["width", *tenths]].set_axis(
        ["width", "images per second", "slowest round", "fastest round", "peak memory, MiB"], axis=1)


def used(part: pd.DataFrame, size: int) -> pd.DataFrame:
    """Rows stock and ours: operations per byte at most, GFLOP/s, GB/s at least, and their shares of what was measured.

    A step is three forward passes of two operations a MAC; each output is written once and read twice, its gradient
    written and read once, of four bytes each. Empty where the size was not measured.
    """
    cost = count(create_model(ASYMMNET, 16), (1, 3, size, size))
    operations, transferred = 2 * PASSES * cost.macs, 4 * TRANSFERS * cost.activations
    rows = training(part)
    rows = rows[(rows["size"] == size) & rows["case"].isin([STOCK, "ours"])].set_index("case")
    table = pd.DataFrame({"operations per byte": operations / transferred,
                          "GFLOP/s": operations * rows["images_per_s"] / 1e9,
                          "GB/s, at least": transferred * rows["images_per_s"] / 1e9}, index=rows.index)
    return table.assign(**{"of the peak": table["GFLOP/s"] / rows["peak_gflops"],
                           "of the bandwidth": table["GB/s, at least"] / rows["bandwidth_gb_s"]})
