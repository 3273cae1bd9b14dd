"""Our own weights on disk: one safetensors file under our parameter names, checked name by name before it is loaded.

A SHA-256 over names, shapes, bytes and metadata stands in the metadata, so that a flipped bit is seen at reading.
"""
import hashlib
import json
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from asymmlib.base.files import READ_ERRORS, atomic_write, open_regular
from asymmlib.weights.settings import PICTURES, SETTINGS, check_network, complete, read_settings

__all__ = ["DAMAGE", "digest", "fill", "head_names", "load_weights", "pack_tensors", "read_safetensors", "save_tensors",
           "save_weights", "tensors_of", "unpack_tensors"]

DIGEST = "content_sha256"  # in the metadata
MOST = 20  # problems that are listed
DAMAGE = (*READ_ERRORS, SafetensorError, AttributeError, RecursionError)  # what a reader raises on odd bytes
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8",
         "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}


def head_names(network: nn.Layer) -> tuple[str, str]:
    """Names of the weight and the bias of a network's head, its last linear layer."""
    last = [name for name, layer in network.named_sublayers() if isinstance(layer, nn.Linear)][-1]
    return f"{last}.weight", f"{last}.bias"


def save_weights(network: nn.Layer, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
    """Write all parameters and running averages as one safetensors file; it appears only when complete.

    metadata: {name: text} that is stored with them, beside the network's own settings;
    `asymmlib.weights.settings.marks` makes some that say what the pictures were.
    """
    save_tensors(tensors_of(network), path, complete(network, metadata))


def save_tensors(tensors: Mapping[str, np.ndarray], path: Path | str, metadata: Mapping[str, str]) -> None:
    """Write {name: array} with metadata {name: text} and the SHA-256 of both as one safetensors file."""
    with atomic_write(path) as file:
        file.write(pack_tensors(tensors, metadata))


def pack_tensors(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The bytes of that file."""
    return save(dict(tensors), metadata={**metadata, DIGEST: digest(tensors, metadata)})


def unpack_tensors(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str], bool]:
    """({name: array}, {name: text} of the metadata without the digest, whether there was one) of such bytes.

    bfloat16 becomes float32, which holds it exactly. Raises one of `DAMAGE`: a `ValueError` where the SHA-256 differs,
    and for numbers of a kind that NumPy does not have.
    """
    found = deserialize(content)
    length = int.from_bytes(content[:8], "little")  # of the header, which `deserialize` has checked
    metadata = dict(json.loads(content[8:8 + length]).get("__metadata__") or {})
    kinds = {entry["dtype"] for _, entry in found} - TYPES.keys() - {"BF16"}
    if kinds:
        raise ValueError(f"it holds numbers that are not read ({', '.join(sorted(kinds))}): save them as float32, "
                         "float16 or bfloat16")
    tensors = {name: _array(entry) for name, entry in found}
    expected = metadata.pop(DIGEST, None)
    if expected is not None and expected != digest(tensors, metadata):
        raise ValueError("its content is not what was written (the SHA-256 differs): take another copy, or make it "
                         "anew")
    return tensors, metadata, expected is not None


def digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """SHA-256 over names, types, shapes and bytes of {name: array}, and over the metadata {name: text}."""
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        found.update(np.ascontiguousarray(value).data.cast("B") if value.size else b"")
    return found.hexdigest()


def load_weights(network: nn.Layer, path: Path | str, new_head: bool = False,
                 pictures: Mapping[str, Any] | None = None) -> None:
    """Load a safetensors file made by `save_weights`; float16 becomes float32.

    new_head: leave the last linear layer as it is, whatever the file holds for it, to start from a network that knew
    other classes. pictures: what a record says of "classes", "size", "mean" and "std", as far as it is known.
    Raises `FileNotFoundError` for a missing file and `ValueError` for one that is no safetensors file, says other
    things of its pictures, is of another network by its settings, or has missing, unexpected or wrongly shaped entries:
    all are named at once, and nothing is loaded then.
    """
    tensors, metadata = read_safetensors(path)
    settings = read_settings(metadata, path)
    _check_pictures(settings, pictures or {}, path)
    check_network(network, settings, path)
    own = {name: name for name in network.state_dict()}
    fill(network, tensors, own, path, new_head)


def _check_pictures(settings, expected, path):
    """Raise `ValueError` where a file's settings say other "classes", "size", "mean" or "std" than are expected."""
    for key in PICTURES:
        said, wanted = settings.get(key), expected.get(key)
        if isinstance(said, int) and isinstance(wanted, Sized):
            wanted = len(wanted)
        if said is not None and wanted is not None and said != wanted:
            raise ValueError(f"{path} was trained with {key} {said}, and its record says {wanted}: put the right "
                             "record or the right weights back")


def read_safetensors(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file as {name: array} and its metadata {name: text}; bfloat16 becomes float32.

    Raises `FileNotFoundError`; `ValueError` for a damaged file, and for numbers of a kind that NumPy does not have.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"no weights at {path}: there is no such file") from None
    if len(content) > 8 and content[8:9] != b"{":  # after the length of the header comes the header, JSON
        raise ValueError(f"{path} is no safetensors file: give one that this library wrote (AsymmNets are also read "
                         "from what python -m asymmlib convert --help names)")
    try:
        tensors, metadata, signed = unpack_tensors(content)
    except ValueError as error:  # says what to do
        raise ValueError(f"{path}: {error}") from error
    except DAMAGE as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error}): copy or fetch it again, or make it "
                         "anew") from error
    if not signed:  # by somebody else, who may mean anything by that word
        metadata.pop(SETTINGS, None)
    return tensors, metadata


def _array(entry):
    if entry["dtype"] == "BF16":  # the upper half of a float32
        array = (np.frombuffer(entry["data"], "<u2").astype("<u4") << 16).view("<f4")
    else:
        array = np.frombuffer(entry["data"], TYPES[entry["dtype"]])
    return array.reshape(entry["shape"])


def tensors_of(network: nn.Layer) -> dict[str, np.ndarray]:
    """All parameters and running averages of a network as {name: array}."""
    return {name: value.numpy() for name, value in network.state_dict().items()}


def fill(network: nn.Layer, tensors: Mapping[str, np.ndarray], names: Mapping[str, str], source: Path | str,
         new_head: bool, turned: str | None = None, check: Callable[[], Any] | None = None) -> None:
    """Check the arrays of a file and load them into a network.

    names: {our name: the file's}; turned: ours that is (out, in) in the file; check: called before anything is loaded.
    Raises `ValueError` that lists what is missing, unexpected or wrongly shaped; nothing is loaded then.
    """
    head = head_names(network) if new_head else ()
    forms = {name: [tuple(value.shape)] for name, value in network.state_dict().items() if name not in head}
    if turned in forms:
        shape = forms[turned][0][::-1]
        forms[turned] = [shape, (*shape, 1, 1)]  # Gluon's classifier is a 1x1 convolution
    problems = [f"missing {names[name]}" for name in forms if names[name] not in tensors]
    problems += [f"unexpected {name}" for name in sorted(tensors.keys() - names.values())]
    problems += [f"{names[name]} {fault}" for name in forms if names[name] in tensors
                 for fault in _faults(tensors[names[name]], forms[name])]
    if problems:
        _check_head(network, names, tensors, problems, source)
        more = [f"and {len(problems) - MOST} more"] if len(problems) > MOST else []
        raise ValueError(f"{source} does not fit this network; nothing was loaded:\n  " + "\n  ".join(
            problems[:MOST] + more) + _remedy(network, problems, names))
    if check is not None:
        check()
    ready = {name: tensors[names[name]].astype(np.float32, copy=False) for name in forms}
    if turned in ready:
        ready[turned] = ready[turned].reshape(forms[turned][0]).T
    kept = {name: value for name, value in network.state_dict().items() if name in head}  # else Paddle warns
    network.set_state_dict(kept | {name: paddle.to_tensor(np.ascontiguousarray(value))
                                   for name, value in ready.items()})


def _remedy(network, problems, names):
    """What to do where all running averages are missing, and in other cases that are often met."""
    averages = [f"missing {theirs}" for ours, theirs in names.items() if ours.endswith(("._mean", "._variance"))]
    if averages and set(problems) == set(averages):
        return ("\nThese are the running averages of batch norm: the file has parameters alone. Save "
                "model.state_dict(), which has both, or take another network of the file with --key")
    if all(problem.startswith("unexpected ") for problem in problems):
        return ("\nThe network is there whole, with more beside it: save it without these entries, state.pop(NAME), "
                "if they are no part of it")
    if all("not finite" in problem for problem in problems):
        return "\nIts training broke down: take a checkpoint from before that, or train it at a lower learning rate"
    return ""


def _check_head(network, names, tensors, problems, source):
    """Raise `ValueError` where the last layer's shape alone is wrong: the file knows other classes."""
    weight, bias = head_names(network)
    if bias in names and all(problem.startswith((f"{names[weight]} has shape", f"{names[bias]} has shape"))
                             for problem in problems):
        raise ValueError(f"{source} knows {len(tensors[names[bias]])} classes, and this network has "
                         f"{network.state_dict()[bias].shape[0]}; nothing was loaded: to start from all but the last "
                         "layer, add --new-head (new_head=True)")


def _faults(array, forms):
    if array.shape not in forms:
        yield f"has shape {list(array.shape)}, not {list(forms[0])}"
    elif array.dtype.kind != "f":
        yield f"holds {array.dtype}, not floating-point numbers"
    elif not np.isfinite(array).all():
        yield "holds values that are not finite"
