"""Tensors and arrays as pickles describe them: of PyTorch, NumPy and Paddle, without PyTorch.

`BUILDERS` are the functions that `asymmlib.weights.pickles` may call; they only note what is said. The values are read
when they are asked for, so that an optimiser's state that nobody wants costs nothing and may be of any kind.
Source: torch._utils (_rebuild_*), NumPy's ndarray.__reduce__, paddle.framework.io.
"""
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from asymmlib.weights.pickles import Made, Name

__all__ = ["BUILDERS", "Array", "Storage", "Tensor", "from_bfloat16"]

# what PyTorch calls a type -> NumPy's, little-endian; bfloat16 is the upper half of a float32
TYPES = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<u2", "int64": "<i8", "int32": "<i4",
         "int16": "<i2", "int8": "i1", "uint8": "u1", "bool": "?", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8"}
STORAGES = {"FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BoolStorage": "bool",
            "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
            "CharStorage": "int8", "ByteStorage": "uint8"}
UNTYPED = "UntypedStorage"
SIZES = {"QInt32Storage": 4, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16}  # bytes of what is not read
SPREAD = 2**20  # so many numbers may be made of a smaller storage, as `expand` does
REMEDY = "save it as float32: value.float() in PyTorch, value.astype('float32') elsewhere"


@dataclass(eq=False)
class Storage:
    """The numbers behind some tensors: their kind, as PyTorch names it, how many, and what reads the bytes."""

    kind: str
    count: int
    read: Callable[[], bytes]

    @property
    def dtype(self) -> str:
        """PyTorch's name of the type, "" where only the tensor knows it."""
        return STORAGES.get(self.kind, "" if self.kind == UNTYPED else self.kind)

    @property
    def itemsize(self) -> int:
        """Bytes of one of its numbers."""
        return np.dtype(TYPES[self.dtype]).itemsize if self.dtype in TYPES else SIZES.get(self.kind, 1)


@dataclass(eq=False)
class Tensor:
    """A tensor of PyTorch: a strided view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str

    def array(self) -> np.ndarray:
        """The values; bfloat16 becomes float32, which holds it exactly. Raises `ValueError` that says what is wrong."""
        if self.dtype not in TYPES:
            raise ValueError(f"holds {self.dtype}, which is not read here: {REMEDY}")
        dtype, raw = np.dtype(TYPES[self.dtype]), self.storage.read()
        if len(raw) != self.storage.count * (1 if self.storage.kind == UNTYPED else dtype.itemsize):
            raise ValueError(f"has a storage of {len(raw)} bytes, not of {self.storage.count} numbers")
        values = np.frombuffer(raw, dtype)
        if not self._fits(values.size):
            raise ValueError(f"of size {list(self.shape)}, stride {list(self.stride)} and offset {self.offset} goes "
                             f"beyond its storage of {values.size} numbers")
        view = np.lib.stride_tricks.as_strided(values[self.offset:], self.shape,
                                               [step * dtype.itemsize for step in self.stride], writeable=False)
        return from_bfloat16(view) if self.dtype == "bfloat16" else view

    def _fits(self, count):
        if len(self.shape) != len(self.stride) or len(self.shape) > 32 or self.offset < 0 or not all(
                0 <= number < 2**48 for number in (self.offset, *self.shape, *self.stride)):
            return False
        last = self.offset + sum((length - 1) * step for length, step in zip(self.shape, self.stride, strict=True))
        numbers = math.prod(self.shape)
        return not numbers or (last < count and numbers <= max(count, SPREAD))


class Array(Made):
    """An array of NumPy: pickle says its shape, type and bytes after it has made it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that is said, () where none is."""
        shape = self.state[1] if isinstance(self.state, tuple) and len(self.state) == 5 else ()
        return tuple(shape) if isinstance(shape, tuple) and all(isinstance(side, int) for side in shape) else ()

    def array(self) -> np.ndarray:
        """The values; raises `ValueError` that says what is wrong. Paddle keeps bfloat16 as uint16."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise ValueError("is an array without values")
        _, _, dtype, fortran, data = self.state
        dtype, data = _dtype(dtype), data.encode("latin-1") if isinstance(data, str) else data
        if not isinstance(data, bytes | bytearray) or len(data) != math.prod(self.shape) * dtype.itemsize:
            raise ValueError(f"of shape {list(self.shape)} and type {dtype} has other than its bytes")
        values = np.frombuffer(data, dtype).reshape(self.shape, order="F" if fortran is True else "C")
        return from_bfloat16(values) if dtype == np.uint16 else values


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 of bfloat16 numbers whose bits are given as uint16."""
    return (bits.astype("<u4") << 16).view("<f4")


def _dtype(made):
    """NumPy's dtype of what a pickle says it is: only plain numbers."""
    name = made.args[0] if isinstance(made, Made) and isinstance(made.args, tuple) and made.args else None
    if not isinstance(name, str) or not re.fullmatch("[fiub][1248]", name):
        raise ValueError(f"holds {name}, which is not read here: {REMEDY}")
    order = made.state[1] if isinstance(made.state, tuple) and len(made.state) > 1 else "<"
    return np.dtype("b1" if name == "b1" else (">" if order == ">" else "<") + name)


def _tensor(storage, offset, size, stride, *rest):
    """torch._utils._rebuild_tensor and _v2; the last of the rest may say that the numbers are to be negated."""
    if not isinstance(storage, Storage) or (len(rest) > 2 and rest[2]):
        return Made("torch._utils._rebuild_tensor_v2", (storage,))
    return _noted(storage, offset, size, stride, storage.dtype)


def _tensor_v3(storage, offset, size, stride, _, __, dtype, *rest):
    if not isinstance(storage, Storage) or not isinstance(dtype, Name) or any(rest):
        return Made("torch._utils._rebuild_tensor_v3", (storage,))
    return _noted(storage, offset, size, stride, dtype.name)


def _noted(storage, offset, size, stride, dtype):
    numbers = (offset, *size, *stride)
    if not all(isinstance(number, int) for number in numbers):
        raise ValueError("a tensor's size is not of whole numbers")
    return Tensor(storage, offset, tuple(size), tuple(stride), dtype)


def _parameter(data, *_):
    return data


def _from_type(function, _, args, *__):
    """A tensor of a class of its own, or one with attributes: the same tensor without them."""
    builder = BUILDERS.get(function) if isinstance(function, Name) else None
    return builder(*args) if builder in (_tensor, _tensor_v3) else Made(function, args)


def _frombuffer(data, dtype, shape, order, *_):
    return Array("numpy", state=(1, shape, dtype, order == "F", data))


def _dict(*args):
    """An OrderedDict, defaultdict or Counter: Python 2 hands its pairs over, Python 3 sets them afterwards."""
    pairs = args[-1] if args else ()
    if isinstance(pairs, dict):
        return pairs
    return {pair[0]: pair[1] for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2
            and isinstance(pair[0], str | int)} if isinstance(pairs, list | tuple) else {}


def _bytes(text, *_):
    return text.encode("latin-1") if isinstance(text, str) else b""


def _named(code, names):
    """Paddle writes eval("data", {"data": array}); nothing is evaluated, the array is taken."""
    return names.get(code) if isinstance(names, dict) and isinstance(code, str) else None


BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor, ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3, ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type, ("torch._tensor", "_rebuild_from_type"): _from_type,
    ("collections", "OrderedDict"): _dict, ("collections", "defaultdict"): _dict, ("collections", "Counter"): _dict,
    ("_codecs", "encode"): _bytes, ("builtins", "eval"): _named, ("__builtin__", "eval"): _named,
    ("builtins", "tuple"): tuple, ("__builtin__", "tuple"): tuple}
BUILDERS |= {(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: Array("numpy") for core in ("core", "_core")}
BUILDERS |= {(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")}
