"""The article's experiment at its own size: the three runs of the trial's group c, and what was not run of it.

One run a network decides nothing, and nothing is tested. `folder` is another folder of results, for tests.
"""
from pathlib import Path

import pandas as pd

from asymmbook.evidence import records
from asymmbook.evidence.trial import BASE, HEAVY, PACES, hours, plan
from asymmbook.evidence.verdicts import LABELS

__all__ = ["accuracies", "curves", "not_run"]

RECIPES = {"article": "as published", "article-fixed": "mended"}


def _planned(folder):
    return [run for run in plan(records.scores(folder)) if run.group == "c"]


def accuracies(folder: Path | None = None) -> pd.DataFrame:
    """A row a run, none before all are recorded: name, right, pictures, per_class, train_top1, best, best_epoch, hours.

    right: pictures of the eval split after the last epoch; per_class, train_top1 and best, the top-1 of the best epoch
    on the same pictures: shares; hours of one thread.
    """
    table, names = records.read_runs(folder), [run.name for run in _planned(folder)]
    if not set(names) <= set(table["run"]):
        return pd.DataFrame(columns=["name", "right", "pictures"])
    mine = table.set_index("run").loc[names]
    best = records.read_curves(folder).set_index("epoch").groupby("run")["eval_top1"].agg(["max", "idxmax"]).loc[names]
    return pd.DataFrame({
        "name": _names(mine), "right": (mine["top1"] * mine["held_out_pictures"]).round().astype(int),
        "pictures": mine["held_out_pictures"].astype(int), "per_class": mine["per_class_top1"],
        "train_top1": mine["train_top1"], "best": best["max"], "best_epoch": best["idxmax"],
        "hours": mine["train_seconds"] / 3600}).reset_index(drop=True)


def _names(runs):
    return [f"{LABELS[network]}, {RECIPES[recipe]}" for network, recipe in zip(runs["network"], runs["recipe"],
                                                                             strict=True)]


def curves(folder: Path | None = None) -> dict[str, pd.DataFrame]:
    """{network and recipe: its curve}, as `asymmbook.figures.plots.plot_curves` takes them; empty before all are done.
    """
    names = accuracies(folder)["name"]
    runs, rows = [run.name for run in _planned(folder)], records.read_curves(folder)
    return {name: rows[rows["run"] == run] for name, run in zip(names, runs, strict=False)}


def not_run(folder: Path | None = None) -> dict[str, float]:
    """{network of the article that was not run: hours of one thread that its run would take}.

    From its pace at 64 pixels, recorded or, where it is not yet, of the plan, by the number of pixels.
    """
    article, paces = _planned(folder)[0], {**PACES, **records.paces(folder)}
    size = article.recipe.image_size
    slower = {(model, size): paces[model, BASE.image_size] * (BASE.image_size / size)**2 for model in HEAVY}
    return {LABELS[model]: hours([article._replace(model=model, settings={})], slower) for model in HEAVY}
