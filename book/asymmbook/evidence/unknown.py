"""What is none of the sixteen: the threshold of each released network, and how well it tells on classes never seen.

The ten classes, the rule for the threshold and what is reported are in results/protocol.md, written before anything was
measured. `record` writes results/unknown.csv and puts `none_below` into the cards of the released weights, from where
`predict`, the exports and the live page take it.
"""
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from asymmbook.checkout import results_dir
from asymmbook.evidence.folds import open_pictures, unknown_classes
from asymmbook.evidence.release import amend, write_card
from asymmbook.evidence.statistics import LEVEL, wilson
from asymmlib.base.folders import weights_dir
from asymmlib.base.tables import write_table
from asymmlib.data.pictures import load_picture
from asymmlib.data.sources import Prepared
from asymmlib.evaluation import softmax
from asymmlib.runs import load_pretrained
from asymmlib.weights.released import RELEASED

__all__ = ["DIGITS", "area", "bootstrap", "class_pictures", "record", "roles", "youden"]

DIGITS = 4  # of a threshold
RESAMPLES, BATCH = 2000, 64


def roles(counts: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """{"calibrate": five classes, "test": five others}: `unknown_classes` take turns; counts: {class: pictures}."""
    chosen = unknown_classes(counts)
    return {"calibrate": chosen[::2], "test": chosen[1::2]}


def class_pictures(classes: Iterable[str], size: int, prepared: Prepared | None = None) -> dict[str, np.ndarray]:
    """{class: uint8 `[N, size, size, 3]`} of Caltech-101, in the order of its manifest, as any network gets them."""
    everything = prepared or open_pictures()
    manifest = everything.manifest
    return {name: np.stack([load_picture(everything.images / path, size)
                            for path in manifest["path"][manifest["class"] == name]]) for name in classes}


def youden(known: np.ndarray, unknown: np.ndarray) -> float:
    """The threshold with the largest share of `known` at or above it less that of `unknown`; ties: the lowest.

    Both are probabilities float `[N]`. Source: Youden (1950).
    """
    candidates = np.unique(np.round(np.concatenate([known, unknown]), DIGITS))
    gain = [(known >= limit).mean() - (unknown >= limit).mean() for limit in candidates]
    return float(candidates[int(np.argmax(gain))])


def area(known: np.ndarray, unknown: np.ndarray) -> float:
    """Area under the ROC curve: how often a known picture has the higher value than an unknown one, ties half."""
    return float(mannwhitneyu(known, unknown).statistic / (len(known) * len(unknown)))


def bootstrap(statistic: Callable[..., float], *samples: np.ndarray) -> tuple[float, float]:
    """Percentile interval of `statistic(*samples)` at 95 %, each sample drawn anew from itself; seed 0."""
    rng = np.random.default_rng(0)
    values = [statistic(*(rng.choice(sample, len(sample)) for sample in samples)) for _ in range(RESAMPLES)]
    low, high = np.quantile(values, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def record(caltech16: Prepared, everything: Prepared | None = None, folder: Path | None = None) -> pd.DataFrame:
    """Write results/unknown.csv, a row a released network, and `none_below` into the cards; return the table.

    caltech16: with its test share. everything: Caltech-101 (default: as prepared). folder: of the weights.
    """
    everything, folder, rows = everything or open_pictures(), folder or weights_dir(), []
    classes = roles(Counter(everything.manifest["class"]))
    for name in RELEASED:
        rows.append({"network": name, **_measure(load_pretrained(name, folder), caltech16, everything, classes)})
        amend(name, {"none_below": rows[-1]["none_below"]}, folder)
    write_card(folder)
    table = pd.DataFrame(rows)
    write_table(table, results_dir() / "unknown.csv")
    return table


def _measure(classifier, caltech16, everything, classes):
    found = {split: classifier.evaluate(caltech16, split) for split in ("eval", "test")}
    known = {split: softmax(result.logits).max(axis=1) for split, result in found.items()}
    unknown = {part: np.concatenate([_best(classifier, pixels) for pixels in
                                     class_pictures(names, classifier.image_size, everything).values()])
               for part, names in classes.items()}
    limit = youden(known["eval"], unknown["calibrate"])
    kept, let_through = known["test"] >= limit, int((unknown["test"] >= limit).sum())
    row = {"none_below": limit, "auroc": area(known["test"], unknown["test"])}
    row["auroc_low"], row["auroc_high"] = bootstrap(area, known["test"], unknown["test"])
    row |= _shares("turned_away", len(kept) - int(kept.sum()), len(kept))
    row |= _shares("let_through", let_through, len(unknown["test"]))
    return {**row, "right_of_kept": int((found["test"].right & kept).sum()),
            "calibrate_known": len(known["eval"]), "calibrate_unknown": len(unknown["calibrate"]),
            "calibrate_turned_away": int((known["eval"] < limit).sum()),
            "calibrate_let_through": int((unknown["calibrate"] >= limit).sum()),
            **{f"{part}_classes": " ".join(names) for part, names in classes.items()}}


def _best(classifier, pixels):
    return np.concatenate([classifier.probabilities(pixels[start:start + BATCH]).max(axis=1)
                           for start in range(0, len(pixels), BATCH)])


def _shares(name, count, total):
    low, high = wilson(count / total, total)
    return {name: count, f"{name}_of": total, f"{name}_low": low, f"{name}_high": high}
