"""A trained network as files that run without this library: `export(network, folder, image_size)`.

- inference.json (Paddle 2: .pdmodel), inference.pdiparams: static program and parameters, for Paddle Inference
- model.onnx, model-float16.onnx: the same network, opset 17; weights as float32 or float16, for ONNX Runtime, OpenVINO
- model-uint8.onnx, where asked for: bytes `[N, H, W, 3]` in: the graph normalises by itself, for the same
- model-free-size.onnx, where asked for: pictures of any height and width, for the same
- weights-float16.safetensors: parameters under our names, half the bytes, for `asymmlib.weights.own.load_weights`
- model-int8.onnx and others, where asked for, by `asymmlib.deploy.quantise`, out of model.onnx and train pictures
- reference.png: a drawn picture, whose logits stand in export.json and in each ONNX file, for whoever wants to check
- export.json: classes, preprocessing, versions, and how far each file is from the eager network, for people

Every file is loaded and run before `export` returns, and its logits are compared with those of the network as it is:
`asymmlib.deploy.checking`.
"""
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import paddle

from asymmlib.base.environment import environment
from asymmlib.base.extras import missing_package
from asymmlib.base.files import atomic_write, checksum, make_folder
from asymmlib.base.startup import native_noise_left_out
from asymmlib.data.pictures import normalise
from asymmlib.deploy.checking import HALF_WEIGHTS, TOLERANCE, check, difference, eager_logits, rounded, statistics_of
from asymmlib.deploy.description import PICTURE, as_uint8, describe, draw_reference, reference_pixels, with_logits
from asymmlib.deploy.onnx_graph import OPSET, AsItStands, halved, make_onnx
from asymmlib.weights.own import save_tensors
from asymmlib.weights.settings import complete, marks

if TYPE_CHECKING:
    from asymmlib.runs import Classifier

__all__ = ["QUANTISED", "TOLERANCE", "check", "difference", "eager_logits", "export", "export_classifier", "file_facts",
           "save_half"]

QUANTISED = ("model-int8.onnx", "model-int8.xml", "model-int8.bin")  # what asymmlib.deploy.quantise adds


class Form(NamedTuple):
    """How an ONNX file differs from model.onnx: weights in float16, bytes as input, any height and width."""

    half: bool = False
    uint8: bool = False
    free: bool = False


FORMS = {"model": Form(), "model-float16": Form(half=True), "model-uint8": Form(uint8=True),
         "model-free-size": Form(free=True)}


def export(network: paddle.nn.Layer, folder: Path | str, image_size: int, metadata: Mapping[str, Any] | None = None,
           uint8: bool = False, free_size: bool = False) -> dict[str, float]:
    """Write the files of the table above into `folder`, check each, and return what `check` measured.

    network: any of `asymmlib.create_model`, set to eval mode. image_size: pixels a side. metadata: {name: value} for
    export.json and the ONNX properties, as `asymmlib.deploy.description.describe` makes it; with mean and std there is
    a reference picture. uint8, free_size: also the files that take bytes, and pictures of any size. Without the package
    `onnx` the ONNX files are left out, which is printed. Raises `ValueError` for a size below 32, a network that cannot
    be converted, bytes without mean and std, or a file whose logits differ by more than its tolerance; `OSError` where
    the folder cannot be written.
    """
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 32:
        raise ValueError(f"image_size is {image_size!r}; it must be an integer of at least 32 pixels")
    folder, metadata = make_folder(folder), dict(metadata or {})
    statistics = statistics_of(metadata)
    if uint8 and (statistics is None or "preprocessing" not in metadata):
        raise ValueError("a file that takes bytes needs the mean and standard deviation and the preprocessing in the "
                         "metadata")
    _remove_earlier(folder)
    network.eval()
    save_half(network, folder / HALF_WEIGHTS, {**metadata, "size": image_size})
    _save_inference(network, folder, image_size)
    references = _references(network, folder, image_size, statistics) if statistics else {}
    if missing_package("onnx"):
        print(f"no ONNX files: {missing_package('onnx')}")
    else:
        wanted = [name for name, form in FORMS.items() if (not form.uint8 or uint8) and (not form.free or free_size)]
        for name in wanted:
            _save_onnx(network, folder, image_size, name, metadata, references)
    differences = check(network, folder, image_size, statistics=statistics)
    if references:
        path, logits = references[False]
        metadata["reference"] = with_logits(path, logits, TOLERANCE, embedded=False)
    facts = {"image_size": image_size, "opset": OPSET, **metadata, "differences": differences, "tolerance": TOLERANCE,
             "files": file_facts(folder), "environment": environment()}
    with atomic_write(folder / "export.json", "w") as file:
        file.write(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return differences


def export_classifier(classifier: "Classifier", folder: Path | str, uint8: bool = False,
                      free_size: bool = False) -> dict[str, float]:
    """Export a `Classifier` with its description as metadata; return what `check` measured. Otherwise as `export`."""
    return export(classifier.network, folder, classifier.image_size, describe(classifier), uint8, free_size)


def save_half(network: paddle.nn.Layer, path: Path | str, pictures: Mapping[str, Any] | None = None) -> None:
    """Write the weights as float16 safetensors; `load_weights` makes float32 of them again.

    Vectors (biases, batch norm) stay float32: they are few, and a small variance would lose its digits. pictures: what
    is known of "classes", "size", "mean" and "std", for the file's settings. Raises `ValueError` for a value beyond
    float16's range (65504), naming the tensor.
    """
    tensors = {name: halved(name, value.numpy()) for name, value in network.state_dict().items()}
    save_tensors(tensors, path, complete(network, marks(pictures or {})))


def file_facts(folder: Path) -> dict[str, dict[str, Any]]:
    """{name: {"bytes", "sha256"}} of what an export has written into a folder, export.json apart."""
    return {path.name: {"bytes": path.stat().st_size, "sha256": checksum(path)} for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    """What an export leaves in a folder, export.json apart."""
    names = [HALF_WEIGHTS, PICTURE, *QUANTISED, *(f"{name}.onnx" for name in FORMS),
             *(f"inference.{end}" for end in ("json", "pdmodel", "pdiparams", "pdiparams.info"))]
    yield from (folder / name for name in sorted(names) if (folder / name).is_file())


def _remove_earlier(folder):
    """Remove the files of an earlier export, whole or interrupted: nothing of it must stay beside the new ones."""
    record = folder / "export.json"
    if record.is_file() or (folder / HALF_WEIGHTS).is_file():  # the last and the first file that one writes
        record.unlink(missing_ok=True)
        for path in _files(folder):
            path.unlink()


def _references(network, folder, image_size, statistics):
    """{whether weights are float16: (path, logits)} of the reference picture."""
    path = draw_reference(folder, image_size)
    images = normalise(reference_pixels(path, image_size), *statistics)
    found = {False: (path, eager_logits(network, images)[0])}
    with rounded(network, folder):
        found[True] = (path, eager_logits(network, images)[0])
    return found


def _save_onnx(network, folder, image_size, name, metadata, references):
    form = FORMS[name]
    described = as_uint8(metadata) if form.uint8 else {**metadata}
    if form.free and "preprocessing" in described:
        described["preprocessing"] = {**described["preprocessing"], "sizes": "any height and width of at least 32"}
    if references:
        path, logits = references[form.half]
        described["reference"] = with_logits(path, logits, TOLERANCE, embedded=True)
    properties = {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                  for key, value in {"image_size": image_size, **described}.items()}
    model = make_onnx(network, None if form.free else image_size, form.half, properties,
                      statistics_of(metadata) if form.uint8 else None)
    with atomic_write(folder / f"{name}.onnx") as file:
        file.write(model.SerializeToString())


def _save_inference(network, folder, image_size):
    spec = [paddle.static.InputSpec([None, 3, image_size, image_size], "float32", "pictures")]
    with native_noise_left_out():
        paddle.jit.save(AsItStands(network), str(folder / "inference"), input_spec=spec)
