"""What is said about the asymmetry at several widths, and about the article's own size: by hand on made-up runs."""
import numpy as np
import pandas as pd
import pytest

from asymmbook.evidence import article_size, records, widths
from asymmbook.evidence.folds import FOLDS
from asymmbook.evidence.inference import compare_networks
from asymmbook.evidence.trial import BASE, HEAVY, MATCHED, PAIR, PLAIN, plan
from asymmbook.figures.widths import plot_widths
from asymmbook.pages import asymmetry as pages
from asymmbook.pages import results

EACH = 40  # pictures a fold, half of each class
MACS = {0: 1e6, 1: 10e6, "matched": 100e6}  # r = 1 half way between the two others, on a logarithmic axis
WRONG = {0: 20, 1: 0, "matched": 10}  # of the pictures of class bee, in every fold


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """Group b on two classes: r = 1 is always right, the others are wrong about some pictures of "bee"."""
    folder, count = records.trial_dir(tmp_path), EACH * FOLDS
    folder.mkdir()
    names = [f"{'ant' if number < count // 2 else 'bee'}/{number:03}" for number in range(count)]
    pd.DataFrame({"name": names, "class": [name[:3] for name in names], "repeat0": np.arange(count) % FOLDS}).to_csv(
        folder / "folds.csv", index=False)
    monkeypatch.setattr(records, "class_sets", lambda counts: {"hundred": ("ant", "bee")})
    monkeypatch.setattr(widths, "class_sets", lambda counts: {"next16": ("bee",)})
    rows, arrays = [], {}
    for width in MATCHED:
        for kind, rate, own in ((1, 1, width), (0, 0, width), ("matched", 0, MATCHED[width])):
            network = f"asymmnet_large-r{rate}-w{own:g}"
            for fold in range(FOLDS):
                label = np.repeat([0, 1], EACH // 2)
                said = label.copy()
                said[EACH // 2:EACH // 2 + WRONG[kind]] = 0
                arrays |= {f"b-{network}-r0f{fold}/predicted": said.astype(np.uint8),
                           f"b-{network}-r0f{fold}/confidence": np.full(EACH, 0.5, np.float16)}
                rows.append({"run": f"b-{network}-r0f{fold}", "group": "b", "network": network, "recipe": "64px",
                             "pictures": "hundred", "repeat": 0, "fold": fold, "top1": (said == label).mean(),
                             "held_out_pictures": EACH, "macs": width * MACS[kind], "params": 1000})
    pd.DataFrame(rows).to_csv(folder / "runs.csv", index=False)
    np.savez(folder / "predictions-b.npz", **arrays)
    return tmp_path


def test_each_width_is_held_against_three_opponents(trial):
    every = widths.by_width(trial)
    table = every[~every["untuned"]].set_index(["width", "against"])["mean"]
    assert len(table) == len(MATCHED) * len(widths.AGAINST) == len(every) / 2
    for width in MATCHED:  # 20 and 10 of 40, and half way between
        assert table[width].reindex(widths.AGAINST).tolist() == pytest.approx([0.5, 0.25, 0.375])
    assert not every.loc[every["untuned"], ["mean", "low", "high"]].any(axis=None)  # no mistake is left
    one = every.iloc[1]
    assert one["missed"] == pytest.approx(2.8016 * (one["high"] - one["low"]) / (2 * 1.95996), rel=1e-4)
    seen = widths.accuracies(trial)
    assert seen["top1"].tolist() == pytest.approx([1, 0.5, 0.75] * len(MATCHED)) and set(seen["runs"]) == {FOLDS}
    assert seen["own_width"].tolist() == [own for width in MATCHED for own in (width, width, MATCHED[width])]


def test_all_widths_together_and_without_the_classes_that_chose(trial):
    found = widths.together(folder=trial)[widths.AGAINST[0]]
    assert found.mean == pytest.approx(0.5) and (found.pictures, found.runs) == (EACH * FOLDS, FOLDS * len(MATCHED))
    untuned = widths.together(True, trial)[widths.AGAINST[0]]
    assert untuned.mean == 0 and untuned.pictures == EACH * FOLDS // 2  # no mistake is left
    assert widths.trend(trial)[widths.AGAINST[2]].mean == pytest.approx(0)
    text = pages.together(trial)
    assert text.count("+50.0 points") == 1 and text.count("+0.0 points") == 6 and "Not run" not in text


def test_the_classes_that_chose_are_those_of_the_tuning_runs():
    held = pd.concat([records.held_out_pictures("next16", 0, fold) for fold in range(FOLDS)])
    assert set(widths._tuning_classes(None)) == set(held["class"]) and held["class"].nunique() == 16


def test_the_trend_is_the_smallest_width_s_gain_less_the_largest_s(trial):
    """r = 0 as good as r = 1 at the largest width: the whole gain of the smallest is left."""
    path = records.trial_dir(trial) / "predictions-b.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    best = f"b-asymmnet_large-r0-w{max(MATCHED):g}-"
    for key in [key for key in arrays if key.startswith(best) and key.endswith("predicted")]:
        arrays[key] = arrays[key.replace("-r0-w", "-r1-w")]
    np.savez(path, **arrays)
    assert widths.trend(trial)[widths.AGAINST[0]].mean == pytest.approx(0.5)
    assert widths.trend(trial)[widths.AGAINST[1]].mean == pytest.approx(0)


def test_a_width_without_all_its_runs_is_left_out(trial):
    path = records.trial_dir(trial) / "runs.csv"
    table = pd.read_csv(path)
    table[table["run"] != "b-asymmnet_large-r0-w0.53-r0f3"].to_csv(path, index=False)
    left = [width for width in MATCHED if width != 0.5]
    assert widths.done(trial) == left and set(widths.by_width(trial)["width"]) == set(left)
    with pytest.raises(ValueError, match=r"widths \[0.5\]"):
        widths.together(folder=trial)
    assert widths.trend(trial)[widths.AGAINST[0]].mean == pytest.approx(0)  # both of its ends are there
    assert pages.together(trial).startswith("Not run, or not complete: the widths × 0.5. What")
    assert "r = 0, × 0.53" not in pages.networks(trial)
    assert {tuple(rows["label"]) for rows in pages.differences(widths.by_width(trial)).values()} == {
        ("× 0.35", "× 0.75", "× 1")}


def test_single_widths_are_a_table_without_verdict():
    rows = [(0.5, name, untuned, mean, mean - 0.02, mean + 0.02, 0.0287)
            for untuned, mean in ((False, 0.01), (True, -0.004)) for name in widths.AGAINST]
    table = pd.DataFrame(rows, columns=["width", "against", "untuned", "mean", "low", "high", "missed"])
    text = pages.singles(table)
    assert f"| × 0.5 | {widths.AGAINST[1]} | +1.0 (-1.0 to +3.0) | -0.4 (-2.4 to +1.6) | below 2.9 |" in text
    drawn = pages.differences(table)
    assert {(len(rows), rows["mean"].item(), rows["shown"].item()) for rows in drawn.values()} == {(1, 0.01, False)}


def test_a_curve_s_place_is_between_its_ends(trial):
    """The interval of the weighted answers lies within what both opponents allow."""
    ours, others = widths._answers(0.5, trial)
    wide, matched, curve = (compare_networks(ours, others[name]) for name in widths.AGAINST)
    assert matched.low <= curve.mean <= wide.high and curve.pictures == wide.pictures


def test_nothing_without_records(tmp_path):
    assert widths.done(tmp_path) == [] and widths.accuracies(tmp_path).empty and widths.by_width(tmp_path).empty
    with pytest.raises(ValueError, match=r"widths \[0.35, 1.0\]"):
        widths.trend(tmp_path)
    nothing = widths.by_width(tmp_path)
    assert pages.networks(tmp_path) == pages.singles(nothing) == pages.OPEN and pages.differences(nothing) == {}
    assert pages.together(tmp_path).startswith("Not run, or not complete: the widths × 0.35, × 0.5, × 0.75, × 1.")
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_widths(widths.accuracies(tmp_path))


def test_the_figure_joins_the_networks_without_asymmetry_alone(trial):
    axis, = plot_widths(widths.accuracies(trial)).axes
    lines = {bars.get_label(): bars.lines[0] for bars in axis.containers}
    assert len(lines["r = 0"].get_xdata()) == 2 * len(MATCHED) and len(lines["r = 1"].get_xdata()) == len(MATCHED)
    assert lines["r = 1"].get_linestyle() == "None" != lines["r = 0"].get_linestyle()


def article_runs(folder, left=0):
    """Records of group c, all but the last `left` runs: half of ten pictures right, better at epoch 2."""
    names = [run.name for run in plan({}) if run.group == "c"]
    target = records.trial_dir(folder)
    target.mkdir(exist_ok=True)
    rows = [{"run": name, "group": "c", "network": name.split("-article")[0].removeprefix("c-"), "settings": "{}",
             "recipe": "article-fixed" if "fixed" in name else "article", "model": "vgg19", "image_size": 64,
             "images_per_s": 16.0, "top1": 0.5, "per_class_top1": 0.4, "train_top1": 0.9, "held_out_pictures": 10,
             "train_seconds": 7200} for name in names]
    curves = [{"run": name, "epoch": epoch, "eval_top1": top1} for name in names
              for epoch, top1 in ((1, 0.1), (2, 0.7), (3, 0.5))]
    pd.DataFrame(rows[:len(rows) - left]).to_csv(target / "runs.csv", index=False)
    pd.DataFrame(curves).to_csv(target / "curves.csv", index=False)


def test_the_article_at_its_own_size(tmp_path):
    article_runs(tmp_path)
    table = article_size.accuracies(tmp_path)
    assert table["name"].tolist() == ["AsymmNet-Large r = 1, as published", "AsymmNet-Large r = 1, mended",
                                      "MobileNetV2, mended"]
    assert table.iloc[0][["top1", "pictures", "best", "best_epoch"]].tolist() == [0.5, 10, 0.7, 2]
    assert list(article_size.curves(tmp_path)) == table["name"].tolist()
    assert all(len(rows) == 3 for rows in article_size.curves(tmp_path).values())
    text = results.article(tmp_path)
    assert "| MobileNetV2, mended | 50.0 | 40.0 | 90.0 | 70.0 (2) |" in text and "decides nothing" in text


def test_a_run_of_the_article_that_diverges_at_once_has_no_best_epoch(tmp_path):
    article_runs(tmp_path)
    path = records.trial_dir(tmp_path) / "curves.csv"
    rows = pd.read_csv(path)
    rows[~rows["run"].str.contains("mobilenet")].to_csv(path, index=False)
    text = results.article(tmp_path)
    assert "| MobileNetV2, mended | 50.0 | 40.0 | 90.0 | diverged |" in text and text.count("70.0 (2)") == 2


def test_the_article_without_all_its_runs(tmp_path):
    article_runs(tmp_path, left=1)
    assert article_size.accuracies(tmp_path).empty and article_size.curves(tmp_path) == {}
    text = results.article(tmp_path)
    assert text.startswith("Open: not all runs are recorded. Not run: ResNet50 (not timed yet) and ")


def test_what_was_not_run_is_counted_by_its_pace(tmp_path):
    """A sixteenth of the pace at 64 pixels; nothing where none is recorded."""
    assert all(np.isnan(hours) for hours in article_size.not_run(tmp_path).values())
    article_runs(tmp_path)
    hours = article_size.not_run(tmp_path)
    assert hours["VGG19"] == pytest.approx((12 + 1817 * 0.8 * 100 / (16.0 / 16)) / 3600) and len(hours) == len(HEAVY)
    assert "VGG19 (about 40 hours of one thread, by its pace at 64 pixels)" in results.article(tmp_path)


def test_the_heavy_networks_get_a_line_a_run_and_their_rates(tmp_path):
    assert results.heavy(tmp_path) == "Open: no run of ResNet50 and VGG19 is recorded."
    records.trial_dir(tmp_path).mkdir()
    runs = [("a", "resnet50", 0, 0.01, 30, False), ("a", "resnet50", 2, 0.01, 30, False),
            ("a", "vgg19", 0, 0.005, 30, True),
            *(("tune", "resnet50", 0, rate, 30, False) for rate in HEAVY["resnet50"]),
            *(("tune", "vgg19", 0, rate, 3, False) for rate in HEAVY["vgg19"])]
    pd.DataFrame([{"run": f"{group}-{network}-64px-caltech16-r0f{fold}" if group == "a" else f"{network}{rate}",
                   "group": group, "network": network, "fold": fold, "epochs": epochs, "diverged": diverged,
                   "recipe_fields": f'{{"base_lr": {rate}}}', "top1": 0.5, "train_top1": np.nan if diverged else 0.9}
                  for group, network, fold, rate, epochs, diverged in runs]
                 ).to_csv(records.trial_dir(tmp_path) / "runs.csv", index=False)
    text = results.heavy(tmp_path)
    assert text.count("50.0 % on the held-out pictures, 90.0 % in training; so few runs decide nothing.") == 2
    assert "VGG19, fold 0: the run diverged." in text and "ResNet50, fold 1: not run." in text
    assert text.count("not run") == 1 and f"a light network had {FOLDS} runs" in text
    assert "ResNet50: 0.01, out of 0.01, 0.05, after 30 epochs." in text
    assert "VGG19: 0.005, out of 0.001, 0.005, 0.01, after 3 epochs." in text


def test_vgg19_is_timed_at_a_rate_of_its_own():
    """It diverges at the common one; its tuning runs choose, and the others are timed as before."""
    timed = {run.network: run for run in plan({}) if run.group == "time"}
    assert timed["vgg19"].awaits == "vgg19" and not timed["resnet50"].awaits
    scores = {f"tune-vgg19-lr{rate:g}_wd0.0001-next16-r0f0": score
              for rate, score in zip(HEAVY["vgg19"], (0.2, 0.3, 0.3), strict=True)}
    runs = [run for run in plan(scores) if run.network == "vgg19" and run.group in ("time", "a")]
    assert {(run.recipe.base_lr, run.awaits) for run in runs} == {(0.005, None)}  # ties go to the smaller rate
    assert {run.recipe.base_lr for network, run in timed.items() if network in (*PAIR, "resnet50")} == {BASE.base_lr}


def test_left_and_right_are_held_against_each_other(tmp_path, monkeypatch):
    """Two answers a network: left is right once more."""
    monkeypatch.setattr(pages, "answered", lambda family, folder: family)
    runs = pd.DataFrame({"run": ["a", "l", "r"], "group": ["a", "f", "f"],
                         "network": [PAIR[0], "ablation_left", "ablation_right"], "recipe": PLAIN.name,
                         "macs": [100, 99, 98], "params": [200, 200, 190]})
    monkeypatch.setattr(records, "read_runs", lambda folder: runs)
    monkeypatch.setattr(records, "answers", lambda rows, folder: pd.DataFrame(
        {"picture": [1, 2], "run": "r0f0", "right": [True, rows["run"].item() == "l"]}))
    text = pages.ablations(tmp_path)
    assert "Left less right: +50.0 points" in text and "by -2.0 to -1.0 %, parameters by -5.0 to +0.0 %" in text
    monkeypatch.setattr(pages, "answered", lambda family, folder: None)
    assert pages.ablations(tmp_path).startswith("Open")
