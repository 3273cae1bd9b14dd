"""What `kernels.cc` can do, called on Paddle's tensors: chains of convolutions as one differentiable operation.

`covers` says whether the kernels know some layers and their input (another dtype or device, a static graph, an unusual
layer: they do not); then `run_chain` runs them. `library` compiles the kernels once per machine.
"""
import ctypes
import functools
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import paddle
from paddle import nn
from paddle.autograd import PyLayer

from asymmlib.fast.native import load_library

__all__ = ["ACTIVATIONS", "Stage", "covers", "library", "run_chain", "say_once", "suits"]

# the fields of the structs Layer and Tensors in kernels.cc, in their order; `_check_structs` compares the sizes
LAYER = ("n", "c", "h", "w", "side", "copies", "out", "kernel", "stride", "activation", "norm", "depthwise", "raw",
         "in_activation", "known", "accumulate")
TENSORS = ("x", "side_x", "weight", "in_gamma", "in_beta", "in_mean", "in_scale", "gamma", "beta", "mean", "scale",
           "running_mean", "running_var", "factor", "residual", "y", "z", "pool", "gz", "gpool", "base",
           "gx", "gside", "gweight", "ggamma", "gbeta", "gfactor", "in_ggamma", "in_gbeta")
PARAMETERS = ("weight", "gamma", "beta")  # in TENSORS; g...: their gradients
FINISH = ("gamma", "beta", "mean", "scale")  # what a raw output lacks
PLAIN, RUNNING, BATCH = range(3)
ACTIVATIONS = {None: 0, "relu": 1, "hardswish": 3, nn.ReLU: 1, nn.ReLU6: 2, nn.Hardswish: 3}


@functools.cache
def say_once(text: str) -> None:
    """Warn that Paddle's own kernels are used, and why; the same reason is given once."""
    warnings.warn(f"asymmlib.fast: {text}; Paddle's own kernels are used instead, which is only slower", stacklevel=3)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be had, which is said once."""
    try:
        loaded = load_library(Path(__file__).with_name("kernels.cc"), Path(paddle.__file__).parent / "libs",
                              ("libiomp5", "libdnnl"))
        _check_structs(loaded)
        return loaded
    except (OSError, subprocess.CalledProcessError) as error:
        say_once(f"no fast kernels here ({error})")
        return None


def _check_structs(loaded):
    """Raise `OSError` where the structs in C++ have not as many fields as `LAYER` and `TENSORS`."""
    for name, fields, kind in (("layer", LAYER, ctypes.c_int64), ("tensors", TENSORS, ctypes.c_void_p)):
        compiled = getattr(loaded, f"{name}_bytes")()
        if compiled != len(fields) * ctypes.sizeof(kind):
            raise OSError(f"struct {name.title()} has {compiled} bytes in kernels.cc and "
                          f"{len(fields) * ctypes.sizeof(kind)} here: the two files are of different versions")


def _run(function, layer, tensors, epsilon=0.0, momentum=0.0):
    """Call a kernel with the structs Layer ({field: number}) and Tensors ({field: tensor or address})."""
    numbers = (ctypes.c_int64 * len(LAYER))(*(layer.get(name, 0) for name in LAYER))
    given = map(tensors.get, TENSORS)
    pointers = (ctypes.c_void_p * len(TENSORS))(*(t.data_ptr() if isinstance(t, paddle.Tensor) else t for t in given))
    getattr(library(), function)(numbers, pointers, ctypes.c_double(epsilon), ctypes.c_double(momentum))


class Stage(NamedTuple):
    """A convolution with its batch norm and activation; it may read `copies` of the chain's input beside its own."""

    conv: nn.Conv2D
    bn: nn.BatchNorm2D | None = None
    activation: str | type[nn.Layer] | None = None
    copies: int = 0

    def layer(self, x: paddle.Tensor, block: paddle.Tensor, raw: dict | None) -> dict[str, int]:
        """What struct Layer says, for an input `x` that may still lack what `raw` holds."""
        conv, norm = self.conv, PLAIN if self.bn is None else BATCH if self.bn.training else RUNNING
        return {**dict(zip("nchw", x.shape, strict=True)), "side": block.shape[1] if self.copies else 0,
                "copies": self.copies, "out": conv._out_channels, "kernel": conv._kernel_size[0],
                "stride": conv._stride[0], "activation": ACTIVATIONS[self.activation], "norm": norm,
                "depthwise": conv._groups > 1, "raw": bool(raw), "in_activation": raw["activation"] if raw else 0}

    def parameters(self) -> dict[str, paddle.Tensor]:
        """{field of Tensors: parameter}, without those that are missing."""
        found = {"weight": self.conv.weight, "beta": self.conv.bias}
        found |= {} if self.bn is None else {"gamma": self.bn.weight, "beta": self.bn.bias}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def buffers(self) -> tuple[dict[str, paddle.Tensor], tuple[float, ...]]:
        """Arguments of `_run` for batch norm: running statistics; epsilon and momentum."""
        bn = self.bn
        return ({}, ()) if bn is None else ({"running_mean": bn._mean, "running_var": bn._variance},
                                            (bn._epsilon, bn._momentum))


class _Chain(PyLayer):
    """Stages one after the other; only the last output gets its batch norm and activation written.

    The others stay raw: who reads one applies them (see kernels.cc), so that they are never stored. `names` says what
    the inputs are: x, factor, residual, (stage, parameter). With a dictionary `pooled`, the last output stays raw too,
    its planes' means [N, C, 1, 1] come with it, and the dictionary is filled for the chain that reads it as `raw`.
    """

    @staticmethod
    def forward(ctx, stages, names, raw, pooled, differentiate, *inputs):
        given, ctx.steps = dict(zip(names, inputs, strict=True)), []
        x = block = given["x"]
        for i, stage in enumerate(stages):
            layer, (running, constants) = stage.layer(x, block, raw), stage.buffers()
            n, out = layer["n"], layer["out"]
            size = [(layer[side] - 1) // layer["stride"] + 1 for side in "hw"]
            # what the stage reads and writes in any case; the kernel fills mean and scale, two rows of one tensor
            numbers = paddle.empty([2, out])
            t = running | {"x": x, "y": paddle.empty([n, out, *size]), "numbers": numbers,
                           "mean": numbers.data_ptr(), "scale": numbers.data_ptr() + 4 * out}
            t |= {name: given[i, name] for name in PARAMETERS if (i, name) in given}
            # a raw input comes with the batch norm that it still lacks; a depthwise stage reads the copies beside it
            t |= {f"in_{name}": raw[name] for name in FINISH if raw} | ({"side_x": block} if stage.copies else {})
            # only the last stage has an end: the planes' means, or the finished output (in y's place, unless the
            # gradient will need y)
            if i < len(stages) - 1:
                end = {}
            elif pooled is not None:
                end = {"pool": paddle.empty([n, out, 1, 1])}
            else:
                end = {"z": paddle.empty_like(t["y"]) if differentiate and running else t["y"]}
            t |= {name: given[name] for name in ("factor", "residual") if name in given and end}
            _run("forward", layer, t | end, *constants)
            ctx.steps.append((layer, t | {"y": t["y"].detach()}))  # an output kept here would never be freed
            # the next stage reads y, raw: with what y still lacks
            x, raw = t["y"], {name: t.get(name) for name in (*FINISH, "numbers")} | {"activation": layer["activation"]}
        ctx.names, ctx.wanted = names, [not tensor.stop_gradient for tensor in inputs]
        if pooled is None:
            return end["z"]
        pooled |= raw
        return x, end["pool"]

    @staticmethod
    def backward(ctx, gz, gpool=None):
        # known: gradients of a stage's gamma and beta, as the stage after it has made them while passing its activation
        gz, known, gradients = gz.contiguous(), {}, {}
        begun = base = None  # the gradient of the chain's input, as far as it is made; what it has to be added to
        if "residual" in ctx.names:  # the chain's input, whose gradient a depthwise layer begins, or another chain's
            within = any(layer["copies"] for layer, _ in ctx.steps) or ctx.steps[0][0]["depthwise"]
            base, gradients["residual"] = (gz, None) if within else (None, gz.clone())  # Paddle adds in place
        for i, (layer, t) in reversed(list(enumerate(ctx.steps))):
            t = t | known | {"gz": gz, "gpool": gpool}
            t |= {} if layer["norm"] else {"y": gz}  # any address: without batch norm it is not needed
            # room for the gradients of the stage's own parameters, unless they are known already
            t |= {f"g{name}": paddle.empty_like(t[name]) for name in PARAMETERS if name in t and f"g{name}" not in t}
            gradients |= {(i, name): t[f"g{name}"] for name in PARAMETERS if name in t}
            # the copies are the chain's input: their gradient begins its, to which stage 0 adds what came through it
            if "side_x" in t and ctx.wanted[0]:
                begun = t["gside"] = paddle.empty_like(t["side_x"])
            if i or ctx.wanted[0]:
                t["gx"] = paddle.empty_like(t["x"]) if i or begun is None else begun
            if "factor" in t:
                gradients["factor"] = t["gfactor"] = paddle.empty_like(t["factor"])
            # within the chain x is raw: its gradient leaves through the activation of the stage before
            before = {name: paddle.empty_like(t["in_gamma"]) for name in ("ggamma", "gbeta") if i}
            t |= {f"in_{name}": tensor for name, tensor in before.items()} | {"base": base}
            _run("backward", layer | {"known": bool(known), "accumulate": begun is not None and not i}, t)
            gz, gpool, known = t.get("gx"), None, before
        gradients["x"] = gz
        return tuple(gradients[name] if wanted else None for name, wanted in zip(ctx.names, ctx.wanted, strict=True))


def suits(*tensors: paddle.Tensor) -> bool:
    """Whether the kernels can read these: float32 on the CPU, dynamic graph, [N, C, H, W] and not empty."""
    for x in tensors if paddle.in_dynamic_mode() else ():
        if x.dtype != paddle.float32 or not x.place.is_cpu_place() or x.ndim != 4 or not x.size:
            say_once(f"a tensor {x.shape} of {x.dtype} on {x.place} is not a picture batch in float32 on the CPU")
            return False
    return paddle.in_dynamic_mode()


def covers(stages: Sequence[Stage], x: paddle.Tensor) -> bool:
    """Whether the kernels know these layers and their input: square, padded by half the kernel, depthwise or dense."""
    channels, pixels = x.shape[1], x.shape[0] * x.shape[2] * x.shape[3]
    for i, (conv, bn, _, copies) in enumerate(stages):
        if any(type(layer).forward is not kind.forward
               for layer, kind in ((conv, nn.Conv2D), (bn, nn.BatchNorm2D)) if layer is not None):
            return False
        kernel, stride = conv._kernel_size[0], conv._stride[0]
        if conv._groups == 1:  # the gradient of a dense K x K layer's input is Paddle's
            known = kernel == stride == 1 or (i == 0 and x.stop_gradient)
        else:
            known = conv._groups == conv._in_channels == conv._out_channels and kernel in (3, 5) and stride in (1, 2)
        if bn is not None:
            known &= conv.bias is None and bn._use_global_stats is None and bn._data_format == "NCHW"
            known &= bn.weight is not None and bn.bias is not None
            known &= not bn.training or pixels > stride**2  # Paddle leaves out batch norm over a single number
        if not (known and channels + 2 * copies * x.shape[1] == conv._in_channels and kernel % 2
                and conv._kernel_size == [kernel] * 2 and conv._stride == [stride] * 2
                and conv._padding in (kernel // 2, [kernel // 2] * 2) and conv._dilation == [1, 1]
                and conv._padding_mode == "zeros" and conv._data_format == "NCHW"):
            return False
        channels, pixels = conv._out_channels, pixels // stride**2
    return suits(x, *(stage.conv.weight for stage in stages))


def run_chain(x: paddle.Tensor, stages: Sequence[Stage], raw: dict | None = None, pooled: dict | None = None,
              **more: paddle.Tensor) -> Any:
    """Run stages on `x` by the kernels, which have to cover them.

    `more` may hold a `factor` [N, C, 1, 1] that the input is multiplied by and a `residual` that is added to the
    output; `raw` and `pooled` are explained in `_Chain`.
    """
    inputs: dict[Any, paddle.Tensor] = {"x": x, **more}
    for i, stage in enumerate(stages):
        inputs |= {(i, name): parameter for name, parameter in stage.parameters().items()}
    inputs = {name: tensor.contiguous() for name, tensor in inputs.items()}
    differentiate = paddle.is_grad_enabled() and not all(tensor.stop_gradient for tensor in inputs.values())
    return _Chain.apply(stages, list(inputs), raw, pooled, differentiate, *inputs.values())
