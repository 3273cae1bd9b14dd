"""Weights on disk: safetensors under our own parameter names, checked name by name before anything is loaded."""
import numpy as np
import paddle
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from asymmlib.paths import atomic_write

__all__ = ["load_weights", "save_weights"]


def save_weights(network, path):
    """Write all parameters and running averages as one safetensors file; it appears only when complete."""
    with atomic_write(path) as file:
        file.write(save({name: value.numpy() for name, value in network.state_dict().items()}))


def load_weights(network, path):
    """Load a safetensors file made by `save_weights`; float16 becomes float32.

    Raises `FileNotFoundError` for a missing file and `ValueError` for one that is no safetensors file or has missing,
    unexpected or wrongly shaped entries: all are named at once, and nothing is loaded then.
    """
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no weights at {path}") from None
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error})") from error
    assign(network, tensors, path)


def assign(network, tensors, source):
    """Copy arrays into a network by name, after checking all of them."""
    own = network.state_dict()
    problems = [f"missing {name}" for name in own if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in own]
    problems += [f"{name} has shape {list(tensors[name].shape)}, not {list(value.shape)}"
                 for name, value in own.items() if name in tensors and list(tensors[name].shape) != list(value.shape)]
    if problems:
        raise ValueError(f"{source} does not fit this network; nothing was loaded:\n  " + "\n  ".join(problems))
    network.set_state_dict({name: paddle.to_tensor(value.astype(np.float32)) for name, value in tensors.items()})
