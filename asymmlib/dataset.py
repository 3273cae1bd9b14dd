"""From prepared pictures to batches: augment, normalise, put in order.

Notebook 02 builds it: a data set in section 3, batches in section 4, normalising in section 6, augmentation in section
7, their order in section 8.

All randomness is a function of (seed, epoch, index), so order and augmentation do not depend on workers, on earlier
epochs or on the machine, and an interrupted run can go on exactly where it was. Decoding, and the cache of pixels on
disk, are in `asymmlib.data.pictures`.
"""
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import paddle
from PIL import Image, ImageEnhance, ImageOps

from asymmlib.data.pictures import cached_pixels, measure_statistics, normalise

if TYPE_CHECKING:
    from asymmlib.data.manifest import Prepared

__all__ = ["ARTICLE_MEAN", "ARTICLE_STD", "EpochSampler", "Pictures", "make_loader"]

# The article's constants, printed there in this order (flaw 5: they are not those of its pictures)
ARTICLE_MEAN = (0.50950350, 0.54632660, 0.57409690)
ARTICLE_STD = (0.26059777, 0.26041326, 0.29220656)
CROP_AREA, CROP_ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)  # "crop-flip", as in Szegedy et al., 2015
COLOUR = (0.6, 1.4)  # factors of "crop-flip-colour"
COLOURS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


class Pictures(paddle.io.Dataset):
    """One split of prepared data: item `i` is (float32 `[3, size, size]`, int64 label of shape `[1]`).

    `prepared` comes from `asymmlib.data.sources.prepare`. `mean` and `std` default to the train split's own.
    `augmentation` is one of `asymmlib.recipes.AUGMENTATIONS`; call `set_epoch` before each epoch to draw anew.
    `per_class` keeps the first pictures of each class, and all are there `passes` times, each time augmented otherwise.
    Raises `ValueError` for an unknown split or one without pictures.
    """

    def __init__(self, prepared: "Prepared", split: str, size: int, *, augmentation: str = "none",
                 rotation: float = 10.0, mean: Sequence[float] | np.ndarray | None = None,
                 std: Sequence[float] | np.ndarray | None = None, seed: int = 0, per_class: int | None = None,
                 passes: int = 1) -> None:
        super().__init__()
        manifest = prepared.manifest
        self.classes = prepared.class_names
        self.rows = np.flatnonzero((manifest["split"] == split).to_numpy())
        if per_class is not None:
            first = manifest.iloc[self.rows].groupby("class").cumcount().to_numpy() < per_class
            self.rows = self.rows[first]
        self.rows = np.tile(self.rows, passes)
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

    def set_epoch(self, epoch: int) -> None:
        """Make the augmentation of this epoch: a function of (seed, epoch, index) and of nothing else."""
        self.epoch = epoch

    def picture(self, index: int) -> np.ndarray:
        """The stored picture, before augmentation: uint8 `[size, size, 3]`."""
        return np.asarray(self.pixels[self.rows[index]])

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = self.picture(index)
        if self.augmentation != "none":
            pixels = self._augment(pixels, np.random.default_rng([self.seed, self.epoch, index]))
        return normalise(pixels, self.mean, self.std), self.labels[index:index + 1]

    def __len__(self) -> int:
        return len(self.rows)

    def _augment(self, pixels, rng):
        image = Image.fromarray(pixels)
        if self.augmentation.startswith("crop-flip"):
            image = _crop_flip(image, rng)
            return np.asarray(_recolour(image, rng) if self.augmentation == "crop-flip-colour" else image)
        nearest = self.augmentation == "rotate-nearest"
        angle = rng.uniform(-self.rotation, self.rotation)
        image = image.rotate(angle, Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR)
        return np.asarray(_flip(image, rng) if self.augmentation == "rotate-flip" else image)


def _crop_flip(image, rng):
    """Random part of a square picture by area and aspect, back at full size, mirrored half of the time."""
    size = image.width
    area = rng.uniform(*CROP_AREA) * size**2
    aspect = np.exp(rng.uniform(*np.log(CROP_ASPECT)))
    width, height = (min(size, round(side)) for side in (np.sqrt(area * aspect), np.sqrt(area / aspect)))
    left, top = rng.integers(size - width + 1), rng.integers(size - height + 1)
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
    return _flip(image, rng)


def _flip(image, rng):
    return ImageOps.mirror(image) if rng.random() < 0.5 else image


def _recolour(image, rng):
    for enhance in COLOURS:
        image = enhance(image).enhance(rng.uniform(*COLOUR))
    return image


class EpochSampler(paddle.io.BatchSampler):
    """Batches of indices in an order by (seed, epoch) alone; `DataLoader(shuffle=True)` follows global state.

    Of several `ranks`, each gets its part of every batch. Raises `ValueError` where the last batch has fewer pictures
    than there are ranks. `drop_last` leaves out the last batch where it is smaller than the others: `ValueError` where
    none would remain.
    """

    def __init__(self, dataset: paddle.io.Dataset, batch_size: int, shuffle: bool = False, seed: int = 0, rank: int = 0,
                 ranks: int = 1, drop_last: bool = False) -> None:
        super().__init__(dataset, batch_size=batch_size)
        self.length, self.shuffled, self.seed, self.epoch = len(dataset), shuffle, seed, 0
        self.rank, self.ranks, self.used = rank, ranks, self.length
        if drop_last:
            self.used -= self.length % batch_size
            if not self.used:
                raise ValueError(f"{self.length} pictures fill no batch of {batch_size}: drop_last would leave none")
        if (smallest := self.used % batch_size or batch_size) < ranks:
            raise ValueError(f"{self.used} pictures in batches of {batch_size} leave {smallest} for the last batch, "
                             f"fewer than the {ranks} processes: choose another batch size or fewer processes")

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.length)
        if self.shuffled:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        for start in range(0, self.used, self.batch_size):
            batch = order[:self.used][start:start + self.batch_size]
            yield np.array_split(batch, self.ranks)[self.rank].tolist()

    def __len__(self) -> int:
        return -(-self.used // self.batch_size)


def make_loader(pictures: paddle.io.Dataset, batch_size: int, shuffle: bool = False, seed: int = 0, workers: int = 0,
                rank: int = 0, ranks: int = 1, drop_last: bool = False) -> paddle.io.DataLoader:
    """Return a `paddle.io.DataLoader` over batches (float32 `[B, 3, size, size]`, int64 `[B, 1]`).

    The last batch may be smaller, unless `drop_last` leaves it out. `batch_size` counts the pictures of all `ranks`
    together. `workers` are threads that share the pictures of a batch. Without them a thread of Paddle's reads ahead,
    which hides the data path wherever a training step takes longer, as it does on a CPU: `book/speed.md` has both.
    """
    sampler = EpochSampler(pictures, batch_size, shuffle, seed, rank, ranks, drop_last)
    if not workers:
        return paddle.io.DataLoader(pictures, batch_sampler=sampler)
    # not Paddle's num_workers: those are forks, and one that is forked while a thread of an earlier loader holds a lock
    # of Paddle's memory statistics waits for ever
    pool = ThreadPoolExecutor(workers)
    return paddle.io.DataLoader(range(len(pictures)), batch_sampler=sampler, collate_fn=lambda numbers: tuple(
        map(np.stack, zip(*pool.map(pictures.__getitem__, numbers), strict=True))))
