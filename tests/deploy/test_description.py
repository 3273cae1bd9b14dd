"""An exported network says how it is used, and its reference picture tells who does not do it so."""
import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from asymmlib.deploy import engines
from asymmlib.deploy.description import describe, draw_reference

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(engines.missing("onnxruntime")),
                                                   reason="the extra `ship` is not installed")]
SAID = ("order", "range", "resize", "filter", "mean", "std", "layout", "dtype", "output", "size")


def open_model(exported, name):
    import onnxruntime
    session = onnxruntime.InferenceSession(exported / f"{name}.onnx", providers=["CPUExecutionProvider"])
    said = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()
            if value[:1] in "[{"}
    return session, {**session.get_modelmeta().custom_metadata_map, **said}


def prepared(picture, steps, mode="RGB", mean=None, std=None, resample=Image.Resampling.BILINEAR, box=None):
    """A picture as one client or the other would prepare it."""
    pixels = np.asarray(picture.convert("RGB").resize(steps["size"][::-1], resample, box=box))
    pixels = pixels[..., ::-1] if mode == "BGR" else pixels
    mean, std = np.array(mean or steps["mean"]), np.array(std or steps["std"])
    return ((pixels / 255 - mean) / std).astype(np.float32).transpose(2, 0, 1)[None]


def error(session, reference, images):
    logits, = session.run(None, {session.get_inputs()[0].name: images})
    expected = np.array(reference["logits"])
    return np.abs(logits[0] - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", ["model", "model-float16"])
def test_the_reference_picture_tells_right_from_wrong(exported, name):
    session, about = open_model(exported, name)
    reference, steps = about["reference"], about["preprocessing"]
    picture = Image.open(io.BytesIO(base64.b64decode(reference["picture"])))
    assert min(picture.size) > max(steps["size"]) and picture.size[0] != picture.size[1]
    assert error(session, reference, prepared(picture, steps)) <= reference["tolerance"]
    width, height = picture.size
    side = min(width, height)
    wrong = {"order": {"mode": "BGR"}, "mean": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
             "only divided": {"mean": [1e-9] * 3, "std": [1.0] * 3}, "nearest": {"resample": Image.Resampling.NEAREST},
             "cropped": {"box": ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)}}
    for what, how in wrong.items():
        assert error(session, reference, prepared(picture, steps, **how)) > 100 * reference["tolerance"], what


def test_bytes_by_the_file_that_takes_them(exported):
    session, about = open_model(exported, "model-uint8")
    reference, steps = about["reference"], about["preprocessing"]
    picture = Image.open(io.BytesIO(base64.b64decode(reference["picture"]))).convert("RGB")
    pixels = np.asarray(picture.resize(steps["size"][::-1], Image.Resampling.BILINEAR))[None]
    assert error(session, reference, pixels) <= reference["tolerance"]


def test_every_file_says_what_a_client_must_know(exported, small):
    facts = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    for said in (facts, open_model(exported, "model")[1], open_model(exported, "model-float16")[1]):
        assert set(SAID) <= set(said["preprocessing"]) and said["classes"] == list(small.classes)
        assert said["preprocessing"] == small.preprocessing and said["licence"] == "MIT"
        assert said["training_data"] == {"name": "caltech16", "train_pictures": 1081,
                                         "manifest_sha256": small.provenance["manifest_sha256"]}
    assert facts["reference"]["picture"] == "reference.png"
    assert Image.open(exported / "reference.png").format == "PNG"


def test_a_shipped_model_answers_as_predict_does(exported, small):
    session, about = open_model(exported, "model")
    images = prepared(Image.open(exported / "reference.png"), about["preprocessing"])
    logits = session.run(None, {session.get_inputs()[0].name: images})[0][0].astype(np.float64)
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(shares, small.predict([exported / "reference.png"])[0], atol=1e-4)


def test_the_reference_is_small_and_its_threshold_is_said(tmp_path, small):
    from dataclasses import replace
    for size in (32, 64, 224, 1024):
        assert draw_reference(tmp_path, size).stat().st_size < 120_000, size
    assert describe(small)["none_below"] == small.none_below
    provenance = {key: value for key, value in small.provenance.items() if key != "none_below"}
    assert "none_below" not in describe(replace(small, provenance=provenance))
