"""What is in a file of weights of any kind: {name: array}, names of entries joined by dots. The bytes tell the kind.

A checkpoint is a tree: dicts in dicts, a state dict beside an optimiser, a whole module. `Contents` is that tree laid
flat; each name leads to an array that is read when it is asked for. `asymmlib.weights.find` looks for a network in it.
"""
import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asymmlib.base.files import READ_ERRORS, open_regular
from asymmlib.data.kinds import HEAD_BYTES, kind_of
from asymmlib.weights.gluon import parse_params
from asymmlib.weights.own import read_safetensors
from asymmlib.weights.pickles import Made, Name
from asymmlib.weights.pth import parse_archive, parse_pickle
from asymmlib.weights.tensors import Array, Tensor

__all__ = ["SAVE", "Contents", "Leaf", "read_contents"]

DEEPEST, LONGEST, MOST = 64, 500, 50_000  # dicts in dicts, letters of a name, entries: no real file comes near
MODULE = ("_parameters", "_buffers", "_modules")  # what a module of PyTorch keeps its tensors and its parts under
SAVE = "torch.save(model.state_dict(), OUT) in PyTorch, paddle.save(model.state_dict(), OUT) in Paddle"
DISTRIBUTED = ("a distributed checkpoint, of which this makes one file: python -m "
               "torch.distributed.checkpoint.format_utils dcp_to_torch {path} OUT.pth")

LAST = "last.safetensors"  # what the folder of a run of ours holds


class Leaf(NamedTuple):
    """An array of a file, and the name of the dict or module that it stands in ("" for the outermost)."""

    value: Tensor | Array | np.ndarray
    container: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, without reading its values."""
        return tuple(self.value.shape)

    def array(self) -> np.ndarray:
        """Its values. Raises any of `READ_ERRORS`; `Contents.array` says of which file."""
        return self.value if isinstance(self.value, np.ndarray) else self.value.array()


@dataclass
class Contents:
    """The arrays of a file by their full names, the names of its outermost entries, and metadata of safetensors."""

    leaves: dict[str, Leaf]
    entries: list[str] = field(default_factory=list)
    odd: dict[str, str] = field(default_factory=dict)  # tensors that are none to be read: what makes them
    metadata: dict[str, str] = field(default_factory=dict)
    source: Path | str = "the file"

    def array(self, name: str) -> np.ndarray:
        """The values of one array; `ValueError` that names the file and the array where they cannot be read."""
        try:
            return self.leaves[name].array()
        except READ_ERRORS as error:
            again = ": copy or fetch it again" if isinstance(error, zipfile.BadZipFile) else ""
            raise ValueError(f"{self.source}: {name} {error}{again}") from error


def read_contents(path: Path | str) -> Contents:
    """Read a file of weights without running code from it.

    Kinds: PyTorch's of every version (state dicts, checkpoints, whole modules, TorchScript), Paddle's `.pdparams`,
    other pickles, `.npz`, safetensors, MXNet's `.params`. Raises `FileNotFoundError`, and `ValueError` that names the
    file, what it is or where it is damaged, and what to do.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ValueError(f"{path} is a folder, not a file of weights: " + (
                DISTRIBUTED.format(path=path) if (path / ".metadata").is_file() else
                f"give {path / LAST}" if (path / LAST).is_file() else "give one of the files in it"))
        with open_regular(path) as file:
            data = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"no weights at {path}: there is no such file") from None
    try:
        contents = _parse(data, path)
        contents.source = path
        return contents
    except (*READ_ERRORS, AttributeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(reason if str(path) in reason else f"{path} cannot be read: {reason}") from error


def _parse(data, path):
    if data[4:9] == b"\0\0\0\0{":  # first, as the length before it may look like anything
        return _plain(*read_safetensors(path))
    if data.startswith(b"PK"):
        return _parse_zip(data, path)
    if data.startswith((b"\x80", b"(d", b"ccollections\n")):  # the last two: protocol 0 of Python 2
        return flatten(parse_pickle(data))
    if data.startswith(b"\x12\x01\0\0\0\0\0\0"):
        return _plain(parse_params(data, path))
    raise ValueError(_unknown(data[:HEAD_BYTES], path))


def _plain(arrays, metadata=None):
    return Contents({name: Leaf(value) for name, value in arrays.items()}, metadata=metadata or {})


def _parse_zip(data, path):
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is cut off or damaged: it begins as a zip of PyTorch or NumPy does, and {error}; "
                         "copy or fetch it again") from error
    names = archive.namelist()
    if names and all(name.endswith(".npy") for name in names):
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                return _plain(dict(file))
        except READ_ERRORS as error:
            raise ValueError(f"{path} is not a complete .npz file of plain arrays ({error}); fetch it again, or write "
                             "it anew with one array a name: numpy.savez(OUT, **state)") from error
    if any(name.endswith("model_weights_config.json") for name in names):
        raise ValueError(f"{path} is a program that torch.export saved; its weights alone are read: "
                         "torch.save(dict(torch.export.load(IN).state_dict), OUT)")
    if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
        raise ValueError(f"{path} is a zip of other files than weights ({', '.join(names[:3]) or 'none'}); unpack it "
                         f"and give the file of weights in it, or: {SAVE}")
    return flatten(parse_archive(archive, len(data)))


def _unknown(head, path):
    """What to say of a file of another kind."""
    kind = kind_of(head)
    what = kind.what if kind else f"of no kind that is read here (it begins with {head[:8].hex(' ')})"
    remedy = ("it names files of which each has a part: join them, load_state_dict in PyTorch, and save the whole, "
              "torch.save(model.state_dict(), OUT)" if b'"weight_map"' in head else
              f"give the file of weights itself, as it is written by {SAVE}" if kind and kind.what == "a text" else
              kind.remedy if kind and "fetch" in kind.remedy else
              "numpy.savez(OUT, **state) writes a whole state" if kind and "NumPy" in kind.what else
              "unpack it, and give the file of weights in it" if kind and "archive" in kind.what else SAVE)
    return f"{path} is {what}, not a file of weights: {remedy}"


def flatten(root: Any) -> Contents:
    """Lay a tree of dicts, lists, tuples and modules flat. Raises `ValueError` for one that is too deep."""
    entries = [str(key) for key in root if isinstance(key, str | int)] if isinstance(root, dict) else []
    leaves: dict[str, Leaf] = {}
    odd: dict[str, str] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, str, Any, int]] = [("", "", root, 0)]
    while waiting:
        name, container, value, depth = waiting.pop()
        if isinstance(value, Tensor | Array):
            leaves.setdefault(name, Leaf(value, container))
        elif isinstance(value, Made) and "._rebuild_" in str(value.by):
            odd.setdefault(name, str(value.by).rpartition("._rebuild_")[2])
        elif isinstance(value, dict | list | tuple | Made) and id(value) not in seen:
            if depth > DEEPEST:
                raise ValueError(f"its entries are nested deeper than {DEEPEST}")
            seen.add(id(value))
            inside, children = container if _is_module(value) else name, list(_children(value))
            waiting += [(f"{name}.{key}" if name and key else name or key, inside, child, depth + 1)
                        for key, child in reversed(children) if len(name) + len(key) < LONGEST]
            if len(waiting) + len(leaves) > MOST:
                raise ValueError(f"it has more than {MOST:,} entries")
    return Contents(leaves, entries, odd)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """(name, value) of what stands in a value of a tree; a module's parameters, buffers and parts as its own."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key in MODULE and isinstance(child, dict) and _is_module(value):
                yield from _named(child)
            elif isinstance(key, str | int):
                yield str(key), _unwrapped(child)
    elif isinstance(value, Made):
        for state in value.state if isinstance(value.state, tuple) else (value.state,):
            if isinstance(state, dict):
                yield from _children(state)
        yield from _children(value.pairs)
        yield from _children(value.items)
        yield from (("", child) for child in (value.args if isinstance(value.args, tuple) else ()))
    else:
        yield from ((str(number), _unwrapped(child)) for number, child in enumerate(value))


def _named(entries: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    yield from ((str(key), _unwrapped(child)) for key, child in entries.items() if isinstance(key, str | int))


def _unwrapped(value):
    """Paddle saves an array within a checkpoint as (its own name, array)."""
    return value[1] if (isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)
                        and isinstance(value[1], Array)) else value


def _is_module(value):
    """Whether a value is a module of PyTorch, or of TorchScript, whose tensors are attributes."""
    if isinstance(value, Made):
        return (isinstance(value.by, Name) and value.by.module.startswith("__torch__")) or _is_module(value.state)
    return isinstance(value, dict) and "_parameters" in value and "_modules" in value
