"""Read what PyTorch or Paddle pickled, without either and without running anything that the file brings along.

torch.save writes a zip of uncompressed members, `data.pkl`, a pickle that describes the tensors, and their raw values
in `data/<key>`; before PyTorch 1.6 five pickles in a row and the values behind them. TorchScript has the same zip,
paddle.save and pickle.dump one bare pickle. Source: the files that PyTorch 2.13 and Paddle 3.3.1 write.
"""
import io
import os
import struct
import zipfile
from functools import partial
from typing import Any, BinaryIO

from asymmlib.weights.pickles import Name, run_pickle
from asymmlib.weights.tensors import BUILDERS, Storage

__all__ = ["parse_archive", "parse_pickle"]

LEGACY = 0x1950A86A20F9469CFC6C  # the first pickle of a file from before PyTorch 1.6
MOST, SMALL = 16, 2**24  # torch.save does not compress at all, somebody else may have
AGAIN = "load it with PyTorch and save it again: torch.save(torch.load(IN), OUT)"


def parse_archive(archive: zipfile.ZipFile, size: int) -> Any:
    """The value in a zip that torch.save or torch.jit.save wrote; `size`: bytes of the file.

    Raises `ValueError` for damage and for what torch.save never writes.
    """
    members = archive.infolist()
    if sum(member.file_size for member in members) > max(MOST * size, SMALL):
        raise ValueError(f"unpacks to more than {MOST} times its bytes, which no weights do")
    pickles = [member.filename for member in members if os.path.basename(member.filename) == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError(f"has {len(pickles)} members data.pkl, not one: it is not from torch.save")
    folder = pickles[0].removesuffix("data.pkl")
    orders = [archive.read(member) for member in members if member.filename == folder + "byteorder"]
    if orders not in ([], [b"little"]):
        raise ValueError(f"was written on a big-endian machine: there, {AGAIN.replace('OUT', 'OUT.npz')}, or use "
                         "numpy.savez(OUT, **{name: value.numpy().astype('<f4') for name, value in state.items()})")
    storages: dict[str, Storage] = {}

    def persistent(reference):
        kind, key, count = _storage(reference)
        if key not in storages:
            storages[key] = Storage(kind, count, lambda: archive.read(f"{folder}data/{key}"))
        return storages[key]
    return run_pickle(io.BytesIO(archive.read(pickles[0])), BUILDERS, persistent)


def parse_pickle(data: bytes) -> Any:
    """The value in a file of one bare pickle, or of the five of PyTorch before 1.6. Raises `ValueError` for damage."""
    file = io.BytesIO(data)
    builders = {**BUILDERS, ("torch.storage", "_load_from_bytes"): _load_from_bytes}
    first = run_pickle(file, builders)
    if first == LEGACY:
        return _legacy(file, data)
    if len(data) > file.tell():
        raise ValueError(f"has {len(data) - file.tell()} bytes behind its pickle: another program wrote it; {AGAIN}")
    return first


def _load_from_bytes(data):
    """pickle.dump of a tensor puts a whole file of the old form in place of its storage."""
    file = io.BytesIO(data if isinstance(data, bytes) else b"")
    if run_pickle(file) != LEGACY:
        raise ValueError("a storage within the pickle is not of the old form")
    return _legacy(file, file.getbuffer())


def _legacy(file: BinaryIO, data: bytes | memoryview) -> Any:
    """What follows the first pickle: the version, the machine, the value, the storages' keys, their values."""
    storages: dict[str, Storage] = {}

    def persistent(reference):
        if isinstance(reference, tuple) and len(reference) == 4 and reference[0] == "module":
            return reference[1]  # the class of a module; its source text follows
        kind, key, count = _storage(reference)
        return storages.setdefault(key, Storage(kind, count, _absent))

    run_pickle(file), run_pickle(file)
    value = run_pickle(file, BUILDERS, persistent)
    keys = run_pickle(file)
    for key in keys if isinstance(keys, list) else ():
        storage = storages.get(key)
        if storage is None:
            raise ValueError(f"names a storage {key!r} that no tensor has")
        start = file.tell() + 8
        size = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))[0] * storage.itemsize
        if not 0 <= size <= len(data) - start:
            raise ValueError(f"ends within its values, at byte {start}: copy or fetch it again")
        storage.read = partial(bytes, memoryview(data)[start:start + size])
        file.seek(start + size)
    return value


def _absent():
    raise ValueError("has a storage that is not in the file")


def _storage(reference):
    """(kind, key, count) of a storage that a pickle refers to: ("storage", class, key, device, count, ...)."""
    if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
        raise ValueError("the pickle refers to something that is no storage")
    _, kind, key, _, count = reference[:5]
    if not isinstance(kind, Name) or not isinstance(key, str) or not isinstance(count, int) or any(reference[5:]):
        raise ValueError("the pickle refers to a storage of another form; " + AGAIN)
    return kind.name, key, count
