"""Faster CPU kernels under a Paddle model: `accelerate(model)` and train or infer as before.

Paddle's CPU convolution is im2col and one small matrix product per channel, which suits depthwise layers badly.
`kernels.cc` holds direct depthwise kernels, batch norm fused with convolution and activation, and pointwise
convolutions as matrix products of the oneDNN that Paddle ships; `asymmlib.native` compiles it once per machine.
`accelerate` swaps the `forward` of single layers; parameters, their names, hooks and checkpoints stay. Whatever the
kernels do not cover (no compiler, another platform, float64, a GPU, static graphs, second derivatives) takes Paddle's
own path. Threads are OpenMP's: set `OMP_NUM_THREADS` to the number of cores before Paddle is imported.
"""
import ctypes
import functools
import subprocess
import types
import warnings
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer
from paddle.vision.models import mobilenetv3

from asymmlib.native import load_library, tune_malloc
from asymmlib.network import AsymmetricalBottleneck, ConvBNAct, SqueezeExcitation

__all__ = ["accelerate", "is_accelerated", "restore"]

# fields of struct Tensors in kernels.cc; the first five are what gradients are made for
FIELDS = ("x", "side", "w", "gamma", "beta", "running_mean", "running_var", "mean", "scale", "y", "z",
          "gz", "gx", "gside", "gw", "ggamma", "gbeta")
PLAIN, RUNNING, BATCH = range(3)
ACTIVATIONS = {None: 0, "relu": 1, "hardswish": 3, nn.ReLU: 1, nn.ReLU6: 2, nn.Hardswish: 3}


def accelerate(model, enabled=True):
    """Put the fast kernels under a `paddle.nn.Layer` (or `paddle.Model`), in place, and return it.

    Results equal Paddle's up to rounding. `enabled=False` is `restore(model)`. Where the kernels cannot be had, a
    warning says why, once, and the model stays as it was. Raises `TypeError` for anything but a model.
    """
    restore(model)
    if enabled:
        tune_malloc()
        for layer in _layers(model) if _ready() else ():
            forward = _FORWARDS.get(type(layer).forward)
            if forward and "forward" not in vars(layer):
                layer.forward = types.MethodType(forward, layer)  # a method of the copy after copy.deepcopy
    return model


def restore(model):
    """Undo `accelerate`; return the model. Do this before exporting it as a static graph."""
    for layer in filter(_swapped, _layers(model)):
        del layer.forward
    return model


def is_accelerated(model):
    """Whether any layer of a model runs on the fast kernels."""
    return any(map(_swapped, _layers(model)))


def _swapped(layer):
    return getattr(vars(layer).get("forward"), "__func__", None) in _FORWARDS.values()


def _layers(model):
    network = model.network if isinstance(model, paddle.Model) else model
    if not isinstance(network, nn.Layer):
        raise TypeError(f"accelerate needs a paddle.nn.Layer or a paddle.Model, got {type(model).__name__}")
    return network.sublayers(include_self=True)


@functools.cache
def _say_once(text):
    warnings.warn(f"asymmlib.fast: {text}; Paddle's own kernels are used instead, which is only slower", stacklevel=3)


@functools.cache
def _library():
    """The compiled kernels, or None where they cannot be had, which is said once."""
    try:
        return load_library(Path(__file__).with_name("kernels.cc"), Path(paddle.__file__).parent / "libs",
                            ("libiomp5", "libdnnl"))
    except (OSError, subprocess.CalledProcessError) as error:
        _say_once(f"no fast kernels here ({error})")


def _run(function, layer, tensors, *constants):
    """Call a kernel with structs Layer (integers) and Tensors ({field: tensor or None}) and constants (floats)."""
    pointers = [None if tensors.get(name) is None else tensors[name].data_ptr() for name in FIELDS]
    getattr(_library(), function)((ctypes.c_int64 * len(layer))(*layer), (ctypes.c_void_p * len(FIELDS))(*pointers),
                                  *map(ctypes.c_double, constants))


class _Convolution(PyLayer):
    """Convolution, batch norm and activation; `inputs` are those of `FIELDS[:5]` that `names` says."""

    @staticmethod
    def forward(ctx, layer, names, bn, differentiate, *inputs):
        n, _, h, w, *_, out, _, stride, _, norm, _ = layer
        shape = [n, out, (h - 1) // stride + 1, (w - 1) // stride + 1]
        t = dict(zip(names, inputs, strict=True), z=paddle.empty(shape), mean=paddle.empty([out]),
                 scale=paddle.empty([out]))
        t["y"] = paddle.empty(shape) if differentiate and norm else t["z"]
        if norm:
            t.update(running_mean=bn._mean, running_var=bn._variance)
        _run("forward", layer, t, bn._epsilon if norm else 0, bn._momentum if norm else 0)
        ctx.layer, ctx.names = layer, names
        ctx.save_for_backward(*inputs, t["mean"], t["scale"], t["y"] if norm else t["mean"])
        return t["z"]

    @staticmethod
    def backward(ctx, gz):
        *inputs, mean, scale, y = ctx.saved_tensor()
        gradients = [None if tensor.stop_gradient else paddle.empty_like(tensor) for tensor in inputs]
        t = dict(zip(ctx.names, inputs, strict=True), mean=mean, scale=scale, gz=gz.contiguous())
        t["y"] = y if ctx.layer[-2] else t["gz"]  # without batch norm only its address is needed
        _run("backward", ctx.layer, t | {f"g{name}": g for name, g in zip(ctx.names, gradients, strict=True)})
        return tuple(gradients)


def _suits(*tensors):
    """Whether the kernels can read these: float32 on the CPU, dynamic graph, [N, C, H, W] and not empty."""
    for x in tensors if paddle.in_dynamic_mode() else ():
        if x.dtype != paddle.float32 or not x.place.is_cpu_place() or x.ndim != 4 or not x.size:
            _say_once(f"a tensor {x.shape} of {x.dtype} on {x.place} is not a picture batch in float32 on the CPU")
            return False
    return paddle.in_dynamic_mode()


def _covered(conv, bn, x, channels):
    """Whether the kernels know this layer: square, padded by half the kernel, and depthwise or dense."""
    kernel, stride = conv._kernel_size[0], conv._stride[0]
    if conv._groups == 1:
        known = x.stop_gradient or kernel == stride == 1  # the gradient of a dense K x K layer's input is Paddle's
    else:
        known = conv._groups == conv._in_channels == conv._out_channels and kernel in (3, 5) and stride in (1, 2)
    if bn is not None:
        known &= conv.bias is None and bn._use_global_stats is None and bn._data_format == "NCHW"
        known &= bn.weight is not None and bn.bias is not None
        known &= not bn.training or x.size > x.shape[1]  # Paddle leaves out batch norm over a single number
    return (known and channels == conv._in_channels and kernel % 2 and conv._kernel_size == [kernel] * 2
            and conv._stride == [stride] * 2 and conv._padding in (kernel // 2, [kernel // 2] * 2)
            and conv._dilation == [1, 1] and conv._padding_mode == "zeros" and conv._data_format == "NCHW")


def _convolve(x, conv, bn=None, activation=None, side=None, copies=0):
    """Convolution, batch norm and activation by the kernels; None where they do not apply."""
    width = side.shape[1] if side is not None else 0
    if not _suits(*(tensor for tensor in (x, side, conv.weight) if tensor is not None)) \
            or not _covered(conv, bn, x, x.shape[1] + 2 * copies * width):
        return None
    layer = (*x.shape, width, copies, conv._out_channels, conv._kernel_size[0], conv._stride[0],
             ACTIVATIONS[activation], PLAIN if bn is None else BATCH if bn.training else RUNNING, conv._groups > 1)
    bias = {"beta": conv.bias} if bn is None else {"gamma": bn.weight, "beta": bn.bias}
    inputs = {"x": x, "side": side, "w": conv.weight, **bias}
    inputs = {name: tensor.contiguous() for name, tensor in inputs.items() if tensor is not None}
    differentiate = paddle.is_grad_enabled() and not all(tensor.stop_gradient for tensor in inputs.values())
    return _Convolution.apply(layer, tuple(inputs), bn, differentiate, *inputs.values())


# What `forward` becomes. Each falls back on the method of its class.
def _conv2d(self, x):
    y = _convolve(x, self)
    return nn.Conv2D.forward(self, x) if y is None else y


def _conv_bn_act(self, x, side=None, copies=0):
    hooked = _hooked(self.conv, self.bn)
    y = None if hooked else _convolve(x, self.conv, self.bn, self.activation, side, copies)
    if y is not None:
        return y
    return ConvBNAct.forward(self, x if side is None else paddle.concat([side] * copies + [x] + [side] * copies, 1))


def _sequence(self, x):
    layers = list(self._sub_layers.values())
    while layers:
        conv, bn, act = (layers + [None, None])[:3]
        y, used = None, 1
        if type(conv) is nn.Conv2D and type(bn) is nn.BatchNorm2D and not _hooked(conv, bn):
            activation = type(act) if type(act) in ACTIVATIONS and not _hooked(act) else None
            y, used = _convolve(x, conv, bn, activation), 3 if activation else 2
        x, layers = (conv(x), layers[1:]) if y is None else (y, layers[used:])
    return x


def _bottleneck(self, x):
    if not self.plan.copies or not _suits(x):
        return AsymmetricalBottleneck.forward(self, x)
    y = self.depthwise(self.expand(x), x, self.plan.copies)
    y = self.project(y if self.se is None else self.se(y))
    return x + y if self.plan.shortcut else y


def _excite(self, x):
    if not _suits(x):
        return type(self).forward(self, x)
    own = isinstance(self, SqueezeExcitation)
    factor = F.hardsigmoid(self.restore(F.relu(self.reduce(self.pool(x))))) if own else self._scale(x)
    planes = x.shape[0] * x.shape[1]  # each times its factor: a depthwise convolution of 1 x 1 pixels
    layer = (1, planes, *x.shape[2:], 0, 0, planes, 1, 1, ACTIVATIONS[None], PLAIN, True)
    return _Convolution.apply(layer, ("x", "w"), None, True, x.contiguous(), factor).reshape(x.shape)


def _average(self, x):
    if self._output_size not in (1, [1, 1], (1, 1)) or self._data_format != "NCHW" or not _suits(x):
        return nn.AdaptiveAvgPool2D.forward(self, x)
    area = x.shape[2] * x.shape[3]  # the mean as a matrix product, which has more threads than Paddle's pooling
    return paddle.matmul(x.reshape([-1, area]), paddle.full([area, 1], 1 / area)).reshape([*x.shape[:2], 1, 1])


def _hooked(*layers):
    return any(layer._forward_pre_hooks or layer._forward_post_hooks for layer in layers)


_FORWARDS = {
    nn.Conv2D.forward: _conv2d, nn.Sequential.forward: _sequence, nn.AdaptiveAvgPool2D.forward: _average,
    ConvBNAct.forward: _conv_bn_act, AsymmetricalBottleneck.forward: _bottleneck,
    SqueezeExcitation.forward: _excite, mobilenetv3.SqueezeExcitation.forward: _excite,
}


@functools.cache
def _ready():
    """Whether the kernels are there and give what Paddle gives (they would not with a faulty compiler)."""
    if _library() is None:
        return False
    x = paddle.to_tensor(np.sin(np.arange(1296, dtype="float32")).reshape(2, 8, 9, 9), stop_gradient=False)
    with paddle.utils.unique_name.guard(), paddle.enable_grad():  # leaves later names and the random state alone
        for kernel, stride, groups in ((1, 1, 1), (3, 2, 8), (5, 1, 8)):
            weight = np.cos(np.arange(64 // groups * kernel**2, dtype="float32")).reshape(8, -1, kernel, kernel)
            conv = nn.Conv2D(8, 8, kernel, stride, kernel // 2, groups=groups, bias_attr=False,
                             weight_attr=nn.initializer.Assign(weight))
            bn, results = nn.BatchNorm2D(8), []
            for y in _convolve(x, conv, bn, "relu"), F.relu(bn(conv(x))):
                results.append([y, *paddle.grad((y * y).sum(), [x, conv.weight, bn.weight, bn.bias])])
            if not all(np.allclose(ours, theirs, rtol=1e-3, atol=1e-3) for ours, theirs in zip(*results, strict=True)):
                _say_once("the compiled kernels give wrong results on this machine")
                return False
    return True
