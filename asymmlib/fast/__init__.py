"""Faster CPU kernels under a Paddle model: `accelerate(model)` and train or infer as before.

Paddle's CPU convolution is im2col and one small matrix product per channel, which suits depthwise layers badly, and
every layer writes what the next one reads again. `kernels.cc` holds direct depthwise kernels and dense convolutions as
matrix products of the oneDNN that Paddle ships, on channel-inner tensors; a network runs as one chain of them
(`asymmlib.fast.program`), in which batch norm and activation are applied by whoever reads. `accelerate` swaps the
`forward` of networks and of single layers (`asymmlib.fast.layers` knows which), and an optimiser's update; parameters,
their names, hooks and checkpoints stay. Whatever the kernels do not cover (no compiler, another platform, float64, a
GPU, static graphs) takes Paddle's own path. A chain is a `PyLayer`, to which Paddle grants less than to its own layers:
for second derivatives, `paddle.grad` by some inputs only, or two backward passes through one graph (`retain_graph`; the
process ends at the second) `restore` the network first. Threads are OpenMP's: set `OMP_NUM_THREADS` to the number of
cores before Paddle is imported.
"""
import functools
import types
from typing import TypeVar

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.vision import models
from paddle.vision.models import mobilenetv2, mobilenetv3, resnet

from asymmlib.fast.kernels import Block, Stage, library, run_chain, say_once, suits
from asymmlib.fast.layers import is_mean, run, run_alone
from asymmlib.fast.native import give_signals_a_stack, tune_malloc
from asymmlib.fast.optimizer import fuse, release_gradients, unfuse
from asymmlib.network import AsymmetricalBottleneck, AsymmNet, ConvBNAct

__all__ = ["accelerate", "is_accelerated", "restore"]

Model = TypeVar("Model", nn.Layer, paddle.Model)


def accelerate(model: Model, enabled: bool = True, optimizer: paddle.optimizer.Optimizer | None = None) -> Model:
    """Put the fast kernels under a `paddle.nn.Layer` (or `paddle.Model`), in place, and return it.

    Results equal Paddle's up to rounding; those of an `optimizer` (a model's own, or the one given) to the bit. Cleared
    gradients are gone, not zero. `enabled=False` is `restore(model)`. Where the kernels cannot be had, a
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
        if is_accelerated(model):
            network = _layers(model)[0]
            network.clear_gradients = types.MethodType(_clear_gradients, network)
            for used in (optimizer, getattr(model, "_optimizer", None)):
                fuse(used)
    return model


def restore(model: Model) -> Model:
    """Undo `accelerate`; return the model. Do this before exporting it as a static graph."""
    for layer in filter(_swapped, _layers(model)):
        del layer.forward
    vars(_layers(model)[0]).pop("clear_gradients", None)
    if getattr(model, "_optimizer", None) is not None:
        unfuse(model._optimizer)
    return model


def is_accelerated(model: nn.Layer | paddle.Model) -> bool:
    """Whether any layer of a model runs on the fast kernels."""
    return any(map(_swapped, _layers(model)))


def _clear_gradients(self):
    release_gradients(self.parameters())


def _swapped(layer):
    return getattr(vars(layer).get("forward"), "__func__", None) in _FORWARDS.values()


def _layers(model):
    network = model.network if isinstance(model, paddle.Model) else model
    if not isinstance(network, nn.Layer):
        raise TypeError(f"accelerate needs a paddle.nn.Layer or a paddle.Model, got {type(model).__name__}")
    return network.sublayers(include_self=True)


# What `forward` becomes. Networks run from end to end, as far as the kernels know them; a layer by itself falls back on
# the method of its class.
def _alone(kind):
    def forward(self, x):
        y = run_alone(x, self)
        return kind.forward(self, x) if y is None else y
    return forward


def _sequence(self, x):
    return run(x, *self._sub_layers.values())


def _asymmnet(self, x):
    x = run(x, self.stem, *self.blocks, self.head, self.pool)
    return self.classifier(self.dropout(F.hardswish(self.features(x)).flatten(1)))


def _mobilenet_v2(self, x):
    x = run(x, self.features, *([self.pool2d_avg] if self.with_pool else []))
    return self.classifier(x.flatten(1)) if self.num_classes > 0 else x


def _mobilenet_v3(self, x):
    x = run(x, self.conv, self.blocks, self.lastconv, *([self.avgpool] if self.with_pool else []))
    return self.classifier(x.flatten(1)) if self.num_classes > 0 else x


def _resnet(self, x):
    x = run(x, self.conv1, self.bn1, self.relu, self.maxpool, self.layer1, self.layer2, self.layer3, self.layer4)
    x = self.avgpool(x) if self.with_pool else x
    return self.fc(x.flatten(1)) if self.num_classes > 0 else x


def _resnet_block(self, x):
    y = run_alone(x, self)
    if y is not None:
        return y
    y = run(x, self.conv1, self.bn1, self.relu, self.conv2, self.bn2, self.relu, self.conv3, self.bn3)
    return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def _average(self, x):
    if not is_mean(self) or not suits(x):
        return nn.AdaptiveAvgPool2D.forward(self, x)
    area = x.shape[2] * x.shape[3]  # the mean as a matrix product, which has more threads than Paddle's pooling
    return paddle.matmul(x.reshape([-1, area]), paddle.full([area, 1], 1 / area)).reshape([*x.shape[:2], 1, 1])


_FORWARDS = {
    nn.Sequential.forward: _sequence, nn.AdaptiveAvgPool2D.forward: _average, AsymmNet.forward: _asymmnet,
    resnet.BottleneckBlock.forward: _resnet_block, models.MobileNetV2.forward: _mobilenet_v2,
    models.MobileNetV3Large.forward: _mobilenet_v3, models.ResNet.forward: _resnet,
    **{kind.forward: _alone(kind) for kind in (
        nn.Conv2D, ConvBNAct, AsymmetricalBottleneck, mobilenetv2.InvertedResidual, mobilenetv3.InvertedResidual)},
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
            for y in run_chain(x, [Block((Stage(conv, bn, "relu"),))]), F.relu(bn(conv(x))):
                results.append([y, *paddle.grad((y * y).sum(), [x, conv.weight, bn.weight, bn.bias])])
            if not all(np.allclose(ours, theirs, rtol=1e-3, atol=1e-3) for ours, theirs in zip(*results, strict=True)):
                say_once("the compiled kernels give wrong results on this machine")
                return False
    return True
