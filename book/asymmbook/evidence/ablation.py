"""Why do copies help? AsymmNet-Large at rate 1 with the copies changed, at the cost of the original.

A depthwise and a pointwise convolution treat all channels alike, so *where* among the channels copies stand, or in
which order, changes nothing but the numbering: "left" and "right" are the same network with two numberings, and what
differs between them is luck, a check of the whole comparison. What is asked is whether copies must be copies.
"""
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import paddle

from asymmlib.models import MODELS, Entry
from asymmlib.network import AsymmetricalBottleneck, AsymmNet, BlockPlan

__all__ = ["KINDS", "Ablated", "ablated", "registered"]

# kind: what stands beside the new channels; "left", "right" and "new" make new channels where copies were
KINDS = {"left": "one copy, before new channels, which are more at equal MACs",
         "right": "one copy, behind new channels, which are more at equal MACs",
         "zeros": "zeros in place of both copies", "new": "no copies, more new channels at equal MACs",
         "shuffled": "both copies, their pixels in another, fixed order: right values at wrong places"}
COPIES = {"left": 1, "right": 1, "new": 0}  # real copies that stay


class Ablated(AsymmetricalBottleneck):
    """A bottleneck whose copies are changed by one of `KINDS`, at the multiply-accumulates of the original."""

    def __init__(self, plan: BlockPlan, kind: str) -> None:
        super().__init__(_plan(plan, COPIES[kind]) if plan.copies and kind in COPIES else replace(plan, copies=0))
        self.kind = kind if plan.copies else None

    def beside(self, x: paddle.Tensor, y: paddle.Tensor) -> paddle.Tensor:
        """What the depthwise convolution sees: the expanded channels `y` and what stands for copies of `x`."""
        if self.kind == "zeros":
            x = paddle.zeros_like(x)
        if self.kind == "shuffled":
            size = x.shape[2] * x.shape[3]
            order = paddle.to_tensor(np.random.default_rng(size).permutation(size))
            x = x.flatten(2).index_select(order, axis=2).reshape(x.shape)
        parts = {"left": [x, y], "right": [y, x], "new": [y], None: [y]}
        return paddle.concat(parts.get(self.kind, [x, y, x]), axis=1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = x if self.expand is None else self.beside(x, self.expand(x))
        y = self.depthwise(y)
        y = self.project(self.se(y) if self.se is not None else y)
        return x + y if self.plan.shortcut else y


def _plan(plan, real):
    """A plan with `real` copies of the input and as many new channels as make the convolutions cost the same.

    Squeeze-and-excitation is left out of the account; at 64 px that makes up to 3 % of the network.
    """
    behind = (plan.kernel**2 + plan.out) / plan.stride**2  # per depthwise channel, for one pixel of the input
    spent = plan.c_in * plan.new + plan.depthwise * behind
    new = round((spent - real * plan.c_in * behind) / (plan.c_in + behind))
    return replace(plan, new=new, copies=0, depthwise=new + real * plan.c_in)


def ablated(kind: str, num_classes: int = 1000, width: float = 1.0, asymmrate: int = 1,
            dropout: float = 0.2) -> AsymmNet:
    """AsymmNet-Large at rate 1 with every block's copies changed: float32 `[N, 3, H, W]` -> `[N, num_classes]`.

    Raises `ValueError` for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    network = AsymmNet("large", num_classes, width, asymmrate, dropout)
    network.blocks = paddle.nn.LayerList([Ablated(block.plan, kind) for block in network.blocks])
    return network


@contextmanager
def registered() -> Iterator[None]:
    """Make the ablated networks known to `asymmlib.models.create_model` while the block runs, as ablation_left etc."""
    entries = {f"ablation_{kind}": Entry(lambda kind=kind, **more: ablated(kind, **more), f"copies: {kind}",
                                         scalable=True) for kind in KINDS}
    MODELS.update(entries)
    try:
        yield
    finally:
        for name in entries:
            del MODELS[name]
