"""Read a state dict that PyTorch saved, without PyTorch and without running anything that the file brings along.

A `.pth` file is a zip of uncompressed members: `data.pkl`, a pickle that describes the tensors, and their raw values
in `data/<key>`. A pickle may name any function to be called with any arguments; this reader knows five names, which
are all that a state dict needs, and refuses every other one. Source: the format that torch.save writes since 1.6.
"""
import io
import math
import os
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

from asymmlib.base.files import READ_ERRORS

__all__ = ["read_pth"]

STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"}
WRAPPERS = ("state_dict", "model")  # keys under which training scripts like to put the state dict


def read_pth(path: Path | str) -> dict[str, np.ndarray]:
    """Read a state dict as {name: array}; the arrays are read-only views of the file's bytes.

    A dict that holds the state dict under "state_dict" or "model" is accepted too. Raises `FileNotFoundError`, and
    `ValueError` for a file that is damaged, older than PyTorch 1.6, or more than a state dict: it names what is asked
    for and not allowed.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            state = _read_archive(archive, path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no zip file ({error}); PyTorch before 1.6 wrote others: load it there and save "
                         "it again with torch.save(model.state_dict(), path)") from error
    except READ_ERRORS as error:  # damage that zipfile does not call BadZipFile, encryption, another compression
        raise error if str(path) in str(error) else ValueError(f"{path} cannot be read: {error}") from error
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    others = [str(name) for name, value in state.items() if not isinstance(value, np.ndarray)]
    if others:
        raise ValueError(f"{path} is not a state dict: these entries are no tensors: {', '.join(others)}")
    return dict(state)


def _read_archive(archive, path):
    members = archive.infolist()
    if sum(member.file_size for member in members) > os.path.getsize(path):
        raise ValueError(f"{path} is compressed; torch.save never compresses, and its size could not be trusted")
    pickles = [member.filename for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError(f"{path} has {len(pickles)} members data.pkl, not one: it is not from torch.save")
    folder = pickles[0].removesuffix("data.pkl")
    orders = [archive.read(member) for member in members if member.filename == folder + "byteorder"]
    if orders not in ([], [b"little"]):
        raise ValueError(f"{path} was written on a big-endian machine; save it again on a little-endian one")
    data = archive.read(pickles[0])
    try:
        _check_memo(data)
        return _StateDict(data, archive, folder).load()
    except (zipfile.BadZipFile, MemoryError):
        raise
    except Exception as error:  # whatever a damaged pickle makes its reader stumble over
        raise ValueError(f"{path} cannot be read: {error or type(error).__name__}") from error


def _check_memo(data):
    """Refuse a pickle whose numbers would make the unpickler take memory: lengths and places in its memo."""
    for opcode, argument, _ in pickletools.genops(data):  # raises ValueError for a length beyond the end
        if "PUT" in opcode.name and int(argument) > len(data):
            raise ValueError(f"the pickle wants to remember {argument} things and has {len(data)} bytes")


class _StateDict(pickle.Unpickler):
    """An unpickler for tensors and dicts of them."""

    def __init__(self, data: bytes, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(data))
        self.archive, self.folder = archive, folder
        self.read: dict[str, bytes] = {}

    def find_class(self, module, name):
        allowed = {("collections", "OrderedDict"): OrderedDict, ("torch._utils", "_rebuild_tensor_v2"): _view}
        allowed |= {("torch", storage): storage for storage in STORAGES}
        if (module, name) not in allowed:
            raise ValueError(f"its pickle asks for {module}.{name}, and only "
                             f"{', '.join('.'.join(known) for known in allowed)} are allowed; save a state dict of "
                             "float tensors: torch.save(model.state_dict(), path)")
        return allowed[module, name]

    def persistent_load(self, reference):
        kind, storage, key, _, count = reference  # the fourth is the device
        if kind != "storage" or storage not in STORAGES:
            raise ValueError(f"its pickle refers to a {kind} of {storage}")
        if key not in self.read:
            self.read[key] = self.archive.read(f"{self.folder}data/{key}")
        dtype = np.dtype(STORAGES[storage])
        if len(self.read[key]) != count * dtype.itemsize:
            raise ValueError(f"storage {key} has {len(self.read[key])} bytes, not {count} numbers of {dtype.itemsize}")
        return np.frombuffer(self.read[key], dtype)


def _view(storage, offset, size, stride, *_):
    """Stand in for torch._utils._rebuild_tensor_v2: a tensor is a strided view of its storage."""
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if offset < 0 or min((*size, *stride), default=1) < 0 or math.prod(size) > storage.size or last >= storage.size:
        raise ValueError(f"a tensor of size {list(size)}, stride {list(stride)} and offset {offset} goes beyond its "
                         f"storage of {storage.size} numbers")
    return np.lib.stride_tricks.as_strided(storage[offset:], size, [step * storage.itemsize for step in stride],
                                           writeable=False)
