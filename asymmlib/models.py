"""One way to build any network of the book, and one treatment for all: AsymmNet and four of `paddle.vision.models`.

Networks differ in more than their architecture: in initialisation, batch norm and dropout, too. `treat` makes these
equal, whatever their authors chose, so that a comparison is one of architectures. Notebook 03, section 1, builds and
compares the baselines by it.
"""
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import paddle
import pandas as pd
from paddle import nn
from paddle.vision import models

from asymmlib.complexity import count
from asymmlib.network import asymmnet_large, asymmnet_small
from asymmlib.recipes import INITIALISATIONS, NORMS

__all__ = ["MODELS", "compare_models", "create_model", "describe_treatment", "he_deviation", "treat"]

NORM = {"momentum": 0.9, "epsilon": 1e-5}  # of every batch norm, where the recipe says "common"
CLASSIFIER_STD = 0.01  # of the last linear layer under "he", as in the MobileNets' own code


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


def treat(network: nn.Layer, initialisation: str = "he", norm: str = "common",
          dropout: float | None = None) -> nn.Layer:
    """Give a network, in place, the initialisation, batch norm and dropout that all networks get; return it.

    initialisation, norm: keys of `asymmlib.recipes.INITIALISATIONS` and `NORMS`; random numbers follow `paddle.seed`.
    dropout: probability of the network's dropout layer, where it has exactly one (VGG19 keeps its two, ResNet50 has
    none); None leaves it. Raises `ValueError` for unknown words.
    Source: He et al., 2015; "paddle-default" is what Paddle 3.3.1's `nn/layer/conv.py` and its default for linear
    layers do, written out here because Paddle is about to change it (its pull request 79711).
    """
    if initialisation not in INITIALISATIONS or norm not in NORMS:
        raise ValueError(f"unknown initialisation {initialisation!r} or norm {norm!r}; known: "
                         f"{', '.join(INITIALISATIONS)}; {', '.join(NORMS)}")
    layers = network.sublayers(include_self=True)
    drops = [layer for layer in layers if isinstance(layer, nn.Dropout)]
    if dropout is not None and len(drops) == 1:
        drops[0].p = dropout
    if norm == "common":
        for layer in layers:
            if isinstance(layer, nn.BatchNorm2D):
                layer._momentum, layer._epsilon = NORM["momentum"], NORM["epsilon"]
    if initialisation != "as-built":
        _initialise([layer for layer in layers if isinstance(layer, nn.Conv2D | nn.Linear)], initialisation)
    return network


def _initialise(layers, rule):
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    for layer in layers:
        if layer.bias is not None:
            nn.initializer.Constant(0.0)(layer.bias)
        if rule == "paddle-default" and layer in linear:
            nn.initializer.XavierUniform()(layer.weight)
        elif layer is linear[-1]:
            nn.initializer.Normal(0.0, CLASSIFIER_STD)(layer.weight)
        else:
            groups = layer._groups if rule == "paddle-default" and layer not in linear else 1
            nn.initializer.Normal(0.0, he_deviation(layer) / math.sqrt(groups))(layer.weight)


def he_deviation(layer: nn.Layer) -> float:
    """He's standard deviation for a `Conv2D` or `Linear` in front of a ReLU: sqrt(2 / fan-in of one of its filters)."""
    shape = layer.weight.shape  # [out, in / groups, k, k] or [in, out]
    return math.sqrt(2 / (math.prod(shape[1:]) if len(shape) == 4 else shape[0]))


def describe_treatment(network: nn.Layer, image_size: int) -> dict[str, Any]:
    """What a network is trained with, and its cost: a dictionary for one row of a table, read from the network itself.

    norm (momentum and epsilon of its batch norms), dropout (of all its dropout layers), params, macs (of one picture of
    `image_size` pixels).
    """
    layers = network.sublayers()
    norms = sorted({(layer._momentum, layer._epsilon) for layer in layers if isinstance(layer, nn.BatchNorm2D)})
    drops = [float(layer.p) for layer in layers if isinstance(layer, nn.Dropout)]
    cost = count(network, (1, 3, image_size, image_size))
    return {"norm": ", ".join(f"{momentum:g} and {epsilon:g}" for momentum, epsilon in norms) or "none",
            "dropout": ", ".join(f"{p:g}" for p in drops) or "none", "params": cost.params, "macs": cost.macs}


def compare_models(names: Iterable[str] = tuple(MODELS), num_classes: int = 16, image_size: int = 224) -> pd.DataFrame:
    """Return a table with one row a model: label, trainable parameters and MACs of one picture."""
    rows = []
    for name in names:
        cost = count(create_model(name, num_classes), (1, 3, image_size, image_size))
        rows.append({"model": name, "label": MODELS[name].label, "params": cost.params, "macs": cost.macs})
    return pd.DataFrame(rows)
