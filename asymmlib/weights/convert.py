"""Convert weight files of others to ours and ours to theirs, for `python -m asymmlib convert` and `train --start`."""
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paddle import nn

from asymmlib.base import parallel
from asymmlib.base.files import open_regular
from asymmlib.network import PORTS, AsymmNet, plan_blocks
from asymmlib.weights.contents import read_contents
from asymmlib.weights.find import TOP, Found, find_network
from asymmlib.weights.official import export_official, load_found
from asymmlib.weights.own import load_weights, read_safetensors, save_weights
from asymmlib.weights.settings import NETWORK, PICTURES, check_network, marks, plans_of, read_settings, shown

__all__ = ["convert", "read_labels", "read_network", "start_from"]

WORDS = {"ours": "our own names", "paddle": "the authors' PyTorch names in Paddle",
         "pytorch": "the authors' PyTorch names", "gluon": "the authors' Gluon names",
         "published": "the names of the authors' published checkpoint"}


def convert(source: Path | str, target: Path | str, to: str = "ours", variant: str | None = None,
            width: float | None = None, asymmrate: int | None = None, classes: int | None = None,
            new_head: bool = False, key: str | None = None, port: str | None = None,
            pictures: Mapping[str, Any] | None = None) -> AsymmNet:
    """Convert a file of weights: to ours (`to="ours"`) or to the names of the authors' PyTorch code (`to="official"`).

    Returns the `AsymmNet` in between, and prints what was taken from the file and what was left out. Variant, width and
    rate are solved from the shapes of the arrays, the port from their names; those that are given are held against it,
    but `port`, which decides. classes: by default as many as the file has. new_head: draw a new classifier for that
    many classes. key: which network, where the file has several. pictures: what is known of them beyond what the file
    says, of "classes" (names), "size", "mean" and "std", to be written into it.
    Raises `ValueError` for a file that fits no such network, and whatever the loading functions raise.
    """
    if to not in ("ours", "official"):
        raise ValueError(f"to is {to!r}; known: ours, official")
    if Path(target).suffix not in ((".safetensors",) if to == "ours" else (".safetensors", ".npz")):
        raise ValueError(f"cannot write {target}; the name must end in .safetensors"
                         + (" or .npz" if to == "official" else ""))
    given = {"variant": variant, "width": width, "asymmrate": asymmrate}
    network, found = read_network(source, key, port, given, classes, new_head)
    known = {name: found.about.get(name) for name in PICTURES if not new_head or name != "classes"}
    known |= {name: value for name, value in (pictures or {}).items() if value is not None}
    _check_pictures(known, network.classifier.weight.shape[1])
    print(told(found), flush=True)
    if to == "ours":
        save_weights(network, target, marks(known))
    else:
        export_official(network, target)
    return network


def read_network(source: Path | str, key: str | None = None, port: str | None = None,
                 given: Mapping[str, Any] | None = None, classes: int | None = None,
                 new_head: bool = False) -> tuple[AsymmNet, Found]:
    """(network with the weights of a file, what was found there); arguments and errors as those of `convert`."""
    if port not in (None, *PORTS):
        raise ValueError(f"unknown port {port!r}; known: {', '.join(PORTS)}")
    found = find_network(read_contents(source), source, key, port)
    network = AsymmNet(**_settings(found, dict(given or {})), num_classes=_classes(found, classes, new_head))
    load_found(network, found, new_head)
    return network, found


def read_labels(path: Path | str) -> list[str]:
    """Names of classes out of a text file, one a line, empty lines apart. Raises `ValueError` for doubles and no text.
    """
    with open_regular(path) as file:
        data = file.read()
    try:
        names = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}): give a file with the name of one class a line"
                         ) from error
    double = sorted({name for name in names if names.count(name) > 1})
    if double or len(names) < 2:
        raise ValueError(f"{path}: " + (f"{double[0]!r} is there more than once" if double else "fewer than two names")
                         + "; give the name of one class a line, in the order of the network's outputs")
    return names


def _check_pictures(known, count):
    """Raise `ValueError` for class names that are not as many as the classes, and for numbers that no picture has."""
    names, size = known.get("classes"), known.get("size")
    if isinstance(names, list) and len(names) != count:
        raise ValueError(f"{len(names)} names of classes for a network of {count}: give one for each, in its order")
    if size is not None and size < 32:
        raise ValueError(f"size is {size}; pictures have at least 32 pixels a side")
    if known.get("std") is not None and not all(value > 0 for value in known["std"]):
        raise ValueError(f"std is {known['std']}; standard deviations are above 0")


def _settings(found: Found, given: dict[str, Any]) -> dict[str, Any]:
    """The settings to build with; raises `ValueError` where others are given than the shapes tell."""
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) == len(NETWORK) - 1:
        plan_blocks(**given)  # what cannot be built says why
    try:
        solved = found.settings
    except ValueError as error:
        raise ValueError(f"{found.source} fits no AsymmNet: {error}{found.remedy()}") from error
    asked = {**solved, **given}
    if plans_of(asked) != plans_of(solved):
        raise ValueError(f"{found.source} is of {shown(solved)}, by the shapes of its arrays, not of "
                         f"{', '.join(f'{name} {value}' for name, value in given.items())}: leave these away")
    return asked


def _classes(found, classes, new_head):
    names = found.file_names(["classifier.weight", "classifier.bias"])
    bias = names["classifier.bias"]
    if bias not in found.contents.leaves and (classes is None or not new_head):
        raise ValueError(f"{found.source} has no classifier ({bias}): say for how many classes to draw one, with "
                         "--classes N --new-head")
    return math.prod(found.contents.leaves[bias].shape) if classes is None else classes


def told(found: Found) -> str:
    """One line: where in a file a network was found, in whose names, and what else is there."""
    place = "" if found.shown == TOP else f" under {found.shown}"
    others = found.left_out()
    more = f" and {len(others) - 8} more" if len(others) > 8 else ""
    return (f"{found.source}: {len(found.names)} arrays{place}, in {WORDS[found.naming.split()[0]]}"
            + (f", running averages of batch norm from {found.lender}" if found.lender else "")
            + (f"; left out: {', '.join(others[:8])}{more}" if others else ""))


def start_from(network: nn.Layer, path: Path | str, new_head: bool = False, classes: Sequence[str] = (),
               tell: bool = False) -> None:
    """Load the weights that a training starts from: ours, or a file of others, converted on the way.

    classes: names of those that are trained; a file that says others has another head. tell: print what was found.
    Raises as `load_official`; the message says which settings of `train` fit, or how to convert the file.
    """
    if not isinstance(network, AsymmNet):
        _check_classes(read_settings(read_safetensors(path)[1], path), classes, new_head, path)
        return load_weights(network, path, new_head)
    try:
        found = find_network(read_contents(path), path)
    except ValueError as error:
        raise ValueError(f"{error}. Here: python -m asymmlib convert {path} OUT.safetensors --key ..., then start from "
                         "OUT.safetensors" if "--key" in str(error) else error) from error
    _check_classes(found.about, classes, new_head, path)
    check_network(network, _started(found, network), path)
    load_found(network, found, new_head)
    if tell and found.naming != "ours" and not parallel.rank():
        print(told(found), flush=True)


def _check_classes(about, classes, new_head, path):
    """Raise `ValueError` where a file says that its last layer is for other classes than those that are trained."""
    known = about.get("classes")
    if isinstance(known, list) and classes and known != list(classes) and not new_head:
        raise ValueError(f"{path} knows other classes ({', '.join(known[:5])}) than those that are trained "
                         f"({', '.join(classes[:5])}): to start from all but the last layer, add --new-head")


def _started(found, network):
    """The settings of a file, where they can be told; what is odd about it, `load_found` lists."""
    try:
        return found.settings
    except ValueError:
        return {}
