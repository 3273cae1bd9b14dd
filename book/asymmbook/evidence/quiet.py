"""Was the machine left alone? What others took of its processors between two looks, and when that is too much.

A round of a benchmark is *disturbed* when the host took more than `MOST["steal"]` of the processors' time away from
this virtual machine, or other processes used more than `MOST["others"]` of it. Both come from Linux' /proc; elsewhere
the load average alone decides: more processes that want to run than this benchmark has threads, and one.
"""
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["MOST", "Look", "Seen", "between", "look"]

MOST = {"steal": 0.02, "others": 0.05}  # shares of all processors' time in a round
PROC = Path("/proc")
# fields of a line "cpu" of /proc/stat; guests' time is in user's already, and waiting is no work (man 5 proc)
WORK, STEAL, ALL = (0, 1, 2, 5, 6), 7, 8


class Look(NamedTuple):
    """Ticks since the start: all processors together, at work, taken by the host, used by the benchmark's own
    processes; and the load average of one minute. NaN is what this system does not tell."""

    total: float
    work: float
    steal: float
    own: float
    load: float


class Seen(NamedTuple):
    """Between two looks: load average at the first; shares of all processors' time that the host and others took."""

    load: float
    steal: float
    others: float

    def disturbed(self, threads: int) -> bool:
        """Whether a round of a benchmark that computes with so many threads is to be repeated."""
        shares = {"steal": self.steal, "others": self.others}
        if any(not math.isnan(share) for share in shares.values()):
            return any(share > MOST[name] for name, share in shares.items())
        return self.load > threads + 1


def look(processes: Iterable[int] = (), proc: Path = PROC) -> Look:
    """What there is to see now; `processes`: ids of the benchmark's own ones, beside the one that asks."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    try:
        first = (proc / "stat").read_text().splitlines()[0].split()
        ticks = [int(number) for number in first[1:ALL + 1]]
        own = sum(_own(proc, process) for process in (os.getpid(), *processes))
        return Look(sum(ticks), sum(ticks[i] for i in WORK), ticks[STEAL], own, load)
    except (OSError, ValueError, IndexError):
        return Look(math.nan, math.nan, math.nan, math.nan, load)


def _own(proc, process):
    """Ticks of a process, all its threads together: fields 14 and 15 of its line, which begin behind its name."""
    fields = (proc / str(process) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def between(first: Look, second: Look) -> Seen:
    """What others took between two looks; a share is NaN where it is not known."""
    total = second.total - first.total
    if math.isnan(total) or total <= 0:
        return Seen(first.load, math.nan, math.nan)
    others = second.work - first.work - (second.own - first.own)
    return Seen(first.load, (second.steal - first.steal) / total, max(others, 0) / total)
