"""A head of one's own: read as the live page saves it, used with its own network only, and refused clearly."""
import json
from dataclasses import replace

import numpy as np
import pytest

from asymmlib.__main__ import main
from asymmlib.data.pictures import load_picture, normalise
from asymmlib.data.sample import draw
from asymmlib.deploy.engines import missing
from asymmlib.deploy.export import eager_logits
from asymmlib.deploy.heads import FORMAT, network_features, read_head, with_head
from asymmlib.deploy.onnx_graph import make_onnx
from asymmlib.deploy.timing import typical_network
from asymmlib.evaluation import softmax
from asymmlib.runs import Classifier, load_pretrained

SIZE = 32


@pytest.fixture(scope="module", params=["asymmnet_small", "mobilenet_v2"])
def network(request):
    """One whose last layer is its own, one whose last layer is in a list of layers."""
    return typical_network(request.param)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)


@pytest.fixture
def head(tmp_path):
    """The path of a head for the released AsymmNet-Small, and its content."""
    rng = np.random.default_rng(1)
    digest = load_pretrained("asymmnet_small").provenance["sha256"]
    content = {"format": FORMAT, "network": "asymmnet_small", "sha256": digest, "classes": ["mug", "钥匙"],
               "weights": rng.normal(size=(2, 1280)).tolist(), "bias": [0.1, -0.1]}
    path = tmp_path / "head.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path, content


@pytest.fixture
def picture(tmp_path):
    draw("key", np.random.default_rng(2), 90).save(tmp_path / "key.png")
    return tmp_path / "key.png"


def last_layer(network):
    tensors = network.state_dict()
    name = [name for name in tensors if name.startswith("classifier") and name.endswith("weight")][-1]
    return tensors[name].numpy(), tensors[name.replace("weight", "bias")].numpy()


def test_features_are_what_the_last_layer_reads(network, images):
    weight, bias = last_layer(network)
    features = network_features(network, images)
    assert features.shape == (3, 1280)
    np.testing.assert_allclose(features @ weight + bias, eager_logits(network, images), rtol=1e-4, atol=1e-4)
    assert network_features(network, images[:1]).shape == (1, 1280), "the hook is gone after each call"


@pytest.mark.skipif(bool(missing("onnxruntime")), reason="the extra `ship` is not installed")
def test_features_are_a_second_output_in_onnx(network, images):
    import onnxruntime
    for features in (False, True):
        session = onnxruntime.InferenceSession(make_onnx(network, SIZE, features=features).SerializeToString())
        assert [output.name for output in session.get_outputs()] == ["logits", "features"][:1 + features]
    logits, found = session.run(None, {"pictures": images})
    expected = network_features(network, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(logits, eager_logits(network, images), rtol=1e-3, atol=1e-4)


def test_a_head_answers_in_place_of_the_classes(head, picture):
    path, content = head
    plain, mine = load_pretrained("asymmnet_small"), with_head(load_pretrained("asymmnet_small"), path)
    images = normalise(load_picture(picture, plain.image_size)[None], plain.mean, plain.std)
    features = network_features(plain.network, images).astype(np.float64)
    features /= np.linalg.norm(features)
    expected = softmax(features @ np.array(content["weights"]).T + content["bias"])
    assert mine.classes == ("mug", "钥匙") and mine.none_below is None
    np.testing.assert_allclose(mine.predict([picture]), expected, atol=1e-5)


def test_predict_says_the_classes_of_the_head(head, picture, capsys):
    assert main(["predict", "--from", "asymmnet_small", "--head", str(head[0]), "--json", str(picture)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {entry["class"] for entry in said["classes"]} == {"mug", "钥匙"} and not said["none_of_these"]


@pytest.mark.parametrize(("change", "words"), [
    ("not json", "is no head as the live page saves it"), ("[]", "is no head"), ({"format": "x"}, "is no head"),
    ({"bias": None}, "no usable bias"), ({"weights": [[1.0], [1.0, 2.0]]}, "is no head"),
    ({"weights": [["a"], ["b"]]}, "is no head"), ({"bias": [0.0]}, "do not fit together"),
    ({"classes": ["one"]}, "do not fit together"), ({"bias": [0.0, float("nan")]}, "not finite"),
    ({"weights": [[1.0] * 7, [2.0] * 7]}, "has 7 weights a class, and asymmnet_small has 1280 features"),
    ({"network": "asymmnet_large", "sha256": "0" * 64},
     "is a head for asymmnet_large, with weights other than those of asymmnet_small: predict --from asymmnet_large")])
def test_other_files_are_refused(head, picture, capsys, change, words):
    path, content = head
    path.write_text(change if isinstance(change, str) else json.dumps({**content, **change}), encoding="utf-8")
    assert main(["predict", "--from", "asymmnet_small", "--head", str(path), str(picture)]) == 2
    said = capsys.readouterr().err
    assert words in said and str(path) in said and len(said.splitlines()) == 1


def test_a_missing_head_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no head .*mine\.json"):
        read_head(tmp_path / "mine.json")


def test_without_digests_names_decide(head, network):
    """Weights of a reader's own have none: then the name of the run is what a head goes with."""
    path, content = head
    path.write_text(json.dumps({**content, "network": "mine", "sha256": None}), encoding="utf-8")
    mine = Classifier("mine", "asymmnet_small", typical_network("asymmnet_small"), ("a", "b"), SIZE, (0.5,) * 3,
                      (0.2,) * 3, "MIT", {"sha256": "1"})
    assert with_head(mine, path).classes == ("mug", "钥匙")
    with pytest.raises(ValueError, match="is a head for mine"):
        with_head(replace(mine, name="other", network=typical_network("asymmnet_small")), path)
