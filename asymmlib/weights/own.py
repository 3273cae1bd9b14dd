"""Our own weights on disk: one safetensors file under our parameter names, checked name by name before it is loaded."""
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from asymmlib.base.files import atomic_write

__all__ = ["fill", "load_weights", "read_safetensors", "save_weights", "tensors_of"]


def save_weights(network: nn.Layer, path: Path | str) -> None:
    """Write all parameters and running averages as one safetensors file; it appears only when complete."""
    with atomic_write(path) as file:
        file.write(save(tensors_of(network)))


def load_weights(network: nn.Layer, path: Path | str, new_head: bool = False) -> None:
    """Load a safetensors file made by `save_weights`; float16 becomes float32.

    new_head: leave the last linear layer as it is, whatever the file holds for it, to start from a network that knew
    other classes. Raises `FileNotFoundError` for a missing file and `ValueError` for one that is no safetensors file
    or has missing, unexpected or wrongly shaped entries: all are named at once, and nothing is loaded then.
    """
    tensors = read_safetensors(path)
    own = {name: name for name in network.state_dict()}
    fill(network, tensors, own, path, new_head)


def read_safetensors(path: Path | str) -> dict[str, np.ndarray]:
    """Read a safetensors file as {name: array}. Raises `FileNotFoundError`; `ValueError` for a damaged file."""
    if not Path(path).exists():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error})") from error


def tensors_of(network: nn.Layer) -> dict[str, np.ndarray]:
    """All parameters and running averages of a network as {name: array}."""
    return {name: value.numpy() for name, value in network.state_dict().items()}


def fill(network: nn.Layer, tensors: Mapping[str, np.ndarray], names: Mapping[str, str], source: Path | str,
         new_head: bool, turned: str | None = None) -> None:
    """Check the arrays of a file and load them into a network.

    names: {our name: the file's}; turned: ours that is (out, in) in the file. Raises `ValueError` that lists everything
    missing, unexpected or wrongly shaped; nothing is loaded then.
    """
    head = _head_names(network) if new_head else ()
    forms = {name: [tuple(value.shape)] for name, value in network.state_dict().items() if name not in head}
    if turned in forms:
        shape = forms[turned][0][::-1]
        forms[turned] = [shape, (*shape, 1, 1)]  # Gluon's classifier is a 1x1 convolution
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
