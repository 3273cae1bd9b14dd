"""One way to build any network of the book: AsymmNet and the four baselines out of `paddle.vision.models`.

Notebook 03, section 1, builds and compares the baselines by it.
"""
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import paddle
import pandas as pd
from paddle.vision import models

from asymmlib.complexity import count
from asymmlib.network import asymmnet_large, asymmnet_small

__all__ = ["MODELS", "compare_models", "create_model"]


class Entry(NamedTuple):
    """A builder and the name that figures and tables show."""

    build: Callable[..., paddle.nn.Layer]
    label: str
    scalable: bool = False  # takes width, asymmrate and dropout


# pretrained=False: every comparison of the book starts from random weights
MODELS = {
    "asymmnet_large": Entry(asymmnet_large, "AsymmNet-Large", scalable=True),
    "asymmnet_small": Entry(asymmnet_small, "AsymmNet-Small", scalable=True),
    "resnet50": Entry(partial(models.resnet50, pretrained=False), "ResNet50"),
    "vgg19": Entry(partial(models.vgg19, pretrained=False), "VGG19"),
    "mobilenet_v2": Entry(partial(models.mobilenet_v2, pretrained=False), "MobileNetV2"),
    "mobilenet_v3_large": Entry(partial(models.mobilenet_v3_large, pretrained=False), "MobileNetV3-Large"),
}


def create_model(name: str, num_classes: int, width: float | None = None, asymmrate: int | None = None,
                 dropout: float | None = None) -> paddle.nn.Layer:
    """Build a network by name: float32 `[N, 3, H, W]` -> logits `[N, num_classes]`, random weights.

    `width`, `asymmrate` and `dropout` are AsymmNet's; None keeps its default. Seed with `paddle.seed` beforehand.
    Raises `ValueError` for an unknown name (it lists the known ones) and for a setting that the model does not have.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    entry = MODELS[name]
    settings = {key: value for key, value in (("width", width), ("asymmrate", asymmrate), ("dropout", dropout))
                if value is not None}
    if settings and not entry.scalable:
        raise ValueError(f"model {name!r} has no setting {', '.join(settings)}; only AsymmNet has")
    return entry.build(num_classes=num_classes, **settings)


def compare_models(names: Iterable[str] = tuple(MODELS), num_classes: int = 16, image_size: int = 224) -> pd.DataFrame:
    """Return a table with one row a model: label, trainable parameters and MACs of one picture."""
    rows = []
    for name in names:
        cost = count(create_model(name, num_classes), (1, 3, image_size, image_size))
        rows.append({"model": name, "label": MODELS[name].label, "params": cost.params, "macs": cost.macs})
    return pd.DataFrame(rows)
