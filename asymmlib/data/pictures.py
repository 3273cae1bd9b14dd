"""Pictures as arrays: decode once, keep small uint8 pixels on disk, measure them, normalise them.

Every picture of a manifest is decoded and resized a single time into a memory-mapped file; later epochs and later runs
decode nothing. Notebook 02 builds these steps.
"""
import hashlib
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageOps

from asymmlib.base.files import atomic_write, locked, sweep

if TYPE_CHECKING:
    from asymmlib.data.sources import Prepared

__all__ = ["FORMATS", "READ_ERRORS", "cached_pixels", "decode", "load_picture", "measure_statistics", "normalise"]

CACHE_VERSION = 1  # raise it when decoding or resizing changes
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")  # Pillow's other readers stay closed: some start other programs
# What Pillow raises on damaged bytes, and on more pixels than its limit
READ_ERRORS = (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning, SyntaxError, ValueError,
               TypeError, OverflowError, IndexError, KeyError, struct.error, zlib.error)


def decode(path: Path | str) -> Image.Image:
    """Decode a picture file to a Pillow image: RGB, upright. Raises whatever Pillow raises on bad bytes.

    A picture beyond Pillow's limit on pixels is an error, not only a warning.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as image:
            return ImageOps.exif_transpose(image).convert("RGB")


def load_picture(path: Path | str, size: int) -> np.ndarray:
    """Decode a picture to RGB uint8 `[size, size, 3]`: greyscale and palettes converted, camera rotation applied.

    Raises `ValueError` that names the file when it is not a readable picture or has more pixels than Pillow thinks
    safe, `FileNotFoundError` when it is missing.
    """
    try:
        return np.asarray(decode(path).resize((size, size), Image.Resampling.BILINEAR))
    except FileNotFoundError:
        raise FileNotFoundError(f"picture {path} is missing: prepare the data again (python -m asymmlib prepare)"
                                ) from None
    except READ_ERRORS as error:
        raise ValueError(f"{path} is not a readable picture ({error}); replace or remove the file, or prepare the "
                         'data with on_error="skip"') from error


def cached_pixels(prepared: "Prepared", size: int) -> np.ndarray:
    """Return the resized pixels of all pictures of a manifest as a read-only uint8 memory map `[N, size, size, 3]`.

    The file lies in `prepared.folder / "cache"` and is keyed by the pictures' content and the size. It appears under
    its name only when complete; one of the wrong length is made again. Of several processes one makes it.
    """
    manifest = prepared.manifest
    key = hashlib.sha256(f"{CACHE_VERSION} {size} {' '.join(manifest['sha256'])}".encode()).hexdigest()[:16]
    path = Path(prepared.folder) / "cache" / f"pixels-{size}-{key}.npy"
    shape = (len(manifest), size, size, 3)
    if not _is_complete(path, shape):
        with locked(path):
            if not _is_complete(path, shape):
                sweep(path.parent, path.name)
                _write_cache(path, shape, [Path(prepared.images) / name for name in manifest["path"]])
    return np.load(path, mmap_mode="r")


def _write_cache(path, shape, pictures):
    with atomic_write(path) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for picture in pictures:
            file.write(load_picture(picture, shape[1]).tobytes())


def _is_complete(path, shape):
    try:
        pixels = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return pixels.shape == shape and pixels.dtype == np.uint8


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
    return np.ascontiguousarray(np.moveaxis(pixels * scale + shift, -1, -3))
