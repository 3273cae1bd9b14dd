"""What is said about which network: by hand on made-up runs, and held against the recorded ones."""
import json

import numpy as np
import pandas as pd
import pytest

from asymmbook.evidence import records, which
from asymmbook.evidence.results import read_pictures
from asymmbook.evidence.trial import BASE, LIGHT, plan
from asymmbook.evidence.tuning import Setting
from asymmbook.evidence.verdicts import LABELS
from asymmbook.pages import results


def test_the_front_by_hand():
    costs, values = [1, 2, 2, 3, 4], [0.5, 0.6, 0.4, 0.6, 0.9]
    assert list(which.on_front(costs, values)) == [True, True, False, False, True]
    assert list(which.on_front([1, 1], [0.5, 0.5])) == [True, True] and not len(which.on_front([], []))


@pytest.mark.parametrize(("costs", "values", "front"), [
    ([2, 2], [0.6, 0.4], [True, False]),               # as dear, and better
    ([2, 1], [0.6, 0.6], [False, True]),               # as good, and cheaper
    ([1, 2], [0.4, 0.6], [True, True]), ([1, 2], [0.6, 0.4], [True, False])])
def test_the_front_of_two(costs, values, front):
    assert list(which.on_front(costs, values)) == front
    assert list(which.on_front(costs[::-1], values[::-1])) == front[::-1]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Group a of two networks on four pictures, two folds once: `ant/0`, `bee/2` in fold 0, `ant/1`, `bee/3` in 1."""
    folder, right = records.trial_dir(tmp_path), {"asymmnet_large-r1": [1, 1, 1, 1], "mobilenet_v2": [1, 0, 1, 0]}
    folder.mkdir()
    pd.DataFrame({"name": ["ant/0", "ant/1", "bee/2", "bee/3"], "class": ["ant", "ant", "bee", "bee"],
                  "repeat0": [0, 1, 0, 1]}).to_csv(folder / "folds.csv", index=False)
    monkeypatch.setattr(records, "class_sets", lambda counts: {"caltech16": ("ant", "bee")})
    runs = [run for run in plan({}) if run.group == "a" and run.network in right and run.repeat == 0 and run.fold < 2
            and run.recipe.name == "64px"]
    monkeypatch.setattr(which, "plan", lambda scores: runs)
    labels, rows, curves, arrays = np.array([0, 1]), [], [], {}
    for run in runs:
        good = np.array(right[run.network], bool)[run.fold::2]
        arrays |= {f"{run.name}/predicted": np.where(good, labels, 1 - labels).astype(np.uint8),
                   f"{run.name}/confidence": np.full(2, 0.5, np.float16)}
        rows.append({"run": run.name, "group": "a", "network": run.network, "recipe": "64px", "pictures": "caltech16",
                     "repeat": 0, "fold": run.fold, "seed": run.fold, "top1": good.mean(), "held_out_pictures": 2,
                     "per_class_top1": 0.5,
                     "calibration_error": 0.1, "train_top1": 1.0, "macs": 10, "params": 20})
        curves += [{"run": run.name, "epoch": epoch, "eval_top1": top1 + 0.1 * run.fold}
                   for epoch, top1 in ((1, 0.5), (2, 0.8), (3, 0.6))]
    rows.append({**rows[0], "run": "time-x", "group": "time", "images_per_s": 500.0})
    rows += [{**rows[0], "run": name, "group": "time", "network": "vgg19"} for name in ("time-y", "time-z")]  # twice
    for table, content in (("runs", rows), ("curves", curves)):
        pd.DataFrame(content).to_csv(folder / f"{table}.csv", index=False)
    np.savez(folder / "predictions-a.npz", **arrays)
    return tmp_path


def test_accuracies_are_means_over_runs_in_the_plan_s_order(small):
    table = which.accuracies(folder=small).set_index("name")
    assert list(table.index) == [which.REFERENCE, LABELS["mobilenet_v2"]] and set(table["runs"]) == {2}
    other = table.loc[LABELS["mobilenet_v2"]]
    assert other[["top1", "low", "high"]].tolist() == [0.5, 0, 1] and other["sd"] == pytest.approx(0.5**0.5)
    assert table["train_ms"][which.REFERENCE] == 2 and np.isnan(other["train_ms"])


def test_nothing_is_said_before_all_runs_are_done(small):
    path = records.trial_dir(small) / "runs.csv"
    pd.read_csv(path).iloc[1:].to_csv(path, index=False)
    assert which.group_a("64px", small)[1:] == (3, 4)
    for table in (which.accuracies, which.run_curves, which.hardest, which.optimism):
        assert table(folder=small).empty
    assert which.curve_bands(folder=small) == {}
    with pytest.raises(ValueError, match="'AsymmNet-Large r = 1' has not all its runs of group a at 64px"):
        which.said_by(which.REFERENCE, folder=small)
    assert results.costs(small) == results.hardest(small) == results.limits(small) == "Open: not all runs are recorded."
    assert "Open: 3 of 4 runs" in results.networks(small)


def test_curves_bands_and_what_the_best_epoch_flatters(small):
    band = which.curve_bands(folder=small)[which.REFERENCE]
    assert band.iloc[1].tolist() == pytest.approx([2, 0.85, 0.8, 0.9, 2])
    assert which.optimism(folder=small)["points"].tolist() == pytest.approx([20] * 4)


def test_the_hardest_pictures_are_counted_over_all_answers(small):
    table = which.hardest(folder=small)
    assert table["answers"].tolist() == [2] * 4 and table["wrong"].tolist() == [1, 1, 0, 0]
    wrong = table[table["wrong"] > 0].set_index("name")["seen_as"]
    assert wrong.to_dict() == {"ant/1": "bee (1)", "bee/3": "ant (1)"}
    assert table["seen_as"][2:].tolist() == ["", ""]
    said = which.said_by(LABELS["mobilenet_v2"], folder=small)
    assert said.groupby("picture")["right"].first().to_dict() == {"ant/0": True, "bee/2": True, "ant/1": False,
                                                                  "bee/3": False}


def test_ties_are_all_named_in_order():
    assert which._most(pd.Series(["b", "a", "c", "b", "a"])) == {"a": 2, "b": 2}


def test_the_hardest_of_which_no_released_network_was_trained():
    unseen = which.hardest().merge(read_pictures("test"))
    assert len(unseen) == len(read_pictures("test")) > 4 and (unseen["wrong"][:4] == unseen["answers"][0]).all()


def test_each_recorded_run_trained_by_its_network_s_own_setting():
    runs, done, planned = which.group_a("64px")
    assert done == planned == 10 * len(LIGHT) and (runs["threads"] == 1).all()
    assert not runs["commit"].str.endswith("-dirty").any() and not runs["diverged"].any()
    wanted = {run.name: Setting(run.recipe.base_lr, run.recipe.weight_decay) for run in plan(records.scores())}
    fields = runs["recipe_fields"].map(json.loads)
    for name, recipe in zip(runs["run"], fields, strict=True):
        assert Setting(recipe["base_lr"], recipe["weight_decay"]) == wanted[name]
        assert {recipe[key] for key in ("initialisation", "norm", "epochs")} == {BASE.initialisation, BASE.norm, 30}


@pytest.mark.slow
@pytest.mark.usefixtures("few_draws")
def test_the_page_without_records_and_with_them(tmp_path):
    for name in results.__all__:
        assert getattr(results, name)(tmp_path).count("Open") >= 1, name
        text = getattr(results, name)()
        assert text.strip() and "nan" not in text and "None" not in text, name
    assert results.networks().count(" ± ") >= len(LIGHT)
