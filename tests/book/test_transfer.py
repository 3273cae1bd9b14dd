"""The page on transfer: made for any subset of the plan, in both languages, and a figure that draws what is there."""
import numpy as np
import pandas as pd
import pytest

from asymmbook.checkout import project_root
from asymmbook.editions.catalogue import catalogue, foreign
from asymmbook.editions.outputs import texts
from asymmbook.evidence import learning, records, shipping, transfer
from asymmbook.evidence.trial import plan
from asymmbook.figures.learning import plot_learning
from asymmbook.pages import transfer as pages

SCORES = {transfer.grid_run(network, thaw, fold): 0.6 + 0.1 * thaw.rate for network in transfer.NETWORKS
          for thaw in transfer.GRID for fold in range(transfer.GRID_FOLDS)}
CHANCE = {"n5": 0.5, "n10": 0.6, "n20": 0.7, "n40": 0.75, "all": 0.8, "scratch-n20": 0.4, "scratch-n5": 0.2,
          "scratch-all": 0.8}


def record(monkeypatch, without=()):
    """All runs of the plan but those whose names end so, with answers of exactly known accuracy."""
    rows = [{"run": run.name, "group": run.group, "network": run.network, "recipe": run.recipe.name,
             "repeat": run.repeat, "pictures": run.pictures, "fold": run.fold, "top1": SCORES.get(run.name, 0.5)}
            for run in plan(SCORES)
            if run.group == "transfer" and not run.name.endswith(tuple(without))]

    def answers(frame, folder=None):
        parts = []
        for row in frame.itertuples():
            rng = np.random.default_rng(sum(row.run.encode()))
            pictures = range(1000 * int(row.fold), 1000 * int(row.fold) + 300)
            parts.append(pd.DataFrame({"picture": pictures, "run": f"r0f{row.fold:.0f}",
                                       "right": rng.permutation(300) < 300 * CHANCE[row.recipe]}))
        return pd.concat(parts, ignore_index=True)
    monkeypatch.setattr(records, "read_runs", lambda folder=None: pd.DataFrame(rows))
    monkeypatch.setattr(records, "answers", answers)


@pytest.fixture
def nothing(monkeypatch):
    monkeypatch.setattr(records, "read_runs", lambda folder=None: pd.DataFrame({"run": pd.Series(dtype=str)}))


def said():
    return [pages.costs(), pages.setting(), pages.points(), pages.reading(), pages.answers()]


def chinese(parts):
    """What of these texts has no Chinese words."""
    output = [{"output_type": "display_data", "data": {"text/markdown": text}, "metadata": {}} for text in parts]
    found = {text: foreign(text, "zh_CN") for part in output for _, text in texts(part, "zh_CN", catalogue("zh_CN"))}
    return {text: words for text, words in found.items() if words}


def test_without_a_run_the_page_says_that_all_is_open(nothing):
    costs, setting, points, reading, answers = parts = said()
    assert "| 20 | 38,200 | 4,800 | 43,000 | 43,520 |" in costs and costs.count("\n") == 4
    assert setting.count("| 0 of 6 | open |") == 4 and "Open: the setting is chosen when" in setting
    assert points.count("not run, or not complete") == len(learning.learning_curves()) == 14
    assert reading == "- Open: 14 of 14 points wait for their runs." and "Open: not all its runs" in answers
    assert not chinese(parts)
    (axes,) = plot_learning(learning.learning_curves()).axes
    assert [text.get_text() for text in axes.texts] == ["no point has all its runs yet"]


@pytest.mark.slow
@pytest.mark.usefixtures("few_draws")
def test_points_stand_where_their_five_folds_are_and_the_tests_where_both_sides_are(monkeypatch):
    record(monkeypatch, ("asymmnet_large-r1-n5-caltech16-r0f3", "mobilenet_v2-scratch-n20-caltech16-r0f0"))
    curves = {(point.network, point.kind, point.size): point for point in learning.learning_curves()}
    assert [key for key, point in curves.items() if point.result is None] == [
        ("asymmnet_large-r1", "pre-trained", "n5"), ("mobilenet_v2", "from scratch", "n20")]
    for (_, kind, size), point in curves.items():
        truth = CHANCE[learning.KINDS[kind].format(size=size)]
        if point.result:
            assert point.result.mean == pytest.approx(truth) and point.runs == 5
            assert truth - 0.05 < point.result.low < truth < point.result.high < truth + 0.05
    worth = learning.payoff("asymmnet_large-r1", "n20")
    assert worth.mean == pytest.approx(0.3) and worth.low < 0.3 < worth.high
    assert learning.payoff("mobilenet_v2", "n20") is None
    _, setting, points, reading, answers = parts = said()
    table = learning.grid()
    assert "| 0 | 1 | 6 of 6 | 70.0 |" in setting
    assert "Chosen: nothing is frozen, and all layers have the same rate." in setting
    assert "| AsymmNet-Large r = 1 | pre-trained | 5 | 4 of 5 | not run, or not complete |" in points
    assert "AsymmNet-Large r = 1, 20 pictures a class, pre-trained less from scratch at equal cost: +" in reading
    assert "- Open: 2 of 14 points" in reading and "MobileNetV2, pre-trained: " in reading
    assert "Open: not all its runs are recorded." in answers and "against" not in answers  # one of two is not enough
    for thaw, words in ((transfer.GRID[1], "nothing is frozen, and the backbone's rate is 0.1 times that of the head."),
                        (transfer.GRID[2], "the backbone is frozen for 5 of 15 epochs, and all layers have the same"),
                        (transfer.GRID[3], "frozen for 5 of 15 epochs, and the backbone's rate is 0.1 times")):
        monkeypatch.setattr(pages, "grid", lambda folder=None, thaw=thaw: table.assign(
            mean=[0.7 if (row.frozen, row.rate) == thaw else 0.6 for row in table.itertuples()]))
        parts.append(pages.setting())
        assert words in parts[-1]
    assert not chinese(parts)
    (axes,) = plot_learning(list(curves.values())).axes
    drawn = {container.get_label(): container[0].get_ydata() for container in axes.containers}
    assert {label: len(values) for label, values in drawn.items()} == {
        "AsymmNet-Large r = 1, pre-trained": 4, "AsymmNet-Large r = 1, from scratch": 3, "MobileNetV2, pre-trained": 5}
    assert list(drawn["MobileNetV2, pre-trained"]) == sorted(drawn["MobileNetV2, pre-trained"])


def test_the_recipe_of_the_released_weights_is_shown_with_what_it_costs(monkeypatch, nothing):
    parts = [pages.recipes(), pages.choice()]
    assert parts[0].count("open") == 7 * 4 and "14 runs are recorded; 14 are missing" in parts[1]
    runs = [run for run in plan() if run.group == "weights" and run.pictures != "caltech16"]
    rows = [{"run": run.name, "top1": 0.5 + 0.1 * bool(run.start), "train_seconds": 600.0, "train_pictures":
             4000 if run.recipe.name == "source" else 900} for run in runs]
    for best, words in (("pre", "Chosen: `pre`, 60.0 % on the mean of two networks; the next best is `pre-flip`, 60.0 "
                                "%. The recipe of earlier weights, `scratch`, has 50.0 %; the chosen one trains on 6.9 "
                                "times as many"),
                        ("scratch", "Chosen: `scratch`, 90.0 % on the mean of two networks; the next best is `pre`")):
        rows = [row | ({"top1": 0.9} if "-scratch-next16" in row["run"] and best == "scratch" else {}) for row in rows]
        monkeypatch.setattr(records, "read_runs", lambda folder=None, rows=rows: pd.DataFrame(rows))
        parts += [pages.recipes(), pages.choice()]
        assert words in parts[-1]
        assert ("| `pre-slow` | `crop-flip` | 60 | `backbone_rate` 0.1 | 60.0% | 60.0% | "
                "214,000 | 20 |") in parts[-2]
    assert "earlier weights" not in parts[-1]
    assert not chinese(parts)


def test_the_page_counts_the_answers_that_choose_the_recipe():
    held = records.held_out_pictures("next16", shipping.REPEAT, shipping.FOLD)
    text = " ".join((project_root() / "book" / "transfer.md").read_text(encoding="utf-8").split())
    assert f"One fold and two networks are {len(held) * len(shipping.NETWORKS)} answers" in text


def test_the_page_reads_its_own_run():
    history = pd.DataFrame({"train_top1": [0.1, 0.9], "eval_top1": [0.9, 0.5]})
    assert pages.tried(history).startswith("In the last epoch 90.0 % are right in training and 50.0 % on eval. Five")
    assert "by heart" not in pages.tried(history.head(1))


def test_the_figure_names_what_it_lacks():
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_learning([])
