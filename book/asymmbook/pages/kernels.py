"""The table, points and sentence of the page about speed that say where the time of a training step goes."""
import pandas as pd

__all__ = ["measured", "points", "rest", "sentence", "shares", "table"]

WHOLE, OPTIMISER, REST = "whole step", "optimiser", "outside the kernels"
FAST, SLOW = 0.5, 0.25  # shares of the measured peak that the sentence sorts kernels by


def shares(part: pd.DataFrame, size: int) -> pd.DataFrame:
    """The kernels of a step at a picture size, those that take longest first, of one processor's rows.

    Columns beside the recorded ones: step, the share of the whole step; gflops and peak, its share of the measured
    peak; gb_s (at least: every tensor counted once) and bandwidth, its share of what was measured.
    """
    rows = part[(part["size"] == size) & (part["kernel"] != WHOLE)].sort_values("seconds", ascending=False)
    gflops, gb_s = (rows[name] / rows["seconds"] / 1e9 for name in ("operations", "bytes"))
    return rows.assign(step=rows["seconds"] / _whole(part, size), gflops=gflops, peak=gflops / rows["peak_gflops"],
                       gb_s=gb_s, bandwidth=gb_s / rows["bandwidth_gb_s"])


def _whole(part, size):
    seconds = part[part["kernel"] == WHOLE].set_index("size")["seconds"]
    if size not in seconds:
        raise ValueError(f"no whole step of {size} px was measured, only of {', '.join(map(str, seconds.index))}")
    return seconds[size]


def measured(part: pd.DataFrame) -> str:
    """On which processor and how these rows were measured."""
    first, rounds = part.iloc[0], part.groupby("size")[["rounds", "disturbed"]].first()
    return (f"**{first['cpu']}**, {first['threads']} threads, batch {first['batch']}, {rounds['rounds'].min()} rounds "
            f"of each size; {rounds['disturbed'].sum()} of {rounds['rounds'].sum()} stayed disturbed.")


def rest(part: pd.DataFrame, size: int) -> float:
    """Share of a step that passes outside the kernels: Python, Paddle, the loss."""
    return 1 - shares(part, size)["step"].sum()


def table(part: pd.DataFrame, size: int) -> pd.DataFrame:
    """A row a kernel and direction, as text."""
    rows = shares(part, size)
    shown = pd.DataFrame({
        "kernel": rows["kernel"], "pass": rows["direction"].replace("step", ""),
        "calls": rows["calls"].map("{:.0f}".format),
        "ms": rows["seconds"].mul(1000).map("{:.1f}".format), "of the step": rows["step"].map("{:.0%}".format),
        "of the peak": rows["peak"].map("{:.0%}".format).where(rows["operations"] > 0, ""),
        "of the bandwidth, at least": rows["bandwidth"].map("{:.0%}".format).where(rows["bytes"] > 0, "")})
    whole = _whole(part, size)
    last = {"kernel": REST, "ms": f"{1000 * whole * rest(part, size):.1f}", "of the step": f"{rest(part, size):.0%}"}
    return pd.concat([shown, pd.DataFrame([last])]).fillna("").set_index("kernel").rename_axis(None)


def points(part: pd.DataFrame, size: int) -> dict[str, tuple[float, float]]:
    """{kernel and direction: (operations per byte at most, GFLOP/s)} of what computes, forward passes first."""
    rows = shares(part, size)
    rows = rows[rows["operations"] > 0].sort_values(["direction", "kernel"], ascending=[False, True])
    return {f"{row.kernel}, {row.direction}": (row.operations / row.bytes, row.gflops) for row in rows.itertuples()}


def sentence(part: pd.DataFrame, size: int) -> str:
    """How the step's time divides by a kernel's share of the peak, and whether the machine counts its traffic."""
    rows = shares(part, size)
    products, other = (rows[which] for which in (rows["operations"] > 0, rows["operations"] == 0))
    fast, slow = products["peak"] >= FAST, products["peak"] < SLOW
    near, between, far = (products.loc[which, "step"].sum() for which in (fast, ~fast & ~slow, slow))
    top = products.iloc[0]
    text = (f"At {size} px {near:.0%} of the step passes in kernels that reach at least {FAST:.0%} of the measured "
            f"peak, {between:.0%} in others that reach {SLOW:.0%}, {far:.0%} in kernels below {SLOW:.0%}, "
            f"{other['step'].sum():.0%} in means, layout and optimiser, {rest(part, size):.0%} outside all kernels. "
            f"The largest part, {top.step:.0%}, is {top.kernel}, {top.direction}, at {top.peak:.0%} of the peak. ")
    return text + ("The machine has counters of memory traffic, which this table does not read." if top.counters else
                   "The machine lets nobody read its counters of memory traffic.")
