"""Read a `.params` file of MXNet in plain NumPy, trusting nothing that it says about itself.

The file, little-endian: u64 0x112, u64 0, u64 N, then N arrays, then u64 N and N names of u64 length and bytes. An
array: u32 magic number (V1, V2, V3), i32 storage type (not in V1), i32 number of dimensions, i64 each dimension, i32
device type and number, i32 dtype, the values. Source: the format that MXNet 1.9.1 writes.
"""
import math
import struct
from pathlib import Path

import numpy as np

from asymmlib.base.files import open_regular

__all__ = ["parse_params", "read_params"]

LIST = 0x112
HAS_STORAGE_TYPE = {0xF993FAC8: False, 0xF993FAC9: True, 0xF993FACA: True}  # V1, V2, V3
DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}
MOST_ARRAYS = 4096  # AsymmNet has 265; a bound keeps Python's objects small beside the file
MOST_DIMENSIONS = 8
SMALLEST = 37  # bytes of a V1 array of one byte (29) with an empty name (8)


def read_params(path: Path | str) -> dict[str, np.ndarray]:
    """Read all arrays of a file as {name: array}; the arrays are read-only views of the file's bytes.

    Raises `FileNotFoundError`, and `ValueError` for a file that is truncated, damaged or of another kind: it says at
    which byte. Counts, sizes and lengths are held against the bytes that are left before memory is taken.
    """
    try:
        with open_regular(path) as file:
            return parse_params(file.read(), path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no weights at {path}") from None


def parse_params(data: bytes, source: Path | str) -> dict[str, np.ndarray]:
    """Read the bytes of a `.params` file; `source` names it in errors. Otherwise as `read_params`."""
    cursor = _Cursor(data, source)
    magic, reserved, count = cursor.take("QQQ", "the file header")
    if magic != LIST or reserved:
        cursor.fail(0, f"the file starts with {magic:#x} and {reserved:#x}, not with {LIST:#x} and 0: "
                       "it is no list of MXNet arrays")
    if count > MOST_ARRAYS or count * SMALLEST > cursor.left:
        cursor.fail(16, f"{count} arrays are announced; at most {MOST_ARRAYS} are accepted, in at least "
                        f"{SMALLEST} bytes each")
    arrays = [_take_array(cursor) for _ in range(count)]
    names = _take_names(cursor, count)
    if cursor.left:
        cursor.fail(cursor.at, f"{cursor.left} bytes follow the last name")
    return dict(zip(names, arrays, strict=True))


class _Cursor:
    """A position in bytes that never goes past their end."""

    def __init__(self, data: bytes, source: Path | str) -> None:
        self.data, self.source, self.at = data, source, 0

    @property
    def left(self):
        return len(self.data) - self.at

    def fail(self, at, reason):
        raise ValueError(f"{self.source} is damaged or no .params file, at byte {at}: {reason}")

    def skip(self, size, what):
        """Go past `size` bytes and return where they start."""
        if size > self.left:
            self.fail(self.at, f"{what} needs {size} bytes and {self.left} are left")
        self.at += size
        return self.at - size

    def take(self, form, what):
        form = "<" + form
        return struct.unpack_from(form, self.data, self.skip(struct.calcsize(form), what))


def _take_array(cursor):
    start = cursor.at
    magic, = cursor.take("I", "an array's magic number")
    if magic not in HAS_STORAGE_TYPE:
        cursor.fail(start, f"{magic:#x} is no magic number of an array; known: "
                           + ", ".join(f"{known:#x}" for known in HAS_STORAGE_TYPE))
    if HAS_STORAGE_TYPE[magic] and (storage := cursor.take("i", "a storage type")[0]) != 0:
        cursor.fail(start + 4, f"storage type {storage}; only dense arrays (0) are accepted")
    shape = _take_shape(cursor)
    cursor.take("ii", "a device")  # where the array was when it was saved: of no interest
    at, (flag,) = cursor.at, cursor.take("i", "a dtype")
    if flag not in DTYPES:
        cursor.fail(at, f"dtype {flag}; known: {', '.join(f'{known} ({name})' for known, name in DTYPES.items())}")
    dtype, values = np.dtype(DTYPES[flag]), math.prod(shape)
    offset = cursor.skip(values * dtype.itemsize, f"an array of shape {list(shape)}")
    return np.frombuffer(cursor.data, dtype, values, offset).reshape(shape)


def _take_shape(cursor):
    at, (dimensions,) = cursor.at, cursor.take("i", "a number of dimensions")
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        cursor.fail(at, f"{dimensions} dimensions; 1 to {MOST_DIMENSIONS} are accepted")
    shape = cursor.take(f"{dimensions}q", "a shape")
    if min(shape) < 1:
        cursor.fail(at + 4, f"shape {list(shape)} is not of positive numbers")
    return shape


def _take_names(cursor, count):
    at, (announced,) = cursor.at, cursor.take("Q", "the number of names")
    if announced != count:
        cursor.fail(at, f"{announced} names for {count} arrays")
    names = {}
    for _ in range(count):
        at = cursor.at
        length, = cursor.take("Q", "the length of a name")
        start = cursor.skip(length, "a name")
        try:
            name = bytes(cursor.data[start:cursor.at]).decode()
        except UnicodeDecodeError:
            cursor.fail(start, "a name is not UTF-8")
        if name in names:
            cursor.fail(at, f"a second array is called {name!r}")
        names[name] = None
    return names
