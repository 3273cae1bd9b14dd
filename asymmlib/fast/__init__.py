"""Faster CPU kernels under a Paddle model: `accelerate(model)` and train or infer as before.

Paddle's CPU convolution is im2col and one small matrix product per channel, which suits depthwise layers badly, and
every layer writes what the next one reads again. `kernels.cc` holds direct depthwise kernels and pointwise
convolutions as matrix products of the oneDNN that Paddle ships; a bottleneck runs as one chain of them, in which batch
norm and activation are applied by whoever reads (`asymmlib.fast.kernels`). `accelerate` swaps the `forward` of single
layers; parameters, their names, hooks and checkpoints stay. Whatever the kernels do not cover (no compiler, another
platform, float64, a GPU, static graphs, second derivatives) takes Paddle's own path. Threads are OpenMP's: set
`OMP_NUM_THREADS` to the number of cores before Paddle is imported.
"""
import functools
import types
from typing import TypeVar

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from asymmlib.fast.kernels import ACTIVATIONS, Stage, covers, library, run_chain, say_once, suits
from asymmlib.fast.native import give_signals_a_stack, tune_malloc
from asymmlib.network import AsymmetricalBottleneck, ConvBNAct, SqueezeExcitation

__all__ = ["accelerate", "is_accelerated", "restore"]

Model = TypeVar("Model", nn.Layer, paddle.Model)


def accelerate(model: Model, enabled: bool = True) -> Model:
    """Put the fast kernels under a `paddle.nn.Layer` (or `paddle.Model`), in place, and return it.

    Results equal Paddle's up to rounding. `enabled=False` is `restore(model)`. Where the kernels cannot be had, a
    warning says why, once, and the model stays as it was. Raises `TypeError` for anything but a model.
    """
    restore(model)
    if enabled:
        tune_malloc()
        give_signals_a_stack()
        for layer in _layers(model) if _ready() else ():
            forward = _FORWARDS.get(type(layer).forward)
            if forward and "forward" not in vars(layer):
                layer.forward = types.MethodType(forward, layer)  # a method of the copy after copy.deepcopy
    return model


def restore(model: Model) -> Model:
    """Undo `accelerate`; return the model. Do this before exporting it as a static graph."""
    for layer in filter(_swapped, _layers(model)):
        del layer.forward
    return model


def is_accelerated(model: nn.Layer | paddle.Model) -> bool:
    """Whether any layer of a model runs on the fast kernels."""
    return any(map(_swapped, _layers(model)))


def _swapped(layer):
    return getattr(vars(layer).get("forward"), "__func__", None) in _FORWARDS.values()


def _layers(model):
    network = model.network if isinstance(model, paddle.Model) else model
    if not isinstance(network, nn.Layer):
        raise TypeError(f"accelerate needs a paddle.nn.Layer or a paddle.Model, got {type(model).__name__}")
    return network.sublayers(include_self=True)


# What `forward` becomes. Each falls back on the method of its class.
def _conv2d(self, x):
    stages = [Stage(self)]
    return run_chain(x, stages) if covers(stages, x) else nn.Conv2D.forward(self, x)


def _conv_bn_act(self, x):
    stages = [Stage(self.conv, self.bn, self.activation)]
    known = _transparent(self.conv, self.bn) and covers(stages, x)
    return run_chain(x, stages) if known else ConvBNAct.forward(self, x)


def _sequence(self, x):
    layers = list(self._sub_layers.values())
    while layers:
        conv, bn, act = [*layers, None, None][:3]
        stages, used = [], 1
        if type(bn) is nn.BatchNorm2D and type(conv) is nn.Conv2D and _transparent(conv, bn):
            activation = type(act) if type(act) in ACTIVATIONS and _transparent(act) else None
            stages, used = [Stage(conv, bn, activation)], 3 if activation else 2
        known = stages and covers(stages, x)
        x, layers = (run_chain(x, stages), layers[used:]) if known else (conv(x), layers[1:])
    return x


def _bottleneck(self, x):
    stages, se, raw = _stages(self), self.se, {}
    if not stages or not covers(stages, x):
        return AsymmetricalBottleneck.forward(self, x)
    more = {"residual": x} if self.plan.shortcut else {}
    if se is None:
        return run_chain(x, stages, **more)
    y, means = run_chain(x, stages[:-1], pooled=raw)
    factor = F.hardsigmoid(se.restore(F.relu(se.reduce(means))))
    return run_chain(y, stages[-1:], raw=raw, factor=factor.astype(x.dtype), **more)


def _stages(block):
    """The stages of a bottleneck; none where a part was exchanged or has a hook, which a chain would pass by."""
    parts = [part for part in (block.expand, block.depthwise, block.project) if part is not None]
    own = all(type(part) is ConvBNAct for part in parts) and type(block.se) in (type(None), SqueezeExcitation)
    if not own or not _transparent(*block.sublayers()):
        return []
    return [Stage(part.conv, part.bn, part.activation, block.plan.copies if part is block.depthwise else 0)
            for part in parts]


def _average(self, x):
    if self._output_size not in (1, [1, 1], (1, 1)) or self._data_format != "NCHW" or not suits(x):
        return nn.AdaptiveAvgPool2D.forward(self, x)
    area = x.shape[2] * x.shape[3]  # the mean as a matrix product, which has more threads than Paddle's pooling
    return paddle.matmul(x.reshape([-1, area]), paddle.full([area, 1], 1 / area)).reshape([*x.shape[:2], 1, 1])


def _transparent(*layers):
    """Whether nobody would notice that these layers are not called: they have no hooks."""
    return not any(layer._forward_pre_hooks or layer._forward_post_hooks for layer in layers)


_FORWARDS = {
    nn.Conv2D.forward: _conv2d, nn.Sequential.forward: _sequence, nn.AdaptiveAvgPool2D.forward: _average,
    ConvBNAct.forward: _conv_bn_act, AsymmetricalBottleneck.forward: _bottleneck,
}


@functools.cache
def _ready():
    """Whether the kernels are there and give what Paddle gives (they would not with a faulty compiler)."""
    if library() is None:
        return False
    x = paddle.to_tensor(np.sin(np.arange(1296, dtype="float32")).reshape(2, 8, 9, 9), stop_gradient=False)
    with paddle.utils.unique_name.guard(), paddle.enable_grad():  # leaves later names and the random state alone
        for kernel, stride, groups in ((1, 1, 1), (3, 2, 8), (5, 1, 8)):
            weight = np.cos(np.arange(64 // groups * kernel**2, dtype="float32")).reshape(8, -1, kernel, kernel)
            conv = nn.Conv2D(8, 8, kernel, stride, kernel // 2, groups=groups, bias_attr=False,
                             weight_attr=nn.initializer.Assign(weight))
            bn, results = nn.BatchNorm2D(8), []
            for y in run_chain(x, [Stage(conv, bn, "relu")]), F.relu(bn(conv(x))):
                results.append([y, *paddle.grad((y * y).sum(), [x, conv.weight, bn.weight, bn.bias])])
            if not all(np.allclose(ours, theirs, rtol=1e-3, atol=1e-3) for ours, theirs in zip(*results, strict=True)):
                say_once("the compiled kernels give wrong results on this machine")
                return False
    return True
