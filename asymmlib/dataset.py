"""From a manifest to batches: decode once, keep small uint8 pixels on disk, augment, normalise.

Every picture is decoded and resized a single time into a memory-mapped file; later epochs and later runs decode
nothing. All randomness is a function of (seed, epoch, index), so order and augmentation do not depend on workers,
on earlier epochs or on the machine, and an interrupted run can go on exactly where it was.
"""
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import paddle
from PIL import Image, ImageOps

from asymmlib.paths import atomic_write, locked, sweep
from asymmlib.split import decode

__all__ = ["ARTICLE_MEAN", "ARTICLE_STD", "EpochSampler", "Pictures", "cached_pixels", "load_picture", "make_loader",
           "measure_statistics", "normalise"]

# The article's constants, printed there in this order (flaw 5: they are not those of its pictures)
ARTICLE_MEAN = (0.50950350, 0.54632660, 0.57409690)
ARTICLE_STD = (0.26059777, 0.26041326, 0.29220656)
CACHE_VERSION = 1  # raise it when decoding or resizing changes
# What Pillow raises on damaged bytes, and on more pixels than its limit
READ_ERRORS = (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning, SyntaxError, ValueError,
               TypeError, OverflowError, IndexError, KeyError, struct.error, zlib.error)
CROP_AREA, CROP_ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)  # "crop-flip", as in Szegedy et al., 2015


def load_picture(path, size):
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


def cached_pixels(prepared, size):
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


def measure_statistics(pixels):
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


def normalise(pixels, mean, std):
    """uint8 `[..., H, W, 3]` on 0 to 255 -> float32 `[..., 3, H, W]`: (value / 255 - mean) / std per channel."""
    scale = (1 / (255 * np.asarray(std))).astype(np.float32)
    shift = (-np.asarray(mean) / np.asarray(std)).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(pixels * scale + shift, -1, -3))


class Pictures(paddle.io.Dataset):
    """One split of prepared data: item `i` is (float32 `[3, size, size]`, int64 label of shape `[1]`).

    `prepared` comes from `asymmlib.sources.prepare`. `mean` and `std` default to the measured ones of the train split.
    `augmentation` is one of `asymmlib.recipes.AUGMENTATIONS`; call `set_epoch` before each epoch to draw anew.
    Raises `ValueError` for an unknown split or one without pictures.
    """

    def __init__(self, prepared, split, size, *, augmentation="none", rotation=10.0, mean=None, std=None, seed=0,
                 per_class=None):
        super().__init__()
        manifest = prepared.manifest
        self.classes = prepared.class_names
        self.rows = np.flatnonzero((manifest["split"] == split).to_numpy())
        if per_class is not None:
            first = manifest.iloc[self.rows].groupby("class").cumcount().to_numpy() < per_class
            self.rows = self.rows[first]
        if not len(self.rows):
            raise ValueError(f"split {split!r} of {prepared.name} has no pictures; it has: "
                             f"{', '.join(sorted(manifest['split'].unique()))} (test_share=True makes a test split)")
        self.split, self.size, self.seed, self.epoch = split, size, seed, 0
        self.augmentation, self.rotation = augmentation, rotation
        self.names = manifest["name"].to_numpy()[self.rows]
        number = {name: index for index, name in enumerate(self.classes)}
        self.labels = np.array([number[name] for name in manifest["class"].to_numpy()[self.rows]], dtype=np.int64)
        self.pixels = cached_pixels(prepared, size)
        if mean is None or std is None:
            mean, std = measure_statistics(self.pixels[np.flatnonzero((manifest["split"] == "train").to_numpy())])
        self.mean, self.std = tuple(float(v) for v in mean), tuple(float(v) for v in std)

    def set_epoch(self, epoch):
        """Make the augmentation of this epoch: a function of (seed, epoch, index) and of nothing else."""
        self.epoch = epoch

    def picture(self, index):
        """The stored picture, before augmentation: uint8 `[size, size, 3]`."""
        return np.asarray(self.pixels[self.rows[index]])

    def __getitem__(self, index):
        pixels = self.picture(index)
        if self.augmentation != "none":
            pixels = self._augment(pixels, np.random.default_rng([self.seed, self.epoch, index]))
        return normalise(pixels, self.mean, self.std), self.labels[index:index + 1]

    def __len__(self):
        return len(self.rows)

    def _augment(self, pixels, rng):
        image = Image.fromarray(pixels)
        if self.augmentation == "crop-flip":
            return np.asarray(_crop_flip(image, rng))
        nearest = self.augmentation == "rotate-nearest"
        angle = rng.uniform(-self.rotation, self.rotation)
        return np.asarray(image.rotate(angle, Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR))


def _crop_flip(image, rng):
    """Random part of a square picture by area and aspect, back at full size, mirrored half of the time."""
    size = image.width
    area = rng.uniform(*CROP_AREA) * size**2
    aspect = np.exp(rng.uniform(*np.log(CROP_ASPECT)))
    width, height = (min(size, round(side)) for side in (np.sqrt(area * aspect), np.sqrt(area / aspect)))
    left, top = rng.integers(size - width + 1), rng.integers(size - height + 1)
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
    return ImageOps.mirror(image) if rng.random() < 0.5 else image


class EpochSampler(paddle.io.BatchSampler):
    """Batches of indices in an order by (seed, epoch) alone; `DataLoader(shuffle=True)` follows global state.

    Of several `ranks`, each gets its part of every batch. Raises `ValueError` where the last batch has fewer pictures
    than there are ranks.
    """

    def __init__(self, dataset, batch_size, shuffle=False, seed=0, rank=0, ranks=1):
        super().__init__(dataset, batch_size=batch_size)
        self.length, self.shuffled, self.seed, self.epoch = len(dataset), shuffle, seed, 0
        self.rank, self.ranks = rank, ranks
        if (smallest := self.length % batch_size or batch_size) < ranks:
            raise ValueError(f"{self.length} pictures in batches of {batch_size} leave {smallest} for the last batch, "
                             f"fewer than the {ranks} processes: choose another batch size or fewer processes")

    def set_epoch(self, epoch):
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __iter__(self):
        order = np.arange(self.length)
        if self.shuffled:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        for start in range(0, self.length, self.batch_size):
            batch = order[start:start + self.batch_size]
            yield np.array_split(batch, self.ranks)[self.rank].tolist()

    def __len__(self):
        return -(-self.length // self.batch_size)


def make_loader(pictures, batch_size, shuffle=False, seed=0, workers=0, rank=0, ranks=1):
    """Return a `paddle.io.DataLoader` over batches (float32 `[B, 3, size, size]`, int64 `[B, 1]`).

    The last batch may be smaller. `workers` are extra processes; 0 is as fast once the pixels are cached. `batch_size`
    counts the pictures of all `ranks` together.
    """
    sampler = EpochSampler(pictures, batch_size, shuffle, seed, rank, ranks)
    return paddle.io.DataLoader(pictures, batch_sampler=sampler, num_workers=workers)
