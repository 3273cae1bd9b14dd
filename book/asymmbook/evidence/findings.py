"""What the first comparison said: its tables and sentences, from `results/archive/` alone. `which` has the trial's.

Nothing here trains or needs pictures. Functions take whatever subset of the plan is recorded; `folder` is another
folder of results, for tests. Accuracies are those on the test split, by the epoch that the eval split chose.
"""
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from asymmbook.evidence.plan import PLAN
from asymmbook.evidence.results import read_pictures, read_predictions, read_results
from asymmbook.evidence.statistics import LEVEL, compare_many, spread, wilson

__all__ = ["REFERENCE", "compared", "duels", "flaw_sentences", "flaws", "guess_sentences", "kernel_sentences",
           "missing", "recorded", "verdicts"]

REFERENCE = "AsymmNet-Large r = 1"  # the paper's network: everything else is compared with it
HEADLINE = "best_test_top1"
# What each recipe of the group "flaws" does
FLAWS = {"flawed": "as published, all flaws", "mended-schedule": "schedule mended",
         "mended-weight-decay": "same weight decay for all", "mended-normalisation": "measured normalisation",
         "mended-interpolation": "bilinear rotation", "mended-all": "everything mended"}
# Runs on Paddle's own kernels: their group: (groups of the same runs on the fast ones, compared by, what that is)
KERNELS = {"stock": (("compare",), HEADLINE, "test"),
           "laptop-stock": (("laptop", "laptop-seeds"), "last_eval_top1", "eval after the last epoch")}


def recorded(group: str | Sequence[str], folder: Path | None = None) -> pd.DataFrame:
    """The recorded runs of one group of the plan (or of several), in its order, and `name`: network and rate."""
    groups = (group,) if isinstance(group, str) else group
    runs = read_results(folder)["runs"].set_index("run", drop=False)
    table = runs.loc[[planned.name for planned in PLAN if planned.group in groups and planned.name in runs.index]]
    names = [_name(row.label, json.loads(row.settings)) for row in table.itertuples()]
    return table.reset_index(drop=True).assign(name=names)


def _name(label, settings):
    return f"{label} r = {settings['asymmrate']}" if "asymmrate" in settings else label


def missing(folder: Path | None = None) -> list[str]:
    """Names of the planned runs that are not recorded."""
    done = set(read_results(folder)["runs"]["run"])
    return [planned.name for planned in PLAN if planned.name not in done]


def compared(folder: Path | None = None) -> pd.DataFrame:
    """One row a network of the fair comparison, in the plan's order; mean and standard deviation over its seeds.

    Columns: name, label, params, macs, threads, seeds, low and high (Wilson's interval of the mean test accuracy, as if
    it were one network's), train_ms (milliseconds of training for one picture), and `spread`'s for measured columns.
    """
    table = recorded("compare", folder)
    if table.empty:
        return pd.DataFrame(columns=["name", "label", "params", "macs", "threads", "seeds", "low", "high",
                                     "train_ms", f"{HEADLINE}_mean", f"{HEADLINE}_sd"])
    measured = spread(table, "name", ["best_eval_top1", "last_test_top1", HEADLINE, "images_per_s", "train_seconds",
                                      "peak_memory_mb", "epochs_done"])
    facts = table.groupby("name", sort=False)[["label", "params", "macs", "threads"]].first()
    low, high = wilson(measured[f"{HEADLINE}_mean"], len(read_pictures("test", folder)))
    return facts.join(measured).assign(low=low, high=high, train_ms=1000 / measured["images_per_s_mean"]).reset_index()


def duels(reference: str = REFERENCE, folder: Path | None = None) -> pd.DataFrame:
    """McNemar's test of `reference` against every other network, once for each seed that both have.

    Returns the DataFrame of `statistics.compare_many`, with `seed`; Holm's correction counts all its rows.
    """
    runs = recorded("compare", folder)
    right = {(row.name, row.seed): read_predictions(row.run, folder=folder)["right"].to_numpy()
             for row in runs.itertuples(index=False)}
    pairs = [((reference, seed), (name, seed)) for name, seed in right
             if name != reference and (reference, seed) in right]
    table = compare_many(right, sorted(pairs, key=lambda pair: list(runs["name"]).index(pair[1][0])))
    return table.assign(seed=[seed for _, seed in table["first"]], first=[name for name, _ in table["first"]],
                        second=[name for name, _ in table["second"]])


def verdicts(reference: str = REFERENCE, folder: Path | None = None) -> dict[str, str]:
    """{opponent: sentence}: how `reference` did against each network, and whether a difference is shown.

    It counts as shown when every seed that both have points the same way with a corrected p below `LEVEL`.
    """
    table, sentences = duels(reference, folder), {}
    for opponent, tests in table.groupby("second", sort=False):
        sure, points = (tests["p_holm"] < LEVEL).sum(), tests["points"]
        same_way = (points > 0).all() or (points < 0).all()
        mean = points.mean()
        side = "ahead" if mean > 0 else "behind" if mean < 0 else "level"
        seeds = (f"on average over {len(tests)} seeds ({points.min():+.1f} to {points.max():+.1f})" if len(tests) > 1
                 else "with one seed")
        sentences[opponent] = (
            f"{reference} against {opponent}: {abs(mean):.1f} points {side} {seeds}; p below {LEVEL:g} after "
            f"correction with {sure} of {len(tests)}. {_shown(sure == len(tests) and same_way)}")
    return sentences


def guess_sentences(folder: Path | None = None) -> list[str]:
    """About each network of the comparison that learned nothing, and what it does with a lower learning rate."""
    labels, table = read_pictures("test", folder)["class"], compared(folder)
    guess = labels.value_counts(normalize=True).max() if len(labels) else 0
    slow, sentences = recorded("slow", folder).set_index("name"), []
    for row in table[table[f"{HEADLINE}_mean"] <= guess + 1e-9].itertuples():
        text = (f"{row.name} is right no more often than the most frequent class would be as the answer to everything "
                f"({guess:.1%}): at the common learning rate it learned nothing, so its place in the comparison says "
                "nothing about the network.")
        if row.name in slow.index:
            run = slow.loc[row.name]
            low, high = wilson(run[HEADLINE], len(labels))
            text += (f" With {json.loads(run['recipe_fields'])['base_lr']:g} as the rate, outside the comparison, it "
                     f"reaches {run[HEADLINE]:.1%} ({low:.1%} to {high:.1%}) with one seed.")
        sentences.append(text)
    return sentences


def kernel_sentences(folder: Path | None = None, groups: Iterable[str] = tuple(KERNELS)) -> list[str]:
    """Whether runs without the fast kernels end where those with them do: within the seeds' own spread, or not.

    groups: keys of `KERNELS`. A run is spoken of once two seeds of it on the fast kernels are recorded.
    """
    sentences = []
    for group in groups:
        others, column, split = KERNELS[group]
        fast = recorded(others, folder)
        for row in recorded(group, folder).itertuples():
            same = fast[fast["name"] == row.name]
            if len(same) > 1:
                sentences.append(_kernel_sentence(row, same["recipe"].iloc[0], 100 * getattr(row, column),
                                                  100 * same[column], split))
    return sentences


def _kernel_sentence(row, recipe, reached, seeds, split):
    points, width = reached - seeds.mean(), seeds.max() - seeds.min()
    return (f"{row.name} on Paddle's own kernels, by the recipe `{recipe}` at {row.image_size} pixels: {reached:.1f} "
            f"on {split}, {points:+.1f} points from the mean of its {len(seeds)} seeds on the fast ones, which differ "
            f"by up to {width:.1f} points among themselves: {'within' if abs(points) <= width else 'outside'} the "
            "spread of the seeds.")


def flaws(folder: Path | None = None) -> pd.DataFrame:
    """The article's recipe and its mended forms, a row per recorded run: name, change, last and best test accuracy.

    `points` is the gain over the recipe as published (best epoch by eval); p and p_holm are McNemar's, against it.
    """
    runs = recorded("flaws", folder)
    columns = ["name", "change", "last_test_top1", HEADLINE, "points", "p", "p_holm"]
    if runs.empty:
        return pd.DataFrame(columns=columns)
    right = {row.run: read_predictions(row.run, folder=folder)["right"].to_numpy() for row in runs.itertuples()}
    published = runs[runs["recipe"] == "flawed"].set_index("name")["run"].to_dict()
    pairs = [(row.run, published[row.name]) for row in runs.itertuples(index=False)
             if row.recipe != "flawed" and row.name in published]
    tests = compare_many(right, pairs)[["first", "points", "p", "p_holm"]]
    table = runs.assign(change=runs["recipe"].map(FLAWS)).merge(tests, left_on="run", right_on="first", how="left")
    return table.sort_values("name", kind="stable")[columns].reset_index(drop=True)


def flaw_sentences(folder: Path | None = None) -> list[str]:
    """What mending everything, and the single change with the largest effect, is worth to each network."""
    table = flaws(folder).dropna(subset="points")
    everything = table["change"] == FLAWS["mended-all"]
    single = table[~everything].sort_values("points", key=lambda points: -points.astype(float).abs(), kind="stable")
    return [f"{row.name}, {row.change}: {row.points:+.1f} points against the article's recipe, with one seed. "
            f"{_shown(row.p_holm < LEVEL)}" for row in pd.concat([table[everything], single.drop_duplicates("name")])
            .itertuples(index=False)]


def _shown(sure):
    return f"{'A' if sure else 'No'} difference is shown on these pictures."
