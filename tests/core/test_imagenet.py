"""The recipe like the paper's on ImageNet: its numbers, a tree of train and val folders, what a run takes."""
import shutil

import numpy as np
import paddle
import pytest

from asymmbook.evidence.reference import GPUS, IMAGENET_TRAIN, imagenet_cost, read_table
from asymmlib.__main__ import main
from asymmlib.data.manifest import counts, read_manifest
from asymmlib.data.sources import prepare
from asymmlib.network import asymmnet_small
from asymmlib.recipes import RECIPES
from asymmlib.runs import find_run
from asymmlib.training import make_loss, make_schedule, train

IMAGENET = RECIPES["imagenet-like"]
SHORT = IMAGENET.replace(image_size=40, epochs=2, warmup_epochs=1, batch_size=16, train_per_class=2)


@pytest.fixture
def tree(picture_folder):
    """The pictures as ImageNet has its own: train/<class>/ and val/<class>/, files of both may share a name."""
    root = picture_folder.parent / "ilsvrc"
    for folder in picture_folder.iterdir():
        for number, path in enumerate(sorted(folder.iterdir())):
            target = root / ("val" if number < 2 else "train") / folder.name / f"n{number % 8}.JPEG"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return root


def test_numbers_of_the_authors_log():
    log = read_table("official_imagenet_log")
    assert IMAGENET.epochs == len(log) == 360 and IMAGENET.batch_size == GPUS * 256
    assert (IMAGENET.base_lr, IMAGENET.warmup_epochs, IMAGENET.momentum, IMAGENET.weight_decay) == (2.6, 5, 0.9, 3e-5)
    assert (IMAGENET.image_size, IMAGENET.dropout) == (224, 0.2)
    assert (IMAGENET.optimizer, IMAGENET.augmentation) == ("nesterov", "crop-flip-colour")
    assert IMAGENET.label_smoothing > 0 and not IMAGENET.decay_bias_and_norm and not IMAGENET.zero_last_gamma


def test_schedule_warms_up_and_falls_step_by_step():
    steps = IMAGENET_TRAIN // IMAGENET.batch_size
    schedule, by_epoch = make_schedule(IMAGENET, steps)
    assert not by_epoch
    rates = []
    for _ in range(steps * IMAGENET.epochs):
        rates.append(schedule())
        schedule.step()
    warm = 5 * steps
    assert np.allclose(rates[:warm], 2.6 * np.arange(warm) / warm) and max(rates) == pytest.approx(2.6)
    cosine = 1.3 * (1 + np.cos(np.pi * np.arange(len(rates) - warm) / (len(rates) - warm)))
    assert np.allclose(rates[warm:], cosine, atol=1e-6)


@pytest.mark.parametrize("pictures", [1, 5])
def test_label_smoothing_is_the_textbook_formula(pictures):
    logits = np.random.default_rng(0).normal(size=(pictures, 4)).astype(np.float32)
    labels = np.arange(pictures)[:, None] % 4
    targets = 0.9 * np.eye(4)[labels[:, 0]] + 0.1 / 4
    log_shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -(targets * log_shares).sum(axis=1).mean()
    assert make_loss(0.1)(paddle.to_tensor(logits), paddle.to_tensor(labels)).item() == pytest.approx(expected, 1e-5)
    plain = make_loss()(paddle.to_tensor(logits), paddle.to_tensor(labels)).item()
    assert plain == pytest.approx(-log_shares[np.arange(pictures), labels[:, 0]].mean(), 1e-5)


def test_cost_is_a_sum_over_the_log():
    log = read_table("official_imagenet_log")
    cost = imagenet_cost(log)
    assert cost["hours"] == pytest.approx(sum(625 * 2048 / log["samples_per_s"]) / 3600)
    assert cost["hours"] == pytest.approx(31.85, abs=0.005) and cost["gpu_hours"] == pytest.approx(8 * cost["hours"])
    assert cost["gpu_days"] == pytest.approx(cost["gpu_hours"] / 24) and 10 < cost["gpu_days"] < 12
    # their "time cost" is taken after the validation
    assert cost["hours"] + 360 * cost["validation_s"] / 3600 == pytest.approx(sum(log["seconds"]) / 3600)
    assert cost["validation_s"] == pytest.approx(7.2, abs=0.05)
    assert imagenet_cost(log[:90], gpus=1)["hours"] == pytest.approx(cost["hours"] / 4, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("zero_last_gamma", [False, True])
def test_a_few_steps_on_the_sample(home, sample, zero_last_gamma, capfd):
    run = train("asymmnet_small", SHORT.replace(zero_last_gamma=zero_last_gamma), prepared=sample)
    assert len(run.history) == 2 and np.isfinite(run.history["train_loss"]).all()
    assert run.info["recipe"]["name"] == "imagenet-like" and run.info["pictures"]["train"] == 32


def test_the_split_of_a_tree_is_kept(home, tree, tmp_path):
    prepared = prepare(tree)
    table = counts(prepared.manifest)
    assert list(table.index) == ["blue", "green", "red"]
    assert (table["train"] == 8).all() and (table["eval"] == 2).all() and "test" not in table
    assert all(path.startswith("val/") == (split == "eval") for path, split in
               zip(prepared.manifest["path"], prepared.manifest["split"], strict=True))
    assert prepared.manifest["name"].is_unique and "blue/n0-2.JPEG" in set(prepared.manifest["name"])
    assert read_manifest(prepared.folder / "manifest.csv").equals(prepared.manifest)


@pytest.mark.slow
def test_the_command_trains_on_a_tree(home, tree, capfd):
    assert main(["train", "--recipe", "imagenet-like", "--data", str(tree), "--model", "asymmnet_small", "--image-size",
                 "32", "--batch-size", "8", "--epochs", "2",
                 "--warmup-epochs", "1", "--base-lr", "0.01", "--name", "tree"]) == 0
    run = find_run("tree")
    assert run.info["pictures"] == {"train": 24, "eval": 6} and len(run.history) == 2
    assert run.info["recipe"]["base_lr"] == 0.01
    assert main(["evaluate", "tree", "--data", str(tree)]) == 0 and "on 6 eval pictures" in capfd.readouterr().out


@pytest.mark.parametrize(("damage", "message"), [
    (lambda tree: shutil.rmtree(tree / "val" / "red"), "no pictures in 'val/red'"),
    (lambda tree: (tree / "val" / "red").rename(tree / "val" / "rose"), "no pictures in 'train/rose', 'val/red'"),
    (lambda tree: [path.unlink() for path in (tree / "train" / "blue").iterdir()], "no pictures in 'train/blue'"),
    (lambda tree: [shutil.rmtree(path) for path in tree.glob("*/*") if path.name != "red"], "one class only, 'red'"),
    (lambda tree: (tree / "train" / "red" / "n3.JPEG").write_bytes(b""), "an empty file"),
])
def test_trees_that_do_not_fit(home, tree, damage, message):
    damage(tree)
    with pytest.raises(ValueError, match=message):
        prepare(tree, progress=False)


def test_a_tree_has_no_test_share_and_says_what_it_leaves_out(home, tree, capsys):
    with pytest.raises(ValueError, match="leave test_share"):
        prepare(tree, test_share=True)
    (tree / "test").mkdir()
    prepare(tree, progress=False)
    assert "only train and val are used; left out: 'test'" in capsys.readouterr().out


def test_classes_called_train_and_val_are_classes(home, picture_folder):
    (picture_folder / "blue").rename(picture_folder / "train")
    (picture_folder / "green").rename(picture_folder / "val")
    assert prepare(picture_folder, progress=False).class_names == ["red", "train", "val"]


def test_no_decay_on_vectors_under_this_recipe():
    from asymmlib.training import make_optimizer
    network = asymmnet_small(num_classes=4)
    make_optimizer(network, IMAGENET, paddle.optimizer.lr.CosineAnnealingDecay(0.1, 10))
    for name, parameter in network.named_parameters():
        free = getattr(parameter, "regularizer", None) is not None
        assert free == (parameter.ndim == 1), name
