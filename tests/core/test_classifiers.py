"""One name for any weights: what `--from` takes, what it refuses, and that the network is the one that was stored."""
import json
import shutil

import numpy as np
import paddle
import pytest

from asymmbook.evidence.reference import REFERENCE
from asymmlib.__main__ import main
from asymmlib.models import create_model
from asymmlib.network import AsymmNet
from asymmlib.records.classifiers import EPOCH, MODEL_OF, open_classifier
from asymmlib.runs import LICENCE, Run, load_pretrained
from asymmlib.weights.convert import read_labels
from asymmlib.weights.own import save_weights
from asymmlib.weights.released import RELEASED
from asymmlib.weights.settings import marks

CLASSES = ["blue", "green", "red"]
PICTURES = {"classes": CLASSES, "size": 32, "mean": [0.5, 0.25, 0.125], "std": [0.5, 0.25, 0.2]}
INFO = {"model": "asymmnet_small", "settings": {"width": 0.35}, "id": "7",
        "recipe": {"name": "tiny", "image_size": 32, "epochs": 2, "data": "x"},
        "classes": CLASSES, "mean": [0.5, 0.25, 0.125], "std": [0.5, 0.25, 0.2]}


def logits(network, size=32):
    images = np.random.default_rng(0).normal(size=(2, 3, size, size)).astype(np.float32)
    with paddle.no_grad():
        return network(paddle.to_tensor(images)).numpy()


@pytest.fixture
def run(home):
    """A run whose last weights have the bias 1 in the classifier, the best ones 2."""
    run = Run(home / "runs" / "mine", INFO).write()
    network = create_model("asymmnet_small", 3, width=0.35)
    for which, value in (("last", 1), ("best", 2)):
        paddle.assign(paddle.full_like(network.classifier.bias, value), network.classifier.bias)
        save_weights(network, run.folder / f"{which}.safetensors", {"run": "7", **marks(PICTURES)})
    return run


def bias(classifier):
    return classifier.network.classifier.bias.tolist()[0]


def test_a_run_by_its_name_its_path_and_its_files(run):
    assert EPOCH == "last" and bias(open_classifier("mine")) == bias(open_classifier(run.folder)) == 1
    assert bias(open_classifier("mine", "best")) == bias(open_classifier(run.folder / "best.safetensors")) == 2
    found = open_classifier(run.folder / "last.safetensors", "last")
    assert (found.name, found.folder, found.provenance["weights"]) == ("mine", run.folder, "last")
    with pytest.raises(ValueError, match="best weights of a run, and --weights asks for the last ones"):
        open_classifier(run.folder / "best.safetensors", "last")


def test_a_file_of_ours_says_all_that_is_needed(run, tmp_path):
    copy = tmp_path / "copy.safetensors"
    shutil.copy(run.folder / "best.safetensors", copy)
    found, expected = open_classifier(copy), run.classifier("best")
    np.testing.assert_array_equal(logits(found.network), logits(expected.network))
    for name in ("model", "classes", "image_size", "mean", "std", "preprocessing", "licence"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.name == "copy" and found.folder is None and found.licence == LICENCE
    with pytest.raises(ValueError, match="copy is no run, so there is no best epoch"):
        open_classifier(copy, "best")


@pytest.mark.slow
@pytest.mark.parametrize("model", [name for name in MODEL_OF.values() if name != "vgg19"])
def test_other_networks_of_ours(model, tmp_path):
    network = create_model(model, 3)
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer._epsilon = 1e-4  # of no network as it is built: the file says it
    network.eval()
    save_weights(network, tmp_path / "x.safetensors", marks(PICTURES))
    found = open_classifier(tmp_path / "x.safetensors")
    assert found.model == model and found.classes == tuple(CLASSES)
    np.testing.assert_array_equal(logits(found.network), logits(network))


@pytest.mark.slow
def test_names_of_networks_are_those_of_their_classes():
    assert {type(create_model(model, 2)).__name__: model for model in MODEL_OF.values()} == MODEL_OF


@pytest.mark.slow
def test_released_networks_by_name_and_by_their_files(home, tmp_path):
    expected = load_pretrained("asymmnet_small")
    assert open_classifier("asymmnet_small").provenance == expected.provenance
    for end in ("json", "safetensors"):
        shutil.copy(f"weights/asymmnet_small.{end}", tmp_path)
    beside = open_classifier(tmp_path / "asymmnet_small.safetensors")
    assert beside.provenance == expected.provenance and beside.classes == expected.classes
    assert open_classifier().name == next(iter(RELEASED))


def test_a_name_of_two_things_is_asked_about(run, home):
    run.folder.rename(home / "runs" / "asymmnet_small")
    with pytest.raises(ValueError, match="is a run of yours and the name of a released network: give the run as"):
        open_classifier("asymmnet_small")
    assert bias(open_classifier(home / "runs" / "asymmnet_small")) == 1


def test_files_of_others(home, tmp_path, capsys):
    """They are what `convert` reads; what they do not say must be said, once."""
    source, target = REFERENCE / "torch_legacy.pth", tmp_path / "OUT.safetensors"
    with pytest.raises(ValueError, match=r"does not say how its pictures are prepared \(no size, mean, std\).*convert"):
        open_classifier(source)
    count = len(np.load(REFERENCE / "torch_small_0.35_r1.npz")["state/output.bias"])
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"class of {number}" for number in range(count)), encoding="utf-8")
    statistics = ["--mean", "0.5", "0.25", "0.125", "--std", "0.5", "0.25", "0.2"]
    assert main(["convert", str(source), str(target), "--size", "48", "--labels", str(labels), *statistics]) == 0
    found = open_classifier(target)
    assert (found.image_size, found.mean, found.std) == (48, (0.5, 0.25, 0.125), (0.5, 0.25, 0.2))
    assert found.classes[1] == "class of 1" and len(found.classes) == count and found.licence.startswith("not known")
    with pytest.raises(ValueError, match="2 networks, under model, model_ema: say which with --key.*convert .* --key"):
        open_classifier(REFERENCE / "torch_average.ckpt")


def test_a_thousand_classes_are_taken_as_imagenet(home, tmp_path, capsys):
    network, path = AsymmNet("small", 1000, 0.35), tmp_path / "x.safetensors"
    save_weights(network, path)
    found = open_classifier(path)
    assert found.image_size == 224 and found.mean == (0.485, 0.456, 0.406) and found.classes[999] == "class 999"
    assert "1000 classes: they are prepared as ImageNet's usually are" in capsys.readouterr().err
    save_weights(network, path, marks({"size": 64}))
    assert open_classifier(path).image_size == 64


@pytest.mark.parametrize(("content", "message"), [
    (b"a\nb\na\n", "'a' is there more than once"), (b"a\n\n", "fewer than two names"),
    (b"\xff\xfe", "no text in UTF-8")])
def test_labels_that_are_none(tmp_path, content, message):
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_labels(tmp_path / "labels")


@pytest.mark.parametrize(("options", "message"), [
    (["--size", "8"], "size is 8; pictures have at least 32"), (["--std", "0", "1", "1"], "standard deviations"),
    (["--labels", "{labels}"], "2 names of classes for a network of")])
def test_what_convert_refuses_to_write(tmp_path, capsys, options, message):
    (tmp_path / "labels").write_text("a\nb\n")
    target = tmp_path / "OUT.safetensors"
    options = [option.format(labels=tmp_path / "labels") for option in options]
    assert main(["convert", str(REFERENCE / "torch_legacy.pth"), str(target), *options]) == 2
    assert message in capsys.readouterr().err and not target.exists()


@pytest.mark.parametrize("odd", [{"size": "64"}, {"size": 8}, {"mean": [0.5]}, {"std": [0, 1, 1]}, {"std": "a"},
                                 {"mean": [float("nan")] * 3}])
def test_settings_that_no_picture_has(tmp_path, odd):
    path = tmp_path / "x.safetensors"
    save_weights(AsymmNet("small", 3, 0.35), path, marks({**PICTURES, **odd}))
    with pytest.raises(ValueError, match=rf"its settings are damaged, no usable {next(iter(odd))}"):
        open_classifier(path)


def test_what_is_nothing_is_named_with_what_there_is(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no run, .* Runs: mine; released: asymmnet_large"):
        open_classifier("nowhere")
    with pytest.raises(FileNotFoundError, match="is a folder without a run.json: no run"):
        open_classifier(tmp_path)
    (tmp_path / "x.onnx").write_bytes(b"nothing of ours")
    with pytest.raises(ValueError, match="not a file of weights"):
        open_classifier(tmp_path / "x.onnx")


def test_a_card_with_a_threshold(tmp_path):
    for end in ("json", "safetensors"):
        shutil.copy(f"weights/asymmnet_small.{end}", tmp_path)
    card = tmp_path / "asymmnet_small.json"
    facts = json.loads(card.read_text(encoding="utf-8"))
    assert load_pretrained("asymmnet_small", tmp_path).none_below == facts.pop("none_below") > 0
    card.write_text(json.dumps(facts))
    assert load_pretrained("asymmnet_small", tmp_path).none_below is None
    card.write_text(json.dumps({**facts, "none_below": 0.4}))
    assert load_pretrained("asymmnet_small", tmp_path).none_below == 0.4
    card.write_text(json.dumps({**facts, "none_below": 4}))
    with pytest.raises(ValueError, match="no usable none_below"):
        load_pretrained("asymmnet_small", tmp_path)
