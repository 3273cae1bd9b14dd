"""Training on from weights: what is frozen stays to the bit, thaws when it should, and slow layers turn slowly."""
import shutil

import numpy as np
import paddle
import pandas as pd
import pytest
from paddle import nn
from processes import run_python
from safetensors.numpy import load_file

from asymmlib import fast
from asymmlib.__main__ import main
from asymmlib.data.sources import prepare
from asymmlib.dataset import Pictures
from asymmlib.fast import kernels
from asymmlib.models import create_model
from asymmlib.network import asymmnet_small
from asymmlib.recipes import Recipe
from asymmlib.records.classifiers import find_weights
from asymmlib.runs import Run, find_run
from asymmlib.training import make_optimizer, train
from asymmlib.weights.head import AVERAGES, backbone, freeze
from asymmlib.weights.own import head_names, save_weights
from asymmlib.weights.released import find_released
from asymmlib.weights.settings import marks

TINY = Recipe("tiny", image_size=32, epochs=3, batch_size=8, base_lr=0.05)
CLASSES = ["blue", "green", "red"]
needs_kernels = pytest.mark.skipif(kernels.library() is None, reason="no kernels here: the stock path is all there is")


@pytest.fixture
def prepared(home, picture_folder):
    return prepare(str(picture_folder))


@pytest.fixture
def start(tmp_path):
    """A file of an AsymmNet-Small that knows five classes, as no training left it: every average is its own."""
    paddle.seed(3)
    network = asymmnet_small(num_classes=5)
    network.train()
    network(paddle.randn([8, 3, 32, 32]))
    save_weights(network, tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


def split(path):
    """{name: array} of the backbone in a file of AsymmNet, and of its head."""
    arrays = load_file(path)
    head = {name: arrays.pop(name) for name in ("classifier.weight", "classifier.bias")}
    return arrays, head


def same(one, two):
    return {name for name in one if one[name].tobytes() == two[name].tobytes()}


@pytest.mark.parametrize("name", ["asymmnet_small", "mobilenet_v2", "resnet50", "vgg19"])
def test_the_backbone_is_all_that_trains_but_the_head(name):
    network = create_model(name, 3)
    trained = {id(value) for value in network.parameters() if not value.stop_gradient}
    before = {name: value.stop_gradient for name, value in network.named_parameters()}
    freeze(network)
    left = {name for name, value in network.named_parameters() if not value.stop_gradient}
    assert left == set(head_names(network)) and {id(value) for value in backbone(network)} < trained
    freeze(network, False)
    assert {name: value.stop_gradient for name, value in network.named_parameters()} == before
    assert all(layer._use_global_stats is None for layer in network.sublayers() if isinstance(layer, nn.BatchNorm2D))


@pytest.mark.slow
@pytest.mark.parametrize("accelerated", [True, False])
def test_frozen_layers_keep_every_bit_and_then_thaw(prepared, start, accelerated):
    recipe = TINY.replace(epochs=2, frozen_epochs=2, accelerate=accelerated)
    still = train("asymmnet_small", recipe, prepared=prepared, name="still", start=start, new_head=True)
    before, (after, head) = split(start)[0], split(still.folder / "last.safetensors")
    assert same(before, after) == before.keys() and head["classifier.weight"].shape == (1280, 3)
    assert head["classifier.bias"].any() and still.history["train_loss"].diff().iloc[1] < 0
    thawed = train("asymmnet_small", recipe.replace(frozen_epochs=1), prepared=prepared, name="thawed", start=start,
                   new_head=True)
    assert not same(before, split(thawed.folder / "last.safetensors")[0])
    assert thawed.history["train_loss"][0] == still.history["train_loss"][0]  # the first epoch is the same


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("name", ["asymmnet_small", "mobilenet_v2"])
def test_frozen_layers_cost_nothing_on_the_way_back_and_compute_the_same(name, monkeypatch):
    """On the kernels and on Paddle's own operations, against float64."""
    paddle.seed(1)
    x, labels, results, called = paddle.randn([4, 3, 64, 64]), paddle.to_tensor([0, 1, 2, 0]), {}, []
    run = kernels._run
    monkeypatch.setattr(kernels, "_run", lambda function, *more, **also: called.append(function) or run(
        function, *more, **also))
    network = create_model(name, 3)
    with paddle.no_grad():
        network(x)  # running averages of its own
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    for kind in ("float32", "kernels", "float64"):
        network = create_model(name, 3)
        network.set_state_dict(state)
        network.to(dtype="float64" if kind == "float64" else "float32")
        for layer in network.sublayers():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        if kind == "kernels":
            fast.accelerate(network)
        freeze(network)
        network.train()
        logits = network(x.astype("float64" if kind == "float64" else "float32"))
        nn.functional.cross_entropy(logits, labels).backward()
        assert not [value for value in backbone(network) if value.grad is not None]
        averages = [value.numpy() for key, value in network.state_dict().items() if key.endswith(AVERAGES)]
        head = network.state_dict()[head_names(network)[0]]
        results[kind] = [logits.numpy(), head.grad.numpy()]
        for value, (key, old) in zip(averages, ((k, v) for k, v in state.items() if k.endswith(AVERAGES)), strict=True):
            assert (value == old).all(), key
    assert called.count("forward") and "backward" not in called
    for ours, theirs, true in zip(*(results[kind] for kind in ("kernels", "float32", "float64")), strict=True):
        errors = [np.linalg.norm(found - true) / np.linalg.norm(true) for found in (ours, theirs)]
        assert errors[0] < max(1e-5, 3 * errors[1])


# Trains in a process of its own, since Paddle's names of parameters count on within one; ends itself after an epoch
STEPS = """
import os, sys
import asymmlib.callbacks as callbacks
from asymmlib.data.sources import prepare
from asymmlib.recipes import Recipe
from asymmlib.training import train

data, name, start, last = sys.argv[1:]
store = callbacks.Checkpoint.on_epoch_end

def store_and_end(self, epoch, logs=None):
    store(self, epoch, logs)
    if len(self.rows) == int(last):
        os._exit(0)

callbacks.Checkpoint.on_epoch_end = store_and_end
recipe = Recipe("tiny", image_size=32, epochs=4, batch_size=8, base_lr=0.05, frozen_epochs=2, backbone_rate=0.25)
train("asymmnet_small", recipe, prepared=prepare(data), name=name, start=start, new_head=True)
"""


def steps(data, name, start, last=0):
    done = run_python("-c", STEPS, data, name, start, last, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_run_goes_on_across_the_thaw_bit_for_bit(home, picture_folder, start):
    """Ended while frozen, right before the thaw, and after it."""
    steps(picture_folder, "whole", start)
    whole = find_run("whole")
    assert len(whole.history) == 4
    for last in (1, 2, 3):
        name = f"ended{last}"
        steps(picture_folder, name, start, last)
        assert f"goes on after epoch {last} of 4" in steps(picture_folder, name, start)
        for file in ("last.safetensors", "checkpoints/epoch-0004.safetensors"):
            one, two = (load_file(run.folder / file) for run in (whole, find_run(name)))
            assert same(one, two) == one.keys() == two.keys(), (last, file)
        columns = ["train_loss", "eval_loss", "eval_top1", "lr"]
        pd.testing.assert_frame_equal(whole.history[columns], find_run(name).history[columns], check_exact=True)
        shutil.rmtree(find_run(name).folder)


@pytest.mark.parametrize("accelerated", [True, False])
def test_the_backbone_turns_at_its_share_of_the_rate(accelerated):
    """One step from the same weights: what changes is the share, of the head nothing."""
    moved = {}
    for share in (1.0, 0.25):
        paddle.seed(5)
        network = asymmnet_small(num_classes=3, dropout=0.0)
        optimizer = make_optimizer(network, TINY.replace(backbone_rate=share),
                                   paddle.optimizer.lr.CosineAnnealingDecay(0.05, 4))
        if accelerated:
            fast.accelerate(network, optimizer=optimizer)
        before = {name: value.numpy().astype("float64") for name, value in network.state_dict().items()}
        network.train()
        nn.functional.cross_entropy(network(paddle.ones([2, 3, 32, 32]) * paddle.to_tensor([[[[1.0]]], [[[2.0]]]])),
                                    paddle.to_tensor([0, 1])).backward()
        optimizer.step()
        moved[share] = {name: value.numpy() - before[name] for name, value in network.state_dict().items()}
    for name, step in moved[1.0].items():
        share = 1.0 if name in head_names(network) or name.endswith(AVERAGES) else 0.25
        size = np.abs(step).max()
        assert np.allclose(moved[0.25][name], share * step, atol=1e-3 * size + 1e-7), name
    assert np.abs(moved[1.0]["stem.conv.weight"]).max() > 1e-4


@needs_kernels
def test_shares_of_the_rate_are_updated_at_once_to_the_bit(monkeypatch):
    results = []
    for fused in (False, True):
        paddle.seed(1)
        with paddle.utils.unique_name.guard():
            network = nn.Sequential(nn.Linear(37, 301), nn.Linear(301, 5))
            network[0].weight.optimize_attr["learning_rate"] = 0.1
            used = paddle.optimizer.Momentum(paddle.optimizer.lr.ExponentialDecay(0.03, 0.7), 0.9,
                                             network.parameters(), weight_decay=1e-4)
            if fused:
                fast.optimizer.fuse(used)
            for x in paddle.randn([3, 16, 37]):
                network(x).square().mean().backward()
                used.step()
                used.clear_grad()
                used._learning_rate.step()
                if fused:  # the first step, which makes the state, is Paddle's
                    monkeypatch.setattr(used, "_append_optimize_op", lambda *_: pytest.fail("one by one"))
        results.append([value.numpy() for value in network.parameters()])
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(*results, strict=True))


def test_more_passes_make_an_epoch_longer_and_augment_otherwise(prepared):
    once, thrice = (Pictures(prepared, "train", 32, augmentation="rotate", per_class=2, passes=passes)
                    for passes in (1, 3))
    assert (len(once), len(thrice)) == (6, 18) and list(thrice.names) == 3 * list(once.names)
    assert (thrice[0][0] == once[0][0]).all() and (thrice[6][0] != once[0][0]).any() and thrice[7][1] == once[1][1]
    assert once.mean == thrice.mean


# --- what start means, and what does not go together ----------------------------------------------------------------

def test_weights_to_start_from_are_a_run_a_release_or_a_file(home, start):
    folder = home / "runs" / "mine"
    run = Run(folder, {"model": "asymmnet_small", "settings": {}, "recipe": TINY.as_dict(), "id": "x"})
    folder.mkdir(parents=True)
    run.write()
    with pytest.raises(FileNotFoundError, match="run mine has no last weights yet"):
        find_weights("mine")
    save_weights(asymmnet_small(num_classes=3), folder / "last.safetensors", {"run": "x"})
    assert find_weights("mine") == find_weights(folder) == folder / "last.safetensors"
    assert find_weights("asymmnet_small") == find_released("asymmnet_small")[1]
    assert find_weights(start) == start
    shutil.copytree(folder, home / "runs" / "asymmnet_small")
    with pytest.raises(ValueError, match="is a run of yours and the name of a released network"):
        find_weights("asymmnet_small")


@pytest.mark.parametrize(("change", "message"), [
    ({"frozen_epochs": 4}, r"frozen_epochs \(4\) must not be more than epochs \(3\)"),
    ({"frozen_epochs": -1}, "frozen_epochs is -1; it must lie from 0"), ({"frozen_epochs": 1.5}, "must be an integer"),
    ({"backbone_rate": 0}, "backbone_rate is 0; it must lie from"), ({"passes": 0}, "passes is 0"),
    ({"backbone_rate": 1.5}, "backbone_rate is 1.5; it must lie from"),
])
def test_recipes_refuse_what_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        TINY.replace(**change)


@pytest.mark.parametrize("model", ["asymmnet_small", "mobilenet_v2"])
def test_other_classes_need_a_new_head_and_one_line_says_so(model, prepared, picture_folder, tmp_path, capsys):
    """Names that differ, other numbers of classes with and without names; nothing is made in the runs' folder."""
    five, named = (create_model(model, count) for count in (5, 3))
    save_weights(five, tmp_path / "five.safetensors")
    save_weights(named, tmp_path / "named.safetensors", marks({"classes": ["cat", "dog", "emu"]}))
    asked = ["train", "--data", str(picture_folder), "--model", model, "--image-size", "32"]
    for file, message in (("five", "knows 5 classes, and this network has 3"),
                          ("named", "knows other classes (cat, dog, emu) than those that are trained (blue, green")):
        assert main([*asked, "--start", str(tmp_path / f"{file}.safetensors")]) == 2
        error = capsys.readouterr().err
        assert message in error and "add --new-head" in error and error.count("\n") == 1
    for options, message in ((["--new-head"], "new_head (--new-head) needs start (--start)"),
                             (["--frozen-epochs", "1"], "frozen_epochs (--frozen-epochs) needs start (--start)")):
        assert main([*asked, *options]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not list(prepared.folder.parent.parent.glob("runs/*/run.json"))


def test_a_run_does_not_start_from_itself_and_freezes_in_one_process(prepared, home, monkeypatch):
    folder = home / "runs" / "mine"
    folder.mkdir(parents=True)
    save_weights(asymmnet_small(num_classes=3), folder / "last.safetensors", marks({"classes": CLASSES}))
    with pytest.raises(ValueError, match="lies in the folder of the run that would start from it"):
        train("asymmnet_small", TINY, prepared=prepared, name="mine", start=folder / "last.safetensors", fresh=True)
    assert (folder / "last.safetensors").exists()
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with pytest.raises(ValueError, match=r"frozen_epochs \(1\) needs a single process"):
        train("asymmnet_small", TINY.replace(frozen_epochs=1), prepared=prepared, start=folder / "last.safetensors")
