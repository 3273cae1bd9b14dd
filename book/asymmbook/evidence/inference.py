"""Is a difference more than luck? One answer per question, over pictures *and* runs.

Two things would change if a comparison were made again: the pictures, and the runs (start, order, augmentation, which
pictures were trained on). `compare_networks` counts both: its interval is a bootstrap over pictures and runs, its
p-value flips signs of both. With d the difference in correctness on one picture in one run, the model is

    d = mean + picture + run + rest,

and the error of the mean has the square  run² / runs + picture² / pictures + rest² / (pictures * repeats).

Few runs tell little about the variance between runs, so interval and p-value are widened from the normal distribution
to Student's with Satterthwaite's degrees of freedom; without it, intervals from five runs hold in 87 to 93 % of
simulated comparisons, with it in 95 to 98 % (tests/book/test_inference.py simulates it).
Sources: Carpenter, Goldstein and Rasbash (2003) for residuals scaled to the estimated variance; Satterthwaite (1946).
"""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import norm, t
from statsmodels.stats.multitest import multipletests

from asymmbook.evidence.statistics import LEVEL

__all__ = ["DRAWS", "Components", "Difference", "calibration_error", "compare_networks", "components",
           "fit_temperature", "holm", "missed", "paired", "per_class_accuracy", "points", "power", "resolution",
           "sentence", "standard_error"]

DRAWS = 10_000
CHUNK = 1000  # draws at a time, which bounds the memory
FEWEST_RUNS = 5  # with fewer runs a network the spread between runs is unknown: no verdict
POWER = 0.8


class Components(NamedTuple):
    """Variances of a difference in correctness: between pictures, between runs, and the rest."""

    picture: float
    run: float
    rest: float


class Difference(NamedTuple):
    """First network less second, as shares: estimate, interval, p-value, standard deviation between runs, sizes."""

    mean: float
    low: float
    high: float
    p: float
    between_runs: float
    pictures: int
    runs: int

    @property
    def decidable(self) -> bool:
        """Whether there are enough runs to know how far they lie apart."""
        return self.runs >= FEWEST_RUNS


def paired(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Differences per picture and run: DataFrame with picture, run, d. `ValueError` for different pictures or runs."""
    keys = ["picture", "run"]
    merged = first[[*keys, "right"]].merge(second[[*keys, "right"]], on=keys, validate="one_to_one")
    if not len(merged) == len(first) == len(second):
        raise ValueError(f"the networks answered {len(first)} and {len(second)} times, {len(merged)} of them on the "
                         "same pictures in the same runs; a comparison needs the same ones")
    return merged[keys].assign(d=merged["right_x"].astype(float) - merged["right_y"].astype(float))


def _run_effects(frame):
    """(effects [runs], variance of the means of runs): how far each run lies from the mean of all.

    The means of runs differ also because each has other pictures; the effects are scaled down to what is left when that
    is taken away, the variance *between* runs.
    """
    groups = frame.groupby("run")["d"]
    means, sampling = groups.mean(), (groups.var(ddof=1) / groups.size()).mean()
    if len(means) < 2:
        return means * 0.0, 0.0
    variance, deviations = means.var(ddof=1), means - means.mean()
    observed = (deviations**2).mean()
    return deviations * (np.sqrt(max(0.0, variance - sampling) / observed) if observed else 0.0), variance


def _freedom(values, effects, variance):
    """Satterthwaite's degrees of freedom of the squared error of the mean, which is a sum of two estimates."""
    runs, pictures = len(effects), values.var(ddof=1) / len(values)
    error = pictures + (effects**2).sum() / runs**2
    doubt = (variance / runs)**2 / max(1, runs - 1) + pictures**2 / len(values)
    return error**2 / doubt if doubt else np.inf


def compare_networks(first: pd.DataFrame, second: pd.DataFrame, level: float = LEVEL, draws: int = DRAWS,
                     seed: int = 0) -> Difference:
    """`Difference` of two networks on the same pictures in the same runs.

    first, second: DataFrames with picture, run (which repeat and fold; unique for a pair of runs) and right (bool). The
    interval holds with 1 - level. p: how often flipping the sign of every picture and of every run effect at random
    gives a mean as large. Raises `ValueError` for answers that do not pair.
    """
    frame = paired(first, second)
    effects, variance = _run_effects(frame)
    cleared = (frame["d"] - frame["run"].map(effects)).groupby(frame["picture"]).mean()
    values, shifts = cleared.to_numpy(), effects.to_numpy()
    mean = frame["d"].groupby(frame["picture"]).mean().mean()
    drawn, flipped = _resample(values, shifts, draws, np.random.default_rng(seed))
    freedom = _freedom(values, shifts, variance)
    wider = t.isf(level / 2, freedom) / norm.isf(level / 2)
    low, high = mean + wider * np.quantile(drawn, [level / 2, 1 - level / 2])
    share = (1 + (abs(flipped) >= abs(mean) - 1e-12).sum()) / (1 + draws)
    p = min(1.0, 2 * t.sf(norm.isf(min(share, 1.0) / 2), freedom))
    return Difference(float(mean), float(low), float(high), float(p), float(np.sqrt((shifts**2).mean())), len(values),
                      len(shifts))


def _resample(values, shifts, draws, rng):
    """Deviations of the mean [draws]: of a bootstrap over pictures and runs, and of flipped signs of both."""
    drawn, flipped = [], []
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        pictures = values[rng.integers(len(values), size=(size, len(values)))].mean(axis=1) - values.mean()
        drawn.append(pictures + shifts[rng.integers(len(shifts), size=(size, len(shifts)))].mean(axis=1))
        signs, flips = (rng.integers(0, 2, size=(size, len(part))) * 2.0 - 1 for part in (values, shifts))
        flipped.append(signs @ values / len(values) + flips @ shifts / len(shifts))
    return np.concatenate(drawn), np.concatenate(flipped)


def holm(ps: Sequence[float] | pd.Series) -> list[float]:
    """p-values corrected for asking all these questions at once. Source: Holm (1979), by statsmodels."""
    return list(map(float, multipletests(ps, method="holm")[1])) if len(ps) else []


def components(first: pd.DataFrame, second: pd.DataFrame) -> Components:
    """`Components` of the difference of two networks whose runs all answered the same pictures (analysis of variance).

    Estimates may be negative where the truth is near zero: average over pairs first, then cut at zero.
    """
    table = paired(first, second).pivot(index="picture", columns="run", values="d").to_numpy()
    pictures, runs = table.shape
    grand, by_picture, by_run = table.mean(), table.mean(axis=1), table.mean(axis=0)
    rest = ((table - by_picture[:, None] - by_run + grand)**2).sum() / ((pictures - 1) * (runs - 1))
    return Components(by_picture.var(ddof=1) - rest / runs, by_run.var(ddof=1) - rest / pictures, rest)


def standard_error(parts: Components, pictures: int, runs: int, repeats: int = 1) -> float:
    """Standard error of the mean difference of a design: `repeats` answers a picture, from `runs` runs a network."""
    picture, run, rest = (max(0.0, part) for part in parts)
    return float(np.sqrt(picture / pictures + run / runs + rest / (pictures * repeats)))


def power(difference: float, error: float, tests: int = 1, level: float = LEVEL) -> float:
    """Chance to show a true difference with such a standard error, if the strictest step of Holm's method applies."""
    bound = norm.isf(level / (2 * tests))
    return float(norm.sf(bound - abs(difference) / error) + norm.cdf(-bound - abs(difference) / error))


def resolution(error: float, tests: int = 1, level: float = LEVEL, chance: float = POWER) -> float:
    """The smallest true difference that is shown with this chance: what could have been missed lies below it."""
    return float((norm.isf(level / (2 * tests)) + norm.ppf(chance)) * error)


def points(mean: float, low: float, high: float, unit: str = " points") -> str:
    """A difference of shares in points, with its interval: "+2.0 points (-1.7 to +5.8)"; unit: "" in a table."""
    return f"{100 * mean:+.1f}{unit} ({100 * low:+.1f} to {100 * high:+.1f})"


def sentence(names: Sequence[str], result: Difference, p: float, tests: int = 1, level: float = LEVEL) -> str:
    """What may be said of a `Difference`, as one sentence with its interval. p: after correction.

    names: (first, second). A difference is shown where the corrected p is below the level; else the sentence says how
    large a difference could have been missed. `Difference.decidable` comes first.
    """
    said = (f"{names[0]} against {names[1]}: {points(*result[:3])} over {result.pictures} pictures and {result.runs} "
            "runs each")
    if not result.decidable:
        return f"{said}; so few runs decide nothing."
    if p < level:
        return f"{said}, corrected p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}: a difference is shown."
    return (f"{said}, corrected p = {p:.2f}: no difference is shown; one of less than "
            f"{100 * missed(result, tests, level):.1f} points would be missed more than one time in five.")


def missed(result: Difference, tests: int = 1, level: float = LEVEL) -> float:
    """The true difference below which this comparison would miss one more than one time in five: its `resolution`."""
    return resolution((result.high - result.low) / (2 * norm.isf(LEVEL / 2)), tests, level)


def per_class_accuracy(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Mean over the classes of the share of right answers, 0 to 1: every class counts the same."""
    return float(pd.Series(np.asarray(labels) == np.asarray(predicted)).groupby(np.asarray(labels)).mean().mean())


def calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error: mean over pictures of |accuracy - confidence| of the bin, equally wide bins.

    Source: Guo et al. (2017).
    """
    confidence, right = np.asarray(confidence, float), np.asarray(right, float)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    sums = [np.bincount(place, weights, bins) for weights in (right, confidence)]
    return float(abs(sums[0] - sums[1]).sum() / len(right))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The number that logits `[N, C]` are divided by for the smallest mean negative log-likelihood of labels `[N]`.

    Between 0.05 and 20. Source: Guo et al. (2017).
    """
    logits, labels = np.asarray(logits, float), np.asarray(labels)

    def loss(log):
        return -log_softmax(logits / np.exp(log), axis=1)[np.arange(len(labels)), labels].mean()
    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-6}).x))
