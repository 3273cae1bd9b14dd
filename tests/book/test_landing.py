"""The findings on top of the book follow from records, and say which ones."""
import re

import numpy as np
import pandas as pd
import pytest

from asymmbook.__main__ import main
from asymmbook.evidence import summary
from asymmbook.evidence.verdicts import answered, families
from asymmbook.figures.comparison import plot_accuracy
from asymmbook.pages import landing


def family(mean, p, seconds=("MobileNetV2", "AsymmNet-Large r = 0")):
    rows = [{"first": "AsymmNet-Large r = 1 with everything mended", "second": second, "mean": mean, "low": mean - 0.01,
             "high": mean + 0.01, "p_holm": p} for second in seconds]
    return pd.DataFrame(rows)


@pytest.mark.slow
@pytest.mark.usefixtures("few_draws")
def test_todays_findings_have_their_intervals_and_their_pages():
    found, shown = summary.summary(), landing.found()
    assert len(found) == 4 and len({finding.head for finding in found}) == 4
    assert re.search(r"[+-]\d+\.\d points \([+-]\d+\.\d to [+-]\d+\.\d\)", found[0].text)
    for finding in found:
        assert f"[**{finding.head}.**]({finding.page}) {finding.text}" in shown


@pytest.mark.slow
@pytest.mark.usefixtures("few_draws")
def test_the_command_says_the_sentences_of_every_answered_question(capsys):
    assert main(["results"]) == 0
    said = capsys.readouterr().out.splitlines()
    known = [table for family in families() if (table := answered(family)) is not None]
    assert len(said) == sum(map(len, known)) >= 5 and said[: len(known[0])] == list(known[0]["sentence"])


@pytest.mark.parametrize(("mean", "p", "heads"), [
    (0.05, 0.01, ["Better than MobileNetV2", "The asymmetry helps", "The article's mistakes cost accuracy"]),
    (0.05, 0.2, ["Much better? Not shown", "The asymmetry itself: no gain is shown",
                 "The article's mistakes: no cost in accuracy is shown"]),
    (-0.05, 0.01, ["Much better? Not shown", "The asymmetry costs accuracy",
                   "The article's mistakes: no cost in accuracy is shown"])])
def test_a_complete_trial_is_what_counts(monkeypatch, mean, p, heads):
    monkeypatch.setattr(summary, "answered", lambda name, folder=None: family(mean, p))
    found = summary.summary()
    assert [finding.head for finding in found[:3]] == heads
    assert f"{100 * mean:+.1f} points" in found[0].text


def test_without_records_only_what_needs_none_is_said(tmp_path):
    assert [finding.page for finding in summary.summary(tmp_path)] == [
        "critical-reading.md", "../notebooks/06_paper_check.ipynb"]


def test_a_network_far_below_sets_no_axis():
    table = pd.DataFrame({"name": list("abcde"), "macs": [1e6, 2e6, 3e6, 4e6, 1e9],
                          "top1": [0.7, 0.68, 0.66, 0.64, 0.1],
                          "low": [0.69, 0.67, 0.65, 0.63, 0.1], "high": [0.71, 0.69, 0.67, 0.65, 0.1]})
    axis = plot_accuracy(table).axes[0]
    assert np.isclose(axis.get_ylim()[0], 0.6)
    labels = [text.get_text() for text in axis.figure.legends[0].get_texts()]
    assert labels[-1] == "e (10 %)"
    marks = {line.get_marker() for line in axis.lines if len(line.get_ydata()) and min(line.get_ydata()) < 0.61}
    assert "v" in marks
