"""What `book/transfer.md` shows of pre-training and fine-tuning, as Markdown: costs, the setting, points, answers.

Numbers come from `asymmbook.evidence`; what has not all its runs is said to be open. Functions that read records take a
folder of results (None: the project's).
"""
from pathlib import Path

import pandas as pd

from asymmbook.evidence import candidates, records, shipping
from asymmbook.evidence.folds import FOLDS
from asymmbook.evidence.inference import points as in_points
from asymmbook.evidence.learning import grid, learning_curves, payoff
from asymmbook.evidence.transfer import (
    EPOCHS,
    NETWORKS,
    PASSES,
    SCRATCH,
    SIZES,
    SOURCE_EPOCHS,
    SOURCE_PICTURES,
    cost,
    scratch_epochs,
    trained_pictures,
)
from asymmbook.evidence.verdicts import LABELS
from asymmbook.pages import trial
from asymmbook.pages.tables import bullets, markdown_table, percent

__all__ = ["answers", "choice", "costs", "points", "reading", "recipes", "setting", "tried"]

APART = 0.1  # shares of right answers in training and on eval that differ by more are called so


def tried(history: pd.DataFrame) -> str:
    """What the page's own run from five pictures a class came to; history: of a `Run`."""
    trained, held = history.iloc[-1][["train_top1", "eval_top1"]]
    return (f"In the last epoch {percent(trained)} % are right in training and {percent(held)} % on eval. "
            + ("Five pictures a class are soon known by heart." if trained - held > APART else
               "Here five pictures a class were enough for that."))


def costs() -> str:
    """What each side of a comparison trains on, in pictures that go forward and back, by pictures a class."""
    source = SOURCE_EPOCHS * SOURCE_PICTURES
    sizes = dict.fromkeys(size for chosen in SCRATCH.values() for size in chosen)
    return markdown_table(pd.DataFrame([
        {"pictures a class": _words(size), "pre-training": f"{source:,}",
         "fine-tuning": f"{EPOCHS * trained_pictures(size):,}", "together": f"{cost(size):,}",
         "from scratch": f"{scratch_epochs(size) * PASSES[size] * trained_pictures(size):,}"}
        for size in SIZES if size in sizes]))


def _words(size):
    return "all" if SIZES[size] is None else str(SIZES[size])


def setting(folder: Path | None = None) -> str:
    """The settings that were tried on other classes, and the one that was chosen there."""
    table = grid(folder)
    rows = [{"epochs frozen": row.frozen, "rate of the backbone": f"{row.rate:g}",
             "runs": f"{row.runs} of {row.planned}",
             "top-1 there, %": "open" if pd.isna(row.mean) else percent(row.mean)} for row in table.itertuples()]
    shown = markdown_table(pd.DataFrame(rows))
    if table["mean"].isna().any():
        return f"{shown}\n\nOpen: the setting is chosen when all these runs are recorded."
    best = table.loc[table["mean"].astype(float).idxmax()]
    frozen = (f"the backbone is frozen for {best['frozen']:.0f} of {EPOCHS} epochs" if best["frozen"] else
              "nothing is frozen")
    rate = ("all layers have the same rate" if best["rate"] == 1 else
            f"the backbone's rate is {best['rate']:g} times that of the head")
    return f"{shown}\n\nChosen: {frozen}, and {rate}."


def points(folder: Path | None = None) -> str:
    """A row a planned point of the curves: runs, and accuracy with its interval where all are there."""
    rows = [{"network": LABELS[point.network], "start": point.kind, "pictures a class": _words(point.size),
             "runs": f"{point.runs} of {FOLDS}",
             "top-1, %": "not run, or not complete" if point.result is None else
             f"{percent(point.result.mean)} ({percent(point.result.low)}–{percent(point.result.high)})"}
            for point in learning_curves(folder)]
    return markdown_table(pd.DataFrame(rows))


def reading(folder: Path | None = None) -> str:
    """What the curves show, a sentence each; differences with intervals and without a verdict."""
    curves, items = learning_curves(folder), []
    for network in NETWORKS:
        done = [(_words(point.size), percent(point.result.mean)) for point in curves
                if point.network == network and point.kind == "pre-trained" and point.result is not None]
        if len(done) > 1:
            (fewest, low), (most, high) = done[0], done[-1]
            items.append(f"{LABELS[network]}, pre-trained: {low} % with {fewest} pictures a class, {high} % with "
                         f"{most}.")
        for size in SIZES:
            worth = payoff(network, size, folder)
            if worth:
                items.append(f"{LABELS[network]}, {_words(size)} pictures a class, pre-trained less from scratch at "
                             f"equal cost: {in_points(worth.mean, worth.low, worth.high)}.")
    open_points = sum(point.result is None for point in curves)
    if open_points:
        items.append(f"Open: {open_points} of {len(curves)} points wait for their runs.")
    return bullets(items)


def answers(folder: Path | None = None) -> str:
    """The two tests of the protocol, as far as they can be made."""
    return trial.answers(folder, "transfer")


def recipes(folder: Path | None = None) -> str:
    """The recipes that were tried for the released weights, a row each."""
    return markdown_table(candidates.shown(folder))


def choice(folder: Path | None = None) -> str:
    """Which of them won, by how much, and at what cost; or that it is open."""
    best, table = shipping.chosen(records.scores(folder)), candidates.tried(folder)
    if best is None:
        missing = int(table["top1"].isna().sum())
        return f"Open: the recipe is chosen when all {len(table)} runs are recorded; {missing} are missing."
    means = table.groupby("candidate", sort=False)[["top1", "trained"]].mean().astype(float)
    others = means["top1"].drop(best)
    said = (f"Chosen: `{best}`, {percent(means['top1'][best])} % on the mean of two networks; the next best is "
            f"`{others.idxmax()}`, {percent(others.max())} %.")
    if best == (first := next(iter(shipping.CANDIDATES))):
        return said
    more = means["trained"][best] / means["trained"][first]
    return (f"{said} The recipe of earlier weights, `{first}`, has {percent(means['top1'][first])} %; the chosen one "
            f"trains on {more:.1f} times as many pictures.")
