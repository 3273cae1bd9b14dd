"""The program of a chain of blocks: its steps for `kernels.cc`, forward and back, and a place for all they touch.

A program depends on numbers alone (channels, sizes, kinds), never on a tensor: layers that look alike share one. Where
things lie is said as (owner, offset in bytes); `bases` of a call are the addresses of the owners.
"""
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from asymmlib.fast.memory import Memory, Place

__all__ = ["LAYER", "TENSORS", "Convolution", "Plan", "Program", "build"]

# the fields of the structs Layer and Tensors in kernels.cc, in their order; `kernels` compares the sizes
LAYER = ("kind", "n", "c", "h", "w", "side", "copies", "out", "kernel", "stride", "activation", "norm",
         "in_activation", "planar", "known", "accumulate", "rectify")
TENSORS = ("x", "side_x", "weight", "in_gamma", "in_beta", "in_mean", "in_scale", "gamma", "beta", "mean", "scale",
           "running_mean", "running_var", "factor", "residual", "y", "z", "gz", "gpool",
           "gx", "gside", "gweight", "ggamma", "gbeta", "gfactor", "in_ggamma", "in_gbeta")
ENTER, LEAVE, DENSE, DEPTHWISE, POOL = range(5)
FINISH = ("gamma", "beta", "mean", "scale")  # what a raw output lacks
# owners: none, what lives until the backward pass, what lives within it, the chain's input and output, their gradients
NOTHING, ARENA, SCRATCH, INPUT, OUTPUT, OUTPUT_GRADIENT, INPUT_GRADIENT, PARAMETERS = range(8)


class Convolution(NamedTuple):
    """What `kernels.cc` has to know of a convolution, its batch norm and its activation, but for its input."""

    out: int
    kernel: int
    stride: int
    depthwise: bool
    activation: int
    norm: int
    parameters: tuple[str, ...]  # fields of TENSORS, in the order in which the tensors are given
    copies: int = 0
    constants: tuple[float, float] = (0.0, 0.0)  # epsilon and momentum


class Plan(NamedTuple):
    """A block: convolutions one after the other, with squeeze-and-excitation in front of the last one, and a shortcut.

    beside: a convolution of the input that is the shortcut; rectify: the sum is cut off below 0. Without convolutions
    it is the means of the planes.
    """

    stages: tuple[Convolution, ...] = ()
    squeeze: tuple[Convolution, ...] = ()
    shortcut: bool = False
    beside: Convolution | None = None
    rectify: bool = False


@dataclass
class Value:
    """A tensor of the program: [n, h, w, c] as it lies in memory. What is raw lacks `finish` and its activation."""

    shape: tuple[int, int, int, int]  # n, c, h, w
    place: Place | None = None
    raw: bool = False
    activation: int = 0
    finish: dict[str, Place] = field(default_factory=dict)
    maker: dict[str, Place] = field(default_factory=dict)  # the tensors of the step that made it
    gradient: Place | None = None
    pooled: Place | None = None  # gradient of its planes' means
    known: bool = False  # its gradient has passed the activation, and gamma's and beta's are made
    last: int = 0  # number of the step that reads it last
    wanted: bool = True  # whether its gradient is

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass
class Step:
    """One call of a kernel."""

    numbers: dict[str, int]
    x: Value
    out: Value
    side: Value | None = None
    factor: Value | None = None
    residual: Value | None = None
    finished: bool = False
    parameters: dict[str, Place] = field(default_factory=dict)
    constants: tuple[float, float] = (0.0, 0.0)
    tensors: dict[str, Place] = field(default_factory=dict)


class Program:
    """Tables for `kernels.cc`: `layers`, `owners` and `offsets` of the tensors, `constants`; `arena` and `scratch` are
    the bytes of memory needed, `out` is the shape of the result, [N, C, H, W]."""

    def __init__(self, plans: Sequence[Plan], shape: Sequence[int], differentiate: bool, wants_x: bool) -> None:
        self.steps: list[Step] = []
        self._next = PARAMETERS
        first = Value(tuple(shape), (INPUT, 0), wanted=wants_x)  # type: ignore[arg-type]
        first_stage = plans[0].stages[0]
        again = plans[0].shortcut or any(stage.copies for stage in plans[0].stages)  # whether others read x, too
        planar = not wants_x and not again and not first_stage.depthwise and first_stage.kernel > 1
        x = first if planar else self._step({"kind": ENTER}, first, first.shape).out
        for plan, following in zip(plans, (*plans[1:], None), strict=True):
            x = self._block(plan, x, raw=following is not None and not following.stages)
        self.count = self._next - PARAMETERS
        self.steps[0].numbers["planar"] = planar
        if plans[-1].stages:
            x = self._step({"kind": LEAVE}, x, x.shape).out
        x.place, self.out = (OUTPUT, 0), list(x.shape)
        self.arena = self._place_values(differentiate)
        self.scratch = self._place_gradients(x) if differentiate else 0
        self._make_tables()

    def _step(self, numbers, x, shape, **more):
        out = Value(shape, wanted=x.wanted or numbers["kind"] != ENTER)
        common = dict(zip("nchw", x.shape, strict=True)) | {"out": shape[1], "in_activation": x.activation}
        step = Step(common | numbers, x, out, **more)
        for value in (x, step.side, step.factor, step.residual):
            if value is not None:
                value.last = len(self.steps)
        self.steps.append(step)
        return step

    def _block(self, plan, x, raw):
        if not plan.stages:
            return self._step({"kind": POOL}, x, (*x.shape[:2], 1, 1)).out
        y, more = x, {}
        for i, stage in enumerate(plan.stages):
            last = i == len(plan.stages) - 1
            if last and plan.squeeze:
                means = self._step({"kind": POOL}, y, (*y.shape[:2], 1, 1)).out
                reduced = self._convolution(plan.squeeze[0], means)
                more["factor"] = self._convolution(plan.squeeze[1], reduced, finished=True)
            if last and plan.shortcut:
                more["residual"] = x if plan.beside is None else self._convolution(plan.beside, x, finished=True)
            y = self._convolution(stage, y, side=x if stage.copies else None, finished=last and not raw,
                                  rectify=last and plan.rectify, **more)
        return y

    def _convolution(self, stage, x, finished=False, rectify=False, **more):
        n, _, h, w = x.shape
        shape = n, stage.out, (h - 1) // stage.stride + 1, (w - 1) // stage.stride + 1
        numbers = {"kind": DEPTHWISE if stage.depthwise else DENSE, "kernel": stage.kernel, "stride": stage.stride,
                   "activation": stage.activation, "norm": stage.norm, "copies": stage.copies,
                   "rectify": rectify}
        if more.get("side") is not None:
            numbers["side"] = more["side"].shape[1]
        own = {name: (self._next + i, 0) for i, name in enumerate(stage.parameters)}
        self._next += len(own)
        step = self._step(numbers, x, shape, finished=finished, parameters=own, constants=stage.constants, **more)
        step.out.raw, step.out.activation = not finished, 0 if finished else stage.activation
        return step.out

    def _place_values(self, differentiate):
        """Places of all that the forward pass writes. What no later step reads is given back, if no gradient will."""
        memory = Memory(ARENA)
        for number, step in enumerate(self.steps):
            out, t = step.out, step.tensors
            t["x"] = step.x.place
            t |= {f"in_{name}": place for name, place in step.x.finish.items() if step.x.raw}
            t |= {name: value.place for name, value in (("side_x", step.side), ("factor", step.factor),
                                                        ("residual", step.residual)) if value is not None}
            if step.numbers["kind"] in (DENSE, DEPTHWISE):
                self._place_convolution(step, memory, differentiate)
            else:
                t["z"] = out.place = out.place or memory.take(out.size)
            for value in (step.x, step.side, step.factor, step.residual):
                if value is not None and value.last == number and not differentiate:
                    memory.give(value.place)
        return memory.size

    def _place_convolution(self, step, memory, differentiate):
        out, t, n = step.out, step.tensors, step.numbers
        table = memory.take(2 * n["out"])
        t |= step.parameters | {"mean": table, "scale": (table[0], table[1] + 4 * n["out"]), "y": memory.take(out.size)}
        out.place, out.finish, out.maker = t["y"], {name: t[name] for name in FINISH if name in t}, t
        if step.finished and (n["norm"] or n["activation"] or "beta" in t or step.residual):
            apart = differentiate and (n["norm"] or n["activation"])  # the gradient will need y
            t["z"] = out.place = memory.take(out.size) if apart else t["y"]

    def _place_gradients(self, result):
        """Places of all that the backward pass writes, from the last step to the first."""
        memory = Memory(SCRATCH)
        result.gradient = OUTPUT_GRADIENT, 0
        for step in reversed(self.steps):
            kind, out, x, t = step.numbers["kind"], step.out, step.x, step.tensors
            if kind == POOL:
                x.pooled = out.gradient
                continue
            t |= {name: place for name, place in (("gz", out.gradient), ("gpool", out.pooled)) if place}
            if step.residual is not None:
                step.residual.gradient = out.gradient  # the shortcut's share is there; the others are added to it
            if kind in (DENSE, DEPTHWISE):
                self._place_parameter_gradients(step, memory)
            begun = x if step.side is None else step.side
            step.numbers["accumulate"] = begun.gradient is not None
            for name, value in (("gx", x), ("gside", step.side)):
                if value is not None and value.wanted:
                    if value.place[0] == INPUT:
                        value.gradient = INPUT_GRADIENT, 0
                    t[name] = value.gradient = value.gradient or memory.take(value.size)
            if step.residual is None and out.gradient:
                memory.give(out.gradient)
            if out.pooled:
                memory.give(out.pooled)
        return memory.size

    def _place_parameter_gradients(self, step, memory):
        x, t, known = step.x, step.tensors, step.out.known
        t |= {f"g{name}": (self.count + place[0], 0) for name, place in step.parameters.items()
              if name in ("weight", "gamma", "beta")}
        if step.factor is not None:
            t["gfactor"] = step.factor.gradient = memory.take(step.factor.size)
        elif x.raw and x.pooled is None:
            for name in ("ggamma", "gbeta"):  # of the step that made x, if it has such a parameter
                owner = x.maker.get(name[1:])
                t[f"in_{name}"] = (self.count + owner[0], 0) if owner else memory.take(x.shape[1])
            x.known = True
        step.numbers["known"] = known

    def _make_tables(self):
        self.layers = np.array([[int(step.numbers.get(name, 0)) for name in LAYER] for step in self.steps], np.int64)
        places = np.array([[step.tensors.get(name, (NOTHING, 0)) for name in TENSORS] for step in self.steps], np.int64)
        self.owners, self.offsets = np.ascontiguousarray(places[..., 0]), np.ascontiguousarray(places[..., 1])
        self.constants = np.array([step.constants for step in self.steps], np.float64)
        del self.steps

    def pointers(self, bases: Iterable[int]) -> np.ndarray:
        """Addresses of all tensors [steps, fields] for those of the owners: nothing, arena, scratch, x, result, their
        gradients (of the result first), all parameters, their gradients; 0 is what there is not."""
        return np.fromiter(bases, np.int64)[self.owners] + self.offsets


@functools.lru_cache(maxsize=64)
def build(plans: tuple[Plan, ...], shape: tuple[int, ...], differentiate: bool, wants_x: bool) -> Any:
    """The `Program` of a chain for an input of this shape, [N, C, H, W]; wants_x: its gradient is wanted, too."""
    return Program(plans, shape, differentiate, wants_x)
