"""Models by name: labels, costs, the settings they take."""
import pytest

from asymmlib.complexity import formula
from asymmlib.models import MODELS, compare_models, create_model
from asymmlib.network import AsymmNet


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
