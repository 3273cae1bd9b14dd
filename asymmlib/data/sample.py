"""The sample: sixteen classes of small pictures that this project draws itself, so that everything runs offline.

Each picture shows one thing of `asymmlib.data.things` at a random place, size, angle and lighting, on a random textured
ground. Three pictures of four have the thing's natural hues, the others any. Picture number n of a class depends on
(seed, class, n) alone.
"""
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from asymmlib.base.files import atomic_folder, atomic_write, has_file, temporary_name
from asymmlib.data.things import HUES, THINGS, Pen, colour

__all__ = ["CLASSES", "draw", "draw_sample"]

CLASSES = tuple(sorted(THINGS))
VERSION = 1       # raise it when a drawing changes: samples of another version are drawn again
OVERSAMPLING = 2  # drawn twice as large, then reduced: smooth edges
GREY_SHARE, SPACE_SHARE = 0.04, 0.1  # of the pictures: without colour; with a space in the file's name
NATURAL_SHARE = 0.75  # of the pictures: with the thing's natural hues; the others have any
QUALITY = 88      # of the JPEG files


def draw_sample(folder: Path | str, per_class: int = 60, size: int = 160, seed: int = 0) -> Path:
    """Draw `per_class` JPEG pictures of each class, at most `size` pixels a side, into `folder`/Images/<class>.

    Returns the path of `Images`. A folder that holds this very sample is left alone; one that holds another sample is
    drawn again; anything else in the way raises `ValueError`. Also `ValueError`: fewer than 5 pictures, less than 32
    pixels, a negative seed; `OSError` where the folder cannot be written.
    """
    for name, value, least in (("per_class", per_class, 5), ("size", size, 32), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}")
    images, marker = Path(folder) / "Images", Path(folder) / "sample.json"
    settings = {"version": VERSION, "per_class": per_class, "size": size, "seed": seed}
    if images.exists():
        if not has_file(marker):
            raise ValueError(f"{images} exists and was not drawn by this project; choose another folder or remove it")
        if _read(marker, images) == settings:
            return images
        old = temporary_name(images)
        images.rename(old)  # at once: a half-deleted sample must not look like a whole one
        shutil.rmtree(old)
    with atomic_write(marker) as file:
        file.write(json.dumps(settings).encode())
    with atomic_folder(images) as target:
        for number, name in enumerate(CLASSES):
            (target / name).mkdir(parents=True)
            for index in range(per_class):
                rng = np.random.default_rng([seed, number, index])
                picture = draw(name, rng, size)
                gap = " " if rng.random() < SPACE_SHARE else "_"
                picture.save(target / name / f"{name}{gap}{index:03d}.jpg", quality=QUALITY)
    return images


def _read(marker, images):
    try:
        return json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{marker} is damaged ({error}), so nobody knows whether {images} is whole; remove both, and "
                         "they are drawn again") from error


def draw(name: str, rng: np.random.Generator, size: int = 160) -> Image.Image:
    """Draw one picture of a class: a Pillow image, RGB or now and then greyscale, of at most `size` pixels a side."""
    if name not in THINGS:
        raise ValueError(f"unknown class {name!r}; known: {', '.join(CLASSES)}")
    width, height = (int(side) for side in rng.integers(round(0.7 * size), size + 1, 2))
    large = (width * OVERSAMPLING, height * OVERSAMPLING)
    ground = _ground(rng, large)
    thing = Image.new("RGBA", large, (0, 0, 0, 0))
    THINGS[name](_pen(rng, thing, HUES[name] if rng.random() < NATURAL_SHARE else ()), rng)
    picture = _compose(rng, ground, thing).resize((width, height), Image.Resampling.LANCZOS)
    return picture.convert("L") if rng.random() < GREY_SHARE else picture


def _pen(rng, image, hues):
    """A pen for a thing of 65 to 98 % of the picture, turned by up to 20 degrees, mirrored half of the time."""
    half = min(image.size) / 2
    scale, angle = half * rng.uniform(0.65, 0.98), np.radians(rng.uniform(-20, 20))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.diag([rng.choice([-1, 1]) * rng.uniform(0.85, 1.15), rng.uniform(0.85, 1.15)])
    room = np.array(image.size) / 2 - scale * 0.9
    return Pen(image, scale * turn @ stretch, np.array(image.size) / 2 + rng.uniform(-1, 1, 2) * room, hues)


def _compose(rng, ground, thing):
    """Put the thing with its shadow on the ground, then light the whole from one side."""
    alpha = thing.getchannel("A")
    offset = tuple(int(v) for v in rng.uniform(-0.04, 0.04, 2) * ground.width)
    shadow = Image.new("L", ground.size, 0)
    shadow.paste(alpha.point(lambda value: value * 0.45), offset)
    small = (max(1, ground.width // 4), max(1, ground.height // 4))
    shadow = shadow.resize(small).filter(ImageFilter.GaussianBlur(1.5)).resize(ground.size)
    ground.paste((15, 15, 25), (0, 0), shadow)
    ground.paste(thing, (0, 0), alpha)
    pixels = np.asarray(ground, np.float32)
    y, x = np.mgrid[-1:1:pixels.shape[0] * 1j, -1:1:pixels.shape[1] * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    light = rng.uniform(0.75, 1.15) + rng.uniform(0.05, 0.3) * (x * np.cos(angle) + y * np.sin(angle))
    tint = rng.uniform(0.88, 1.08, 3).astype(np.float32)
    return Image.fromarray(np.clip(pixels * light[..., None] * tint, 0, 255).astype(np.uint8))


def _ground(rng, size):
    """A textured ground of two colours, pale or dark, with fine noise."""
    width, height = size
    light = (0.75, 0.93) if rng.random() < 0.75 else (0.08, 0.25)
    first, second = (np.array(colour(rng, light, (0.05, 0.45))) for _ in range(2))
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j].astype(np.float32)
    mix = TEXTURES[rng.integers(len(TEXTURES))](rng, x, y)[..., None].astype(np.float32)
    noise = rng.normal(0, rng.uniform(2, 9), (height // 2 + 1, width // 2 + 1, 1)).astype(np.float32)
    noise = noise.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return Image.fromarray(np.clip(first * mix + second * (1 - mix) + noise, 0, 255).astype(np.uint8))


def _gradient(rng, x, y):
    angle = rng.uniform(0, 2 * np.pi)
    return np.clip(0.5 + 0.7 * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)), 0, 1)


def _stripes(rng, x, y):
    angle, count = rng.uniform(0, np.pi), rng.uniform(4, 14)
    return 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * count * (x * np.cos(angle) + y * np.sin(angle))))


def _tiles(rng, x, y):
    count = int(rng.integers(3, 9))
    return (np.floor(x * count) + np.floor(y * count)) % 2


def _bricks(rng, x, y):
    rows = int(rng.integers(5, 11))
    row = np.floor(y * rows)
    across = (x * rows / 2 + 0.5 * (row % 2)) % 1
    return ((across < 0.06) | ((y * rows) % 1 < 0.12)).astype(np.float32)


def _clouds(rng, x, y):
    height, width = x.shape
    total = np.zeros_like(x)
    for cells in (4, 9, 18):
        patch = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        total += np.asarray(patch.resize((width, height), Image.Resampling.BICUBIC)) / cells**0.5
    return np.clip((total - total.min()) / np.ptp(total), 0, 1)


def _waves(rng, x, y):
    count, depth = rng.uniform(4, 9), rng.uniform(0.02, 0.06)
    return 0.5 + 0.5 * np.sin(2 * np.pi * count * (y + depth * np.sin(2 * np.pi * rng.uniform(1, 4) * x)))


TEXTURES = (_gradient, _stripes, _tiles, _bricks, _clouds, _waves)
