"""Models by name, and their equal treatment: every network starts, normalises and drops out alike."""
import math

import paddle
import pytest
from paddle import nn

from asymmlib.complexity import formula
from asymmlib.models import MODELS, compare_models, create_model, describe_treatment, he_deviation, treat
from asymmlib.network import AsymmNet
from asymmlib.recipes import BEFORE, Recipe
from asymmlib.runs import find_run
from asymmlib.training import train

RECIPE = Recipe("tiny", image_size=32, epochs=1, batch_size=8, base_lr=0.05)
COMPARED = [("asymmnet_large", {"asymmrate": rate}) for rate in (0, 1, 2)] + [
    (name, {}) for name in MODELS if name != "asymmnet_large"]


def layers(network, *kinds):
    return [layer for layer in network.sublayers() if isinstance(layer, kinds)]


@pytest.fixture(scope="module")
def treated(request):
    """A network as it is compared, which the tests only read: VGG19's 140 million weights take seconds to draw."""
    name, settings = request.param
    paddle.seed(0)
    return name, treat(create_model(name, 16, **settings), dropout=0.3)


each_treated = pytest.mark.parametrize("treated", COMPARED, indirect=True, ids=[
    f"{name}-settings{number}" for number, (name, _) in enumerate(COMPARED)])


@pytest.mark.slow
@each_treated
def test_every_filter_starts_at_he_s_deviation(treated):
    """Within four standard errors of a deviation measured on n weights, 1 / sqrt(2n) each."""
    _, network = treated
    linear = layers(network, nn.Linear)
    for layer in layers(network, nn.Conv2D) + linear:
        weights = layer.weight.numpy().ravel()
        weights = weights[::1 + 2 * (weights.size // 2_000_000)].astype("float64")  # of VGG19's, every 103rd do
        expected = 0.01 if layer is linear[-1] else he_deviation(layer)
        assert abs(weights.std() / expected - 1) < 4 / math.sqrt(2 * weights.size), layer.full_name()
        assert layer.bias is None or not layer.bias.numpy().any()


@pytest.mark.slow
@each_treated
def test_norm_and_dropout_are_equal(treated):
    name, network = treated
    norms = {(layer._momentum, layer._epsilon) for layer in layers(network, nn.BatchNorm2D)}
    assert norms == (set() if name == "vgg19" else {(0.9, 1e-5)})
    assert [layer.p for layer in layers(network, nn.Dropout)] == {"vgg19": [0.5, 0.5], "resnet50": []}.get(name, [0.3])


def test_paddle_default_is_what_paddle_3_did():
    """By the installed Paddle's own networks where it still has that rule; by the rule's numbers everywhere."""
    paddle.seed(0)
    network = treat(create_model("mobilenet_v2", 16), "paddle-default")
    for layer in layers(network, nn.Conv2D):
        rule = math.sqrt(2 / (layer._in_channels * math.prod(layer._kernel_size)))
        assert abs(layer.weight.numpy().std() / rule - 1) < 4 / math.sqrt(2 * layer.weight.size)
    weights = layers(network, nn.Linear)[0].weight.numpy()
    assert abs(weights).max() <= math.sqrt(6 / sum(weights.shape)) and abs(weights).max() > 0.05
    if paddle.__version__ == "3.3.1":
        built = layers(create_model("mobilenet_v2", 16), nn.Conv2D)
        for ours, theirs in zip(layers(network, nn.Conv2D), built, strict=True):
            ratio = theirs.weight.numpy().std() / ours.weight.numpy().std()
            assert abs(ratio - 1) < 8 / math.sqrt(2 * ours.weight.size)


def test_treatment_follows_the_seed_and_as_built_changes_nothing():
    def first(seed, *treatment):
        paddle.seed(seed)
        return treat(create_model("asymmnet_small", 3), *treatment).stem.conv.weight.numpy()
    assert (first(1) == first(1)).all() and (first(1) != first(2)).any()
    network = create_model("mobilenet_v3_large", 3)
    before = {name: value.numpy() for name, value in network.state_dict().items()}
    treat(network, "as-built", "as-built")
    assert all((value.numpy() == before[name]).all() for name, value in network.state_dict().items())
    assert {layer._epsilon for layer in layers(network, nn.BatchNorm2D)} == {1e-3}
    with pytest.raises(ValueError, match="unknown initialisation 'best'.*known: he, paddle-default, as-built; common"):
        treat(network, "best")


@pytest.mark.slow
def test_a_row_of_the_table_is_read_from_the_network():
    network = create_model("mobilenet_v3_large", 16)
    row = describe_treatment(treat(network, norm="as-built", dropout=0.1), 32)
    assert (row["norm"], row["dropout"]) == ("0.99 and 0.001", "0.1") and row["macs"] > 0 and row["params"] > 0
    assert describe_treatment(treat(network), 32)["norm"] == "0.9 and 1e-05"
    assert describe_treatment(create_model("vgg19", 16), 32)["norm"] == "none"


@pytest.mark.slow
def test_a_run_of_before_is_neither(home, picture_folder):
    """What old records did has a name of its own, so it is never taken for equal treatment."""
    run = train("mobilenet_v3_large", RECIPE.replace(data=str(picture_folder)), name="old")
    network = run.network()
    assert {layer._epsilon for layer in layers(network, nn.BatchNorm2D)} == {1e-5}  # no weight, but kept all the same
    assert run.info["sessions"][0]["first_epoch"] == 1 and run.info["sessions"][0]["environment"]["packages"]
    old = {key: value for key, value in run.info["recipe"].items() if key not in BEFORE}
    run.write(recipe=old)
    assert {layer._epsilon for layer in layers(find_run("old").network(), nn.BatchNorm2D)} == {1e-3}
    with pytest.raises(ValueError, match="old holds a run with another recipe"):
        train("mobilenet_v3_large", RECIPE.replace(data=str(picture_folder)), name="old")
    again = train("mobilenet_v3_large", RECIPE.replace(data=str(picture_folder), **BEFORE), name="old")
    assert again.finished


def test_names_and_labels():
    assert {name: entry.label for name, entry in MODELS.items()} == {
        "asymmnet_large": "AsymmNet-Large", "asymmnet_small": "AsymmNet-Small", "resnet50": "ResNet50",
        "vgg19": "VGG19", "mobilenet_v2": "MobileNetV2", "mobilenet_v3_large": "MobileNetV3-Large"}
    assert [name for name, entry in MODELS.items() if entry.scalable] == ["asymmnet_large", "asymmnet_small"]


def test_settings_reach_the_network():
    network = create_model("asymmnet_small", 5, width=0.5, asymmrate=0, dropout=0.4)
    assert isinstance(network, AsymmNet) and (network.variant, network.width, network.asymmrate) == ("small", 0.5, 0)
    assert network.dropout.p == 0.4 and network.classifier.weight.shape == [1280, 5]
    usual = create_model("asymmnet_small", 5)
    assert (usual.width, usual.asymmrate, usual.dropout.p) == (1.0, 1, 0.2)
    assert create_model("asymmnet_large", 5).variant == "large"


def test_a_table_of_costs():
    """Without further words of 16 classes and 224 pixels; the formula and the count agree elsewhere."""
    usual = compare_models(("asymmnet_small",))
    expected = formula("small", num_classes=16, size=224)
    assert usual.to_dict("records") == [{"model": "asymmnet_small", "label": "AsymmNet-Small",
                                         "params": expected.params, "macs": expected.macs}]
    table = compare_models(("mobilenet_v2", "asymmnet_small"), num_classes=10, image_size=32)
    expected = formula("small", num_classes=10, size=32)
    assert list(table["model"]) == ["mobilenet_v2", "asymmnet_small"] and table["label"][0] == "MobileNetV2"
    assert (table["params"][1], table["macs"][1]) == (expected.params, expected.macs)
    assert table["params"][0] == 3_504_872 - 990 * 1281  # that of 1000 classes less 990 columns of the classifier


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("alexnet", {}, "unknown model 'alexnet'; known: asymmnet_large, asymmnet_small, resnet50, vgg19, mobilenet_v2"),
    ("mobilenet_v2", {"width": 0.5}, "model 'mobilenet_v2' has no setting width; only AsymmNet has"),
    ("resnet50", {"asymmrate": 0, "dropout": 0.0}, "model 'resnet50' has no setting asymmrate, dropout;")])
def test_what_cannot_be_built(name, settings, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, 5, **settings)
