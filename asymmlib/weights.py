"""Weights on disk: our own files, and the authors' files in every form they come in.

Ours are safetensors under our parameter names. The authors' are PyTorch state dicts (`.pth`, `.npz`, `.safetensors`)
and Gluon's `.params`. Whatever is loaded is checked name by name first, and no file can run code.
"""
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from asymmlib.archive import READ_ERRORS
from asymmlib.gluon import read_params
from asymmlib.names import NAMINGS, find_naming
from asymmlib.paths import atomic_write
from asymmlib.pth import read_pth

__all__ = ["export_official", "load_official", "load_weights", "read_tensors", "save_weights"]


def save_weights(network, path):
    """Write all parameters and running averages as one safetensors file; it appears only when complete."""
    with atomic_write(path) as file:
        file.write(save(_state(network)))


def load_weights(network, path, new_head=False):
    """Load a safetensors file made by `save_weights`; float16 becomes float32.

    new_head: leave the last linear layer as it is, whatever the file holds for it, to start from a network that knew
    other classes. Raises `FileNotFoundError` for a missing file and `ValueError` for one that is no safetensors file
    or has missing, unexpected or wrongly shaped entries: all are named at once, and nothing is loaded then.
    """
    tensors = read_tensors(path)
    own = {name: name for name in network.state_dict()}
    _load(network, tensors, own, path, new_head)


def load_official(network, path, new_head=False):
    """Load the authors' weights into an `AsymmNet` of the same variant, width and rate.

    path: a PyTorch state dict (`.pth`, `.pt`, `.npz`, `.safetensors`; names may start with `state/` or `module.`) or
    Gluon's `.params` in any naming of `asymmlib.names`. new_head: leave the classifier as it is.
    Weights do not tell which port they are from: build the network with `port="gluon"` for a Gluon file of Large at
    width 0.35 or 0.5. Raises as `load_weights`, in the file's own names.
    """
    tensors = read_tensors(path)
    try:
        _, names = find_naming(list(network.state_dict()), tensors, getattr(network, "asymmrate", 0))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    _load(network, tensors, names, path, new_head, turned="classifier.weight")


def export_official(network, path):
    """Write an `AsymmNet` under the authors' PyTorch names, `.npz` or `.safetensors` by the path's end.

    The classifier's weight is turned to PyTorch's (out, in). Paddle does not count batches: `num_batches_tracked`,
    which PyTorch's strict loading asks for, is 0. Raises `ValueError` for another suffix or network.
    """
    suffix, state = Path(path).suffix, _state(network)
    if suffix not in WRITERS:
        raise ValueError(f"cannot write {path}; the name must end in {' or '.join(WRITERS)}")
    names = NAMINGS["pytorch"].translate(list(state), getattr(network, "asymmrate", 0))
    state["classifier.weight"] = np.ascontiguousarray(state["classifier.weight"].T)
    tensors = {names[name]: value for name, value in state.items()}
    tensors |= {name.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
                for name in names.values() if name.endswith("running_mean")}
    with atomic_write(path) as file:
        WRITERS[suffix](file, tensors)


def read_tensors(path):
    """Read a file of weights as {name: array}, without running code from it. The suffix tells the kind.

    Where there are entries below `state/`, only these are taken; `module.` in front of names and PyTorch's counters
    `num_batches_tracked` are dropped. Raises `FileNotFoundError`, and `ValueError` for a suffix that is not known and
    for a damaged file.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise ValueError(f"{path} is of no known kind; the name must end in one of {', '.join(READERS)}")
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}")
    tensors = READERS[path.suffix](path)
    inner = {name.removeprefix("state/"): value for name, value in tensors.items() if name.startswith("state/")}
    return {name.removeprefix("module."): value for name, value in (inner or tensors).items()
            if not name.endswith(".num_batches_tracked")}


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (*READ_ERRORS, AttributeError) as error:
        raise ValueError(f"{path} is not a complete .npz file of plain arrays ({error})") from error


def _read_safetensors(path):
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error})") from error


READERS = {".npz": _read_npz, ".safetensors": _read_safetensors, ".pth": read_pth, ".pt": read_pth,
           ".params": read_params}
WRITERS = {".npz": lambda file, tensors: np.savez(file, **tensors),
           ".safetensors": lambda file, tensors: file.write(save(tensors))}


def _state(network):
    return {name: value.numpy() for name, value in network.state_dict().items()}


def _load(network, tensors, names, source, new_head, turned=None):
    """Check arrays of a file and load them. names: ours -> the file's; turned: ours that is (out, in) in the file."""
    head = _head_names(network) if new_head else ()
    forms = {name: [tuple(value.shape)] for name, value in network.state_dict().items() if name not in head}
    if turned in forms:
        shape = forms[turned][0][::-1]
        forms[turned] = [shape, shape + (1, 1)]  # Gluon's classifier is a 1x1 convolution
    problems = [f"missing {names[name]}" for name in forms if names[name] not in tensors]
    problems += [f"unexpected {name}" for name in sorted(tensors.keys() - names.values())]
    problems += [f"{names[name]} {fault}" for name in forms if names[name] in tensors
                 for fault in _faults(tensors[names[name]], forms[name])]
    if problems:
        raise ValueError(f"{source} does not fit this network; nothing was loaded:\n  " + "\n  ".join(problems))
    ready = {name: tensors[names[name]].astype(np.float32, copy=False) for name in forms}
    if turned in ready:
        ready[turned] = ready[turned].reshape(forms[turned][0]).T
    kept = {name: value for name, value in network.state_dict().items() if name in head}  # else Paddle warns
    network.set_state_dict(kept | {name: paddle.to_tensor(np.ascontiguousarray(value))
                                   for name, value in ready.items()})


def _faults(array, forms):
    if array.shape not in forms:
        yield f"has shape {list(array.shape)}, not {list(forms[0])}"
    elif array.dtype.kind != "f":
        yield f"holds {array.dtype}, not floating-point numbers"


def _head_names(network):
    """Names of the weight and the bias of the last linear layer."""
    last = [name for name, layer in network.named_sublayers() if isinstance(layer, nn.Linear)][-1]
    return f"{last}.weight", f"{last}.bias"
