"""The plan of recorded runs: unique names, fair settings, and a runner that does what is missing and no more."""
import numpy as np
import pytest

from asymmbook.evidence import runner
from asymmbook.evidence.plan import FAIR, FLAWED, PLAN, Planned
from asymmbook.evidence.runner import collect_experiments, run_experiments, status
from asymmlib.recipes import Recipe
from asymmlib.runs import find_run


def test_names_are_unique():
    assert len({planned.name for planned in PLAN}) == len(PLAN)


def test_compared_models_share_everything_but_the_seed():
    """The heavy ones may stop early besides, by a rule that their recipe states."""
    recipes = {planned.recipe.replace(seed=0, name="fair", patience=None) for planned in PLAN
               if planned.group == "compare"}
    assert recipes == {FAIR} and FAIR.test_share and FAIR.asymmnet_weight_decay is None


def test_each_mended_recipe_differs_from_the_flawed_one_in_one_thing():
    for planned in PLAN:
        if planned.group == "flaws" and planned.recipe.name not in ("flawed", "mended-all"):
            fields = planned.recipe.as_dict()
            changed = [key for key, value in FLAWED.as_dict().items() if fields[key] != value]
            assert len(changed) == 2 and "name" in changed


@pytest.fixture
def plan(home, picture_folder, monkeypatch):
    recipe = Recipe("tiny", image_size=32, epochs=2, batch_size=6, base_lr=0.001, data=str(picture_folder),
                    test_share=True)  # no batch of two, by which batch norm would blow weights up
    planned = [Planned("test", "asymmnet_small", recipe.replace(seed=seed), {"asymmrate": 0}) for seed in (0, 1)]
    monkeypatch.setattr(runner, "PLAN", planned)
    monkeypatch.setattr(runner, "results_dir", lambda: home / "results")
    monkeypatch.setattr("asymmbook.evidence.results.results_dir", lambda: home / "results")
    return [entry.name for entry in planned]


@pytest.mark.slow
def test_run_collect_and_nothing_twice(plan, capfd):
    assert list(status()["state"]) == ["not run", "not run"]
    run_experiments("*seed0")
    assert list(status()["state"]) == ["done", "not run"]
    table = collect_experiments()
    assert list(table["run"]) == plan[:1] and {"last_test_top1", "best_test_top1", "peak_memory_mb"} <= set(table)
    run_experiments()
    assert list(status()["state"]) == ["done", "done"]
    assert [reason.split(",")[0] for reason in status()["reason"]] == ["recorded", "trained here"]
    assert capfd.readouterr().out.count("epoch   1/2") == 2      # one training each
    run_experiments()
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_predictions_recompute_the_recorded_accuracy(plan, home):
    run_experiments("*seed0")
    table = collect_experiments()
    stored = np.load(home / "results" / "predictions" / f"{plan[0]}.npz")
    for which in ("last", "best"):
        for split in ("eval", "test"):
            top1 = (stored[f"{which}_{split}_predicted"] == stored[f"{split}_labels"]).mean()
            assert top1 == pytest.approx(table[f"{which}_{split}_top1"][0])


@pytest.mark.slow
def test_a_failed_run_does_not_stop_the_others(plan, monkeypatch, capfd):
    broken = runner.PLAN[0]
    broken = Planned("broken", broken.model, broken.recipe.replace(data="/nowhere/at/all"), {})
    monkeypatch.setattr(runner, "PLAN", [broken, runner.PLAN[1]])
    with pytest.raises(RuntimeError, match="failed, with messages above: broken-asymmnet_small"):
        run_experiments()
    assert list(status()["state"]) == ["not run", "done"]
    assert find_run(plan[1]).finished


def test_unknown_pattern(plan):
    with pytest.raises(ValueError, match="no planned run matches 'x'"):
        status("x")
