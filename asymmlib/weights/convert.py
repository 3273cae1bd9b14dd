"""Convert weight files between the authors' names and ours, for `python -m asymmlib convert`."""
import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from asymmlib.network import ROWS, AsymmNet, plan_blocks
from asymmlib.weights.names import find_naming
from asymmlib.weights.official import export_official, load_official, read_tensors
from asymmlib.weights.own import load_weights, save_weights

__all__ = ["convert", "find_settings"]

WIDTHS, RATES = (0.35, 0.5, 0.75, 1.0, 1.25), (0, 1, 2)  # what is tried where nothing is given
BIAS = "classifier.bias"


def convert(source: Path | str, target: Path | str, to: str = "ours", variant: str | None = None,
            width: float | None = None, asymmrate: int | None = None, classes: int | None = None,
            new_head: bool = False) -> AsymmNet:
    """Convert a file: the authors' weights to ours (`to="ours"`) or ours to PyTorch names (`to="official"`).

    Returns the `AsymmNet` in between. Variant, width and rate that are not given are found from the shapes of the
    arrays. classes: by default as many as the file has. new_head: draw a new classifier for that many classes.
    Raises `ValueError` for a file that fits no such network, and whatever the loading functions raise.
    """
    if to not in ("ours", "official"):
        raise ValueError(f"to is {to!r}; known: ours, official")
    if Path(target).suffix not in ((".safetensors",) if to == "ours" else (".safetensors", ".npz")):
        raise ValueError(f"cannot write {target}; the name must end in .safetensors"
                         + (" or .npz" if to == "official" else ""))
    tensors = read_tensors(source)
    settings, names = find_settings(tensors, source, variant, width, asymmrate, ours=to == "official")
    if classes is None:
        if names[BIAS] not in tensors:
            raise ValueError(f"{source} has no {names[BIAS]}; give the number of classes")
        classes = tensors[names[BIAS]].size
    network = AsymmNet(**settings, num_classes=classes)
    load, write = (load_official, save_weights) if to == "ours" else (load_weights, export_official)
    load(network, source, new_head=new_head)
    write(network, target)
    return network


def find_settings(tensors: Mapping[str, np.ndarray], source: Path | str, variant: str | None = None,
                  width: float | None = None, asymmrate: int | None = None,
                  ours: bool = False) -> tuple[dict[str, Any], dict[str, str]]:
    """Find which AsymmNet a file's arrays are of: its settings, and {our name: the file's} for the names looked at.

    tensors: {name: array} in the authors' names, or in `ours`. The depthwise and second pointwise convolutions tell
    variant, width and rate apart. Raises `ValueError` where no combination fits.
    """
    choices: dict[str, Sequence[Any]] = {
        "variant": list(ROWS) if variant is None else [variant], "width": WIDTHS if width is None else [width],
        "asymmrate": RATES if asymmrate is None else [asymmrate]}
    refused = []
    for choice in product(*choices.values()):
        settings = dict(zip(choices, choice, strict=True))
        try:
            shapes = _telling_shapes(plan_blocks(**settings))
        except ValueError as error:
            refused.append(error)
            continue
        names = _names([*shapes, BIAS], tensors, source, settings["asymmrate"], ours)
        if all(names[name] in tensors and tensors[names[name]].shape == shape for name, shape in shapes.items()):
            return settings, names
    if len(refused) == math.prod(len(values) for values in choices.values()):
        raise refused[0]
    tried = ", ".join(f"{name} {' or '.join(str(value) for value in values)}" for name, values in choices.items())
    raise ValueError(f"{source} fits none of the networks tried: {tried}; give the settings that it was trained with")


def _telling_shapes(plans):
    return {f"blocks.{plan.index}.{part}.conv.weight": shape for plan in plans for part, shape in (
        ("depthwise", (plan.depthwise, 1, plan.kernel, plan.kernel)), ("project", (plan.out, plan.depthwise, 1, 1)))}


def _names(wanted, tensors, source, asymmrate, ours):
    if ours:
        return {name: name for name in wanted}
    try:
        return find_naming(wanted, tensors, asymmrate)[1]
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
