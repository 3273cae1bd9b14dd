"""The article's experiment at its own size: the three runs of the trial's group c, and what was not run of it.

One run a network decides nothing, and nothing is tested. `folder` is another folder of results, for tests.
"""
import math
from pathlib import Path

import pandas as pd

from asymmbook.evidence import records
from asymmbook.evidence.trial import BASE, HEAVY, hours, plan
from asymmbook.evidence.verdicts import LABELS

__all__ = ["accuracies", "curves", "not_run"]

RECIPES = {"article": "as published", "article-fixed": "mended"}


def _planned():
    return [run for run in plan() if run.group == "c"]


def accuracies(folder: Path | None = None) -> pd.DataFrame:
    """A row a run, none before all are recorded: name, pictures; and, as shares of the eval split, top1 and per_class
    after the last epoch, best and best_epoch (of the best one; NaN for a run that diverged at once); train_top1.
    """
    table, names = records.read_runs(folder), [run.name for run in _planned()]
    if not set(names) <= set(table["run"]):
        return pd.DataFrame(columns=["name", "top1"])
    mine = table.set_index("run").loc[names]
    best = records.read_curves(folder).set_index("epoch").groupby("run")["eval_top1"].agg(["max", "idxmax"])
    best = best.reindex(names)
    labels = [f"{LABELS[network]}, {RECIPES[recipe]}" for network, recipe in mine[["network", "recipe"]].to_numpy()]
    return pd.DataFrame({
        "name": labels, "pictures": mine["held_out_pictures"], "top1": mine["top1"],
        "per_class": mine["per_class_top1"], "train_top1": mine["train_top1"], "best": best["max"],
        "best_epoch": best["idxmax"]}).reset_index()


def curves(folder: Path | None = None) -> dict[str, pd.DataFrame]:
    """{network and recipe: its curve}, as `asymmbook.figures.plots.plot_curves` takes them; empty before all are done.
    """
    table, rows = accuracies(folder), records.read_curves(folder)
    return {run.name: rows[rows["run"] == run.run] for run in table.itertuples(index=False)}


def not_run(folder: Path | None = None) -> dict[str, float]:
    """{network of the article that was not run: hours of one thread that its run would take}, NaN without a pace.

    Estimated from its recorded pace at 64 pixels, by the number of pixels.
    """
    article, paces = _planned()[0], records.paces(folder)
    size = article.recipe.image_size
    slower = {(model, size): paces.get((model, BASE.image_size), math.nan) * (BASE.image_size / size)**2
              for model in HEAVY}
    return {LABELS[model]: hours([article._replace(model=model, settings={})], slower) for model in HEAVY}
