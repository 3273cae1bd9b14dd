"""What `book/trial.md` shows of the trial: treatment, state and answers, as Markdown, one function a section.

Numbers and sentences come from `asymmbook.evidence`; a question without all its runs is said to be open. Every function
that reads records takes a folder of results (None: the project's).
"""
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import pandas as pd

from asymmbook.evidence import records
from asymmbook.evidence.statistics import LEVEL
from asymmbook.evidence.trial import BASE, GROUPS, HEAVY, LIGHT, PAIR, PLAIN, plan
from asymmbook.evidence.tuning import NETWORKS, Setting, grid_scores, tuning
from asymmbook.evidence.verdicts import CHANGES, LABELS, answered, families
from asymmbook.figures.style import thousands
from asymmbook.pages.tables import bullets, folded, markdown_table, percent
from asymmlib.models import create_model, describe_treatment, treat
from asymmlib.recipes import RECIPES

__all__ = ["answers", "differences", "gap", "made_again", "rates", "scale_sentences",
           "settings", "state", "treatment"]

CLASSES = 16
TREATED = [name for name in LIGHT if name not in ("asymmnet_large-r0", "asymmnet_large-r2")]  # built like r = 1
QUESTIONS = {f"a, {PLAIN.name}": "Which network? 64 pixels", "a, 128px": "Which network? 128 pixels",
             "d, asymmnet_large-r1": "What is each flaw worth to AsymmNet-Large?",
             "d, mobilenet_v2": "What is each flaw worth to MobileNetV2?",
             "b": "Does the asymmetry pay where the paper says?", "e": "What would help more than the architecture?",
             "f": "Why? Must copies be copies?", "default": "What does Paddle's default cost?",
             "transfer": "Pre-trained or from scratch, at equal cost?"}
ARTICLE = Setting(RECIPES["article-fixed"].base_lr, RECIPES["article-fixed"].weight_decay)
CHOSEN = ("learning rate", "weight decay", "top-1", "second best", f"at {ARTICLE.rate:g} and {ARTICLE.decay:g}")


def treatment() -> str:
    """How each network is built by its own code, and as the trial trains it, read from the networks themselves."""
    rows = []
    for name in (*TREATED, *HEAVY):
        model, own = NETWORKS.get(name, (name, {}))
        network = create_model(model, CLASSES, **own)
        built = describe_treatment(network, BASE.image_size)
        treated = describe_treatment(treat(network, dropout=BASE.dropout), BASE.image_size)
        both = {f"{what}, {when}": row[key] for what, key in (("batch norm", "norm"), ("dropout", "dropout"))
                for when, row in (("as built", built), ("in the trial", treated))}
        rows.append({"network": LABELS[name], **both, "MACs": thousands(treated["macs"]),
                     "parameters": thousands(treated["params"])})
    return markdown_table(pd.DataFrame(rows))


def scale_sentences(tables: Mapping[str, Mapping[str, pd.DataFrame]]) -> str:
    """What `asymmbook.figures.layers.plot_scales` shows, a list item a network; the trial's start is the second."""
    items = []
    for network, (before, after) in ((name, starts.values()) for name, starts in tables.items()):
        old, new = (table[table["kind"] == "depthwise"] for table in (before, after))
        filters, kept = old["filters"].iloc[-1], (100 * old["kept"].min(), 100 * new["kept"].min())
        further = old["step"].median() / new["step"].median()
        items.append(f"{network}: the filters of its last depthwise layer start {1 / filters:.0f} times too small. "
                     f"Where least is left of the variance, it is {kept[0]:.0f} % as built and {kept[1]:.0f} % in the "
                     f"trial. As built, the median depthwise layer turns {further:.0f} times as far in the first step "
                     "as in the trial.")
    return bullets(items)


def state(folder: Path | None = None) -> str:
    """How many of the planned runs are recorded, group by group."""
    scores, rows = records.scores(folder), []
    runs = plan(scores)
    for group, question in GROUPS.items():
        mine = [run for run in runs if run.group == group]
        done = sum(run.name in scores for run in mine)
        rows.append({"group": f"`{group}`", "question": question, "planned": len(mine), "recorded": done,
                     "state": "complete" if done == len(mine) else "running" if done else "not begun"})
    done = sum(run.name in scores for run in runs)
    return f"**{done} of {len(runs)} runs are recorded.**\n\n" + markdown_table(pd.DataFrame(rows))


def settings(folder: Path | None = None) -> str:
    """Learning rate and weight decay of every light network, as far as the tuning has chosen them, and what is near."""
    table, rows = rates(folder), []
    for network in LIGHT:
        mine = table[table["network"] == LABELS[network]]
        row = {"network": LABELS[network], **dict.fromkeys(CHOSEN, "open")}
        if mine["chosen"].any():
            best = mine[mine["chosen"]].iloc[0]
            near = best["mean"], mine["mean"].nlargest(2).iloc[-1], mine.loc[_is_article(mine), "mean"].item()
            row |= zip(CHOSEN, (f"{best['rate']:g}", f"{best['decay']:g}", *map(percent, near)), strict=True)
        rows.append(row)
    return markdown_table(pd.DataFrame(rows))


def rates(folder: Path | None = None) -> pd.DataFrame:
    """A row a tried setting, for `plot_settings`: network, decay, rate, mean, low and high over folds, and chosen."""
    scores, rows = records.scores(folder), []
    for network in LIGHT:
        best = tuning(network, scores).best
        rows += [(LABELS[network], *setting, sum(found) / len(found), min(found), max(found), setting == best)
                 for setting, found in grid_scores(network, scores).items()]
    table = pd.DataFrame(rows, columns=["network", "rate", "decay", "mean", "low", "high", "chosen"])
    return table.astype({"chosen": bool})


def _is_article(table):
    return (table["rate"] == ARTICLE.rate) & (table["decay"] == ARTICLE.decay)


def gap(folder: Path | None = None) -> str:
    """What a comparison at one rate would have said: AsymmNet-Large less MobileNetV2 on the tuning pictures, at the
    article's setting and each at its own; what the highest rate costs; and how far folds lie apart."""
    table = rates(folder)
    chosen = table[table["chosen"]].set_index("network")
    if len(chosen) < len(LIGHT):
        return "Not every network is tuned yet."
    own, spans = chosen["mean"], 100 * (chosen["high"] - chosen["low"])
    alike = table[_is_article(table)].set_index("network")["mean"]
    pair = [LABELS[network] for network in PAIR]
    apart = [100 * (means[pair[0]] - means[pair[1]]) for means in (alike, own)]
    highest = table["rate"].max()
    lost = 100 * (own - table[table["rate"] == highest].groupby("network")["mean"].max())
    return (f"On these pictures {pair[0]} is ahead of {pair[1]} by {apart[0]:.1f} points where both train at the "
            f"article's setting, and by {apart[1]:.1f} points where each trains at its own. At the rate {highest:g} "
            f"the networks lose {lost.min():.1f} to {lost.max():.1f} points; at their own settings the best is "
            f"{100 * (own.max() - own.min()):.1f} points above the worst. The five folds of one chosen setting lie "
            f"{spans.min():.1f} to {spans.max():.1f} points apart: small differences are to be measured by that.")


def answers(folder: Path | None = None, group: str = "") -> str:
    """A question a paragraph: how many comparisons show a difference, every sentence folded; or that it is open.

    group: only the questions of this group of the plan. A question is open until all its comparisons are made.
    """
    parts = []
    for family in _of_group(group, folder):
        known = answered(family, folder)
        if known is None:
            lines = ["Open: not all its runs are recorded."]
        else:
            shown = known["p_holm"] < LEVEL
            lines = [f"{shown.sum()} of {len(known)} comparisons show a difference. {_power(known)}",
                     folded("Every sentence", bullets(known["sentence"]))]
        parts.append("\n\n".join([f"**{QUESTIONS[family]}**", *lines]))
    return "\n\n".join(parts)


def _power(known):
    least, most = (f"{100 * bound:.1f}" for bound in (known["missed"].min(), known["missed"].max()))
    size = f"{least} points" if least == most else f"{least} (the sharpest comparison) to {most} points"
    return f"With a chance of four in five they show a true difference of {size}; smaller ones may be missed."


def made_again(folder: Path | None = None) -> str:
    """How far seeds alone move a run: group spread and group a's run of the same fold, a list item a network."""
    scores, items = records.scores(folder), []
    planned = [run for run in plan(scores) if run.group == "spread"]
    done = sum(run.name in scores for run in planned)
    if done < len(planned):
        return f"Open: {done} of {len(planned)} runs are recorded."
    runs = records.read_runs(folder)
    where = {"pictures": "caltech16", "repeat": 0, "fold": 0}
    for network in PAIR:
        mine = records.matching(runs, {"network": network, **where})
        mine = mine[(mine["group"] == "spread") | ((mine["group"] == "a") & (mine["recipe"] == PLAIN.name))]
        said = [records.answers(mine[mine["run"] == run], folder)["predicted"].to_numpy() for run in mine["run"]]
        apart = [(first != second).sum() for first, second in combinations(said, 2)]
        least, most = (percent(bound) for bound in (mine["top1"].min(), mine["top1"].max()))
        items.append(f"{LABELS[network]}: with {len(said)} seeds {least} to {most} % of the same pictures are right, "
                     f"and two seeds see {min(apart)} to {max(apart)} of {len(said[0])} as different classes.")
    return bullets(items)


def differences(group: str, folder: Path | None = None) -> dict[str, pd.DataFrame]:
    """{question: label, mean, low, high, shown} of a group's answered questions, for `plot_differences`."""
    tables = {}
    for family in _of_group(group, folder):
        known = answered(family, folder)
        if known is None:
            continue
        network = LABELS.get(family.partition(", ")[2], "")
        same = f" {CHANGES['paddle-default']}"  # in every row of its question
        labels = [name.removeprefix(network).replace(same, "").strip()
                  for name in known["first" if network else "second"]]
        tables[network or QUESTIONS[family]] = known[["mean", "low", "high"]].astype(float).assign(
            label=labels, shown=known["p_holm"] < LEVEL)
    return tables


def _of_group(group, folder):
    return [family for family in families(folder) if group in ("", family.split(",")[0])]
