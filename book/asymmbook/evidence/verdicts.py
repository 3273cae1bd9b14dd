"""The tests of results/protocol.md as data, written before its first run, and what the recorded runs answer.

A family holds the comparisons that are corrected together. Each side is a choice of rows of results/trial/runs.csv. A
comparison is made when both sides have all the runs that the plan has for them; until then it is listed as not made.
"""
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from asymmbook.evidence import records
from asymmbook.evidence.folds import FOLDS, REPEATS
from asymmbook.evidence.inference import compare_networks, holm, missed, sentence
from asymmbook.evidence.transfer import TESTED
from asymmbook.evidence.trial import ABLATIONS, HELP, LIGHT, MATCHED, MENDED, PAIR, PLAIN, network_key

__all__ = ["LABELS", "WITHOUT", "Side", "answered", "families", "recommended", "verdicts"]

# What sentences and tables call networks and changes of a recipe
LABELS = {"asymmnet_large-r1": "AsymmNet-Large r = 1", "asymmnet_large-r0": "AsymmNet-Large r = 0",
          "asymmnet_large-r2": "AsymmNet-Large r = 2", "asymmnet_small-r1": "AsymmNet-Small",
          "mobilenet_v2": "MobileNetV2", "mobilenet_v3_large": "MobileNetV3-Large", "resnet50": "ResNet50",
          "vgg19": "VGG19"}
CHANGES = {"flawed-ends-high": "with swings that end at the peak", "mended-schedule": "with the schedule mended",
           "mended-weight-decay": "with one weight decay for all",
           "mended-normalisation": "with its normalisation measured",
           "mended-interpolation": "with bilinear rotation", "mended-all": "with everything mended",
           "flip": "with flips", "crop-flip": "with crops and flips", "colour": "with crops, flips and colour",
           "long": "for 100 epochs", "long-crop-flip": "for 100 epochs with crops and flips",
           "pretrained": "pre-trained on the other classes", "paddle-default": "from Paddle's default start",
           "paddle-default-own-norm": "from Paddle's default start with its own batch norm"}
COPIES = {"left": "copies on the left only", "right": "copies on the right only", "zeros": "zeros in place of copies",
          "new": "new channels in place of copies", "shuffled": "copies with their pixels in another order"}

WITHOUT = ("r = 0 of the same width", "r = 0 with as many parameters")  # whom r = 1 is tested against in b


class Side(NamedTuple):
    """One side of a comparison: its name in sentences, the rows that it is made of, and how many there must be.

    rows: dictionaries of column: value; each is a part (a width, in b), whose answers count as runs of their own.
    """

    name: str
    rows: tuple[dict[str, Any], ...]
    runs: int


def _side(name, group, network, recipe, runs=FOLDS, pictures="caltech16", repeat=None):
    chosen = {"group": group, "network": network, "recipe": recipe, "pictures": pictures}
    return Side(name, ({**chosen, **({} if repeat is None else {"repeat": repeat})},), runs)


def _base(network):
    """Group a's runs of the first repeat, which e, f and default are held against."""
    return _side(LABELS[network], "a", network, PLAIN.name, repeat=0)


def _changed(group, network, recipe, **more):
    return _side(f"{LABELS[network]} {CHANGES[recipe]}", group, network, recipe, **more)


def _widths(name, rate, widths):
    networks = [network_key("asymmnet_large", {"asymmrate": rate, "width": width}) for width in widths]
    return Side(name, tuple({"group": "b", "network": network, "recipe": PLAIN.name} for network in networks),
                FOLDS * len(widths))


def families(folder: Path | None = None) -> dict[str, list[tuple[Side, ...]]]:
    """{family: pairs of `Side`}, as the protocol lists them; of e, once next16 has chosen."""
    tested = {f"a, {size}": [tuple(_side(LABELS[name], "a", name, size, runs) for name in (PAIR[0], other))
                             for other in LIGHT if other != PAIR[0]]
              for size, runs in ((PLAIN.name, FOLDS * REPEATS), ("128px", FOLDS))}
    for network in PAIR:
        changes = ["flawed-ends-high", *(f"mended-{name}" for name in MENDED), "mended-all"]
        tested[f"d, {network}"] = [(_changed("d", network, recipe),
                                    _side("the article's recipe", "d", network, "flawed")) for recipe in changes
                                   if (network, recipe) != (PAIR[1], "mended-weight-decay")]
    rate1 = _widths("r = 1", 1, MATCHED)
    tested["b"] = [(rate1, _widths(WITHOUT[0], 0, MATCHED)),
                   (rate1, _widths(WITHOUT[1], 0, MATCHED.values()))]
    chosen = {network: recommended(network, folder) for network in PAIR}
    tested["e"] = [(_changed("e", network, change, repeat=0), _base(network))
                   for network, change in chosen.items() if change not in (None, PLAIN.name)]
    tested["f"] = [(_base(PAIR[0]), _side(COPIES[kind], "f", f"ablation_{kind}", PLAIN.name)) for kind in ABLATIONS]
    starts = [(network, "paddle-default") for network in (*PAIR, "mobilenet_v3_large")]
    starts.append(("mobilenet_v3_large", "paddle-default-own-norm"))
    tested["default"] = [(_base(network), _changed("default", network, recipe)) for network, recipe in starts]
    tested["transfer"] = [(_side(f"{LABELS[network]} pre-trained", "transfer", network, TESTED),
                           _side("the same from scratch", "transfer", network, f"scratch-{TESTED}"))
                          for network in PAIR]
    return tested


def recommended(network: str, folder: Path | None = None) -> str | None:
    """The recipe of group e with the highest mean on next16 (`PLAIN` for no change); None while one is incomplete."""
    runs = records.read_runs(folder)
    if runs.empty:
        return None
    mine = runs[(runs["group"] == "e") & (runs["network"] == network) & (runs["pictures"] == "next16")]
    by_recipe = mine.groupby("recipe")["top1"].agg(["mean", "size"])
    wanted = [PLAIN.name, *HELP, "pretrained"]
    if not set(wanted) <= set(by_recipe.index) or (by_recipe["size"] < FOLDS).any():
        return None
    return max(wanted, key=lambda recipe: by_recipe["mean"][recipe])


def _answers(side, runs, folder):
    """The answers of a side; None while runs are missing. Runs of different parts keep names of their own."""
    parts, found = [], 0
    for number, chosen in enumerate(side.rows):
        rows = records.matching(runs, chosen)
        found += len(rows)
        if len(rows):
            frame = records.answers(rows, folder)
            parts.append(frame.assign(run=f"{number} " + frame["run"]) if len(side.rows) > 1 else frame)
    return pd.concat(parts) if found == side.runs else None


def verdicts(family: str, folder: Path | None = None) -> pd.DataFrame:
    """A row a comparison of a family: first, second, mean, low, high, p, p_holm, runs, sentence, missed.

    missed is a share: a smaller true difference would be missed more than one time in five.

    Holm's correction counts every comparison of the family, made or not: one that is missing has p = 1.
    """
    runs, rows = records.read_runs(folder), []
    pairs = families(folder)[family]
    for first, second in pairs:
        ours, theirs = (None if runs.empty else _answers(side, runs, folder) for side in (first, second))
        result = None if ours is None or theirs is None else compare_networks(ours, theirs)
        rows.append({"first": first.name, "second": second.name, "result": result,
                     "p": 1.0 if result is None else result.p})
    table = pd.DataFrame(rows, columns=["first", "second", "result", "p"])
    table["p_holm"] = holm(table["p"])
    table["sentence"] = [
        sentence((row.first, row.second), row.result, row.p_holm, len(pairs)) if row.result is not None else
        f"{row.first} against {row.second}: not run, or not complete." for row in table.itertuples(index=False)]
    for field in ("mean", "low", "high", "runs"):
        table[field] = [getattr(result, field) if result is not None else None for result in table["result"]]
    table["missed"] = [missed(result, len(pairs)) if result is not None else None for result in table["result"]]
    return table.drop(columns="result")


def answered(family: str, folder: Path | None = None) -> pd.DataFrame | None:
    """`verdicts` of a family all of whose comparisons are made; None before: the protocol looks once."""
    table = verdicts(family, folder)
    return table if len(table) and table["mean"].notna().all() else None
