"""What `book/results.md` still shows of the first comparison, out of `results/archive/`, as Markdown.

Numbers and sentences come from `asymmbook.evidence.findings`; here they become Markdown. Every function takes a folder
of results (None: the project's).
"""
from pathlib import Path

import pandas as pd

from asymmbook.evidence import findings, which
from asymmbook.evidence.plan import FLAWED, PLAN
from asymmbook.evidence.results import read_pictures, read_results
from asymmbook.evidence.statistics import LEVEL, wilson
from asymmbook.figures.style import thousands
from asymmbook.pages.tables import bullets, folded, machines, markdown_table, percent, ranges
from asymmlib.recipes import RECIPES

__all__ = ["comparison", "duels", "everything", "flaws", "longer_runs", "origin", "plan"]

NONE = "None of these runs is recorded yet."

COMPARISON = """
Top-1 in per cent. The epoch was chosen on the {evals} eval pictures; the accuracy is that on the {tests} test pictures,
mean and standard deviation over seeds, beside the last epoch's. The interval is Wilson's {{cite}}`wilson1927` at
{level:.0f} %, for one network with that accuracy. Cost is the time of training on one picture, on the machine named
below while other work ran on it: good for telling one from ten, not for telling ten from eleven, and only between rows
with the same number of threads.
"""
DUELS = """
McNemar's exact test {{cite}}`mcnemar1947` looks only at pictures that one network gets right and the other wrong.
Asking {tests} questions at once finds a difference by luck too easily, so the p-values are corrected for that
{{cite}}`holm1979`. The text calls a difference shown only when every shared seed points the same way with a corrected p
below {level:g}.
"""
FLAWS = """
The article's own recipe at {size} pixels and {epochs} epochs, and the same with one flaw mended at a time. One seed
each: compare a gain with how far seeds alone move a network (the ± above) before believing it. p is McNemar's against
the recipe as published, corrected over this table.
"""


def _p(value):
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def plan(folder: Path | None = None) -> str:
    """What was run, and what not."""
    missing = findings.missing(folder)
    runs = read_results(folder)["runs"].set_index("run")
    rows = []
    for planned in PLAN:
        done = planned.name not in missing
        epochs = f"{runs['epochs_done'][planned.name]} of {planned.recipe.epochs}" if done else "0, not recorded"
        rows.append({"run": f"`{planned.name}`", "state": "done" if done else "**not run**", "epochs": epochs})
    stopping = [planned for planned in PLAN if planned.recipe.patience]
    heavy = " and ".join(f"`{model}`" for model in dict.fromkeys(planned.model for planned in stopping))
    return (f"{len(PLAN) - len(missing)} of {len(PLAN)} planned runs are recorded"
            + ("; nothing below counts the rest.\n" if missing else ".\n")
            + f"{heavy} may stop early by a rule of the plan: after {stopping[0].recipe.patience} epochs in a row "
            "without a better eval top-1."
            + (f"\n\n**Not run:** {', '.join(f'`{name}`' for name in missing)}." if missing else "")
            + "\n\n" + folded("Every planned run", markdown_table(pd.DataFrame(rows))))


def everything(folder: Path | None = None) -> str:
    """The sentences that these runs allowed, folded."""
    sentences = [*findings.verdicts(folder=folder).values(), *findings.guess_sentences(folder),
                 *findings.flaw_sentences(folder)]
    return folded("Every sentence", bullets(sentences) or NONE)


def comparison(folder: Path | None = None) -> str:
    """The table of the comparison, and the Pareto front."""
    table = findings.compared(folder)
    if table.empty:
        return NONE
    mean, deviation = table["best_test_top1_mean"], table["best_test_top1_sd"]
    accuracies = pd.DataFrame({
        "network": table["name"], "seeds": table["seeds"],
        "test": [percent(middle) + (f" ± {percent(sd)}" if pd.notna(sd) else "")
                 for middle, sd in zip(mean, deviation, strict=True)],
        "interval": ranges(table["low"], table["high"]),
        "test, last epoch": table["last_test_top1_mean"].map(percent),
        "eval": table["best_eval_top1_mean"].map(percent)})
    costs = pd.DataFrame({
        "network": table["name"], "MACs": table["macs"].map(thousands), "parameters": table["params"].map(thousands),
        "ms a picture": table["train_ms"].map("{:.1f}".format),
        "minutes a run": (table["train_seconds_mean"] / 60).map("{:.0f}".format), "threads": table["threads"],
        "memory (MiB)": table["peak_memory_mb_mean"].map("{:.0f}".format)})
    front = table["name"][which.on_front(table["macs"], mean)]
    text = COMPARISON.format(evals=len(read_pictures("eval", folder)), tests=len(read_pictures("test", folder)),
                             level=100 * (1 - LEVEL))
    tables = [folded("Accuracies", markdown_table(accuracies)), folded("Costs", markdown_table(costs))]
    return ("\n\n".join([text, *tables]) + "\n\nOn the Pareto front of test accuracy against MACs, which means that no "
            f"recorded network is both better and cheaper: {', '.join(front)}."
            + _kernels(folder, "stock"))


def _kernels(folder, group):
    return "".join(f"\n\n{sentence}" for sentence in findings.kernel_sentences(folder, [group]))


def duels(folder: Path | None = None) -> str:
    """McNemar's tests of the reference against the others."""
    table = findings.duels(folder=folder)
    if table.empty:
        return NONE
    shown = table[["second", "seed", "points", "only_first", "only_second", "p", "p_holm"]]
    shown = shown.rename(columns={"second": f"{findings.REFERENCE} against", "only_first": "only it is right",
                                  "only_second": "only the other", "p_holm": "p, corrected"})
    formats = {"points": "{:+.1f}".format, "p": _p, "p, corrected": _p}
    return f"{DUELS.format(tests=len(table), level=LEVEL)}\n{folded('Every test', markdown_table(shown, formats))}"


def flaws(folder: Path | None = None) -> str:
    """What mending each flaw is worth."""
    text, table = FLAWS.format(size=FLAWED.image_size, epochs=FLAWED.epochs), findings.flaws(folder)
    if table.empty:
        return NONE
    table = table.rename(columns={
        "name": "network", "change": "recipe", "last_test_top1": "test, last epoch", "best_test_top1": "test",
        "points": "gain in points", "p_holm": "p, corrected"})
    formats = {"test": percent, "test, last epoch": percent, "gain in points": "{:+.1f}".format, "p": _p,
               "p, corrected": _p}
    return f"{text}\n{folded('Every change', markdown_table(table, formats))}"


def longer_runs(folder: Path | None = None) -> str:
    """The runs at 128 pixels."""
    table = findings.recorded(("laptop", "laptop-seeds"), folder).sort_values("name", kind="stable")
    text = (f"The recipe `laptop`: {RECIPES['laptop'].image_size} pixels, without a test share, so these accuracies "
            "are on the eval pictures, after the last epoch.\n\n")
    if table.empty:
        return text + NONE
    low, high = wilson(table["last_eval_top1"], table["eval_pictures"])
    shown = pd.DataFrame({"network": table["name"], "seed": table["seed"],
                          "eval": table["last_eval_top1"].map(percent),
                          "interval": ranges(low, high), "train pictures": table["train_pictures"],
                          "minutes a run": (table["train_seconds"] / 60).map("{:.0f}".format)})
    return text + folded("Every run", markdown_table(shown)) + _kernels(folder, "laptop-stock")


def origin(folder: Path | None = None) -> str:
    """Machine, versions and commits of the recorded runs."""
    runs = read_results(folder)["runs"]
    if runs.empty:
        return NONE
    return machines(runs)
