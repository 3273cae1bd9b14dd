"""Sixteen things, each drawn by a short function on a pen in unit coordinates (x right, y down, both from -1 to 1).

A function gets a `Pen` and a random generator, picks its proportions, asks the pen for colours and draws back to front.
Where the thing ends up, how large and how turned, is the pen's business.
"""
import colorsys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

__all__ = ["HUES", "THINGS", "Pen", "colour", "shade"]

RGB = tuple[int, ...]
Range = tuple[float, float]
Points = np.ndarray | Sequence[tuple[Any, Any]]  # (x, y) each, numbers of Python or NumPy

DARK = (45, 42, 48)
HUE_SPREAD = 0.05  # standard deviation of a natural hue; all hues lie between 0 and 1

# The hues that a thing has by nature, in the order in which its function asks for colours
HUES = {
    "balloon": (0.98, 0.14, 0.08), "boat": (0.6, 0.55), "butterfly": (0.78, 0.9, 0.15), "car": (0.0,),
    "cup": (0.55, 0.07), "fish": (0.06, 0.12), "flower": (0.9, 0.14, 0.32), "guitar": (0.09, 0.06),
    "house": (0.1, 0.02, 0.08), "key": (0.13,), "mushroom": (0.99, 0.11), "rocket": (0.58, 0.0),
    "snail": (0.2, 0.07), "sun": (0.14, 0.1), "tree": (0.07, 0.33), "umbrella": (0.68, 0.47),
}


def colour(rng: np.random.Generator, light: Range = (0.35, 0.75), saturation: Range = (0.45, 0.95),
           hue: float | None = None) -> RGB:
    """A random RGB colour; `light` and `saturation` are ranges of HLS, `hue` is random unless given."""
    hue = rng.random() if hue is None else hue
    rgb = colorsys.hls_to_rgb(hue % 1, rng.uniform(*light), rng.uniform(*saturation))
    return tuple(int(255 * value) for value in rgb)


def shade(rgb: RGB, factor: float) -> RGB:
    """A darker (below 1) or lighter colour."""
    return tuple(int(min(255, value * factor)) for value in rgb)


class Pen:
    """Draws shapes given in unit coordinates through an affine map onto an RGBA image; hands out colours.

    `hues` are taken in turn for the colours; without any, every colour has a random hue.
    """

    def __init__(self, image: Image.Image, matrix: ArrayLike, shift: ArrayLike, hues: Sequence[float] = ()) -> None:
        self.draw, self.matrix, self.shift = ImageDraw.Draw(image), np.asarray(matrix), np.asarray(shift)
        self.hues, self.asked = hues, 0

    def colour(self, rng: np.random.Generator, light: Range = (0.35, 0.75), saturation: Range = (0.45, 0.95)) -> RGB:
        """The next colour of the thing."""
        self.asked += 1
        if not self.hues:
            return colour(rng, light, saturation)
        return colour(rng, light, saturation, rng.normal(self.hues[(self.asked - 1) % len(self.hues)], HUE_SPREAD))

    def fill(self, points: Points, rgb: RGB) -> None:
        """A filled polygon."""
        mapped = np.asarray(points, float) @ self.matrix.T + self.shift
        self.draw.polygon([tuple(point) for point in mapped], fill=(*rgb, 255))

    def disc(self, x: float, y: float, rx: float, rgb: RGB, ry: float | None = None, start: float = 0,
             end: float = 360) -> None:
        """A filled ellipse, or the part of it between two angles in degrees (0 right, 90 down)."""
        angle = np.radians(np.linspace(start, end, 48))
        self.fill(np.stack([x + rx * np.cos(angle), y + (rx if ry is None else ry) * np.sin(angle)], axis=1), rgb)

    def box(self, left: float, top: float, right: float, bottom: float, rgb: RGB) -> None:
        """A filled rectangle."""
        self.fill([(left, top), (right, top), (right, bottom), (left, bottom)], rgb)

    def line(self, points: Points, width: float, rgb: RGB) -> None:
        """A line with round ends and joints."""
        points = np.asarray(points, float)
        for a, b in pairwise(points):
            along = (b - a) / max(np.hypot(*(b - a)), 1e-9)
            side = np.array([-along[1], along[0]]) * width / 2
            self.fill([a + side, b + side, b - side, a - side], rgb)
        for x, y in points:
            self.disc(x, y, width / 2, rgb)


def sun(pen: Pen, rng: np.random.Generator) -> None:
    body, rays = pen.colour(rng, (0.5, 0.7)), pen.colour(rng, (0.45, 0.75))
    count, inner = int(rng.integers(8, 14)), rng.uniform(0.42, 0.55)
    for angle in np.arange(count) * 2 * np.pi / count:
        tip, a, b = angle, angle - 1.2 / count, angle + 1.2 / count
        pen.fill([(np.cos(tip), np.sin(tip)), (inner * 1.1 * np.cos(a), inner * 1.1 * np.sin(a)),
                  (inner * 1.1 * np.cos(b), inner * 1.1 * np.sin(b))], rays)
    pen.disc(0, 0, inner, body)
    for x in (-0.16, 0.16):
        pen.disc(x, -0.08, 0.05, DARK)
    pen.line([(0.25 * np.cos(t), 0.05 + 0.25 * np.sin(t)) for t in np.linspace(0.5, 2.6, 8)], 0.05, DARK)


def tree(pen: Pen, rng: np.random.Generator) -> None:
    trunk, leaves = pen.colour(rng, (0.2, 0.35), (0.3, 0.6)), pen.colour(rng, (0.3, 0.6))
    pen.fill([(-0.1, 0.0), (0.1, 0.0), (0.16, 1.0), (-0.16, 1.0)], trunk)
    pen.line([(0, 0.35), (0.3, 0.05)], 0.09, trunk)
    for x, y, r in ((-0.4, -0.15, 0.38), (0.42, -0.15, 0.36), (0, -0.5, 0.5), (-0.25, -0.6, 0.33), (0.3, -0.55, 0.33)):
        pen.disc(x, y, r * rng.uniform(0.9, 1.1), shade(leaves, rng.uniform(0.85, 1.15)))


def house(pen: Pen, rng: np.random.Generator) -> None:
    wall, roof = pen.colour(rng, (0.5, 0.85), (0.2, 0.7)), pen.colour(rng, (0.25, 0.55))
    pen.box(0.3, -0.95, 0.52, -0.3, shade(roof, 0.8))
    pen.box(-0.7, -0.15, 0.7, 0.9, wall)
    pen.fill([(-0.95, -0.12), (0, -0.95), (0.95, -0.12)], roof)
    pen.box(-0.14, 0.3, 0.16, 0.9, pen.colour(rng, (0.2, 0.4)))
    for x in (-0.5, 0.32):
        pen.box(x, 0.08, x + 0.24, 0.36, (225, 240, 250))
        pen.line([(x + 0.12, 0.08), (x + 0.12, 0.36)], 0.04, DARK)


def fish(pen: Pen, rng: np.random.Generator) -> None:
    body, fin = pen.colour(rng), pen.colour(rng)
    pen.fill([(0.45, 0), (1.0, -0.5), (0.85, 0), (1.0, 0.5)], fin)
    pen.fill([(-0.2, -0.3), (0.2, -0.75), (0.4, -0.2)], fin)
    pen.fill([(-0.1, 0.3), (0.2, 0.65), (0.3, 0.2)], fin)
    pen.disc(-0.15, 0, 0.75, body, 0.42)
    for x in np.arange(0.0, 0.45, 0.2):
        pen.line([(x, -0.25), (x + 0.07, 0), (x, 0.25)], 0.07, shade(body, 0.7))
    pen.disc(-0.58, -0.1, 0.1, (250, 250, 250))
    pen.disc(-0.6, -0.1, 0.05, DARK)


def boat(pen: Pen, rng: np.random.Generator) -> None:
    hull, sail = pen.colour(rng, (0.25, 0.5)), pen.colour(rng, (0.6, 0.9))
    pen.line([(0, 0.45), (0, -0.95)], 0.07, DARK)
    pen.fill([(0.07, -0.92), (0.07, 0.3), (0.75, 0.3)], sail)
    pen.fill([(-0.07, -0.7), (-0.07, 0.3), (-0.6, 0.3)], shade(sail, 0.8))
    pen.fill([(-0.95, 0.42), (0.95, 0.42), (0.6, 0.9), (-0.6, 0.9)], hull)
    pen.line([(-0.85, 0.54), (0.85, 0.54)], 0.06, (245, 245, 240))


def key(pen: Pen, rng: np.random.Generator) -> None:
    metal = pen.colour(rng, (0.35, 0.7), (0.3, 0.9))
    angle = np.linspace(0, 2 * np.pi, 25)
    ring = [(-0.6 + 0.28 * np.cos(t), 0.28 * np.sin(t)) for t in angle]
    pen.line(ring, 0.17, metal)
    pen.line([(-0.3, 0), (0.9, 0)], 0.16, metal)
    for x, length in ((0.55, 0.3), (0.72, 0.2), (0.88, 0.34)):
        pen.box(x - 0.06, 0, x + 0.06, length * rng.uniform(0.9, 1.2), metal)
    pen.line([(-0.25, -0.03), (0.85, -0.03)], 0.04, shade(metal, 1.3))


def umbrella(pen: Pen, rng: np.random.Generator) -> None:
    first, second = pen.colour(rng), pen.colour(rng)
    pen.line([(0, -0.8), (0, 0.75)], 0.06, DARK)
    pen.line([(0.16 - 0.16 * np.cos(t), 0.75 + 0.16 * np.sin(t)) for t in np.linspace(0, np.pi, 9)], 0.07, DARK)
    pen.disc(0, 0, 0.95, first, 0.8, 180, 360)
    for left, right in ((-0.57, -0.19), (0.19, 0.57)):
        pen.fill([(0, -0.8), (left, 0), (right, 0)], second)
    for x in (-0.76, -0.38, 0, 0.38, 0.76):
        pen.disc(x, 0, 0.19, first if round(x / 0.38) % 2 == 0 else second, 0.1, 0, 180)


def mushroom(pen: Pen, rng: np.random.Generator) -> None:
    cap, stem = pen.colour(rng, (0.35, 0.6)), pen.colour(rng, (0.75, 0.9), (0.1, 0.4))
    pen.fill([(-0.2, -0.1), (0.2, -0.1), (0.32, 0.9), (-0.32, 0.9)], stem)
    pen.disc(0, 0.9, 0.32, stem, 0.08)
    pen.disc(0, 0.05, 0.95, cap, 0.95, 180, 360)
    pen.disc(0, 0.05, 0.95, shade(cap, 0.75), 0.14)
    for x, y, r in ((-0.45, -0.3, 0.14), (0.05, -0.6, 0.16), (0.5, -0.28, 0.13), (0.0, -0.2, 0.09)):
        pen.disc(x, y, r * rng.uniform(0.8, 1.2), (250, 246, 235))


def car(pen: Pen, rng: np.random.Generator) -> None:
    body = pen.colour(rng)
    pen.fill([(-0.5, -0.05), (-0.3, -0.48), (0.3, -0.48), (0.58, -0.05)], shade(body, 0.85))
    pen.fill([(-0.4, -0.08), (-0.24, -0.4), (-0.02, -0.4), (-0.02, -0.08)], (205, 228, 240))
    pen.fill([(0.05, -0.08), (0.05, -0.4), (0.26, -0.4), (0.46, -0.08)], (205, 228, 240))
    pen.fill([(-0.95, 0.32), (-0.95, 0.02), (-0.8, -0.08), (0.8, -0.06), (0.97, 0.08), (0.97, 0.32)], body)
    for x in (-0.52, 0.54):
        pen.disc(x, 0.32, 0.25, DARK)
        pen.disc(x, 0.32, 0.11, (190, 190, 195))
    pen.disc(0.9, 0.08, 0.07, (255, 240, 170))


def cup(pen: Pen, rng: np.random.Generator) -> None:
    china, drink = pen.colour(rng, (0.5, 0.85)), pen.colour(rng, (0.15, 0.35))
    pen.line([(0.55 + 0.3 * np.cos(t), 0.15 + 0.3 * np.sin(t)) for t in np.linspace(-1.4, 1.5, 14)], 0.13, china)
    pen.fill([(-0.65, -0.25), (0.65, -0.25), (0.5, 0.75), (-0.5, 0.75)], china)
    pen.disc(0, 0.75, 0.5, china, 0.1)
    pen.disc(0, -0.25, 0.65, shade(china, 1.2), 0.16)
    pen.disc(0, -0.23, 0.55, drink, 0.11)
    for x in (-0.25, 0.1):
        pen.line([(x + 0.08 * np.sin(5 * t), -0.45 - 0.5 * t) for t in np.linspace(0, 1, 10)], 0.06, (238, 238, 242))


def flower(pen: Pen, rng: np.random.Generator) -> None:
    petal, heart, stem = pen.colour(rng, (0.45, 0.75)), pen.colour(rng, (0.4, 0.7)), pen.colour(rng, (0.2, 0.45))
    pen.line([(0, -0.2), (0.04, 0.4), (0, 1.0)], 0.09, stem)
    pen.fill([(0.02, 0.75), (0.2, 0.45), (0.55, 0.4), (0.3, 0.68)], stem)
    count = int(rng.integers(5, 9))
    for angle in np.arange(count) * 2 * np.pi / count + rng.random():
        pen.disc(0.38 * np.cos(angle), -0.4 + 0.38 * np.sin(angle), 0.24, shade(petal, rng.uniform(0.9, 1.1)))
    pen.disc(0, -0.4, 0.22, heart)


def butterfly(pen: Pen, rng: np.random.Generator) -> None:
    upper, lower, spot = pen.colour(rng), pen.colour(rng), pen.colour(rng, (0.6, 0.9))
    for side in (-1, 1):
        pen.fill([(0.05 * side, -0.1), (0.5 * side, -0.8), (0.95 * side, -0.75), (0.85 * side, -0.15)], upper)
        pen.fill([(0.05 * side, 0), (0.75 * side, 0.05), (0.7 * side, 0.6), (0.35 * side, 0.8)], lower)
        pen.disc(0.62 * side, -0.5, 0.14, spot)
        pen.disc(0.48 * side, 0.38, 0.11, spot)
        pen.line([(0, -0.4), (0.22 * side, -0.85)], 0.04, DARK)
    pen.disc(0, 0.02, 0.08, DARK, 0.52)


def balloon(pen: Pen, rng: np.random.Generator) -> None:
    first, second, basket = pen.colour(rng), pen.colour(rng), pen.colour(rng, (0.25, 0.45))
    for side in (-1, 1):
        pen.line([(0.35 * side, 0.2), (0.15 * side, 0.68)], 0.035, DARK)
    pen.fill([(-0.62, 0.0), (0.62, 0.0), (0.2, 0.42), (-0.2, 0.42)], first)
    pen.disc(0, -0.25, 0.7, first)
    pen.disc(0, -0.25, 0.36, second, 0.7)
    pen.fill([(-0.32, 0.06), (0.32, 0.06), (0.1, 0.42), (-0.1, 0.42)], second)
    pen.box(-0.18, 0.66, 0.18, 0.95, basket)


def rocket(pen: Pen, rng: np.random.Generator) -> None:
    body, fin = pen.colour(rng, (0.6, 0.9), (0.1, 0.6)), pen.colour(rng)
    flame = colour(rng, (0.5, 0.65), hue=rng.uniform(0, 0.17))
    pen.fill([(-0.18, 0.6), (0.18, 0.6), (0.0, 1.0)], flame)
    for side in (-1, 1):
        pen.fill([(0.22 * side, 0.1), (0.58 * side, 0.68), (0.2 * side, 0.55)], fin)
    pen.fill([(0, -1), (0.2, -0.66), (0.28, -0.2), (0.24, 0.6), (-0.24, 0.6), (-0.28, -0.2), (-0.2, -0.66)], body)
    pen.fill([(0, -1), (0.2, -0.66), (-0.2, -0.66)], fin)
    pen.disc(0, -0.25, 0.16, DARK)
    pen.disc(0, -0.25, 0.11, (170, 215, 240))


def snail(pen: Pen, rng: np.random.Generator) -> None:
    body, shell = pen.colour(rng, (0.45, 0.75), (0.2, 0.6)), pen.colour(rng, (0.35, 0.65))
    pen.line([(0.8, 0.62), (-0.55, 0.62), (-0.75, 0.1)], 0.26, body)
    for x in (-0.9, -0.66):
        pen.line([(-0.76, 0.0), (x, -0.42)], 0.05, body)
        pen.disc(x, -0.42, 0.06, DARK)
    pen.disc(0.2, 0.05, 0.56, shell)
    turn = np.linspace(0, 5 * np.pi, 60)
    pen.line([(0.2 + 0.028 * t * np.cos(t), 0.05 + 0.028 * t * np.sin(t)) for t in turn], 0.07, shade(shell, 0.6))


def guitar(pen: Pen, rng: np.random.Generator) -> None:
    wood, dark = pen.colour(rng, (0.35, 0.65)), pen.colour(rng, (0.12, 0.3))
    pen.line([(0, 0.2), (0, -0.75)], 0.13, dark)
    pen.box(-0.11, -1.0, 0.11, -0.75, shade(wood, 0.7))
    pen.disc(0, 0.15, 0.36, wood)
    pen.disc(0, 0.58, 0.46, wood, 0.42)
    pen.disc(0, 0.25, 0.15, DARK)
    pen.box(-0.2, 0.66, 0.2, 0.74, dark)
    for x in (-0.04, 0.04):
        pen.line([(x, -0.9), (x, 0.7)], 0.02, (235, 235, 230))


THINGS = {function.__name__: function for function in (
    balloon, boat, butterfly, car, cup, fish, flower, guitar, house, key, mushroom, rocket, snail, sun, tree, umbrella)}
