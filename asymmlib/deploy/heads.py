"""A head of one's own on a trained network: other classes, told apart by the numbers before its classifier.

The live page learns such a head from a few pictures and saves it as JSON; `python -m asymmlib predict --head FILE` uses
it with the same network. A head is a linear layer on the features scaled to length 1: `weights` [C, F] and `bias` [C].
"""
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from asymmlib.base.files import open_regular
from asymmlib.weights.own import head_names

if TYPE_CHECKING:
    from asymmlib.runs import Classifier

__all__ = ["FORMAT", "network_features", "read_head", "with_head"]

FORMAT = "asymmnet-head-1"
KINDS = {"network": str, "classes": list, "weights": list, "bias": list}


class UnitLinear(nn.Layer):
    """Features `[N, F]` -> logits `[N, C]`: scaled to length 1, then a linear layer."""

    def __init__(self, weights: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.linear = nn.Linear(*weights.T.shape)
        paddle.assign(weights.T.astype(np.float32), self.linear.weight)
        paddle.assign(bias.astype(np.float32), self.linear.bias)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.linear(F.normalize(x, axis=1))


def _classifier_layer(network):
    """(its parent, its name there, the layer) of the last linear layer of a network."""
    path = head_names(network)[0].removesuffix(".weight")
    parent, name = network, path
    if "." in path:
        above, name = path.rsplit(".", 1)
        parent = dict(network.named_sublayers())[above]
    return parent, name, getattr(parent, name)


def network_features(network: nn.Layer, images: np.ndarray) -> np.ndarray:
    """What a network's last linear layer receives, float32 `[N, F]`, for prepared pictures float32 `[N, 3, H, W]`."""
    found: list[np.ndarray] = []
    hook = _classifier_layer(network)[2].register_forward_pre_hook(
        lambda layer, inputs: found.append(inputs[0].numpy()))
    try:
        with paddle.no_grad():
            network(paddle.to_tensor(images))
    finally:
        hook.remove()
    return found[0]


def read_head(path: Path | str) -> dict[str, Any]:
    """What the live page saved: network, sha256 of its weights (or None), classes, weights `[C, F]`, bias `[C]`.

    Raises `FileNotFoundError` for no such file, `ValueError` for one that is no head or has sizes that do not fit.
    """
    try:
        with open_regular(path) as file:
            head = json.loads(file.read().decode("utf-8"))
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise ValueError(f"no {FORMAT!r} in it")
        odd = [key for key, kind in KINDS.items() if not isinstance(head.get(key), kind)]
        if odd:
            raise ValueError(f"no usable {', '.join(odd)}")
        weights, bias = (np.array(head[key], np.float64) for key in ("weights", "bias"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no head {path}: the live page saves one with its button") from None
    except (ValueError, TypeError, RecursionError) as error:  # no JSON, ragged rows
        raise ValueError(f"{path} is no head as the live page saves it ({error}): save it there anew") from error
    classes = tuple(map(str, head["classes"]))
    if len(classes) < 2 or weights.ndim != 2 or len(weights) != len(classes) or bias.shape != (len(classes),):
        raise ValueError(f"{path}: {len(classes)} classes, weights {list(weights.shape)} and {bias.size} biases do not "
                         "fit together; save the head anew")
    if not all(map(math.isfinite, [*weights.ravel(), *bias])):
        raise ValueError(f"{path} has numbers that are not finite; save the head anew")
    return {"network": head["network"], "sha256": head.get("sha256"), "classes": classes, "weights": weights,
            "bias": bias}


def with_head(classifier: "Classifier", path: Path | str) -> "Classifier":
    """The classifier with the classes of a head in place of its own; its network is changed.

    Raises as `read_head`, and `ValueError` where the head was learned on other weights or other features.
    """
    head = read_head(path)
    digest = classifier.provenance.get("sha256")
    if head["network"] != classifier.name if None in (head["sha256"], digest) else head["sha256"] != digest:
        raise ValueError(f"{path} is a head for {head['network']}, with weights other than those of {classifier.name}: "
                         f"predict --from {head['network']} --head {path}, or learn a head for this network")
    parent, name, layer = _classifier_layer(classifier.network)
    if layer.weight.shape[0] != head["weights"].shape[1]:
        raise ValueError(f"{path} has {head['weights'].shape[1]} weights a class, and {classifier.name} has "
                         f"{layer.weight.shape[0]} features: it is a head for another network")
    setattr(parent, name, UnitLinear(head["weights"], head["bias"]))
    classifier.network.eval()
    provenance = {key: value for key, value in classifier.provenance.items() if key != "none_below"}
    return replace(classifier, classes=head["classes"], provenance={**provenance, "head": str(path)})
