"""Numerical parity with the authors' code: logits, one training step, and what a wrong detail does to them.

The recorded numbers are in `book/reference/`; where a folder `shared` stands beside the project, its larger files
are checked too. See book/reference/README.md.
"""
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from conftest import SHARED

import asymmlib.network
from asymmbook.evidence.reference import (
    CLASSES,
    EVALUATED,
    REFERENCE,
    TRAINED,
    draw_batch,
    key,
    load_drawn,
    thin,
    training_step,
)
from asymmlib.network import AsymmNet
from asymmlib.weights.official import load_official

LOGITS, GRADIENTS, LOSS = 1e-4, 5e-4, 1e-5  # what a right network keeps within; training steps do in float64, as the
# recorded ones were made: in float32 a value that rounds to the other side of ReLU's kink would show in all gradients
RELATIVE = 1e-5  # of the largest logit; those of drawn states are between 0.2 and 10
TORCH = ["large_0.35_r0", "large_0.35_r1", "small_0.35_r1"]


def reference(name):
    """A recorded file, from the project or from beside it."""
    for folder in (REFERENCE, SHARED / "reference"):
        if (folder / name).is_file():
            return folder / name
    return pytest.skip(f"{name} is kept in shared/reference only, which is not beside this checkout")


def build(settings, **others):
    variant, width, rate = settings.split("_")
    return AsymmNet(variant, CLASSES, float(width), int(rate[1:]), dropout=0.0, **others)


def compare_eval(network, pictures, expected):
    network.eval()
    with paddle.no_grad():
        return np.abs(network(paddle.to_tensor(pictures)).numpy() - expected).max()


@pytest.mark.parametrize("settings", TORCH)
def test_logits_of_the_pytorch_port(settings):
    path = reference(f"torch_{settings}.npz")
    network, recorded = build(settings), np.load(path)
    load_official(network, path)
    for logits in ("logits", "logits_float64"):
        assert compare_eval(network, recorded["input"], recorded[logits]) <= LOGITS


@pytest.mark.parametrize("file", ["gluon_small_0.35_r1.params", "gluon_small_0.35_r1_collect.params"])
def test_logits_of_the_gluon_port(file):
    network, recorded = build("small_0.35_r1", port="gluon"), np.load(reference("gluon_small_0.35_r1_io.npz"))
    load_official(network, reference(file))
    assert compare_eval(network, recorded["input"], recorded["logits"]) <= LOGITS


def step(network, pictures, labels):
    """A training step in float64."""
    return training_step(network.to(dtype="float64"), pictures.astype("float64"), labels)


def test_training_step():
    path = reference("torch_train_large_0.35_r1.npz")
    network, recorded = build("large_0.35_r1"), np.load(path)
    load_official(network, path)
    before = network.head.bn._variance.numpy()
    loss, logits, gradients, averages = step(network, recorded["input"], recorded["labels"])
    assert abs(loss - recorded["loss_float64"]) <= LOSS
    assert np.abs(logits - recorded["logits_float64"]).max() <= LOGITS
    names = [name.removeprefix("grad/") for name in recorded.files if name.startswith("grad/")]
    assert len(names) == 12
    for name in names:
        assert np.abs(gradients[name] - recorded[f"grad/{name}"]).max() <= GRADIENTS, name
    for name in ("first_block.1.running_mean", "last_block.1.running_mean"):
        assert np.abs(averages[name] - recorded[f"after/{name}"]).max() <= 1e-5, name
    biased = recorded["after/first_block.1.running_var_if_biased"]
    assert np.abs(averages["first_block.1.running_var"] - biased).max() <= 1e-5
    # the head sees 4 pictures of 2 x 2 pixels; PyTorch's variance divides by one less
    unbiased = (recorded["after/last_block.1.running_var"] - 0.9 * before) / 0.1
    assert np.abs(averages["last_block.1.running_var"] - (0.9 * before + 0.1 * unbiased * 15 / 16)).max() <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("settings", [key(*settings) for settings in EVALUATED])
@pytest.mark.parametrize("port", ["pytorch", "gluon"])
def test_logits_of_drawn_states(port, settings, tmp_path):
    expected = np.load(REFERENCE / ("seeded_torch.npz" if port == "pytorch" else "seeded_gluon.npz"))
    network = build(settings, port=port)
    load_drawn(network, port, tmp_path / "state.npz")
    expected = expected[f"eval/{settings}"]
    assert compare_eval(network, draw_batch(2)[0], expected) <= RELATIVE * np.abs(expected).max()


@pytest.mark.parametrize("settings", [key(*settings) for settings in TRAINED])
def test_training_step_from_a_drawn_state(settings, tmp_path):
    recorded = np.load(REFERENCE / "seeded_torch.npz")
    network = build(settings)
    load_drawn(network, "pytorch", tmp_path / "state.npz")
    loss, logits, gradients, averages = step(network, *draw_batch(4))
    assert abs(loss - recorded[f"train/{settings}/loss"]) <= LOSS
    assert np.abs(logits - recorded[f"train/{settings}/logits"]).max() <= LOGITS
    assert {f"train/{settings}/grad/{name}" for name in gradients} == {
        name for name in recorded.files if name.startswith(f"train/{settings}/grad/")}
    for name, gradient in gradients.items():
        assert np.abs(thin(gradient) - recorded[f"train/{settings}/grad/{name}"]).max() <= GRADIENTS, name
    for name, value in averages.items():
        after = recorded[f"train/{settings}/after/{name}{'_if_biased' if name.endswith('var') else ''}"]
        assert np.abs(thin(value) - after).max() <= 1e-5 * max(1, np.abs(after).max()), name


@pytest.mark.parametrize("width", [0.35, 0.5])
def test_ports_differ_by_one_shortcut(width, tmp_path):
    """Same weights; the Gluon port's first block has no shortcut. At width 0.75 and up the ports are one network."""
    torch, gluon = build(f"large_{width}_r1"), build(f"large_{width}_r1", port="gluon")
    assert [plan.shortcut for plan in torch_plans(torch)] == [True, *(plan.shortcut for plan in torch_plans(gluon)[1:])]
    load_drawn(torch, "gluon", tmp_path / "state.npz")
    expected = np.load(REFERENCE / "seeded_gluon.npz")[f"eval/large_{width}_r1"]
    assert compare_eval(torch, draw_batch(2)[0], expected) > 0.1 * np.abs(expected).max()
    torch.blocks[0].plan = gluon.blocks[0].plan
    assert compare_eval(torch, draw_batch(2)[0], expected) <= RELATIVE * np.abs(expected).max()


def torch_plans(network):
    return [block.plan for block in network.blocks]


def other_order(tensors, axis):
    """New channels first, then the copies."""
    middle = len(tensors) // 2
    return original_concat([tensors[middle], *tensors[:middle], *tensors[middle + 1:]], axis)


original_concat = paddle.concat


def hardsigmoid_of_another_slope(x):
    return F.relu6(0.2 * x * 6 + 3) / 6


def silu_everywhere(patch):
    patch.setitem(asymmlib.network.ACTIVATIONS, "hardswish", F.silu)
    patch.setattr(F, "hardswish", F.silu)


MISTAKES = {  # what goes wrong, and the smallest logit difference that the authors' networks show for it
    "other order of the copies": (lambda patch: patch.setattr(paddle, "concat", other_order), 1.09),
    "SiLU for hard-swish": (silu_everywhere, 0.37),
    "hard sigmoid of slope 0.2": (lambda patch: patch.setattr(F, "hardsigmoid", hardsigmoid_of_another_slope), 0.04),
    "batch norm's epsilon 1e-3": (lambda patch: None, 0.017),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("settings", TORCH)
def test_a_wrong_detail_shows(settings, mistake, monkeypatch):
    if settings.endswith("r0") and "copies" in mistake:
        pytest.skip("rate 0 has no copies to put elsewhere")
    path = reference(f"torch_{settings}.npz")
    network, recorded = build(settings), np.load(path)
    load_official(network, path)
    change, least = MISTAKES[mistake]
    change(monkeypatch)
    if "epsilon" in mistake:
        for layer in network.sublayers():
            if isinstance(layer, paddle.nn.BatchNorm2D):
                layer._epsilon = 1e-3
    assert compare_eval(network, recorded["input"], recorded["logits"]) >= least
