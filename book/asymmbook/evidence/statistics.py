"""What a count of right answers can tell: intervals, paired tests, spread over seeds.

Thin: the formulas are those of statsmodels, this module fits them to predictions on the same pictures. Two sources of
chance are kept apart. Another draw of *pictures* would move an accuracy: Wilson's interval and McNemar's test are about
that. Another *seed* would move it too: `spread` is about that, and no test on one run per network can see it.
Notebook 05 uses all of them.
"""
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

__all__ = ["LEVEL", "compare", "compare_many", "spread", "wilson"]

LEVEL = 0.05  # of all tests together; intervals hold with 1 - LEVEL


def wilson(share: ArrayLike, total: ArrayLike, level: float = LEVEL) -> tuple[Any, Any]:
    """Wilson's score interval (low, high) for a share of `total` pictures, both between 0 and 1; arrays work.

    Raises `ValueError` for a share outside 0 to 1 and for no pictures. Source: Wilson (1927), by statsmodels.
    """
    share, total = np.asarray(share, float), np.asarray(total, float)
    if ((share < 0) | (share > 1)).any() or (total < 1).any():
        raise ValueError(f"an interval needs a share between 0 and 1 of one picture or more; got {share} of {total}")
    return proportion_confint(share * total, total, alpha=level, method="wilson")


def compare(first: ArrayLike, second: ArrayLike) -> tuple[int, int, float]:
    """McNemar's exact test of two networks on the same pictures; both bool `[N]`, true where the answer is right.

    Only pictures on which one is right and the other is not count: were the networks equally good, each such picture
    would go either way like a fair coin. Returns (pictures only the first gets right, only the second, p).
    Raises `ValueError` for different numbers of pictures. Source: McNemar (1947), by statsmodels.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape:
        raise ValueError(f"the networks answered {len(first)} and {len(second)} pictures; they must be the same ones")
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    table = [[int((first & second).sum()), only_first], [only_second, int((~first & ~second).sum())]]
    return only_first, only_second, float(mcnemar(table, exact=True).pvalue)


def compare_many(right: Mapping[Any, np.ndarray], pairs: Iterable[tuple[Any, Any]]) -> pd.DataFrame:
    """`compare` for many pairs, with p-values corrected by Holm's method for asking so many questions at once.

    right: {name: bool [N]}; pairs: list of (name, name). Returns a DataFrame in the order of `pairs`: first, second,
    points (accuracy of the first less that of the second, in points), only_first, only_second, p, p_holm.
    """
    rows = []
    for first, second in pairs:
        only_first, only_second, p = compare(right[first], right[second])
        rows.append({"first": first, "second": second, "points": 100 * (only_first - only_second) / len(right[first]),
                     "only_first": only_first, "only_second": only_second, "p": p})
    table = pd.DataFrame(rows, columns=["first", "second", "points", "only_first", "only_second", "p"])
    return table.assign(p_holm=multipletests(table["p"], method="holm")[1] if rows else [])


def spread(frame: pd.DataFrame, by: str, columns: Iterable[str]) -> pd.DataFrame:
    """Mean and sample standard deviation of columns over the rows (seeds) of each group, in order of appearance.

    Returns a DataFrame indexed by `by` with `seeds`, `<column>_mean` and `<column>_sd`; the latter is NaN for one seed.
    """
    groups = frame.groupby(by, sort=False)
    parts = {"seeds": groups.size()}
    for column in columns:
        parts |= {f"{column}_mean": groups[column].mean(), f"{column}_sd": groups[column].std(ddof=1)}
    return pd.DataFrame(parts)
