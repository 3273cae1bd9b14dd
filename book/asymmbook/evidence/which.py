"""Which network? What the trial's group a says beside its tests: accuracies, costs, curves, mistakes, out of its runs.

The tests themselves are `verdicts`. Nothing here looks before all runs of the light networks at a picture size are
done: until then every table is empty. `folder` is another folder of results, for tests.
"""
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from asymmbook.evidence import records
from asymmbook.evidence.trial import LIGHT, PLAIN, plan
from asymmbook.evidence.verdicts import LABELS

__all__ = ["REFERENCE", "accuracies", "curve_bands", "group_a", "hardest", "heavy", "on_front", "optimism",
           "run_curves", "said_by"]

REFERENCE = LABELS["asymmnet_large-r1"]  # the paper's network: everything else is compared with it
COLUMNS = ["name", "macs", "params", "runs", "top1", "sd", "low", "high", "per_class", "calibration", "train_top1",
           "train_ms"]


def group_a(recipe: str = PLAIN.name, folder: Path | None = None) -> tuple[pd.DataFrame, int, int]:
    """The light networks' recorded runs by a recipe, with `name`, and how many of them are done, planned."""
    runs, names = records.read_runs(folder), {run.name for run in plan(records.scores(folder)) if run.group == "a"
                                              and run.recipe.name == recipe and run.network in LIGHT}
    mine = runs[runs["run"].isin(names)]
    if len(mine):
        mine = mine.sort_values("network", key=lambda column: column.map(list(LABELS).index), kind="stable")
        mine = mine.assign(name=mine["network"].map(LABELS)).reset_index(drop=True)
    return mine, len(mine), len(names)


def _complete(recipe, folder):
    mine, done, planned = group_a(recipe, folder)
    return mine if done == planned else mine.iloc[:0]


def accuracies(recipe: str = PLAIN.name, folder: Path | None = None) -> pd.DataFrame:
    """A row a light network, in the plan's order.

    Columns: name, macs, params, runs; shares after the last epoch: top1 (over all pictures), sd, low and high (runs'
    deviation, least and largest), means over runs of per_class, calibration, train_top1; and train_ms, milliseconds of
    training for one 64 px picture on a quiet machine (NaN where that was not measured).
    """
    mine = _complete(recipe, folder)
    if mine.empty:
        return pd.DataFrame(columns=COLUMNS)
    groups = mine.assign(right=mine["top1"] * mine["held_out_pictures"]).groupby("name", sort=False)
    table = groups.agg(
        macs=("macs", "first"), params=("params", "first"), runs=("top1", "size"), right=("right", "sum"),
        asked=("held_out_pictures", "sum"), sd=("top1", "std"), low=("top1", "min"), high=("top1", "max"),
        per_class=("per_class_top1", "mean"), calibration=("calibration_error", "mean"),
        train_top1=("train_top1", "mean"))
    timed = records.matching(records.read_runs(folder), {"group": "time"})
    timed = timed[timed["network"].isin(LIGHT)]  # VGG19 was timed twice
    paces = timed.set_index(timed["network"].map(LABELS))["images_per_s"]
    table = table.assign(top1=table["right"] / table["asked"], train_ms=1000 / paces.reindex(table.index))
    return table.reset_index()[COLUMNS]


def heavy(folder: Path | None = None) -> pd.DataFrame:
    """A row a recorded run of ResNet50 and VGG19 in group a, as `records.read_runs` has it, with `name`."""
    runs = records.read_runs(folder)
    mine = runs[(runs["group"] == "a") & ~runs["network"].isin(LIGHT)] if len(runs) else runs
    return mine.assign(name=mine["network"].map(LABELS)) if len(mine) else mine


def on_front(costs: ArrayLike, values: ArrayLike) -> np.ndarray:
    """Bool `[N]`: no other entry is at least as good and at least as cheap, and better in one of the two (Pareto)."""
    costs, values = np.asarray(costs, float), np.asarray(values, float)
    return np.array([not (((costs <= cost) & (values >= value) & ((costs < cost) | (values > value))).any())
                     for cost, value in zip(costs, values, strict=True)], bool)


def run_curves(recipe: str = PLAIN.name, folder: Path | None = None) -> pd.DataFrame:
    """The curves of the light networks' runs, a row a run and epoch, with name and seed."""
    mine, curves = _complete(recipe, folder), records.read_curves(folder)
    if mine.empty:
        return pd.DataFrame(columns=["run", "epoch", "eval_top1", "name", "seed"])
    return mine[["run", "name", "seed"]].merge(curves, on="run")


def curve_bands(recipe: str = PLAIN.name, column: str = "eval_top1",
                folder: Path | None = None) -> dict[str, pd.DataFrame]:
    """{network: DataFrame with epoch, mean, low, high, runs}: mean, least and largest over runs, epoch by epoch."""
    curves = run_curves(recipe, folder)
    return {name: rows.groupby("epoch")[column].agg(mean="mean", low="min", high="max", runs="size").reset_index()
            for name, rows in curves.groupby("name", sort=False)}


def said_by(name: str, recipe: str = PLAIN.name, folder: Path | None = None) -> pd.DataFrame:
    """What a light network's runs say, as `records.answers` has it. name: as in the tables here.

    Raises `ValueError` for a network without all its runs.
    """
    mine = _complete(recipe, folder)
    if mine.empty or name not in set(mine["name"]):
        raise ValueError(f"{name!r} has not all its runs of group a at {recipe}; `experiments status` says how many")
    return records.answers(mine[mine["name"] == name], folder)


def hardest(recipe: str = PLAIN.name, folder: Path | None = None) -> pd.DataFrame:
    """The pictures by how many of all answers about them are wrong, most first: name, class, wrong, answers, seen_as.

    Every light network answers once a repeat, by the run that held the picture out. `seen_as` is the most frequent
    wrong answer (several where they tie), and how often it is given. Ties are in the order of names.
    """
    mine = _complete(recipe, folder)
    if mine.empty:
        return pd.DataFrame(columns=["name", "class", "wrong", "answers", "seen_as"])
    said = records.answers(mine, folder)
    classes = said["picture"].str.partition("/")[0]
    names = said.assign(true=classes).drop_duplicates("label").set_index("label")["true"]
    said = said.assign(true=classes, seen=said["predicted"].map(names))
    table = said.groupby(["picture", "true"], sort=False).agg(wrong=("right", lambda right: (~right).sum()),
                                                              answers=("right", "size")).reset_index()
    wrong = said[~said["right"]].groupby("picture")["seen"].agg(_most)
    texts = {picture: ", ".join(f"{name} ({count})" for name, count in most.items()) for picture, most in wrong.items()}
    table = table.assign(seen_as=table["picture"].map(texts).fillna(""))
    table = table.rename(columns={"picture": "name", "true": "class"})
    return table.sort_values(["wrong", "name"], ascending=[False, True]).reset_index(drop=True)


def _most(seen):
    """{answer: times} of the most frequent ones."""
    counts = seen.value_counts()
    return counts[counts == counts.iloc[0]].sort_index().to_dict()


def optimism(recipe: str = PLAIN.name, folder: Path | None = None) -> pd.DataFrame:
    """How much choosing the epoch on the held-out pictures themselves would flatter, a row a run.

    Columns: run, name, best_top1 (of its best epoch), last_top1 and points.
    """
    curves = run_curves(recipe, folder).sort_values("epoch")
    by_run = curves.groupby(["run", "name"], sort=False)["eval_top1"]
    table = by_run.agg(best_top1="max", last_top1="last").reset_index()
    return table.assign(points=100 * (table["best_top1"] - table["last_top1"]))
