"""The trial: fair by its plan, folds that depend on nothing but the pictures, a rule for the settings, records."""
from collections import Counter

import numpy as np
import paddle
import pandas as pd
import pytest
from paddle import nn

from asymmbook.checkout import project_root
from asymmbook.evidence import design, folds, records, shipping, transfer, trial_runner, trial_work, verdicts
from asymmbook.evidence.ablation import KINDS, Ablated, registered
from asymmbook.evidence.scales import layer_scales
from asymmbook.evidence.trial import ABLATIONS, BASE, LIGHT, MATCHED, PACES, PAIR, PICTURES, TrialRun, hours, plan
from asymmbook.evidence.tuning import DECAYS, RATES, Setting, tuning
from asymmbook.pages import results
from asymmbook.pages import trial as pages
from asymmbook.pages.tables import markdown_table
from asymmlib.complexity import count
from asymmlib.data.manifest import EVERY
from asymmlib.data.sources import prepare
from asymmlib.models import MODELS, create_model, treat
from asymmlib.training import make_schedule

PLAN = design.foreseen_plan()


def test_names_are_unique_and_nothing_waits_once_settings_are_known():
    assert len({run.name for run in PLAN}) == len(PLAN) and not [run for run in PLAN if run.awaits]
    names = {run.name for run in PLAN}
    assert all(run.start in names for run in PLAN if run.start)
    first = plan()
    assert all(run.awaits for run in first if run.group in ("a", "b", "e", "f", "default", "spread"))
    assert not any(run.awaits for run in first if run.group in ("tune", "c", "d"))
    assert [run.awaits for run in first if run.group == "time" and run.awaits] == ["vgg19"]


def same(run):
    """A run's recipe without what may differ between networks."""
    return run.recipe.replace(seed=0, base_lr=BASE.base_lr, weight_decay=BASE.weight_decay)


def test_networks_of_a_question_share_everything_but_rate_and_decay():
    for group in "abef":
        for name in {run.recipe.name for run in PLAN if run.group == group}:
            assert len({same(run) for run in PLAN if run.group == group and run.recipe.name == name}) == 1
    for run in PLAN:
        assert run.fold is None or run.group == "spread" or run.recipe.seed == 10 * run.repeat + run.fold
        assert run.recipe.accelerate and run.recipe.patience is None
        assert run.recipe.test_share == (run.recipe.name == "released")
        assert (run.recipe.initialisation, run.recipe.norm) == ("he", "common") or run.group == "default"


def test_no_compared_picture_chooses_anything():
    assert {run.pictures for run in PLAN if run.group == "tune"} == {"next16"}
    grid = {thaw.name for thaw in transfer.GRID}
    choosing = [run for run in PLAN if run.group == "transfer" and run.recipe.name in grid]
    assert {run.pictures for run in choosing} == {"next16"} and len(choosing) == 24
    starts = {run.name: run.pictures for run in PLAN}
    assert {starts[run.start] for run in choosing} == {"pretrain58"}  # without the classes that choose


def test_each_flaw_differs_from_the_article_in_one_thing():
    flaws = [run for run in PLAN if run.group == "d" and run.network == PAIR[0] and run.fold == 0]
    flawed = next(run.recipe for run in flaws if run.recipe.name == "flawed").as_dict()
    for run in flaws:
        changed = {key for key, value in run.recipe.as_dict().items() if value != flawed[key]} - {"name"}
        assert len(changed) == {"flawed": 0, "mended-all": 4}.get(run.recipe.name, 1)


def test_swings_end_where_the_protocol_says():
    """45 batches an epoch end near 0, as in the article; 46 end at the peak."""
    for batches, low, high in ((45, 0, 1e-4), (46, 0.0099, 0.0102)):
        for run in PLAN:
            swings = run.group in "cd" and run.recipe.schedule == "cosine-per-batch" and run.fold in (None, 0)
            if swings and run.recipe.drop_last == (batches == 45):
                schedule, by_epoch = make_schedule(run.recipe, batches)
                for _ in range(batches * run.recipe.epochs - 1):
                    schedule.step()
                assert not by_epoch and low <= schedule.get_lr() <= high, run.name


def test_every_test_of_the_protocol_has_its_runs_in_the_plan():
    rows = pd.DataFrame([{"group": run.group, "network": run.network, "recipe": run.recipe.name, "repeat": run.repeat,
                          "pictures": run.pictures} for run in PLAN])
    tested = verdicts.families()
    assert {name: len(pairs) for name, pairs in tested.items()} == {
        "a, 64px": 5, "a, 128px": 5, f"d, {PAIR[0]}": 6, f"d, {PAIR[1]}": 5, "b": 2, "e": 0, "f": 5, "default": 4,
        "transfer": 2}
    for side in (side for pairs in tested.values() for pair in pairs for side in pair):
        assert sum((rows[list(part)] == pd.Series(part)).all(axis=1).sum() for part in side.rows) == side.runs, side


def test_released_weights_are_trained_by_the_candidate_that_won_elsewhere():
    mine = [run for run in plan() if run.group == "weights"]
    released = [run for run in mine if run.pictures == "caltech16"]
    assert {run.pictures for run in mine if run.recipe.name in shipping.CANDIDATES} == {"next16"}
    assert {run.network for run in released} == set(shipping.RELEASED)
    assert all(run.awaits == "recipe" and run.recipe.test_share and run.fold is None for run in released)
    scores = {shipping.candidate_run(network, name): 0.5 for network in shipping.NETWORKS
              for name in shipping.CANDIDATES}
    assert set(scores) <= {run.name for run in mine}
    assert shipping.chosen(scores) == next(iter(shipping.CANDIDATES))  # ties go to the first
    assert shipping.chosen(dict(list(scores.items())[:-1])) is None
    best = shipping.candidate_run(shipping.NETWORKS[1], "pre-smooth")
    done = [run for run in plan(scores | {best: 0.6}) if run.group == "weights" and run.recipe.name == "released"]
    assert {(run.awaits, run.recipe.label_smoothing, run.recipe.epochs) for run in done} == {(None, 0.1, 60)}
    sources = {run.name: run for run in mine if run.recipe.name == "source"}
    assert all(sources[run.start].pictures == shipping.SOURCES[run.pictures] for run in [*mine, *done] if run.start)
    assert {run.start is None for run in done} == {False}
    assert shipping.cost(shipping.CANDIDATES["pre"], 10, 100) == 30 * 10 + 40 * 100
    assert shipping.cost(shipping.CANDIDATES["scratch"], 10, 100) == 300


@pytest.mark.slow
def test_verdicts_from_records(monkeypatch):
    """Two networks of known accuracy and one without all its runs."""
    runs = pd.DataFrame([{"run": run.name, "group": run.group, "network": run.network, "recipe": run.recipe.name,
                          "pictures": run.pictures, "repeat": run.repeat, "fold": run.fold, "top1": 0.5}
                         for run in PLAN if run.group == "a"])
    runs = runs[~((runs["network"] == "asymmnet_large-r2") & (runs["fold"] == 4))]
    chance = {PAIR[0]: 0.75, PAIR[1]: 0.55}

    def answers(rows, folder):
        parts = []
        for row in rows.itertuples():
            rng = np.random.default_rng(sum(row.run.encode()))
            pictures = range(100 * row.fold, 100 * row.fold + 100)
            parts.append(pd.DataFrame({"picture": pictures, "run": f"r{row.repeat}f{row.fold}",
                                       "right": rng.random(100) < chance.get(row.network, 0.75)}))
        return pd.concat(parts)
    monkeypatch.setattr(records, "read_runs", lambda folder=None: runs)
    monkeypatch.setattr(records, "answers", answers)
    table = verdicts.verdicts("a, 64px").set_index("second")
    assert table["sentence"]["MobileNetV2"].endswith("a difference is shown.") and table["mean"]["MobileNetV2"] > 0.1
    assert table["sentence"]["AsymmNet-Large r = 2"].endswith("not run, or not complete.") and table["p"].max() == 1
    assert "no difference is shown" in table["sentence"]["AsymmNet-Large r = 0"]
    assert verdicts.answered("a, 64px") is None  # the protocol looks once
    text = pages.answers()
    assert "points" not in text and text.count("Open: not all its runs are recorded.") == len(pages.QUESTIONS)
    assert pages.differences("a") == {}


def test_the_page_says_how_far_the_trial_is(monkeypatch):
    """All of group a at 64 px without the heavy networks; then one run less."""
    rows = [{"run": run.name, "group": run.group, "network": run.network, "recipe": run.recipe.name, "top1": 0.5,
             "per_class_top1": 0.4, "calibration_error": 0.1, "train_top1": 0.9, "macs": 1, "params": 2,
             "held_out_pictures": 9, "images_per_s": None}
            for run in PLAN if run.group == "a" and run.network in LIGHT and run.recipe.name == "64px"]
    monkeypatch.setattr(records, "read_runs", lambda folder=None: pd.DataFrame(rows))
    assert "| `a` | which network? | 94 | 60 | running |" in pages.state() and "**60 of " in pages.state()
    assert "| MobileNetV2 | 10 | 50.0 ± 0.0 | 50.0–50.0 | 40.0 | 10.0 | 90.0 |" in results.networks()
    assert results.networks().endswith("**At 128 pixels**\n\nOpen: 0 of 30 runs are recorded.")
    assert "| MobileNetV2 | open | open | open | open | open |" in pages.settings()
    assert pages.gap() == "Not every network is tuned yet." and pages.rates().empty
    rows.pop()
    assert "\n\nOpen: 59 of 60 runs are recorded.\n\n" in results.networks()


def test_the_page_says_what_a_rate_is_worth(monkeypatch):
    """Known accuracies: the first network is the better at its own setting, the others at the article's."""
    def top1(network, setting):
        if setting == Setting(0.01, 1e-4):
            return 0.5 if network == PAIR[0] else 0.55
        if setting.rate == 0.05:
            return 0.7 if network == PAIR[0] and setting.decay == 1e-3 else 0.6
        return 0.1
    scores = {f"tune-{network}-{setting.name}-next16-r0f{fold}": top1(network, setting) + (fold - 2) / 100
              for network in LIGHT for setting in (Setting(rate, decay) for rate in RATES for decay in DECAYS)
              for fold in range(folds.FOLDS)}
    monkeypatch.setattr(records, "scores", lambda folder=None: scores)
    assert "| AsymmNet-Large r = 1 | 0.05 | 0.001 | 70.0 | 60.0 | 50.0 |" in pages.settings()
    assert "| MobileNetV2 | 0.05 | 0.0001 | 60.0 | 60.0 | 55.0 |" in pages.settings()  # the smaller decay
    assert pages.gap() == (
        "On these pictures AsymmNet-Large r = 1 is ahead of MobileNetV2 by -5.0 points where both train at the "
        "article's setting, and by 10.0 points where each trains at its own. At the rate 0.2 the networks lose 50.0 to "
        "60.0 points; at their own settings the best is 10.0 points above the worst. The five folds of one "
        "chosen setting lie 4.0 to 4.0 points apart: small differences are to be measured by that.")
    table = pages.rates()
    assert len(table) == 10 * len(LIGHT) and table.groupby("network")["chosen"].sum().eq(1).all()
    best = table[table["chosen"]].iloc[0]
    assert (best["rate"], best["decay"]) == (0.05, 1e-3) and best["mean"] == pytest.approx(0.7)
    assert (best["low"], best["high"]) == pytest.approx((0.68, 0.72))
    del scores[f"tune-{PAIR[1]}-lr0.05_wd0.001-next16-r0f4"]
    assert "| MobileNetV2 | open | open | open | open | open |" in pages.settings()
    assert pages.gap() == "Not every network is tuned yet." and len(pages.rates()) == 10 * len(LIGHT) - 1


def test_small_filters_keep_less_and_turn_further():
    """What the page says of Paddle's default, by hand: sixteen channels, a quarter of He's deviation."""
    def scales(rule):
        paddle.seed(0)
        network = treat(nn.Sequential(nn.Conv2D(3, 16, 1), nn.Conv2D(16, 16, 3, groups=16), nn.BatchNorm2D(16),
                                      nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(16, 2)), rule)
        return layer_scales(network, paddle.randn([4, 3, 8, 8]), paddle.to_tensor([0, 1, 0, 1]))
    small, common = scales("paddle-default").iloc[0], scales("he").iloc[0]
    assert (small["layer"], small["kind"]) == ("1", "depthwise") and 0.2 < small["filters"] < 0.3
    assert 0.8 < common["filters"] < 1.2 and small["kept"] < common["kept"] <= 1 and small["step"] > 4 * common["step"]


def test_transfer_and_scratch_cost_the_same_and_differ_in_nothing_else():
    mine = [run for run in PLAN if run.group == "transfer" and run.pictures == "caltech16"]
    few = {run.recipe.name: run.recipe for run in mine}
    for network, sizes in transfer.SCRATCH.items():
        assert {run.recipe.name for run in mine if run.network == network} == {
            *transfer.SIZES, *(f"scratch-{size}" for size in sizes)}
        for size in sizes:
            tuned, scratch = few[size], few[f"scratch-{size}"]
            again = scratch.replace(name=size, epochs=tuned.epochs, passes=1, frozen_epochs=tuned.frozen_epochs,
                                    backbone_rate=tuned.backbone_rate, seed=tuned.seed)
            assert again == tuned
            spent = scratch.epochs * scratch.passes * transfer.trained_pictures(size)
            assert 1 <= spent / transfer.cost(size) < 1.02  # never less than the other
    starts = {run.start for run in mine if run.start}
    assert {(run.pictures, run.recipe.epochs) for run in PLAN if run.name in starts} == {("pretrain74", 8)}
    for run in mine:
        assert run.recipe.train_per_class == transfer.SIZES.get(run.recipe.name.removeprefix("scratch-"))


def test_an_epoch_of_the_pre_training_has_as_many_pictures_as_its_cost_counts():
    table = records.read_folds()
    inside = table[table["class"].isin(folds.class_sets(Counter(table["class"]))["pretrain74"])]
    copies = folds.copies_of_others(inside["name"])
    trained = inside[(inside.groupby("class").cumcount() % EVERY != 0) & ~inside["name"].isin(copies)]
    assert len(trained) == transfer.SOURCE_PICTURES and copies
    held_out = set(records.held_out_pictures("pretrain74", None, None)["name"])
    assert held_out.isdisjoint(trained["name"]) and held_out | set(trained["name"]) == set(inside["name"]) - copies


def test_the_setting_of_the_thaw_is_the_best_mean_and_ties_go_to_the_first():
    scores = {transfer.grid_run(network, thaw, fold): 0.5 for network in PAIR for thaw in transfer.GRID
              for fold in range(transfer.GRID_FOLDS)}
    assert transfer.thawing(scores) == transfer.GRID[0]
    one = transfer.grid_run(PAIR[1], transfer.GRID[2], 0)
    assert transfer.thawing(scores | {one: 0.6}) == transfer.GRID[2]
    waiting = plan({key: value for key, value in scores.items() if key != one})
    assert {run.awaits for run in waiting if run.group == "transfer"} == {None, "thawing"}
    chosen = [run for run in plan(scores | {one: 0.6}) if run.group == "transfer" and run.recipe.name in transfer.SIZES]
    assert {(run.recipe.frozen_epochs, run.recipe.backbone_rate, run.awaits) for run in chosen} == {(5, 1.0, None)}
    assert {key for key in scores} <= {run.name for run in waiting}


@pytest.mark.slow
@pytest.mark.parametrize(("width", "matched"), MATCHED.items())
def test_matched_widths(width, matched):
    original, plain, wider = (count(create_model("asymmnet_large", 100, width=w, asymmrate=rate), (1, 3, 64, 64))
                              for w, rate in ((width, 1), (width, 0), (matched, 0)))
    assert abs(wider.params / original.params - 1) < 0.03 and 1 <= original.macs / plain.macs < 1.045


@pytest.mark.slow
def test_ablations_cost_what_the_original_costs():
    assert set(KINDS) == set(ABLATIONS)
    with registered():
        cost = {kind: count(create_model(f"ablation_{kind}", 16, width=1.0, asymmrate=1), (1, 3, 64, 64))
                for kind in KINDS}
    assert not any(name.startswith("ablation") for name in MODELS)
    original = count(create_model("asymmnet_large", 16), (1, 3, 64, 64))
    assert all(abs(one.macs / original.macs - 1) < 0.03 for one in cost.values())
    assert (cost["left"].macs, cost["left"].params) == (cost["right"].macs, cost["right"].params)
    assert cost["shuffled"].params == cost["zeros"].params == original.params


def test_ablations_see_what_they_should():
    x, y = paddle.rand([2, 24, 6, 6]), paddle.rand([2, 48, 6, 6])
    block = next(block for block in create_model("asymmnet_large", 16).blocks if block.plan.copies)
    beside = {kind: Ablated(block.plan, kind).beside(x, y).numpy() for kind in KINDS}
    x, y = x.numpy(), y.numpy()
    assert (beside["left"] == np.concatenate([x, y], 1)).all() and (beside["right"] == np.concatenate([y, x], 1)).all()
    assert (beside["new"] == y).all() and not beside["zeros"][:, :24].any() and (beside["zeros"][:, 24:72] == y).all()
    moved = beside["shuffled"][:, :24]
    assert (moved != x).any() and (np.sort(moved.reshape(48, -1)) == np.sort(x.reshape(48, -1))).all()
    assert (moved == beside["shuffled"][:, 72:]).all()


def manifest():
    rows = [(f"c{label}/{number}", f"c{label}", "train", f"{label * 100 + number:064x}", f"c{label}/{number}")
            for label in range(4) for number in range(31 + label)]
    return pd.DataFrame(rows, columns=["path", "class", "split", "sha256", "name"])


def test_folds_are_stratified_keep_copies_together_and_ignore_the_order():
    frame = manifest()
    pairs = [(f"{0:064x}", f"{7:064x}"), (f"{7:064x}", f"{12:064x}"), (f"{5:064x}", f"{305:064x}"), ("0", "1")]
    for repeat in range(2):
        dealt = pd.Series(folds.deal(frame, pairs, repeat), index=frame["sha256"])
        sizes = pd.crosstab(frame["class"].to_numpy(), dealt.to_numpy())
        assert (sizes.max(axis=1) - sizes.min(axis=1)).max() <= 1 and sizes.shape == (4, 5)
        for first, second in pairs[:3]:
            assert dealt[first] == dealt[second]
        mixed = frame.sample(frac=1, random_state=1)
        again = pd.Series(folds.deal(mixed, pairs[::-1], repeat), index=mixed["sha256"])
        assert (again[frame["sha256"]] == dealt).all()
    assert (folds.deal(frame, pairs, 0) != folds.deal(frame, pairs, 1)).mean() > 0.5


def test_recorded_folds_hold_out_each_picture_once_a_repeat():
    table = records.read_folds()
    sets = folds.class_sets(Counter(table["class"]))
    sizes = {name: int(table["class"].isin(classes).sum()) for name, classes in sets.items()}
    assert sizes == {"caltech16": 1817, "next16": 1215, "hundred": 8242, "pretrain85": 6860, "pretrain69": 5645,
                     "pretrain74": 6004, "pretrain58": 4789}
    assert len(folds.unknown_classes(Counter(table["class"]))) == 10 and len(sets["pretrain74"]) == 74
    unknown = {"anchor", "ant", "brontosaurus", "cannon", "flamingo_head", "headphone", "lobster", "mandolin", "mayfly",
               "saxophone"}
    assert set(folds.unknown_classes(Counter(table["class"]))) == unknown
    for name in ("pretrain74", "pretrain58"):
        assert not set(sets[name]) & {*unknown, "Faces_easy", *sets["caltech16"]}
    assert not set(sets["pretrain58"]) & set(sets["next16"])
    assert {"ewer", "ferry"} <= set(sets["next16"]) and not set(sets["next16"]) & set(sets["caltech16"])
    for repeat in range(2):
        parts = [records.held_out_pictures("caltech16", repeat, fold)["name"] for fold in range(5)]
        assert sorted(pd.concat(parts)) == sorted(table["name"][table["class"].isin(sets["caltech16"])])
        assert all(1440 <= 1817 - len(part) < 1472 for part in parts)  # 45 full batches, as the article had
    place = table.set_index("name")
    for pair in folds.read_near_copies().itertuples():
        assert (place.loc[pair.first, ["repeat0", "repeat1"]] == place.loc[pair.second, ["repeat0", "repeat1"]]).all()


def score(network, truth):
    """Follow the rule with a made-up accuracy of each setting until it chooses; (best, settings by number of runs)."""
    scores, best = {}, None
    while best is None:
        runs, best = tuning(network, scores)
        scores |= {f"tune-{network}-{setting.name}-next16-r0f{fold}": truth(setting) for setting, fold in runs}
    return best, Counter(setting for setting, _ in runs)


def test_the_grid_and_its_widening():
    best, runs = score("mobilenet_v2", lambda setting: 1 - abs(setting.rate - 0.05) - setting.decay)
    assert best == Setting(0.05, DECAYS[0]) and len(runs) == 10
    assert set(runs.values()) == {5}, "every setting on every fold"
    best, runs = score("mobilenet_v2", lambda setting: setting.rate)
    assert best.rate == 1.0 and best.decay == DECAYS[0] and max(RATES) == 0.2  # 0.5, then 1.0, ties to less decay
    best, runs = score("mobilenet_v2", lambda setting: 0.0 if setting.rate > 0.02 else 1 - setting.rate)
    assert best.rate == 0.002 and len(runs) == 14
    assert score("mobilenet_v2", lambda setting: 0.0)[0].rate == 0.002  # all diverged: still ends, at the smallest


def test_a_kind_of_run_costs_what_it_trains():
    run = next(run for run in PLAN if run.group == "a" and run.recipe.image_size == 64)
    assert hours([run], {(run.model, 64): 100}) == pytest.approx((12 + 1817 * 0.8 * 30 / 100) / 3600)


def test_the_protocol_has_the_computed_tables():
    text = (project_root() / "results" / "protocol.md").read_text(encoding="utf-8")
    for table in (design.power_table(), design.cost_table()):
        assert markdown_table(table).replace("---:", "---") in text  # as it was committed, before tables aligned
    parts = design.recorded_components()
    assert all(f"{part:.4f}" in text for part in parts)


@pytest.fixture
def small(home, picture_folder, monkeypatch):
    """A trial of two runs on three classes, in folders of its own."""
    prepared = prepare(str(picture_folder))
    everything = records.trial_dir(home)
    everything.mkdir()
    table = prepared.manifest[["name", "class"]].assign(repeat0=(prepared.manifest["split"] != "eval").astype(int))
    table.to_csv(everything / "folds.csv", index=False)
    recipe = BASE.replace(name="tiny", image_size=32, epochs=2, batch_size=8)
    runs = [TrialRun("a", "asymmnet_small", {"asymmrate": 0}, recipe.replace(base_lr=rate, name=f"lr{rate:g}"), "mine",
                     0, 0) for rate in (0.05, 100.0)]
    monkeypatch.setitem(PICTURES, "mine", 30)
    monkeypatch.setitem(PACES, ("asymmnet_small", 32), 100)
    monkeypatch.setattr(folds, "held_out", lambda *where: prepared)
    monkeypatch.setattr(records, "class_sets", lambda counts: {"mine": prepared.class_names})
    monkeypatch.setattr(records, "results_dir", lambda: home)
    monkeypatch.setattr(trial_runner, "plan", lambda scores: runs)
    return runs


@pytest.mark.slow
def test_train_measure_and_record(small, home):
    assert list(trial_runner.status()["new"]) == [2, 2]
    log = trial_runner.runs_dir() / small[0].name / "log.txt"  # `work` opens it before the run begins
    log.parent.mkdir(parents=True)
    log.write_text("begun")
    for run in small:
        trial_work.train_and_measure(run, run.name)
    assert log.read_text() == "begun"
    assert list(trial_runner.status("*0.05*")["trained"]) == [1, 1]
    table = trial_runner.collect().set_index("recipe")
    assert list(trial_runner.status()["recorded"]) == [2, 2]
    said = records.answers(records.read_runs(home).query("recipe == 'lr0.05'"), home)
    assert said["right"].mean() == pytest.approx(table["top1"]["lr0.05"]) and len(said) == 6
    assert (said["run"] == "r0f0").all() and table["held_out_pictures"]["lr0.05"] == 6
    assert table["sessions"].str.contains("commit").all() and set(records.read_curves(home)["run"])
    if table["diverged"]["lr100"]:
        assert table["top1"]["lr100"] == 0
    again = trial_runner.collect()
    assert len(again) == 2


@pytest.mark.slow
def test_a_network_with_changed_copies_is_trained_and_measured(small, home):
    """Its blocks are not those of its settings, which its weights must not claim."""
    run = small[0]._replace(group="f", model="ablation_zeros", settings={})
    trial_work.train_and_measure(run, run.name)
    with np.load(trial_runner.runs_dir() / run.name / "predictions.npz") as stored:
        assert len(stored["predicted"]) == 6 and trial_work.NOBODY not in stored["predicted"]


def test_a_run_that_diverges_is_wrong_about_everything(small, monkeypatch):
    def explode(*args, **settings):
        from asymmlib.runs import Run
        run = Run(trial_runner.runs_dir() / settings["name"], {"model": "x", "settings": {}, "recipe": BASE.as_dict()})
        run.folder.mkdir(parents=True)
        run.write()
        raise FloatingPointError("the loss became nan")
    monkeypatch.setattr("asymmlib.training.train", explode)
    trial_work.train_and_measure(small[0], small[0].name)
    assert trial_runner.scores() == {small[0].name: 0.0}
    with np.load(trial_runner.runs_dir() / small[0].name / "predictions.npz") as stored:
        assert set(stored["predicted"]) == {trial_work.NOBODY}


def test_unknown_names(small):
    with pytest.raises(ValueError, match="no planned run matches 'x'; names begin with tune, time, a"):
        trial_runner.status("x")
    with pytest.raises(ValueError, match="--jobs is 0"):
        trial_runner.run(jobs=0)
    with pytest.raises(ValueError, match="'x' is not a recorded run"):
        trial_runner.again("x")


@pytest.mark.slow
@pytest.mark.usefixtures("few_draws")
def test_answers_of_one_group():
    text = pages.answers(group="d")
    assert "flaw worth to MobileNetV2" in text and "default" not in text and text in pages.answers()
    tables = pages.differences("d")
    assert list(tables) == [verdicts.LABELS[network] for network in PAIR]
    assert all(table["label"].iloc[-1] == "with everything mended" for table in tables.values())
    assert list(pages.differences("a")["Which network? 64 pixels"]["label"]) == [
        verdicts.LABELS[name] for name in LIGHT if name != PAIR[0]]


@pytest.mark.parametrize("missing", [0, 1])
def test_what_seeds_alone_do(monkeypatch, missing):
    """Two networks with five seeds on the same two pictures: half of the answers right, every second one another."""
    rows = [{"run": run.name, "group": run.group, "network": run.network, "recipe": run.recipe.name, "repeat": 0,
             "fold": 0, "pictures": "caltech16", "top1": 0.5 + 0.5 * (run.recipe.seed % 2)}
            for run in PLAN if run.group == "spread" or (run.name.startswith("a-") and run.network in PAIR
                                                         and run.name.endswith("64px-caltech16-r0f0"))]
    runs = pd.DataFrame(rows[missing:] if rows[0]["group"] == "spread" else rows[:len(rows) - missing])
    monkeypatch.setattr(records, "read_runs", lambda folder=None: runs)
    monkeypatch.setattr(records, "answers", lambda mine, folder: pd.DataFrame(
        {"predicted": [1, int(mine["top1"].iloc[0] > 0.5)]}))
    text = pages.made_again()
    if missing:
        assert text == "Open: 7 of 8 runs are recorded."
    else:
        assert text.count("with 5 seeds 50.0 to 100.0 % of the same pictures are right") == 2
        assert text.count("two seeds see 0 to 1 of 2 as different classes.") == 2
