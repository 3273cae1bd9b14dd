"""Heads from five pictures a class: what they reach on classes that no training saw, by results/protocol.md.

The live page learns such heads in the browser (`book/static/live/head.js`). Here the same minimum is found by SciPy, so
that the numbers do not depend on the page's own code; a test compares the two. `record` writes results/heads.csv.
"""
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from asymmbook.checkout import results_dir
from asymmbook.evidence.folds import open_pictures
from asymmbook.evidence.unknown import bootstrap, class_pictures, roles
from asymmlib.base.tables import read_table, write_table
from asymmlib.data.pictures import normalise
from asymmlib.data.sources import Prepared
from asymmlib.deploy.heads import network_features
from asymmlib.evaluation import softmax
from asymmlib.runs import Classifier, load_pretrained
from asymmlib.weights.released import RELEASED

__all__ = ["BASE", "DECAYS", "LEARN", "TEST", "class_features", "deal_pictures", "fit", "record",
           "recorded_decay", "summary"]

LEARN, TEST = 5, 20  # pictures of a class
DECAYS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # ties go to the first
USUAL = 1e-3  # where nothing was chosen
TRIALS = {"calibrate": 10, "test": 20}  # draws
BASE = "mobilenet_v2"  # what the others are compared with


def class_features(classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
    """The features of uint8 pictures `[N, size, size, 3]`, scaled to length 1: float64 `[N, F]`."""
    images = normalise(pixels, classifier.mean, classifier.std)
    found = network_features(classifier.network, images).astype(np.float64)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def fit(units: np.ndarray, labels: np.ndarray, decay: float, count: int) -> np.ndarray:
    """Weights float64 `[F + 1, C]`, the last row the biases: softmax regression on `[N, F]`, labels int `[N]`.

    The minimum of the mean cross-entropy plus decay / 2 times the squares of all weights, found by L-BFGS.
    """
    inputs, wanted = np.hstack([units, np.ones((len(units), 1))]), np.eye(count)[labels]

    def loss(flat):
        weights = flat.reshape(inputs.shape[1], count)
        shares = softmax(inputs @ weights)
        value = -np.log(np.maximum((shares * wanted).sum(axis=1), 1e-300)).mean() + decay / 2 * (weights**2).sum()
        return value, (inputs.T @ (shares - wanted) / len(inputs) + decay * weights).ravel()
    found = minimize(loss, np.zeros(inputs.shape[1] * count), jac=True, method="L-BFGS-B",
                     options={"maxiter": 10_000, "maxfun": 20_000, "ftol": 0.0, "gtol": 1e-8})
    return found.x.reshape(-1, count)


def deal_pictures(sizes: Sequence[int], draw: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each class of so many pictures: the numbers of those to learn from and of those to test on."""
    found = []
    for number, size in enumerate(sizes):
        order = np.random.default_rng([draw, number]).permutation(size)
        found.append((order[:LEARN], order[LEARN:LEARN + TEST]))
    return found


def _accuracy(units, draw, decay):
    """Share of right answers of one draw; units: for each class `[N, F]`."""
    dealt = deal_pictures([len(rows) for rows in units], draw)
    learn, test = (np.vstack([rows[part[which]] for rows, part in zip(units, dealt, strict=True)]) for which in (0, 1))
    weights = fit(learn, np.repeat(np.arange(len(units)), LEARN), decay, len(units))
    answers = (test @ weights[:-1] + weights[-1]).argmax(axis=1)
    return float((answers == np.repeat(np.arange(len(units)), TEST)).mean())


def record(everything: Prepared | None = None, folder: Path | None = None) -> pd.DataFrame:
    """Write results/heads.csv, a row a network and draw of the test classes; return the table.

    everything: Caltech-101 (default: as prepared). folder: of the weights.
    """
    everything, rows = everything or open_pictures(), []
    classes = roles(Counter(everything.manifest["class"]))
    for name in RELEASED:
        classifier = load_pretrained(name, folder)
        units = {part: _features(classifier, names, everything) for part, names in classes.items()}
        tried = {decay: np.mean([_accuracy(units["calibrate"], draw, decay) for draw in range(TRIALS["calibrate"])])
                 for decay in DECAYS}
        decay = max(DECAYS, key=lambda value: tried[value])  # the first of equals
        rows += [{"network": name, "decay": decay, "calibrated": tried[decay], "draw": draw,
                  "accuracy": _accuracy(units["test"], draw, decay)} for draw in range(TRIALS["test"])]
    table = pd.DataFrame(rows)
    write_table(table, results_dir() / "heads.csv")
    return table


def _features(classifier, names, everything):
    return [class_features(classifier, pixels)
            for pixels in class_pictures(names, classifier.image_size, everything).values()]


def recorded_decay(network: str, folder: Path | None = None) -> float:
    """The weight decay that was chosen for a network's heads; `USUAL` for one without a record."""
    table = read_table((folder or results_dir()) / "heads.csv", ("network", "decay"), absent=pd.DataFrame(
        columns=["network", "decay"]))
    chosen = table["decay"][table["network"] == network]
    return float(chosen.iloc[0]) if len(chosen) else USUAL


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row a network: decay, mean accuracy with its interval over draws, and points beside `BASE` with theirs."""
    draws = table.pivot(index="draw", columns="network", values="accuracy")
    rows = []
    for name, group in table.groupby("network", sort=False):
        low, high = bootstrap(np.mean, group["accuracy"].to_numpy())
        more = (draws[name] - draws[BASE]).to_numpy()
        more_low, more_high = bootstrap(np.mean, more)
        rows.append({"network": name, "decay": group["decay"].iloc[0], "draws": len(group),
                     "accuracy": group["accuracy"].mean(), "low": low, "high": high, "more": more.mean(),
                     "more_low": more_low, "more_high": more_high})
    return pd.DataFrame(rows)
