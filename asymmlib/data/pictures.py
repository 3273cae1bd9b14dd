"""Pictures as arrays: decode once, keep small uint8 pixels on disk, measure them, normalise them.

Every picture of a manifest is decoded and resized a single time into a memory-mapped file; later epochs and later runs
decode nothing. Notebook 02 builds these steps. Decoding itself is in `asymmlib.data.decoding`.
"""
import hashlib
import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from asymmlib.base.files import CHUNK_BYTES, atomic_write, has_file, locked, open_regular, sweep
from asymmlib.data.copies import NearCopies
from asymmlib.data.decoding import FORMATS, READ_ERRORS, decode

if TYPE_CHECKING:
    from asymmlib.data.manifest import Prepared

__all__ = ["FORMATS", "READ_ERRORS", "cached_pixels", "decode", "load_picture", "measure_statistics", "normalise"]

CACHE_VERSION = 2  # raise it when decoding or resizing changes
DIGEST = hashlib.sha256  # of header and pixels; it stands behind them in the file
DIGEST_BYTES = DIGEST().digest_size


def load_picture(path: Path | str, size: int, sha256: str | None = None) -> np.ndarray:
    """Decode a picture to RGB uint8 `[size, size, 3]`: grey and palettes converted, transparency laid on white, camera
    rotation applied. sha256: the hex digest that the file's bytes must have.

    Raises `ValueError` that names the file when it is not a readable picture, has more pixels than Pillow thinks safe,
    other bytes than expected, or is a pipe or a device; `FileNotFoundError` when it is missing.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        remedy = "prepare the data again (python -m asymmlib prepare)" if sha256 else "there is no such file"
        raise FileNotFoundError(f"picture {path} is missing: {remedy}") from None
    with file:
        source = file if sha256 is None else io.BytesIO(_expected(path, file.read(), sha256))
        try:
            return np.asarray(decode(source).resize((size, size), Image.Resampling.BILINEAR))
        except READ_ERRORS as error:
            remedy = "replace or remove it" if sha256 else "save it anew as JPEG or PNG, or leave it out"
            raise ValueError(f"{path} is not a readable picture ({error}); {remedy}") from error


def _expected(path, data, sha256):
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path} has changed since it was checked; prepare the data again (python -m asymmlib "
                         "prepare)")
    return data


def cached_pixels(prepared: "Prepared", size: int) -> np.ndarray:
    """Return the resized pixels of all pictures of a manifest as a read-only uint8 memory map `[N, size, size, 3]`.

    The file lies in `prepared.folder / "cache"` and is keyed by the pictures' content and the size. It appears under
    its name only when complete, and carries a digest; one that does not fit it is made again, which is said. Of several
    processes one makes it. Pictures in different splits or classes that look nearly the same are reported then.
    Raises what `load_picture` raises, also for a picture whose bytes are no longer those of the manifest.
    """
    manifest = prepared.manifest
    key = hashlib.sha256(f"{CACHE_VERSION} {size} {' '.join(manifest['sha256'])}".encode()).hexdigest()[:16]
    path = Path(prepared.folder) / "cache" / f"pixels-{size}-{key}.npy"
    header, shape = _header(len(manifest), size), (len(manifest), size, size, 3)
    if not _is_whole(path, header, shape):
        with locked(path):
            if not _is_whole(path, header, shape):
                if path.exists():
                    print(f"{path} is damaged: its pictures are decoded again, and a new cache takes its place")
                sweep(path.parent, path.name)
                _write_cache(path, header, prepared, size)
    return np.memmap(path, np.uint8, "r", offset=len(header), shape=shape)


def _write_cache(path, header, prepared, size):
    manifest, near = prepared.manifest, NearCopies()
    with atomic_write(path) as file:
        digest = DIGEST(header)
        file.write(header)
        for name, sha256 in zip(manifest["path"], manifest["sha256"], strict=True):
            picture = load_picture(Path(prepared.images) / name, size, sha256)
            near.add(picture)
            digest.update(picture.data)
            file.write(picture.data)
        file.write(digest.digest())
    near.report(prepared)


def _header(number, size):
    """The bytes with which NumPy begins a file of these pictures."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": (number, size, size, 3)})
    return file.getvalue()


def _is_whole(path, header, shape):
    """Whether a cache is there, of the right length and with the digest that it carries."""
    if not has_file(path) or path.stat().st_size != len(header) + np.prod(shape, dtype=np.int64) + DIGEST_BYTES:
        return False
    status = path.stat()
    return _has_digest(path, header, status.st_size, status.st_mtime_ns, status.st_ino)


@cache
def _has_digest(path, header, size, *_):  # once in a process for each state of the file
    digest = DIGEST()
    with open_regular(path) as file:
        if file.read(len(header)) != header:
            return False
        digest.update(header)
        left = size - len(header) - DIGEST_BYTES
        while left and (chunk := file.read(min(left, CHUNK_BYTES))):
            digest.update(chunk)
            left -= len(chunk)
        return file.read() == digest.digest()


def measure_statistics(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each colour channel of uint8 pictures `[N, H, W, 3]`, on the scale 0 to 1.

    Exact: it counts how often each of the 256 values occurs.
    """
    counts = np.zeros((3, 256))
    for picture in pixels:
        for channel in range(3):
            counts[channel] += np.bincount(picture[..., channel].ravel(), minlength=256)
    share, levels = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = share @ levels
    return mean, np.sqrt(share @ levels**2 - mean**2)


def normalise(pixels: np.ndarray, mean: ArrayLike, std: ArrayLike) -> np.ndarray:
    """uint8 `[..., H, W, 3]` on 0 to 255 -> float32 `[..., 3, H, W]`: (value / 255 - mean) / std per channel."""
    scale = (1 / (255 * np.asarray(std))).astype(np.float32)
    shift = (-np.asarray(mean) / np.asarray(std)).astype(np.float32)
    planes = np.array(np.moveaxis(pixels, -1, -3), np.float32, order="C")  # in place from here, plane by plane
    planes *= scale[:, None, None]
    planes += shift[:, None, None]
    return planes
