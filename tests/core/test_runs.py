"""Runs and classifiers without a training: what a record says, what it refuses, that nothing is lost on the way."""
import dataclasses
import json
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import numpy as np
import paddle
import pandas as pd
import pytest
from PIL import Image

from asymmlib import runs
from asymmlib.data.sources import prepare
from asymmlib.models import create_model
from asymmlib.runs import Classifier, Run, find_run, list_runs, load_pretrained
from asymmlib.weights.own import save_weights

CLASSES = ["blue", "green", "red"]
INFO = {"model": "asymmnet_small", "settings": {"width": 0.5},
        "recipe": {"name": "tiny", "image_size": 32, "epochs": 2, "data": "x"},
        "classes": CLASSES, "mean": [0.5, 0.25, 0.125], "std": [0.5, 0.25, 0.2]}
RESULT = {"last_eval_top1": 0.5, "best_eval_top1": 0.75}


class Colour(paddle.nn.Layer):
    """Logits: the mean of each channel."""

    def forward(self, x):
        return x.mean([2, 3])


@pytest.fixture
def classifier():
    return Classifier("mine", "x", Colour(), tuple(CLASSES), 8, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0), "MIT", {})


@pytest.fixture
def run(home):
    return Run(home / "runs" / "mine", INFO).write()


@pytest.fixture
def trained(run):
    """Last weights with the bias 1 in the classifier, best ones with 2."""
    network = create_model("asymmnet_small", 3, width=0.5)
    for which, value in (("last", 1), ("best", 2)):
        paddle.assign(paddle.full_like(network.classifier.bias, value), network.classifier.bias)
        save_weights(network, run.folder / f"{which}.safetensors")
    return run


def test_preprocessing_as_data_and_in_words(classifier):
    assert classifier.preprocessing == {
        "order": "RGB", "orientation": "upright by EXIF", "transparency": "on white", "resize": "squash",
        "filter": "bilinear, antialiased (Pillow's BILINEAR)", "size": [8, 8], "range": [0, 1],
        "mean": [0.5, 0.25, 0.0], "std": [0.5, 0.25, 1.0], "layout": "NCHW", "dtype": "float32", "output": "logits"}
    assert json.loads(json.dumps(classifier.preprocessing)) == classifier.preprocessing
    assert classifier.describe().endswith(
        "squashed to 8 × 8 pixels (bilinear), divided by 255 and normalised per channel with mean (0.5000, 0.2500, "
        "0.0000) and standard deviation (0.5000, 0.2500, 1.0000): float32 [N, 3, 8, 8]")


def test_predictions_are_right_and_in_order_over_batches(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "BATCH", 2)
    paths, logits = [], []
    for number in range(5):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (20, 10), (51 * number, 51, 255 - 51 * number)).save(paths[-1])
        logits.append([(number / 5 - 0.5) / 0.5, (0.2 - 0.25) / 0.25, 1 - number / 5])
    shares = classifier.predict(iter(paths))
    np.testing.assert_allclose(shares, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), atol=1e-6)
    assert shares.dtype == np.float64 and classifier.predict([]).shape == (0, 3)


@pytest.mark.parametrize(("size", "pictures"), [(8, 64), (64, 64), (128, 32), (256, 8), (1024, 1)])
def test_a_batch_has_fewer_of_large_pictures(classifier, size, pictures):
    assert dataclasses.replace(classifier, image_size=size).batch == pictures


def test_pictures_are_prepared_as_in_training(classifier, home, picture_folder):
    prepared = prepare(str(picture_folder), progress=False)
    pictures = classifier.pictures(prepared, "eval")
    assert (pictures.split, pictures.size, pictures.mean, pictures.std) == ("eval", 8, (0.5, 0.25, 0.0), (0.5, 0.25, 1))
    result = classifier.evaluate(prepared)
    np.testing.assert_array_equal(result.labels, [0, 0, 1, 1, 2, 2])
    expected = np.stack([pictures[index][0].mean(axis=(1, 2)) for index in range(6)])
    np.testing.assert_allclose(result.logits, expected, atol=1e-5)
    with pytest.raises(ValueError, match="mine knows other classes than x"):
        classifier.pictures(SimpleNamespace(class_names=CLASSES[::-1], name="x"), "eval")


def test_a_run_gives_its_weights_and_says_where_they_come_from(trained):
    run = trained
    for which, bias in (("last", 1), ("best", 2)):
        found = run.classifier(which)
        assert found.network.classifier.bias.tolist() == [bias] * 3 and not found.network.training
        assert found.network.width == 0.5 and found.classes == tuple(CLASSES)
        assert (found.name, found.model, found.image_size, found.licence) == ("mine", "asymmnet_small", 32, "MIT")
        assert (found.mean, found.std) == ((0.5, 0.25, 0.125), (0.5, 0.25, 0.2))
        assert found.provenance == {"run": "mine", "weights": which, "settings": INFO["settings"],
                                    "recipe": INFO["recipe"]}
    known = {"manifest_sha256": "0", "pictures": {"train": 1}, "environment": {}, "result": {"best_epoch": 2}}
    whole = Run(run.folder, {**INFO, **known, "accelerated": True}).classifier("best").provenance
    assert whole == {"run": "mine", "weights": "best", "settings": INFO["settings"], "recipe": INFO["recipe"], **known}
    assert run.classifier().provenance["weights"] == "last" and run.network().classifier.bias.tolist() == [1] * 3
    with pytest.raises(ValueError, match="unknown weights 'first'; known: last, best"):
        run.classifier("first")
    (run.folder / "best.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="run mine has no best weights yet .*best.safetensors"):
        run.network("best")


def test_a_run_on_disk(run, home):
    assert find_run("mine") == run == find_run(run.folder) and find_run("mine").info == INFO
    assert run.name == "mine" and not run.finished and run.write(result=RESULT).finished
    (run.folder / "history.csv").write_text("epoch,lr\n1,0.5\n")
    pd.testing.assert_frame_equal(run.history, pd.DataFrame({"epoch": [1], "lr": [0.5]}))
    Run(home / "runs" / "also", INFO).write()
    assert [found.name for found in list_runs()] == ["also", "mine"]
    with pytest.raises(FileNotFoundError, match="no run 'other'; known: also, mine$"):
        find_run("other")
    with pytest.raises(FrozenInstanceError):
        run.info = {}


@pytest.mark.parametrize(("text", "message"), [
    ("{", "is damaged or not of a run"), ("[]", "is damaged or not of a run"),
    ('{"model": "x"}', "KeyError: 'settings'"),
    ('{"model": 1, "settings": {}, "recipe": []}', "its model, recipe is of another kind")])
def test_a_record_that_is_none(run, text, message):
    (run.folder / "run.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        find_run("mine")


@pytest.mark.parametrize("key", ["classes", "mean", "std", "manifest_sha256", "id", "result", "pictures", "environment",
                                 "sessions", "processes", "accelerated"])
def test_what_a_record_may_have_is_of_its_kind(run, key):
    run.write(**{key: None})
    with pytest.raises(ValueError, match=rf"its {key} is of another kind"):
        find_run("mine")


@pytest.mark.parametrize(("top", "right"), [(0.0, True), (1, True), (-0.1, False), (1.1, False), (None, False)])
def test_a_share_lies_between_nothing_and_all(run, top, right):
    run.write(result={**RESULT, "last_eval_top1": top})
    if right:
        assert find_run("mine").info["result"]["last_eval_top1"] == top
    else:
        with pytest.raises(ValueError, match="its result is of another kind"):
            find_run("mine")


@pytest.mark.parametrize(("others", "told"), [("de", r"\(a, b, c, d, e\)"), ("def", r"\(a, b, c, d, e \.\.\.\)")])
def test_five_classes_that_do_not_fit_are_named(classifier, others, told):
    known = dataclasses.replace(classifier, classes=tuple("abc"))
    with pytest.raises(ValueError, match=f"mine knows other classes than x {told}; pass its data with --data"):
        known.pictures(SimpleNamespace(class_names=list(others), name="x"), "eval")


def test_a_run_prepares_its_own_data(run, picture_folder, monkeypatch):
    asked, prepared = [], prepare(str(picture_folder), test_share=True, progress=False)
    monkeypatch.setattr("asymmlib.data.sources.prepare", lambda *data, **how: asked.append((data, how)) or prepared)
    pictures = run.pictures()
    assert (pictures.split, pictures.size, pictures.mean) == ("eval", 32, (0.5, 0.25, 0.125))
    assert pictures.std == (0.5, 0.25, 0.2)
    Run(run.folder, {**INFO, "recipe": {**INFO["recipe"], "test_share": True}}).pictures("test")
    assert asked == [(("x",), {"test_share": share, "progress": False}) for share in (False, True)]
    assert len(run.pictures("train", prepared)) == 18 and len(asked) == 2


def test_released_weights_say_where_they_come_from():
    found = load_pretrained("asymmnet_small")
    assert (found.name, found.model, found.image_size) == ("asymmnet_small", "asymmnet_small", 128)
    assert len(found.classes) == 16 and found.network.variant == "small" and not found.network.training
    assert found.provenance["train_pictures"] == 1081 and found.provenance["settings"] == {"asymmrate": 1}
    assert not {"model", "classes", "image_size", "mean", "std", "licence"} & set(found.provenance)
