"""What `book/results.md` shows of the trial: Markdown, one function a section.

Numbers come from `asymmbook.evidence.which` and `verdicts`; here they become tables and sentences. Every function
takes a folder of results (None: the project's).
"""
import json
from pathlib import Path

import pandas as pd

from asymmbook.evidence import article_size, records, which
from asymmbook.evidence.folds import FOLDS
from asymmbook.evidence.inference import compare_networks, points
from asymmbook.evidence.trial import BASE, HEAVY, PICTURES, PLAIN, plan
from asymmbook.evidence.verdicts import LABELS, answered
from asymmbook.figures.style import thousands
from asymmbook.pages.tables import bullets, folded, machines, markdown_table, percent, ranges

__all__ = ["article", "costs", "hardest", "heavy", "limits", "networks", "origin", "twins"]

TWINS = "asymmnet_large-r0", "mobilenet_v3_large"
SHOWN = 12  # rows of the table of hard pictures
ABOUT = ("a", "b", "c", "d", "tune", "time")  # the trial's groups that the page speaks of

LIMITS = """
- **May be concluded:** how the six networks of the first table rank on {pictures:,} pictures of sixteen classes, at
  {size} × {size} pixels, after {epochs} epochs from random weights, each at the rate that one rule has chosen for it;
  and only where a difference is called shown.
- **May not:** anything about ImageNet, where the paper measured; about other sizes than 64 and 128 pixels, or longer
  training; about networks that start from other weights ([transfer](transfer.md)); or, from a single width, whether the
  asymmetry pays there, since it has no test.
- "No difference is shown" does not mean that there is none. Of their {tests} comparisons at this size, the sharpest
  would miss one of less than {sharpest:.1f} points more than one time in five, the bluntest one of less than
  {bluntest:.1f}.
- Runs of one network lie {nearest:.1f} to {farthest:.1f} points apart, from its least to its best: they start from
  other numbers and are asked about other pictures. A single run decides nothing.
- Each network is on average right on {trained:.0f} % or more in training, so none was stopped long before it had
  learned what it was shown.
- Whoever reports the best epoch of each run, judged on the very pictures that are reported, as the article does, would
  say {flattery:.1f} points more on average ({least:.1f} to {most:.1f}).
"""


def networks(folder: Path | None = None) -> str:
    """The accuracies of the light networks at 64 and, when they are done, 128 pixels."""
    return "\n\n".join(f"**At {recipe.removesuffix('px')} pixels**\n\n{_networks(recipe, folder)}"
                       for recipe in (PLAIN.name, "128px"))


def _networks(recipe, folder):
    _, done, planned = which.group_a(recipe, folder)
    if done < planned:
        return f"Open: {done} of {planned} runs are recorded."
    table = which.accuracies(recipe, folder)
    shown = pd.DataFrame({
        "network": table["name"], "runs": table["runs"],
        "top-1": [f"{percent(mean)} ± {percent(sd)}" for mean, sd in zip(table["top1"], table["sd"], strict=True)],
        "least to best": ranges(table["low"], table["high"]), "per class": table["per_class"].map(percent),
        "calibration error": table["calibration"].map(percent), "in training": table["train_top1"].map(percent)})
    return markdown_table(shown)


def costs(folder: Path | None = None) -> str:
    """MACs, parameters and time of training, and which networks nothing beats in both accuracy and MACs."""
    table = which.accuracies(PLAIN.name, folder)
    if table.empty:
        return "Open: not all runs are recorded."
    shown = pd.DataFrame({"network": table["name"], "MACs": table["macs"].map(thousands),
                          "parameters": table["params"].map(thousands),
                          "ms of training a picture": table["train_ms"].map("{:.2f}".format).replace("nan", "")})
    front = table["name"][which.on_front(table["macs"], table["top1"])]
    return (f"{markdown_table(shown)}\n\nOn the Pareto front of accuracy against MACs, where no network here is both "
            f"better and cheaper: {', '.join(front)}.")


def twins(folder: Path | None = None) -> str:
    """How near AsymmNet-Large with r = 0 and MobileNetV3-Large are, two rows of the table that ask nearly the same."""
    table, names = which.accuracies(PLAIN.name, folder).set_index("name"), [LABELS[name] for name in TWINS]
    if table.empty:
        return "Open: not all runs are recorded."
    found = compare_networks(*(which.said_by(name, PLAIN.name, folder) for name in names))
    params = table["params"].loc[names].tolist()
    return (f"{names[1]} has the same blocks as {names[0]}: {abs(params[0] - params[1]):,} of {params[0]:,} parameters "
            f"make the difference. The two, which no test compares, lie {points(*found[:3])} apart. So where "
            "one of their rows shows a difference and the other does not, both have answered nearly the same question.")


def heavy(folder: Path | None = None) -> str:
    """ResNet50 and VGG19, a line a run, which decides nothing, and how their rates were chosen."""
    rows, runs = which.heavy(folder), records.read_runs(folder)
    if rows.empty:
        return "Open: no run of ResNet50 and VGG19 is recorded."
    recorded = set(rows["run"])
    lines = [f"{row.name}, fold {row.fold:.0f}: " + (
        "the run diverged." if row.diverged else f"{percent(row.top1)} % on the held-out pictures, "
        f"{percent(row.train_top1)} % in training; so few runs decide nothing.")
        for row in rows.itertuples(index=False)]
    lines += [f"{LABELS[run.network]}, fold {run.fold}: not run." for run in plan()
              if run.group == "a" and run.network in HEAVY and run.name not in recorded]
    given = [_rate(row, runs) for row in rows.drop_duplicates("network").itertuples(index=False)]
    return (f"{bullets(lines)}\n\nTheir rates were chosen on other pictures, with one weight decay and one run a rate; "
            f"each setting of a light network had {FOLDS} runs.\n\n{bullets(given)}")


def _rate(row, runs):
    tried = records.matching(runs, {"group": "tune", "network": row.network})
    rates = sorted({json.loads(fields)["base_lr"] for fields in tried["recipe_fields"]})
    return (f"{row.name}: {json.loads(row.recipe_fields)['base_lr']:g}, out of {', '.join(map('{:g}'.format, rates))}, "
            f"after {tried['epochs'].max():.0f} epochs.")


def article(folder: Path | None = None) -> str:
    """The article's experiment at its own size: what its runs say, and the runs that were left out."""
    table = article_size.accuracies(folder)
    left = " and ".join(f"{name} ({_estimate(hours)})" for name, hours in article_size.not_run(folder).items())
    left = f"Not run: {left}."
    if table.empty:
        return f"Open: not all runs are recorded. {left}"
    shown = pd.DataFrame({
        "network and recipe": table["name"], "top-1": table["top1"].map(percent),
        "per class": table["per_class"].map(percent), "in training": table["train_top1"].map(percent),
        "best epoch": [f"{percent(row.best)} ({row.best_epoch:.0f})" if row.best >= 0 else "diverged"
                       for row in table.itertuples()]})
    return (f"{markdown_table(shown)}\n\nEach is one run, judged on the same {table['pictures'].iloc[0]:.0f} pictures, "
            f"and one run decides nothing. {left}")


def _estimate(hours):
    return "not timed yet" if pd.isna(hours) else f"about {hours:.0f} hours of one thread, by its pace at 64 pixels"


def hardest(folder: Path | None = None) -> str:
    """The pictures that most answers are wrong about."""
    table = which.hardest(PLAIN.name, folder)
    if table.empty:
        return "Open: not all runs are recorded."
    answers = table["answers"].iloc[0]
    shown = table[table["wrong"] == answers].head(SHOWN)
    shown = shown.rename(columns={"name": "picture", "seen_as": "most often seen as"})
    never, always = (table["wrong"] == answers).sum(), (table["wrong"] == 0).sum()
    text = (f"About each picture {answers // 2} networks were asked twice, never a run that had been trained on it. Of "
            f"{len(table):,} pictures, {always:,} got {answers} right answers and {never:,} none.\n\n")
    shown = markdown_table(shown[["picture", "most often seen as"]])
    return text + folded(f"The first {SHOWN} that nobody got right, by name", shown)


def limits(folder: Path | None = None) -> str:
    """What may be concluded, and what not."""
    table, known = which.accuracies(PLAIN.name, folder), answered(f"a, {PLAIN.name}", folder)
    if table.empty or known is None:
        return "Open: not all runs are recorded."
    apart, flattery = 100 * (table["high"] - table["low"]), which.optimism(PLAIN.name, folder)["points"]
    return LIMITS.format(
        pictures=PICTURES["caltech16"], size=BASE.image_size, epochs=BASE.epochs, tests=len(known),
        sharpest=100 * known["missed"].min(), bluntest=100 * known["missed"].max(), nearest=apart.min(),
        farthest=apart.max(), trained=int(100 * table["train_top1"].min()), flattery=flattery.mean(),
        least=flattery.min(), most=flattery.max())


def origin(folder: Path | None = None) -> str:
    """Machines, versions and commits of the runs that the page speaks of."""
    runs = records.read_runs(folder)
    runs = runs[runs["group"].isin(ABOUT)] if len(runs) else runs
    if runs.empty:
        return "Open: no run is recorded."
    return (f"{len(runs)} runs, {runs['train_seconds'].sum() / 3600:.1f} hours of one thread.\n\n"
            + machines(runs)
            + "\n\nEach row of `results/trial/runs.csv` has its own; `results/README.md` explains the columns. `python "
              "-m asymmbook experiments run --again NAME` trains a run once more and says what is equal.")
