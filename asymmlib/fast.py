"""Faster CPU kernels under a Paddle model: `accelerate(model)` and train or infer as before.

Paddle's CPU convolution is im2col and one small matrix product per channel, which suits depthwise layers badly.
`kernels.cc` beside this file holds direct depthwise kernels, batch norm fused with convolution and activation, and
pointwise convolutions as matrix products of the oneDNN that Paddle ships. It is compiled once per machine, with the
compiler found there, into the folder `ASYMMLIB_CACHE` or the user's cache. `accelerate` swaps the `forward` of single
layers; parameters, their names, hooks and checkpoints stay. Whatever the kernels do not cover (no compiler, another
platform, float64, a GPU, static graphs, second derivatives) takes Paddle's own path.

Threads are OpenMP's: set `OMP_NUM_THREADS` to the number of cores before Paddle is imported; it cannot be set later.
"""
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import types
import warnings
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer
from paddle.vision.models import mobilenetv3

from asymmlib.network import AsymmetricalBottleneck, ConvBNAct, SqueezeExcitation

__all__ = ["accelerate", "is_accelerated", "restore", "tune_process"]

SOURCE = Path(__file__).with_name("kernels.cc")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")
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
        tune_process()
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


def tune_process():
    """Make glibc's malloc keep freed memory instead of handing it back and faulting it in anew for every tensor.

    Returns whether that was possible (it is with glibc). The process holds on to its peak memory from then on.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # names in malloc.h
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1) and mallopt(top_pad, 64 << 20))


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
        if platform.system() != "Linux" or platform.machine() != "x86_64":
            raise OSError(f"the kernels are for Linux on x86-64, this is {platform.system()} on {platform.machine()}")
        return ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.CalledProcessError) as error:
        _say_once(f"no fast kernels here ({error})")


def _compiled():
    """Path of the compiled library: out of the cache, or new where it is missing or damaged."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "g++"), "c++", "clang++"))), None)
    libs = Path(paddle.__file__).parent / "libs"
    links = [str(path) for name in ("libiomp5.so*", "libdnnl.so*") for path in sorted(libs.glob(name))[:1]]
    if compiler is None or len(links) < 2:
        raise OSError("no C++ compiler found" if compiler is None else f"no libiomp5 and libdnnl in {libs}")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    parts = (SOURCE.read_text(), *FLAGS, version, cpu, paddle.__version__, *links)
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("ASYMMLIB_CACHE") or
                 Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asymmlib")
    for path in cache.glob(f"kernels-{key}-*.so"):
        if path.name.endswith(f"-{_digest(path)}.so"):  # whole: loading half a library would kill the process
            return path
        path.unlink(missing_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        built = Path(folder, "kernels.o"), Path(folder, "kernels.so")
        for command in ([compiler, *FLAGS, "-c", str(SOURCE), "-o", str(built[0])],
                        [compiler, "-shared", str(built[0]), "-o", str(built[1]), *links, f"-Wl,-rpath,{libs}"]):
            subprocess.run(command, capture_output=True, check=True)
        path = cache / f"kernels-{key}-{_digest(built[1])}.so"
        os.replace(built[1], path)
    return path


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _pointers(tensors):
    return (ctypes.c_void_p * len(FIELDS))(*(None if tensors.get(name) is None else tensors[name].data_ptr()
                                             for name in FIELDS))


class _Convolution(PyLayer):
    """Convolution, batch norm and activation; `inputs` are those of `FIELDS[:5]` that `names` says."""

    @staticmethod
    def forward(ctx, call, names, keep, *inputs):
        t = dict(zip(names, inputs, strict=True), **call.running)
        t["z"] = paddle.empty(call.shape)
        t["y"] = paddle.empty(call.shape) if keep and call.normalised else t["z"]
        t["mean"], t["scale"] = paddle.empty(call.shape[1:2]), paddle.empty(call.shape[1:2])
        call.library.convolve(call.numbers, _pointers(t), *call.constants, call.depthwise)
        if keep:
            ctx.call, ctx.names = call, names
            ctx.save_for_backward(*inputs, t["mean"], t["scale"], t["y"] if call.normalised else t["mean"])
        return t["z"]

    @staticmethod
    def backward(ctx, gz):
        *inputs, mean, scale, y = ctx.saved_tensor()
        t = dict(zip(ctx.names, inputs, strict=True), mean=mean, scale=scale, gz=gz.contiguous())
        t["y"] = y if ctx.call.normalised else t["gz"]  # without batch norm only its address is needed
        gradients = [None if tensor.stop_gradient else paddle.empty_like(tensor) for tensor in inputs]
        t.update(zip((f"g{name}" for name in ctx.names), gradients, strict=True))
        ctx.call.library.convolve_gradient(ctx.call.numbers, _pointers(t), ctx.call.depthwise)
        return tuple(gradients)


class _Pool(PyLayer):
    """Mean of each plane: `[N, C, H, W]` -> `[N, C, 1, 1]`."""

    @staticmethod
    def forward(ctx, x):
        y = paddle.empty([*x.shape[:2], 1, 1])
        _library().pool(*_planes(x), _pointer(y))
        ctx.shape = x.shape
        return y

    @staticmethod
    def backward(ctx, gy):
        gx, gy = paddle.empty(ctx.shape), gy.contiguous()
        _library().pool_gradient(_pointer(gy), *_planes(gx)[1:], _pointer(gx))
        return gx


class _Scale(PyLayer):
    """Each plane times its own factor: `[N, C, H, W]`, `[N, C, 1, 1]` -> `[N, C, H, W]`."""

    @staticmethod
    def forward(ctx, x, factor):
        y = paddle.empty_like(x)
        _library().scale(_pointer(x), _pointer(factor), *_planes(x)[1:], _pointer(y))
        ctx.save_for_backward(x, factor)
        return y

    @staticmethod
    def backward(ctx, gy):
        x, factor = ctx.saved_tensor()
        gx, gfactor, gy = paddle.empty_like(x), paddle.empty_like(factor), gy.contiguous()
        _library().scale_gradient(*map(_pointer, (x, factor, gy)), *_planes(x)[1:], _pointer(gx), _pointer(gfactor))
        return tuple(None if t.stop_gradient else g for t, g in ((x, gx), (factor, gfactor)))


def _pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def _planes(x):
    return _pointer(x), ctypes.c_int64(x.shape[0] * x.shape[1]), ctypes.c_int64(x.shape[2] * x.shape[3])


def _suits(*tensors):
    """Whether the kernels can read these: float32 on the CPU, dynamic graph, [N, C, H, W] and not empty."""
    if not paddle.in_dynamic_mode():
        return False
    for x in tensors:
        if x.dtype != paddle.float32 or not x.place.is_cpu_place() or x.ndim != 4 or not x.size:
            _say_once(f"a tensor {x.shape} of {x.dtype} on {x.place} is not a picture batch in float32 on the CPU")
            return False
    return True


class _Call:
    """One convolution, as the kernels are told of it."""

    def __init__(self, x, side, copies, conv, bn, activation):
        n, c, h, w = x.shape
        kernel, stride = conv._kernel_size[0], conv._stride[0]
        norm = PLAIN if bn is None else BATCH if bn.training else RUNNING
        self.library, self.depthwise, self.normalised = _library(), int(conv._groups > 1), bn is not None
        self.numbers = (ctypes.c_int64 * 11)(n, c, h, w, side.shape[1] if side is not None else 0, copies,
                                             conv._out_channels, kernel, stride, ACTIVATIONS[activation], norm)
        self.shape = [n, conv._out_channels, (h - 1) // stride + 1, (w - 1) // stride + 1]
        self.running = {"running_mean": bn._mean, "running_var": bn._variance} if bn is not None else {}
        constants = (bn._epsilon, bn._momentum) if bn is not None else (0, 0)
        self.constants = [ctypes.c_double(value) for value in constants]


def _eligible(conv, bn, x):
    kernel, stride, channels = conv._kernel_size[0], conv._stride[0], conv._in_channels
    if conv._groups == 1:
        known = x.stop_gradient or kernel == stride == 1  # the gradient of a dense K x K layer's input is Paddle's
    else:
        known = conv._groups == channels == conv._out_channels and kernel in (3, 5) and stride in (1, 2)
    plain = (conv._kernel_size == [kernel] * 2 and conv._stride == [stride] * 2 and conv._dilation == [1, 1]
             and conv._padding in (kernel // 2, [kernel // 2] * 2) and kernel % 2 and conv._padding_mode == "zeros"
             and conv._data_format == "NCHW")
    return known and plain and (bn is None or conv.bias is None and bn._use_global_stats is None
                                and bn.weight is not None and bn.bias is not None and bn._data_format == "NCHW")


def _convolve(x, conv, bn=None, activation=None, side=None, copies=0):
    """Convolution, batch norm and activation by the kernels; None where they do not apply."""
    inputs = [x] if side is None else [x, side]
    if not _eligible(conv, bn, x) or not _suits(*inputs, conv.weight):
        return None
    if bn is not None and bn.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
        return None  # Paddle leaves out batch norm over a single number
    if x.shape[1] + 2 * copies * (side.shape[1] if side is not None else 0) != conv._in_channels:
        return None
    weights = (conv.weight, conv.bias) if bn is None else (conv.weight, bn.weight, bn.bias)
    names = ("w", "beta") if bn is None else ("w", "gamma", "beta")
    given = {name: tensor.contiguous() for name, tensor in zip(("x", "side") + names, (x, side) + weights, strict=True)
             if tensor is not None}
    keep = paddle.is_grad_enabled() and not all(tensor.stop_gradient for tensor in given.values())
    return _Convolution.apply(_Call(x, side, copies, conv, bn, activation), tuple(given), keep, *given.values())


# What `forward` becomes. Each falls back on the method of its class.
def _conv2d(self, x):
    y = _convolve(x, self)
    return nn.Conv2D.forward(self, x) if y is None else y


def _conv_bn_act(self, x, side=None, copies=0):
    y = None
    if not _hooked(self.conv, self.bn):
        y = _convolve(x, self.conv, self.bn, self.activation, side, copies)
    if y is None:
        x = x if side is None else paddle.concat([side] * copies + [x] + [side] * copies, axis=1)
        y = ConvBNAct.forward(self, x)
    return y


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
    if isinstance(self, mobilenetv3.SqueezeExcitation):
        return _Scale.apply(x.contiguous(), self._scale(x))
    return _Scale.apply(x.contiguous(), F.hardsigmoid(self.restore(F.relu(self.reduce(self.pool(x))))))


def _average(self, x):
    ones = self._output_size in (1, [1, 1], (1, 1)) and self._data_format == "NCHW"
    return _Pool.apply(x.contiguous()) if ones and _suits(x) else nn.AdaptiveAvgPool2D.forward(self, x)


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
    with paddle.utils.unique_name.guard(), paddle.enable_grad():  # leaves later names and the random state alone
        for kernel, stride, groups in ((1, 1, 1), (3, 2, 8), (5, 1, 8)):
            weight = np.cos(np.arange(64 // groups * kernel**2, dtype="float32")).reshape(8, -1, kernel, kernel)
            conv = nn.Conv2D(8, 8, kernel, stride, kernel // 2, groups=groups, bias_attr=False,
                             weight_attr=nn.initializer.Assign(weight))
            x = paddle.to_tensor(np.sin(np.arange(1296, dtype="float32")).reshape(2, 8, 9, 9), stop_gradient=False)
            bn, results = nn.BatchNorm2D(8), []
            for run in (lambda: _convolve(x, conv, bn, "relu"), lambda: F.relu(bn(conv(x)))):  # noqa: B023
                y = run()
                (y * y).sum().backward()
                results.append([tensor.numpy() for tensor in (y, x.grad, conv.weight.grad)])
                x.clear_grad(), conv.weight.clear_grad()
            if not all(np.allclose(*pair, rtol=1e-3, atol=1e-3) for pair in zip(*results, strict=True)):
                _say_once("the compiled kernels give wrong results on this machine")
                return False
    return True
