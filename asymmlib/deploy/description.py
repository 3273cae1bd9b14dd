"""What an exported network says of itself: how a picture is prepared, what its outputs are, and how to check both.

`describe(classifier)` is the description; export.json and the properties of every ONNX file hold it. The reference is a
picture that this project draws, with the logits of the network: a program that prepares it and gets the same logits
does everything as it was done in training. Another order of colours, another filter or other numbers do not pass.
"""
import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from asymmlib.base.files import atomic_write
from asymmlib.data.pictures import load_picture
from asymmlib.data.sample import draw

if TYPE_CHECKING:
    from asymmlib.runs import Classifier

__all__ = ["PICTURE", "as_uint8", "describe", "draw_reference", "reference_pixels", "with_logits"]

PICTURE = "reference.png"
DRAWN, SEED = "butterfly", 2026  # a class of the drawn pictures, all colours in it
LARGER, LARGEST = 1.5, 512  # than the network's input, so that the filter matters; pixels a side at most
COLOURS = 64  # a palette keeps the file small, as a property of a model should be


def describe(classifier: "Classifier") -> dict[str, Any]:
    """{name: value} for JSON: model, run, classes, mean, std, licence, preprocessing and training_data of a network.

    Where the weights are calibrated, none_below is the probability that the best class must reach.
    """
    facts = {"model": classifier.model, "run": classifier.name, "classes": list(classifier.classes),
             "mean": list(classifier.mean), "std": list(classifier.std), "licence": classifier.licence,
             "preprocessing": classifier.preprocessing, "training_data": _training_data(classifier.provenance)}
    return facts if classifier.none_below is None else {**facts, "none_below": classifier.none_below}


def _training_data(provenance):
    """What is known of the pictures: their name (no path of this machine), how many, and the hash of their list."""
    recipe, known = provenance.get("recipe", {}), {}
    if recipe.get("data"):
        known["name"] = Path(recipe["data"]).name
    pictures = provenance.get("train_pictures") or provenance.get("pictures", {}).get("train")
    for key, value in (("train_pictures", pictures), ("manifest_sha256", provenance.get("manifest_sha256"))):
        if value is not None:
            known[key] = value
    return known or {"name": "not known"}


def as_uint8(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a file whose graph normalises by itself: bytes `[N, H, W, 3]` go in."""
    record = {key: value for key, value in metadata["preprocessing"].items() if key not in ("mean", "std")}
    return {**metadata, "preprocessing": {**record, "range": [0, 255], "layout": "NHWC", "dtype": "uint8"}}


def draw_reference(folder: Path, image_size: int) -> Path:
    """Draw the reference picture for an input of so many pixels a side, as reference.png in `folder`."""
    side = min(LARGEST, round(LARGER * image_size))
    picture = draw(DRAWN, np.random.default_rng(SEED), side).convert("RGB")
    file = io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    with atomic_write(folder / PICTURE) as target:
        target.write(file.getvalue())
    return folder / PICTURE


def reference_pixels(path: Path, image_size: int) -> np.ndarray:
    """The reference picture as the network gets it before normalising: uint8 `[1, image_size, image_size, 3]`."""
    return load_picture(path, image_size)[None]


def with_logits(path: Path, logits: Sequence[float], tolerance: float, embedded: bool) -> dict[str, Any]:
    """The reference as data for JSON: picture (its name, or the file itself as base64), sha256, logits, tolerance.

    tolerance: largest difference of a logit, relative to the largest one.
    """
    content = path.read_bytes()
    return {"picture": base64.b64encode(content).decode() if embedded else path.name,
            "sha256": hashlib.sha256(content).hexdigest(), "logits": [round(float(value), 7) for value in logits],
            "tolerance": tolerance}
