"""Every exported file is run and its logits are compared with the network's own: `check(network, folder, size)`."""
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from asymmlib.data.pictures import normalise
from asymmlib.deploy.engines import ENGINES, load_engine, missing, run_onnx

__all__ = ["HALF_TOLERANCE", "HALF_WEIGHTS", "TOLERANCE", "check", "difference", "eager_logits", "rounded",
           "statistics_of"]

TOLERANCE = 1e-4       # float32 arithmetic: largest difference of a logit, relative to the largest logit
HALF_TOLERANCE = 5e-2  # what rounding the weights to float16 (11 bits) may change, in the same measure
HALF_WEIGHTS = "weights-float16.safetensors"
Statistics = tuple[Sequence[float], Sequence[float]]  # mean and std of three channels


def check(network: paddle.nn.Layer, folder: Path, image_size: int, pictures: int = 4, seed: int = 0,
          statistics: Statistics | None = None) -> dict[str, float]:
    """Run every exported file on random pictures; return {engine or file: largest relative difference of a logit}.

    The difference is `|logit - eager logit| / max(|eager logit|)`. Files with float16 weights are compared with
    the network as it is, and more strictly with the network whose weights are rounded; the file for any size at three
    sizes; the one that takes bytes on bytes. Engines that are missing are left out; what bfloat16 costs (8 bits, in
    every layer) is measured and left to the reader. statistics: (mean, std), needed for bytes. Raises `ValueError` that
    names a file whose difference is above its tolerance.
    """
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(pictures, 3, image_size, image_size)).astype(np.float32)
    expected = eager_logits(network, images)
    with rounded(network, folder):
        half = eager_logits(network, images)
    found, strict = {}, {}
    for name in ENGINES:
        if ENGINES[name].exported and not missing(name):
            found[name] = difference(load_engine(name, network, folder, pictures)(images), expected)
            if ENGINES[name].precision == "float32":
                strict[name] = found[name]
    for name, measure in ONNX_CHECKS.items():
        if (folder / f"{name}.onnx").is_file():
            found[name], strict[name] = measure(run_onnx(folder / f"{name}.onnx"), network, images, expected, half,
                                                statistics)
    found["weights-float16"] = difference(half, expected)
    _refuse(folder, strict, {name: found[name] for name in found if "float16" in name})
    return found


def _refuse(folder, strict, halves):
    wrong = [f"{name} ({value:.1e})" for values, limit in ((strict, TOLERANCE), (halves, HALF_TOLERANCE))
             for name, value in values.items() if not value <= limit]
    if wrong:
        raise ValueError(f"{folder}: logits differ from the eager network's: {', '.join(wrong)}; allowed are "
                         f"{TOLERANCE:g} in float32 and {HALF_TOLERANCE:g} with float16 weights")


def _plain(run, network, images, expected, half, statistics):
    found = difference(run(images), expected)
    return found, found


def _rounded(run, network, images, expected, half, statistics):
    logits = run(images)
    return difference(logits, expected), difference(logits, half)


def _bytes(run, network, images, expected, half, statistics):
    if statistics is None:
        raise ValueError("a file that takes bytes is checked with the mean and standard deviation that it holds")
    pixels = np.random.default_rng(0).integers(0, 256, images.transpose(0, 2, 3, 1).shape, np.uint8)
    found = difference(run(pixels), eager_logits(network, normalise(pixels, *statistics)))
    return found, found


def _any_size(run, network, images, expected, half, statistics):
    side, found = images.shape[-1], difference(run(images), expected)
    for height, width in ((side + 32, side), (max(32, side // 2), side + 17)):
        others = np.random.default_rng(0).normal(size=(len(images), 3, height, width)).astype(np.float32)
        found = max(found, difference(run(others), eager_logits(network, others)))
    return found, found


# ONNX file -> function that gives (difference from the eager network, difference that must stay below TOLERANCE)
ONNX_CHECKS: dict[str, Callable[..., tuple[float, float]]] = {
    "model": _plain, "model-float16": _rounded, "model-uint8": _bytes, "model-free-size": _any_size}


def difference(logits: np.ndarray, expected: np.ndarray) -> float:
    """`max(|logit - expected|) / max(|expected|)`; over 1 where all of these are 0."""
    return float(np.abs(logits - expected).max() / (np.abs(expected).max() or 1.0))


def eager_logits(network: paddle.nn.Layer, images: np.ndarray) -> np.ndarray:
    """Logits `[N, C]` of a network as Paddle runs it, without gradients: what every export is compared with."""
    return load_engine("eager", network, None, len(images))(images)


@contextlib.contextmanager
def rounded(network: paddle.nn.Layer, folder: Path) -> Iterator[None]:
    """Give a network the float16 weights stored in a folder while the block runs; its own are put back."""
    from asymmlib.weights.own import load_weights
    own = {name: value.clone() for name, value in network.state_dict().items()}
    try:
        load_weights(network, folder / HALF_WEIGHTS)
        yield
    finally:
        network.set_state_dict(own)


def statistics_of(metadata: Mapping[str, Any]) -> Statistics | None:
    """(mean, std) of a description; None where it has not both."""
    mean, std = metadata.get("mean"), metadata.get("std")
    return None if mean is None or std is None else (mean, std)
