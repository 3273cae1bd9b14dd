"""The authors' weights, in every form they come in: PyTorch's and Paddle's files, NumPy's `.npz`, safetensors, Gluon's
`.params`. Whatever is loaded is checked name by name first, and no file can run code.
"""
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from asymmlib.base.files import atomic_write
from asymmlib.network import AsymmNet
from asymmlib.weights.contents import read_contents
from asymmlib.weights.find import Found, find_network
from asymmlib.weights.names import NAMINGS
from asymmlib.weights.own import fill, save_tensors, tensors_of
from asymmlib.weights.settings import NETWORK, complete, same_network, shown

__all__ = ["export_official", "load_found", "load_official", "read_tensors"]


def load_official(network: paddle.nn.Layer, path: Path | str, new_head: bool = False, key: str | None = None,
                  any_port: bool = False) -> None:
    """Load the authors' weights into an `AsymmNet` of the same variant, width and rate.

    path: a file of any kind that `read_contents` reads, in any naming of `asymmlib.weights.names`. new_head: leave the
    classifier as it is. key: which network, where the file has several. Names tell which port the weights are from;
    any_port: load those of the other port, too, which compute something else at some widths of Large. Raises as
    `load_weights`, in the file's own names.
    """
    load_found(network, find_network(read_contents(path), path, key), new_head, any_port)


def load_found(network: paddle.nn.Layer, found: Found, new_head: bool = False, any_port: bool = False) -> None:
    """Load a network that was found in a file; otherwise as `load_official`."""
    names, arrays = found.file_names(network.state_dict()), found.arrays()
    for name in found.heads() if new_head else ():
        del arrays[name]
    try:
        fill(network, arrays, names, found.source, new_head,
             "classifier.weight" if found.turned(names["classifier.weight"]) else None,
             lambda: any_port or _check_port(network, found))
    except ValueError as error:
        raise ValueError(f"{error}{found.remedy()}") from error


def _check_port(network, found):
    own = {key: getattr(network, key) for key in NETWORK}
    theirs = {**own, "port": found.port}
    if (found.naming != "ours" or found.about) and not same_network(theirs, network):
        raise ValueError(f"{found.source} has the names of {shown(theirs)}, and this network is {shown(own)}: the "
                         "arrays fit, but the first block computes something else. Build it with port="
                         f"{found.port!r}, or convert the file with --port {own['port']} to train on from it")


def export_official(network: paddle.nn.Layer, path: Path | str) -> None:
    """Write an `AsymmNet` under the authors' PyTorch names, `.npz` or `.safetensors` by the path's end.

    The classifier's weight is turned to PyTorch's (out, in). Paddle does not count batches: `num_batches_tracked`,
    which PyTorch's strict loading asks for, is 0. Raises `ValueError` for another suffix or network, and for one of the
    Gluon port that their PyTorch code would build with another first block.
    """
    suffix, state = Path(path).suffix, tensors_of(network)
    if suffix not in (".npz", ".safetensors"):
        raise ValueError(f"cannot write {path}; the name must end in .npz or .safetensors")
    if isinstance(network, AsymmNet) and not same_network(
            {key: getattr(network, key) for key in NETWORK} | {"port": "pytorch"}, network):
        raise ValueError(f"cannot write {path}: the network is of the Gluon port, and the authors' PyTorch code gives "
                         "its first block a shortcut, so that it would answer something else; convert with --port "
                         "pytorch to train on from the weights")
    names = NAMINGS["pytorch"].translate(list(state), getattr(network, "asymmrate", 0))
    state["classifier.weight"] = np.ascontiguousarray(state["classifier.weight"].T)
    tensors: dict[str, Any] = {names[name]: value for name, value in state.items()}
    tensors |= {name.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
                for name in names.values() if name.endswith("running_mean")}
    if suffix == ".safetensors":
        save_tensors(tensors, path, complete(network, None))
        return
    with atomic_write(path) as file:
        np.savez(file, **tensors)


def read_tensors(path: Path | str, key: str | None = None) -> dict[str, np.ndarray]:
    """Read a file of weights as {name: array}, without running code from it. The bytes tell the kind.

    Where it holds an AsymmNet, the network's arrays alone, without what stands before their names; key says which, as
    in `load_official`. Otherwise all arrays. Raises `FileNotFoundError`, and `ValueError` for a damaged file and one of
    another kind.
    """
    contents = read_contents(path)
    try:
        found = find_network(contents, path, key)
    except ValueError:
        if key is not None or not contents.leaves:
            raise
        return {name: contents.array(name) for name in contents.leaves}
    return {name.removeprefix(found.prefix): value for name, value in found.arrays().items()}
