"""Count a network: trainable parameters, multiply-accumulate operations (MACs) and activations, layer by layer.

`count` watches a built network of any kind while one picture runs through it; `formula` computes the same for
AsymmNet from the plan of its blocks, without building anything. Tests demand that the two agree. Notebook 04, section
6, counts in both ways; notebook 06, sections 1 and 2, holds them against the authors' numbers; the tables of channels
and blocks are those of notebook 07, sections 1 to 4.

A MAC is one multiplication and the addition that follows; adding biases, batch norm and activations count as none.
"""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import paddle
import pandas as pd
from paddle import nn

from asymmlib.network import FEATURES, SQUEEZE, AsymmetricalBottleneck, make_divisible, plan_blocks

__all__ = ["COLUMNS", "PARTS", "Complexity", "channel_table", "costs_by_block", "count", "formula", "published_params",
           "reached_channels"]

COLUMNS = ("name", "kind", "in_shape", "out_shape", "kernel", "params", "macs")
# Parts of a block -> their names among the layers of `AsymmNet`; batch norm belongs to its convolution
PARTS = {"first pointwise": "expand", "depthwise": "depthwise", "squeeze-and-excitation": "se",
         "second pointwise": "project"}


@dataclass(frozen=True)
class Complexity:
    """A table with one row per layer (`COLUMNS`; shapes without the batch axis) and its sums."""

    layers: pd.DataFrame

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return int(self.layers["params"].sum())

    @property
    def macs(self) -> int:
        """MACs of one forward pass of one picture."""
        return int(self.layers["macs"].sum())

    def macs_of(self, kind: str) -> int:
        """MACs of "pointwise" (1x1 convolutions and linear layers), "depthwise" or "vanilla" (other) layers."""
        kinds = ("pointwise", "linear") if kind == "pointwise" else (kind,)
        return int(self.layers.loc[self.layers["kind"].isin(kinds), "macs"].sum())

    @property
    def activations(self) -> int:
        """Numbers that all convolutions and linear layers put out for one picture."""
        shapes = self.layers.loc[self.layers["kind"] != "batchnorm", "out_shape"]
        return int(sum(np.prod(shape) for shape in shapes))


def count(model: nn.Layer, input_shape: Sequence[int] = (1, 3, 224, 224)) -> Complexity:
    """Count any Paddle network of `Conv2D`, `Linear` and `BatchNorm2D` layers by running zeros of `input_shape`.

    Returns a `Complexity`, rows in the order of execution. Mode, weights and running averages stay as they are.
    Raises `ValueError` for an input that is not `[N, C, H, W]` and for a layer with parameters of another kind.
    """
    if len(input_shape) != 4:
        raise ValueError(f"input_shape is {tuple(input_shape)}; it must be [N, C, H, W], such as (1, 3, 224, 224)")
    rows, modes, handles = [], {layer: layer.training for layer in model.sublayers(include_self=True)}, []
    for name, layer in model.named_sublayers():
        if not layer.parameters(include_sublayers=False):
            continue
        if not isinstance(layer, (nn.Conv2D, nn.Linear, nn.BatchNorm2D)):
            raise ValueError(f"layer {name} is a {type(layer).__name__}; counted are Conv2D, Linear and BatchNorm2D")
        handles.append(layer.register_forward_post_hook(
            lambda layer, inputs, output, name=name: rows.append(_row(name, layer, inputs[0], output))))
    try:
        model.eval()
        with paddle.no_grad():
            model(paddle.zeros([1, *input_shape[1:]]))
    finally:
        for handle in handles:
            handle.remove()
        for layer, training in modes.items():
            layer.training = training
    return Complexity(pd.DataFrame(rows, columns=COLUMNS))


def _row(name, layer, x, y):
    params = sum(int(p.size) for p in layer.parameters(include_sublayers=False) if not p.stop_gradient)
    in_shape, out_shape = tuple(x.shape[1:]), tuple(y.shape[1:])
    if isinstance(layer, nn.BatchNorm2D):
        return name, "batchnorm", in_shape, out_shape, 1, params, 0
    if isinstance(layer, nn.Linear):
        return name, "linear", in_shape, out_shape, 1, params, int(layer.weight.size)
    side, groups = layer.weight.shape[2], layer._groups
    kind = "pointwise" if side == 1 else "depthwise" if groups == in_shape[0] == out_shape[0] else "vanilla"
    return name, kind, in_shape, out_shape, side, params, int(layer.weight.size) * out_shape[1] * out_shape[2]


def formula(variant: str = "large", width: float = 1.0, asymmrate: int = 1, num_classes: int = 1000,
            size: int = 224) -> Complexity:
    """Count AsymmNet from its plan alone: the same `Complexity` as `count` gives, without building a layer.

    Raises `ValueError` for settings that `plan_blocks` refuses, and for a picture smaller than 32 pixels.
    """
    plans, rows = plan_blocks(variant, width, asymmrate), []
    if isinstance(size, bool) or not isinstance(size, int) or size < 32:
        raise ValueError(f"size is {size!r}; it must be an integer of at least 32, such as 128 or 224")

    def conv(name, kind, c_in, c_out, side, in_size, stride=1, bias=False):
        out_size = -(-in_size // stride)
        weights = c_out * side**2 * (1 if kind == "depthwise" else c_in)
        rows.append((name, kind, (c_in, in_size, in_size), (c_out, out_size, out_size), side,
                     weights + c_out * bias, weights * out_size**2))
        return out_size

    def conv_bn(name, kind, c_in, c_out, side, in_size, stride=1):
        out_size = conv(f"{name}.conv", kind, c_in, c_out, side, in_size, stride)
        shape = (c_out, out_size, out_size)
        rows.append((f"{name}.bn", "batchnorm", shape, shape, 1, 2 * c_out, 0))
        return out_size

    size = conv_bn("stem", "vanilla", 3, plans[0].c_in, 3, size, 2)
    for plan in plans:
        name = f"blocks.{plan.index}"
        if plan.expands:
            conv_bn(f"{name}.expand", "pointwise", plan.c_in, plan.new, 1, size)
        size = conv_bn(f"{name}.depthwise", "depthwise", plan.depthwise, plan.depthwise, plan.kernel, size, plan.stride)
        if plan.se:
            conv(f"{name}.se.reduce", "pointwise", plan.depthwise, plan.squeezed, 1, 1, bias=True)
            conv(f"{name}.se.restore", "pointwise", plan.squeezed, plan.depthwise, 1, 1, bias=True)
        conv_bn(f"{name}.project", "pointwise", plan.depthwise, plan.out, 1, size)
    squeeze = make_divisible(width * SQUEEZE[variant])
    conv_bn("head", "pointwise", plans[-1].out, squeeze, 1, size)
    conv("features", "pointwise", squeeze, FEATURES, 1, 1)
    rows.append(("classifier", "linear", (FEATURES,), (num_classes,), 1, (FEATURES + 1) * num_classes,
                 FEATURES * num_classes))
    return Complexity(pd.DataFrame(rows, columns=COLUMNS))


def published_params(complexity: Complexity) -> int:
    """Parameters by the authors' counter, which takes a k x k kernel for k numbers: how 5,991,776 came about."""
    layers = complexity.layers
    wide = layers["kind"].isin(("depthwise", "vanilla"))
    return int(layers["params"].where(~wide, layers["params"] // layers["kernel"]).sum())


def costs_by_block(complexity: Complexity) -> dict[str, pd.DataFrame]:
    """Costs of AsymmNet's blocks without stem and head: {"macs": table, "params": table}.

    Each table has a row a block and a column for each of `PARTS`.
    """
    layers = complexity.layers
    names = layers["name"].str.extract(r"^blocks\.(?P<block>\d+)\.(?P<part>\w+)")
    inside = names["block"].notna()
    groups = layers[inside].groupby([names["block"][inside].astype(int), names["part"][inside]])
    return {column: groups[column].sum().unstack(fill_value=0).reindex(columns=list(PARTS.values()), fill_value=0)
            .set_axis(list(PARTS), axis=1) for column in ("macs", "params")}


def channel_table(rates: Iterable[int] = (0, 1, 2), variant: str = "large") -> pd.DataFrame:
    """Channels in every block at several rates: columns (rate, part) with parts new, copied and filtered."""
    parts = {(rate, part): [value(plan) for plan in plan_blocks(variant, asymmrate=rate)] for rate in rates
             for part, value in (("new", lambda plan: plan.new), ("copied", lambda plan: 2 * plan.copies * plan.c_in),
                                 ("filtered", lambda plan: plan.depthwise))}
    table = pd.DataFrame(parts)
    return table.rename_axis(index="block", columns=["r", "channels"])


def reached_channels(block: AsymmetricalBottleneck, size: int = 8) -> np.ndarray:
    """Which filtered channels depend on which input channels of an `AsymmetricalBottleneck`: bool `[c_in, depthwise]`.

    Found by changing one input channel at a time and looking at what enters the depthwise convolution. The block is
    in eval mode afterwards, in which batch norm mixes no channels.
    """
    block.eval()
    seen = []
    handle = block.depthwise.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    try:
        with paddle.no_grad():
            x = paddle.ones([1, block.plan.c_in, size, size])
            block(x)
            for channel in range(block.plan.c_in):
                changed = x.clone()
                changed[:, channel] += 1e4  # so large that no ReLU hides it in all pictures
                block(changed)
                changed[:, channel] -= 2e4
                block(changed)
    finally:
        handle.remove()
    base, *others = (value.numpy()[0] for value in seen)
    differs = [(other != base).any(axis=(1, 2)) for other in others]
    return pd.DataFrame([up | down for up, down in zip(differs[::2], differs[1::2], strict=True)]).to_numpy()
