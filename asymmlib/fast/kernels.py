"""What `kernels.cc` can do, called on Paddle's tensors: chains of blocks as one differentiable operation.

`covers` says whether the kernels know a block and its input (another dtype or device, a static graph, an unusual layer:
they do not); then `run_chain` runs a list of them. `library` compiles the kernels once per machine.
"""
import ctypes
import functools
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import paddle
from paddle import nn
from paddle.autograd import PyLayer

from asymmlib.fast.native import load_library
from asymmlib.fast.program import LAYER, TENSORS, Convolution, Plan, build

__all__ = ["ACTIVATIONS", "Block", "Stage", "covers", "library", "run_chain", "say_once", "suits"]

PLAIN, RUNNING, BATCH = range(3)
ACTIVATIONS = {None: 0, "relu": 1, "relu6": 2, "hardswish": 3, "hardsigmoid": 4,
               nn.ReLU: 1, nn.ReLU6: 2, nn.Hardswish: 3, nn.Hardsigmoid: 4}


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
    for name, fields in (("layer", LAYER), ("tensors", TENSORS)):
        compiled = getattr(loaded, f"{name}_bytes")()
        if compiled != 8 * len(fields):
            raise OSError(f"struct {name.title()} has {compiled} bytes in kernels.cc and {8 * len(fields)} here: the "
                          "two files are of different versions")


class Stage(NamedTuple):
    """A convolution with its batch norm and activation; it may read `copies` of the block's input beside its own."""

    conv: nn.Conv2D
    bn: nn.BatchNorm2D | None = None
    activation: str | type[nn.Layer] | None = None
    copies: int = 0

    def parameters(self) -> dict[str, paddle.Tensor]:
        """{field of Tensors: parameter or running average}, without those that are missing."""
        conv, bn = self.conv, self.bn
        if bn is not None:
            return {"weight": conv.weight, "gamma": bn.weight, "beta": bn.bias, "running_mean": bn._mean,
                    "running_var": bn._variance}
        return {"weight": conv.weight} if conv.bias is None else {"weight": conv.weight, "beta": conv.bias}

    def convolution(self) -> Convolution:
        """Its numbers."""
        conv, bn = self.conv, self.bn
        norm = PLAIN if bn is None else BATCH if _by_batch(bn) else RUNNING
        return Convolution(conv._out_channels, conv._kernel_size[0], conv._stride[0], conv._groups > 1,
                           ACTIVATIONS[self.activation], norm, tuple(self.parameters()), self.copies,
                           (0.0, 0.0) if bn is None else (bn._epsilon, bn._momentum))


class Block(NamedTuple):
    """Stages one after the other; `squeeze`: the two of squeeze-and-excitation in front of the last; `shortcut`: the
    input, or what the stage `beside` makes of it, is added to the output, and the sum rectified where `rectify` says
    so. Without stages it is the means of the planes, [N, C, 1, 1], of the block before."""

    stages: tuple[Stage, ...] = ()
    squeeze: tuple[Stage, ...] = ()
    shortcut: bool = False
    beside: Stage | None = None
    rectify: bool = False

    def plan(self) -> Plan:
        """Its numbers."""
        stages, squeeze = (tuple(stage.convolution() for stage in some) for some in (self.stages, self.squeeze))
        return Plan(stages, squeeze, self.shortcut, self.beside and self.beside.convolution(), self.rectify)

    def in_order(self) -> tuple[Stage, ...]:
        """All stages in the order in which they run."""
        beside = () if self.beside is None else (self.beside,)
        return (*self.stages[:-1], *self.squeeze, *beside, *self.stages[-1:])


class _Lease:
    """Memory for `numbers` floats, at `tensor`; it waits for the next lease when nobody holds this one any more.

    malloc would not find a place of hundreds of megabytes again: aligned memory needs a little more than it was.
    """

    waiting: ClassVar[dict[int, paddle.Tensor]] = {}
    kept, small = 2, 1 << 18  # the largest ones, and what is left to malloc

    def __init__(self, numbers: int) -> None:
        sizes = sorted((tensor.size, key) for key, tensor in list(self.waiting.items()))
        keys = [key for size, key in sizes if size >= numbers > self.small]
        found = next((tensor for key in keys if (tensor := self.waiting.pop(key, None)) is not None), None)
        if found is None and numbers > self.small:
            self.waiting.clear()
        self.tensor = paddle.empty([max(numbers, 1)], "float32") if found is None else found

    def __del__(self) -> None:
        if self.tensor.size > self.small:
            self.waiting[id(self.tensor)] = self.tensor
            for _, key in sorted((tensor.size, key) for key, tensor in list(self.waiting.items()))[:-self.kept]:
                self.waiting.pop(key, None)


class _Chain(PyLayer):
    """The blocks of a program, forward and back in one call each. `buffers`: {number of a parameter: running average}.

    What the backward pass needs lies in one piece of memory; see `program.Program`.
    """

    @staticmethod
    def forward(ctx, program, buffers, differentiate, x, *parameters):
        out, arena = paddle.empty(program.out, "float32"), _Lease(program.arena // 4)
        ctx.program, ctx.x, ctx.arena, ctx.buffers, ctx.parameters = program, x, arena, buffers, parameters
        ctx.wanted = [not tensor.stop_gradient for tensor in (x, *parameters)]
        _run("forward", ctx, out=out)
        if not differentiate:
            ctx.arena = None
        return out

    @staticmethod
    def backward(ctx, gradient):
        program, gradient = ctx.program, gradient.contiguous()
        gradients = [paddle.empty_like(tensor) for tensor in ctx.parameters]
        gx = paddle.empty_like(ctx.x) if ctx.wanted[0] else None
        scratch = _Lease(program.scratch // 4)
        _run("backward", ctx, scratch.tensor, None, gradient, gx, gradients)
        return tuple(g if wanted else None for g, wanted in zip((gx, *gradients), ctx.wanted, strict=True))


def _run(function, ctx, scratch=None, out=None, out_gradient=None, gx=None, gradients=()):
    """Call the kernels for all steps of a program with the addresses of what they work on."""
    program, own = ctx.program, iter(ctx.parameters)
    gradients = iter(gradients)
    numbers = range(program.count)
    bases = [None, ctx.arena.tensor, scratch, ctx.x, out, out_gradient, gx]
    bases += [ctx.buffers[i] if i in ctx.buffers else next(own) for i in numbers]
    bases += [None if i in ctx.buffers else next(gradients, None) for i in numbers]
    pointers = program.pointers(0 if tensor is None else tensor.data_ptr() for tensor in bases)
    tables = (table.ctypes.data_as(ctypes.c_void_p) for table in (program.layers, pointers, program.constants))
    getattr(library(), function)(ctypes.c_int64(len(pointers)), *tables)


def suits(*tensors: paddle.Tensor) -> bool:
    """Whether the kernels can read these: float32 on the CPU, dynamic graph, [N, C, H, W] and not empty."""
    for x in tensors if paddle.in_dynamic_mode() else ():
        if x.dtype != paddle.float32 or not x.place.is_cpu_place() or x.ndim != 4 or not x.size:
            say_once(f"a tensor {x.shape} of {x.dtype} on {x.place} is not a picture batch in float32 on the CPU")
            return False
    return paddle.in_dynamic_mode()


def covers(block: Block, shape: Sequence[int]) -> list[int] | None:
    """The shape [N, C, H, W] of what a block makes of an input of shape `shape`; None where the kernels do not know it.

    Known are square convolutions, padded by half the kernel, depthwise or dense.
    """
    n, channels, h, w = first = list(shape)
    for stage in block.stages:
        conv, bn = stage.conv, stage.bn
        beside = 2 * stage.copies * first[1]
        if not _known(conv, bn) or channels + beside != conv._in_channels or (beside and conv._groups == 1):
            return None
        channels, stride = conv._out_channels, conv._stride[0]
        h, w = (h - 1) // stride + 1, (w - 1) // stride + 1
        if bn is not None and _by_batch(bn) and n * h * w == 1:  # Paddle leaves out batch norm over a single number
            return None
    after = [n, channels, h, w]
    added = first if block.beside is None else covers(Block((block.beside,)), first)
    return after if (not block.squeeze or _squeezes(block)) and (not block.shortcut or added == after) else None


def _squeezes(block):
    """Whether squeeze-and-excitation and what reads the planes that it scales are pointwise and fit each other."""
    reduce, restore, last = convs = [stage.conv for stage in (*block.squeeze, block.stages[-1])]
    return (all(_known(stage.conv, stage.bn) for stage in block.squeeze)
            and all(conv._kernel_size == conv._stride == [1, 1] for conv in convs)
            and last._in_channels == reduce._in_channels == restore._out_channels
            and reduce._out_channels == restore._in_channels)


def _by_batch(bn):
    """Whether batch norm takes its numbers from the batch: in train mode, unless it is told to use running averages."""
    return bn.training and not bn._use_global_stats


def _known(conv, bn):
    kernel, stride = conv._kernel_size[0], conv._stride[0]
    if conv._groups > 1 and not (conv._groups == conv._in_channels == conv._out_channels and kernel in (3, 5)
                                 and stride in (1, 2)):
        return False
    if bn is not None and (conv.bias is not None or bn._use_global_stats is False or bn._data_format != "NCHW"
                           or bn.weight is None or bn.bias is None):
        return False
    return (kernel % 2 and conv._kernel_size == [kernel] * 2 and conv._stride == [stride] * 2
            and conv._padding in (kernel // 2, [kernel // 2] * 2) and conv._dilation == [1, 1]
            and conv._padding_mode == "zeros" and conv._data_format == "NCHW"
            and conv.weight.dtype == paddle.float32 and conv.weight.place.is_cpu_place())


def run_chain(x: paddle.Tensor, blocks: Sequence[Block]) -> paddle.Tensor:
    """Run blocks on `x` [N, C, H, W] by the kernels, which have to cover them."""
    fields = [item for block in blocks for stage in block.in_order() for item in stage.parameters().items()]
    buffers = {i: tensor for i, (name, tensor) in enumerate(fields) if name.startswith("running")}
    parameters = [tensor for i, (_, tensor) in enumerate(fields) if i not in buffers]
    inputs = [tensor.contiguous() for tensor in (x, *parameters)]
    differentiate = paddle.is_grad_enabled() and not all(tensor.stop_gradient for tensor in inputs)
    program = build(tuple(block.plan() for block in blocks), tuple(x.shape), differentiate,
                    differentiate and not x.stop_gradient)
    return _Chain.apply(program, buffers, differentiate, *inputs)
