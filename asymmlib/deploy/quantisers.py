"""The libraries that make integers of 8 bits of an exported network's numbers; `FORMS` lists what they write.

- `onnx_int8`: ONNX Runtime's static quantiser (the extra `ship`), for ONNX Runtime, OpenVINO, tract
- `openvino_int8`: NNCF (the extra `quantise`), for OpenVINO

A weight becomes one of 255 multiples of a step, and each output channel has a step of its own; what flows between the
layers has one step a tensor, by the range that pictures show (calibration). `asymmlib.deploy.quantise` uses them.

Source: Jacob et al., 2018, for integers in place of float32; Nagel et al., 2021, section 2.4, for steps per channel.
"""
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from asymmlib.base.extras import load_package
from asymmlib.deploy.engines import Runner, openvino_core, run_onnx, run_openvino
from asymmlib.deploy.export import QUANTISED

if TYPE_CHECKING:
    from asymmlib.dataset import Pictures

__all__ = ["CALIBRATION", "FORMS", "Form", "calibration_pictures", "onnx_int8", "openvino_int8"]

CALIBRATION = 256  # train pictures that show how large values get
BATCH = 16         # of them at a time


def onnx_int8(source: Path, target: Path, images: np.ndarray, per_channel: bool = True) -> None:
    """Write the ONNX file `source` with int8 weights and activations to `target`, calibrated on images [N, 3, H, W].

    Batch norm goes into the convolutions first. Both kinds of numbers are signed and quantising stands in the graph as
    pairs of nodes (QDQ): so no processor's instructions saturate. per_channel: False gives each weight tensor one step.
    Raises `RuntimeError` where a package of the extra `ship` is missing.
    """
    load_package("onnx")
    load_package("onnxruntime")
    from onnxruntime.quantization import quant_pre_process, quantize_static
    with tempfile.TemporaryDirectory() as folder, _quiet(""):
        folded = Path(folder) / "folded.onnx"
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        quantize_static(str(folded), str(target), _reader(images), per_channel=per_channel)


def openvino_int8(source: Path, target: Path, images: np.ndarray) -> None:
    """Write the ONNX file `source` with int8 weights and activations for OpenVINO: `target` (.xml), and .bin beside it.

    Raises `RuntimeError` where OpenVINO or NNCF is missing (the extras `ship` and `quantise`).
    """
    core = openvino_core()
    os.environ.setdefault("NNCF_CI", "1")  # nncf asks for it where nothing may be sent; it would report its use
    nncf = load_package("nncf")
    with _quiet("nncf"), redirect_stdout(sys.stderr):  # its bars of progress
        model = nncf.quantize(core.read_model(str(source)), nncf.Dataset([image[None] for image in images]),
                              subset_size=len(images))
    load_package("openvino").save_model(model, str(target))


def _reader(images):
    """What ONNX Runtime's quantiser asks for its pictures."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """Batches of a few pictures; None says that there are no more."""

        batches = iter([{"pictures": images[at:at + BATCH]} for at in range(0, len(images), BATCH)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)
    return Reader()


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Leave out the remarks of a library's logger ("" is the root, to which the quantiser writes), not its errors."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _describe_onnx(path, properties):
    onnx = load_package("onnx")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)


def _describe_openvino(path, properties):
    """OpenVINO keeps the old file open while its model lives, so the new one takes another name first."""
    model = openvino_core().read_model(str(path))
    for key, value in properties.items():
        model.set_rt_info(value, ["model_info", key])
    described = path.with_name("described.xml")
    load_package("openvino").save_model(model, str(described), compress_to_fp16=False)
    del model
    for end in (".xml", ".bin"):
        os.replace(described.with_suffix(end), path.with_suffix(end))


def calibration_pictures(pictures: "Pictures", count: int = CALIBRATION) -> np.ndarray:
    """`count` pictures of a split, float32 `[N, 3, size, size]`: evenly out of its order, so that every class is there.

    All of them where there are fewer.
    """
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int))
    return np.stack([pictures[index][0] for index in chosen])


class Form(NamedTuple):
    """An int8 network: its files, the first of which is opened; packages it needs, the last of which makes it.

    write: (model.onnx, first file, images float32 [N, 3, H, W]). describe: (first file, properties {text: text}).
    run: (first file, pictures at a time or None) -> pictures -> logits.
    """

    files: tuple[str, ...]
    packages: tuple[str, ...]
    write: Callable[[Path, Path, np.ndarray], None]
    describe: Callable[[Path, Mapping[str, str]], None]
    run: Callable[[Path, int | None], Runner]


FORMS = {"int8": Form(QUANTISED[:1], ("onnx", "onnxruntime"), onnx_int8, _describe_onnx,
                      lambda path, batch: run_onnx(path)),
         "openvino-int8": Form(QUANTISED[1:], ("onnx", "openvino", "nncf"), openvino_int8, _describe_openvino,
                               run_openvino)}
