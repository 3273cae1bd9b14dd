"""Rounds of a benchmark: all contestants take turns, and a round in which the machine was disturbed is run again.

Ratios are taken within a round, where both contestants met the same machine; median and spread over rounds come after.
"""
import time
from collections.abc import Callable, Hashable, Mapping

import pandas as pd

from asymmbook.evidence.quiet import Look, between, look

__all__ = ["REPEATS", "ROUNDS", "take_rounds"]

ROUNDS = 7  # the median of all possible rounds lies between the least and the largest of 7 in 98.4 % of cases
REPEATS = 3  # disturbed rounds of a group that are run again; later ones are kept and marked
REST_S = 0.3  # the threads of the contestant before stop spinning (OpenMP's do so after 0.2 s)


def take_rounds(turns: Mapping[Hashable, Callable[[], float]], threads: int, rounds: int = ROUNDS,
                repeats: int = REPEATS, watch: Callable[[], Look] = look,
                may_repeat: Callable[[], bool] = lambda: True, rest_s: float = REST_S) -> pd.DataFrame:
    """Call every contestant's turn in each round; every second round goes backwards through them.

    A turn returns its seconds per step. A disturbed round is run again, at most `repeats` rounds of the group in all
    and only as long as `may_repeat` agrees; then it stays and is marked. threads: with which a contestant computes.
    Returns a row a contestant and round: contestant, round (from 1), seconds, load, steal, others (see `quiet`),
    disturbed (as it was kept), tries (1 where the first was kept).
    """
    rows, left = [], repeats
    for number in range(1, rounds + 1):
        disturbed, tries = True, 0
        while disturbed and (not tries or (left and may_repeat())):
            left -= tries > 0
            tries += 1
            before = watch()
            seconds = _round(list(turns.items())[::1 if number % 2 else -1], rest_s)
            seen = between(before, watch())
            disturbed = seen.disturbed(threads)
        rows += [{"contestant": name, "round": number, "seconds": seconds[name], **seen._asdict(),
                  "disturbed": disturbed, "tries": tries} for name in turns]
    return pd.DataFrame(rows)


def _round(turns, rest_s):
    seconds = {}
    for name, turn in turns:
        time.sleep(rest_s)
        seconds[name] = turn()
    return seconds
