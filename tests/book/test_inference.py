"""Inference over pictures and runs, against simulated truths and values worked out by hand."""
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from asymmbook.evidence.inference import (
    Components,
    Difference,
    calibration_error,
    compare_networks,
    components,
    holm,
    per_class_accuracy,
    power,
    resolution,
    sentence,
    standard_error,
)

PICTURES, FOLDS = 600, 5


def answers(rng, shift=0.0, run_sd=0.0, repeats=2, base=0.7, difficulty=None):
    """Right or wrong of one network: each picture once a repeat, run effects on the chance of being right."""
    difficulty = rng.normal(0, 0.1, PICTURES) if difficulty is None else difficulty
    parts = []
    for repeat in range(repeats):
        folds = np.random.default_rng(repeat).permutation(PICTURES) % FOLDS
        chance = base + shift + difficulty + rng.normal(0, run_sd, FOLDS)[folds]
        parts.append(pd.DataFrame({"picture": np.arange(PICTURES), "run": [f"r{repeat}f{fold}" for fold in folds],
                                   "right": rng.random(PICTURES) < chance}))
    return pd.concat(parts)


def simulate(number, shift, run_sd, repeats):
    rng, results = np.random.default_rng(3), []
    for _ in range(number):
        difficulty = rng.normal(0, 0.1, PICTURES)
        pair = [answers(rng, extra, run_sd, repeats, difficulty=difficulty) for extra in (shift, 0.0)]
        results.append(compare_networks(*pair, draws=400))
    return results


@pytest.mark.slow
@pytest.mark.parametrize(("run_sd", "repeats"), [(0.0, 2), (0.04, 2), (0.04, 1)])
def test_intervals_hold_and_nothing_is_found_where_nothing_is(run_sd, repeats):
    """At least 90 % of 120 (binomial: 95 % less 2.5 standard errors), at most 10 % false alarms."""
    results = simulate(120, 0.0, run_sd, repeats)
    assert np.mean([one.low <= 0 <= one.high for one in results]) >= 0.90
    assert np.mean([one.p < 0.05 for one in results]) <= 0.10


def test_a_large_difference_is_found_and_estimated():
    results = simulate(40, 0.12, 0.02, 2)
    assert np.mean([one.p < 0.05 for one in results]) >= 0.9
    assert np.mean([one.mean for one in results]) == pytest.approx(0.12, abs=0.02)


def test_runs_that_lie_apart_widen_the_interval():
    rng = np.random.default_rng(0)
    calm, wild = ([answers(rng, 0.0, sd) for _ in range(2)] for sd in (0.0, 0.08))
    calm, wild = compare_networks(*calm), compare_networks(*wild)
    assert wild.high - wild.low > 1.5 * (calm.high - calm.low) and wild.between_runs > calm.between_runs
    assert (wild.pictures, wild.runs, wild.decidable) == (PICTURES, 10, True)


@pytest.mark.slow
def test_the_comparison_is_paired_and_repeats_itself():
    rng = np.random.default_rng(1)
    first, second = answers(rng), answers(rng)
    assert compare_networks(first, second) == compare_networks(first.sample(frac=1, random_state=0), second)
    swapped = compare_networks(second, first)
    assert swapped.mean == pytest.approx(-compare_networks(first, second).mean)
    assert compare_networks(first, first).p == 1 and compare_networks(first, first).mean == 0
    with pytest.raises(ValueError, match="answered 1200 and 1199 times, 1199 of them on the same pictures"):
        compare_networks(first, second.iloc[1:])


def test_one_run_decides_nothing():
    rng = np.random.default_rng(2)
    pair = [answers(rng, shift, repeats=1).query("run == 'r0f0'") for shift in (0.2, -0.2)]
    result = compare_networks(*pair)
    assert not result.decidable
    assert sentence(("A", "B"), result, result.p).endswith("so few runs decide nothing.")


def test_sentences_say_what_was_found():
    shown = Difference(0.05, 0.02, 0.08, 0.001, 0.01, 1817, 10)
    assert sentence(("A", "B"), shown, 0.004) == (
        "A against B: +5.0 points (+2.0 to +8.0) over 1817 pictures and 10 runs each, corrected p = 0.004: a "
        "difference is shown.")
    text = sentence(("A", "B"), shown._replace(low=-0.01), 0.2, tests=5)
    missed = resolution(0.09 / 2 / 1.959964, 5)
    assert "no difference is shown" in text and f"less than {100 * missed:.1f} points" in text


def test_power_by_hand():
    assert power(0.0, 1.0) == pytest.approx(0.05)
    assert power(resolution(0.01, 5), 0.01, 5) == pytest.approx(0.8, abs=1e-4)
    assert resolution(0.01) == pytest.approx(0.01 * (1.959964 + 0.841621), rel=1e-5)
    assert power(0.03, 0.01) == pytest.approx(norm.sf(1.959964 - 3), rel=1e-4)
    parts = Components(0.02, 0.001, 0.2)
    assert standard_error(parts, 1000, 10, 2) == pytest.approx(np.sqrt(0.02 / 1000 + 0.001 / 10 + 0.2 / 2000))


def test_components_are_recovered():
    """Effects that are added to scores, so that the truth is known exactly."""
    rng, found = np.random.default_rng(5), []
    for _ in range(30):
        d = rng.normal(0, 0.3, (400, 1)) + rng.normal(0, 0.05, (1, 4)) + rng.normal(0, 0.4, (400, 4))
        frame = pd.DataFrame({"picture": np.repeat(np.arange(400), 4), "run": np.tile(np.arange(4), 400)})
        found.append(components(frame.assign(right=d.ravel()), frame.assign(right=0.0)))
    picture, run, rest = np.mean(found, axis=0)
    assert picture == pytest.approx(0.09, rel=0.1) and rest == pytest.approx(0.16, rel=0.05)
    assert run == pytest.approx(0.0025, rel=0.4)


def test_holm_per_class_and_calibration_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06]) and holm([]) == []
    assert per_class_accuracy([0, 0, 0, 1], [0, 0, 0, 0]) == 0.5
    assert calibration_error([0.9, 0.9, 0.9, 0.9], [1, 1, 1, 0]) == pytest.approx(0.15)
    assert calibration_error([1.0, 1.0, 0.5, 0.5], [1, 1, 1, 0]) == pytest.approx(0.0)
