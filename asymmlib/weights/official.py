"""The authors' weights, in every form they come in: PyTorch state dicts (`.pth`, `.npz`, `.safetensors`), Gluon's
`.params`. Whatever is loaded is checked name by name first, and no file can run code.
"""
from pathlib import Path

import numpy as np
import paddle
from safetensors.numpy import save

from asymmlib.base.files import READ_ERRORS, atomic_write
from asymmlib.weights.gluon import read_params
from asymmlib.weights.names import NAMINGS, find_naming
from asymmlib.weights.own import fill, read_safetensors, tensors_of
from asymmlib.weights.pth import read_pth

__all__ = ["export_official", "load_official", "read_tensors"]


def load_official(network: paddle.nn.Layer, path: Path | str, new_head: bool = False) -> None:
    """Load the authors' weights into an `AsymmNet` of the same variant, width and rate.

    path: a PyTorch state dict (`.pth`, `.pt`, `.npz`, `.safetensors`; names may start with `state/` or `module.`) or
    Gluon's `.params` in any naming of `asymmlib.weights.names`. new_head: leave the classifier as it is.
    Weights do not tell which port they are from: build the network with `port="gluon"` for a Gluon file of Large at
    width 0.35 or 0.5. Raises as `load_weights`, in the file's own names.
    """
    tensors = read_tensors(path)
    try:
        _, names = find_naming(list(network.state_dict()), tensors, getattr(network, "asymmrate", 0))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    fill(network, tensors, names, path, new_head, turned="classifier.weight")


def export_official(network: paddle.nn.Layer, path: Path | str) -> None:
    """Write an `AsymmNet` under the authors' PyTorch names, `.npz` or `.safetensors` by the path's end.

    The classifier's weight is turned to PyTorch's (out, in). Paddle does not count batches: `num_batches_tracked`,
    which PyTorch's strict loading asks for, is 0. Raises `ValueError` for another suffix or network.
    """
    suffix, state = Path(path).suffix, tensors_of(network)
    if suffix not in WRITERS:
        raise ValueError(f"cannot write {path}; the name must end in {' or '.join(WRITERS)}")
    names = NAMINGS["pytorch"].translate(list(state), getattr(network, "asymmrate", 0))
    state["classifier.weight"] = np.ascontiguousarray(state["classifier.weight"].T)
    tensors = {names[name]: value for name, value in state.items()}
    tensors |= {name.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
                for name in names.values() if name.endswith("running_mean")}
    with atomic_write(path) as file:
        WRITERS[suffix](file, tensors)


def read_tensors(path: Path | str) -> dict[str, np.ndarray]:
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


READERS = {".npz": _read_npz, ".safetensors": read_safetensors, ".pth": read_pth, ".pt": read_pth,
           ".params": read_params}
WRITERS = {".npz": lambda file, tensors: np.savez(file, **tensors),
           ".safetensors": lambda file, tensors: file.write(save(tensors))}

