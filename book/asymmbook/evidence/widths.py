"""Does the asymmetry pay where the paper says? What the trial's group b says beside its two tests, width by width.

r = 1 is held against r = 0 three times: as wide, with as many parameters, and with as many MACs. The third is no
network but a place on the curve of r = 0 over MACs: the answers of the first two, weighted as r = 1 lies between them
in the logarithm of MACs. Intervals, no verdicts: the tests are `verdicts`' family b. A width without all its runs is
left out.
`folder` is another folder of results, for tests.
"""
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from asymmbook.evidence import records
from asymmbook.evidence.folds import FOLDS, class_sets
from asymmbook.evidence.inference import Difference, compare_networks, missed, paired
from asymmbook.evidence.trial import MATCHED, network_key
from asymmbook.evidence.verdicts import WITHOUT

__all__ = ["AGAINST", "accuracies", "by_width", "done", "together", "trend"]

AGAINST = (*WITHOUT, "r = 0 with as many MACs, off the curve")
KEYS = ["picture", "run"]


def accuracies(folder: Path | None = None) -> pd.DataFrame:
    """A row a network of each complete width: width (of its trio), rate, own width, macs, params, runs, top1, sd.

    top1 is over all pictures, sd over runs; both are shares.
    """
    runs = records.read_runs(folder)
    rows = [(width, rate, own, _runs_of(runs, rate, own)) for width in done(folder) for rate, own in _trio(width)]
    return pd.DataFrame([{
        "width": width, "rate": rate, "own_width": own, **mine[["macs", "params"]].iloc[0], "runs": len(mine),
        "top1": np.average(mine["top1"], weights=mine["held_out_pictures"]), "sd": mine["top1"].std()}
        for width, rate, own, mine in rows])


def _trio(width):
    """(rate, width) of r = 1, of r = 0 as wide, and of r = 0 with as many parameters."""
    return (1, width), (0, width), (0, MATCHED[width])


def _runs_of(runs, rate, width):
    network = network_key("asymmnet_large", {"asymmrate": rate, "width": width})
    return records.matching(runs, {"group": "b", "network": network}) if "group" in runs else runs


def done(folder: Path | None = None) -> list[float]:
    """The widths all of whose runs are recorded, smallest first."""
    runs = records.read_runs(folder)
    return [width for width in MATCHED if all(len(_runs_of(runs, *each)) == FOLDS for each in _trio(width))]


def _answers(width, folder):
    """What r = 1 says at a width, and {opponent: what it says}; `right` of the third is between 0 and 1."""
    runs = [_runs_of(records.read_runs(folder), *each) for each in _trio(width)]
    ours, wide, matched = (records.answers(rows, folder) for rows in runs)
    least, own, most = (np.log(rows["macs"].iloc[0]) for rows in (runs[1], runs[0], runs[2]))
    share = (own - least) / (most - least)
    both = wide[[*KEYS, "right"]].merge(matched[[*KEYS, "right"]], on=KEYS, validate="one_to_one")
    curve = both[KEYS].assign(right=(1 - share) * both["right_x"] + share * both["right_y"])
    return ours, dict(zip(AGAINST, (wide, matched, curve), strict=True))


def by_width(folder: Path | None = None) -> pd.DataFrame:
    """r = 1 less each opponent at each complete width: width, against, untuned, mean, low, high, missed (shares).

    Twice: on all pictures, and (untuned) without those of the classes on which rates and weight decays were chosen.
    missed: a test of this difference alone, at 5 %, would miss a smaller true one more than one time in five.
    """
    rows, complete = [], done(folder)
    chose = _tuning_classes(folder) if complete else ()
    for width in complete:
        ours, others = _answers(width, folder)
        for untuned, classes in ((False, ()), (True, chose)):
            mine = _without(ours, classes)
            for name, said in others.items():
                found = compare_networks(mine, _without(said, classes))
                rows.append((width, name, untuned, *found[:3], missed(found)))
    return pd.DataFrame(rows, columns=["width", "against", "untuned", "mean", "low", "high", "missed"])


def _without(said, classes):
    return said[~said["picture"].str.partition("/")[0].isin(classes)]


def _require(wanted, folder):
    missing = sorted(set(wanted) - set(done(folder)))
    if missing:
        raise ValueError(f"not all runs of group b are recorded at the widths {missing}; `experiments status` says how "
                         "many are")


def together(untuned: bool = False, folder: Path | None = None) -> dict[str, Difference]:
    """{opponent of `AGAINST`: r = 1 less it, over all widths}.

    Runs of different widths count as independent, though they share folds and seeds. untuned: as in `by_width`.
    Raises `ValueError` until all widths are done.
    """
    _require(MATCHED, folder)
    chose = _tuning_classes(folder) if untuned else set()
    known = {width: _answers(width, folder) for width in MATCHED}
    ours = pd.concat([_part(mine, width, chose) for width, (mine, _) in known.items()])
    return {name: compare_networks(ours, pd.concat(
        [_part(others[name], width, chose) for width, (_, others) in known.items()])) for name in AGAINST}


def _part(said, width, left_out):
    kept = _without(said, left_out)
    return kept.assign(run=f"{width:g} " + kept["run"])


def _tuning_classes(folder):
    return class_sets(Counter(records.read_folds(folder)["class"]))["next16"]


def trend(folder: Path | None = None) -> dict[str, Difference]:
    """{opponent: its difference at the smallest width less that at the largest} ("the smaller, the more").

    Raises `ValueError` until both are done.
    """
    _require((min(MATCHED), max(MATCHED)), folder)
    small, large = (_gains(width, folder) for width in (min(MATCHED), max(MATCHED)))
    return {name: compare_networks(small[name], large[name]) for name in AGAINST}


def _gains(width, folder):
    ours, others = _answers(width, folder)
    return {name: paired(ours, said).rename(columns={"d": "right"}) for name, said in others.items()}
