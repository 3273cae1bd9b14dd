"""Statistics against values worked out by hand, and at their edges."""
import math

import numpy as np
import pandas as pd
import pytest

from asymmbook.evidence.statistics import compare, compare_many, spread, wilson


def by_hand(right, total, z=1.959963984540054):
    share = right / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return middle - half, middle + half


@pytest.mark.parametrize(("right", "total"), [(261, 366), (0, 10), (10, 10), (1, 2)])
def test_wilson_is_the_formula(right, total):
    assert wilson(right / total, total) == pytest.approx(by_hand(right, total), abs=1e-12)


def test_wilson_takes_arrays_and_refuses_nonsense():
    low, high = wilson([0.2, 0.8], [50, 100])
    assert low[1] == pytest.approx(by_hand(80, 100)[0]) and high[0] == pytest.approx(by_hand(10, 50)[1])
    for share, total in ((1.2, 10), (-0.1, 10), (0.5, 0)):
        with pytest.raises(ValueError, match="between 0 and 1 of one picture"):
            wilson(share, total)


def answers(both, only_first, only_second, neither):
    first = [True] * both + [True] * only_first + [False] * only_second + [False] * neither
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return np.array(first), np.array(second)


def test_mcnemar_is_a_fair_coin_over_the_pictures_that_differ():
    only_first, only_second, p = compare(*answers(20, 9, 1, 5))
    tail = sum(math.comb(10, k) for k in (0, 1)) / 2**10  # 0 or 1 of 10 flips
    assert (only_first, only_second) == (9, 1) and p == pytest.approx(2 * tail)
    assert compare(*answers(20, 0, 0, 5))[2] == 1 and compare(*answers(3, 4, 4, 0))[2] == 1
    assert compare(*answers(0, 6, 0, 0))[2] == pytest.approx(2 / 2**6)


def test_the_test_is_paired():
    """The same two accuracies, once with mistakes on other pictures, once on the same ones and a few more."""
    apart, nested = compare(*answers(60, 20, 12, 8))[2], compare(*answers(72, 8, 0, 20))[2]
    assert apart > 0.2 and nested < 0.01


def test_other_pictures_cannot_be_compared():
    with pytest.raises(ValueError, match="answered 3 and 4 pictures"):
        compare([True] * 3, [True] * 4)


def test_holm_by_hand():
    right = {"a": np.ones(40, bool)}
    for name, wrong in (("b", 8), ("c", 6), ("d", 2)):
        right[name] = np.arange(40) >= wrong
    table = compare_many(right, [("a", name) for name in "dcb"])
    p = {name: 2 / 2**wrong for name, wrong in (("b", 8), ("c", 6), ("d", 2))}
    assert dict(zip(table["second"], table["p"], strict=True)) == pytest.approx(p)
    # the smallest times 3, the next times 2, the last times 1
    assert list(table["p_holm"]) == pytest.approx([p["d"], 2 * p["c"], 3 * p["b"]])
    assert list(table["points"]) == pytest.approx([5, 15, 20])
    assert compare_many(right, []).empty


def test_spread_over_seeds():
    frame = pd.DataFrame({"label": ["b", "a", "b", "b"], "top1": [0.7, 0.5, 0.8, 0.9]})
    table = spread(frame, "label", ["top1"])
    assert list(table.index) == ["b", "a"] and list(table["seeds"]) == [3, 1]
    assert table["top1_mean"]["b"] == pytest.approx(0.8) and table["top1_sd"]["b"] == pytest.approx(0.1)
    assert math.isnan(table["top1_sd"]["a"])
