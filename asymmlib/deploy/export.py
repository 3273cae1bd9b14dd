"""A trained network as files that run without this library: `export(network, folder, image_size)`.

- inference.json (Paddle 2: .pdmodel), inference.pdiparams: static program and parameters, for Paddle Inference
- model.onnx, model-float16.onnx: the network, opset 17, weights as float32 or float16, for ONNX Runtime and OpenVINO
- weights-float16.safetensors: parameters under our names, half the bytes, for `asymmlib.weights.own.load_weights`
- export.json: classes, preprocessing, versions, and how far each file is from the eager network, for people

Every file is loaded and run before `export` returns, and its logits are compared with those of the network as it is.
"""
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from asymmlib.base.environment import environment
from asymmlib.base.extras import missing_package
from asymmlib.base.files import atomic_write, make_folder
from asymmlib.base.startup import native_noise_left_out
from asymmlib.deploy.engines import ENGINES, load_engine, missing
from asymmlib.deploy.onnx_graph import OPSET, halved, make_onnx
from asymmlib.weights.own import save_tensors
from asymmlib.weights.settings import complete, marks

if TYPE_CHECKING:
    from asymmlib.runs import Classifier

__all__ = ["TOLERANCE", "check", "eager_logits", "export", "export_classifier", "save_half"]

TOLERANCE = 1e-4     # float32 files: largest difference of a logit, relative to the largest logit where that is above 1
HALF_TOLERANCE = 5e-2  # float16 weights: rounded to 11 bits once


def export(network: paddle.nn.Layer, folder: Path | str, image_size: int,
           metadata: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Write all files of the table above into `folder`, check each, and return what `check` measured.

    network: any of `asymmlib.create_model`, set to eval mode. image_size: pixels a side. metadata: {name: value} for
    export.json and the ONNX properties (classes, mean, std). Without the package `onnx` the ONNX files are left out,
    which is printed. Raises `ValueError` for a size below 32, a network that cannot be converted, or a file whose
    logits differ by more than `TOLERANCE`; `OSError` where the folder cannot be written.
    """
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 32:
        raise ValueError(f"image_size is {image_size!r}; it must be an integer of at least 32 pixels")
    folder, metadata = make_folder(folder), metadata or {}
    network.eval()
    _save_inference(network, folder, image_size)
    save_half(network, folder / "weights-float16.safetensors", {**metadata, "size": image_size})
    if missing_package("onnx"):
        print(f"no ONNX files: {missing_package('onnx')}")
    else:
        properties = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
        for name, half in (("model", False), ("model-float16", True)):
            model = make_onnx(network, image_size, half, {"image_size": str(image_size), **properties})
            with atomic_write(folder / f"{name}.onnx") as file:
                file.write(model.SerializeToString())
    differences = check(network, folder, image_size)
    facts = {"image_size": image_size, "opset": OPSET, **metadata, "differences": differences, "tolerance": TOLERANCE,
             "environment": environment()}
    with atomic_write(folder / "export.json", "w") as file:
        file.write(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return differences


def export_classifier(classifier: "Classifier", folder: Path | str) -> dict[str, float]:
    """Export a `Classifier` with its classes and its preprocessing as metadata; return what `check` measured."""
    metadata = {"model": classifier.model, "run": classifier.name, "classes": list(classifier.classes),
                "mean": list(classifier.mean), "std": list(classifier.std), "licence": classifier.licence,
                "preprocessing": classifier.preprocessing}
    return export(classifier.network, folder, classifier.image_size, metadata)


def save_half(network: paddle.nn.Layer, path: Path | str, pictures: Mapping[str, Any] | None = None) -> None:
    """Write the weights as float16 safetensors; `load_weights` makes float32 of them again.

    Vectors (biases, batch norm) stay float32: they are few, and a small variance would lose its digits. pictures: what
    is known of "classes", "size", "mean" and "std", for the file's settings. Raises `ValueError` for a value beyond
    float16's range (65504), naming the tensor.
    """
    tensors = {name: halved(name, value.numpy()) for name, value in network.state_dict().items()}
    save_tensors(tensors, path, complete(network, marks(pictures or {})))


def check(network: paddle.nn.Layer, folder: Path, image_size: int, pictures: int = 4,
          seed: int = 0) -> dict[str, float]:
    """Run every exported file on random pictures; return {engine or file: largest relative difference of a logit}.

    The difference is `|logit - eager logit| / max(1, largest |eager logit|)`. Engines that are missing are left out;
    what bfloat16 costs (8 bits, in every layer) is measured and left to the reader. Raises `ValueError` that
    names a file whose difference is above its tolerance.
    """
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(pictures, 3, image_size, image_size)).astype(np.float32)
    expected = eager_logits(network, images)
    runs = {name: load_engine(name, network, folder, pictures) for name in ENGINES
            if name != "eager" and not missing(name)}
    found = {name: difference(run(images), expected) for name, run in runs.items()}
    found["weights-float16"] = difference(_half_logits(network, folder, images), expected)
    limits = {name: TOLERANCE for name in runs if ENGINES[name].precision == "float32"}
    limits["weights-float16"] = HALF_TOLERANCE
    wrong = [f"{name} ({found[name]:.1e})" for name, limit in limits.items() if not found[name] <= limit]
    if wrong:
        raise ValueError(f"{folder}: logits differ from the eager network's: {', '.join(wrong)}; allowed are "
                         f"{TOLERANCE:g} in float32 and {HALF_TOLERANCE:g} with float16 weights")
    return found


def difference(logits: np.ndarray, expected: np.ndarray) -> float:
    """Largest |logit - expected| over max(1, largest |expected|)."""
    return float(np.abs(logits - expected).max() / max(1.0, np.abs(expected).max()))


def eager_logits(network: paddle.nn.Layer, images: np.ndarray) -> np.ndarray:
    """Logits `[N, C]` of a network as Paddle runs it, without gradients: what every export is compared with."""
    return load_engine("eager", network, None, len(images))(images)


def _half_logits(network, folder, images):
    """Logits with the stored float16 weights; the network's own are put back."""
    from asymmlib.weights.own import load_weights
    own = {name: value.clone() for name, value in network.state_dict().items()}
    try:
        load_weights(network, folder / "weights-float16.safetensors")
        return eager_logits(network, images)
    finally:
        network.set_state_dict(own)


def _save_inference(network, folder, image_size):
    spec = [paddle.static.InputSpec([None, 3, image_size, image_size], "float32", "pictures")]
    forward = vars(network).get("forward")
    try:
        with native_noise_left_out():
            paddle.jit.save(network, str(folder / "inference"), input_spec=spec)
    finally:  # jit.save leaves its traced forward on the layer
        with contextlib.suppress(AttributeError):
            del network.forward
        if forward is not None:
            network.forward = forward
