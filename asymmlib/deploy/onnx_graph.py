"""A Paddle network as an ONNX model: `make_onnx(network, 224)`.

Paddle's own converter has no build for Python 3.13, holds the package `onnx` at 1.17, and its optimiser calls pip. What
this book ships needs seventeen operators, so here they are: Paddle traces the network to a static program, and each of
its operators becomes one ONNX node by the table `WRITERS`. Needs the package `onnx` (the extra `ship`).

Source: the operator tables of the ONNX specification, opset 17; names of Paddle's operators from its static programs.
"""
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import paddle

from asymmlib.base.extras import load_package
from asymmlib.base.startup import native_noise_left_out

__all__ = ["OPSET", "WRITERS", "AsItStands", "halved", "make_onnx"]

OPSET = 17       # the oldest with all we need is 14 (HardSwish); runtimes since 2022 read 17
IR_VERSION = 8   # the file format that came with opset 17
INPUT, OUTPUT, FEATURES = "pictures", "logits", "features"


def make_onnx(network: paddle.nn.Layer, image_size: int | None, half: bool = False,
              metadata: Mapping[str, str] | None = None,
              statistics: tuple[Sequence[float], Sequence[float]] | None = None, features: bool = False) -> Any:
    """Convert a network in eval mode: float32 `[N, 3, image_size, image_size]` -> `[N, classes]`, any N.

    image_size: None leaves height and width open. half: store weights as float16 (see `halved`), cast to float32 when
    the model is loaded: half the bytes, and the arithmetic stays float32. metadata: {text: text} for the model's
    properties. statistics: (mean, std) of three channels on the scale 0 to 1; the graph then takes uint8 pictures
    `[N, image_size, image_size, 3]` and normalises them itself. features: a second output, "features" `[N, F]`: what
    the last linear layer receives.

    Returns an `onnx.ModelProto` that has passed ONNX's checker. Raises `ValueError` for a network in training mode and
    for operators or settings that are not in `WRITERS`, `RuntimeError` where the package `onnx` is missing.
    """
    onnx = load_package("onnx")
    if network.training:
        raise ValueError("the network is in training mode: batch norm and dropout would be exported as they train; "
                         "call network.eval() first")
    graph = _Graph(onnx.helper, half)
    if statistics is not None:
        graph.normalise(*statistics)
    tensors = {tensor.name: (name, tensor.numpy()) for name, tensor in network.state_dict().items()}
    for op in trace(network, image_size):
        graph.convert(op, tensors)
    helper, kinds = onnx.helper, onnx.TensorProto
    graph.add("Identity", [graph.last], output=OUTPUT)
    sides = ["height", "width"] if image_size is None else [image_size] * 2
    source = (kinds.FLOAT, ["N", 3, *sides]) if statistics is None else (kinds.UINT8, ["N", *sides, 3])
    ends = [helper.make_tensor_value_info(name, kind, shape)
            for name, (kind, shape) in ((INPUT, source), (OUTPUT, (kinds.FLOAT, ["N", graph.shape[1]])))]
    if features:
        graph.add("Identity", [graph.features[0]], output=FEATURES)
        ends.append(helper.make_tensor_value_info(FEATURES, kinds.FLOAT, ["N", graph.features[1]]))
    body = helper.make_graph(graph.nodes, type(network).__name__, ends[:1], ends[1:],
                             list(graph.initializers.values()))
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                              producer_name="asymmlib")
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model, full_check=True)
    return model


class AsItStands(paddle.nn.Layer):
    """A network for `paddle.jit`, which follows its Python as it stands.

    Paddle would first rewrite the source of every layer, for branches on values of tensors: there are none in our
    networks, the program is the same, and the rewriting takes most of the time of an export.
    """

    def __init__(self, network: paddle.nn.Layer) -> None:
        super().__init__()
        self.network, self.training = network, network.training

    @paddle.jit.not_to_static
    def forward(self, pictures: paddle.Tensor) -> paddle.Tensor:
        """What the network makes of pictures `[N, 3, H, W]`."""
        return self.network(pictures)


def trace(network: paddle.nn.Layer, image_size: int | None) -> Iterator[Any]:
    """Yield the operators of the network's static program, in order; the network itself stays as it is."""
    spec = [paddle.static.InputSpec([None, 3, image_size, image_size], "float32", INPUT)]
    layer = AsItStands(network)  # held here: Paddle looks it up again
    traced = paddle.jit.to_static(layer.forward, input_spec=spec, full_graph=True)
    with native_noise_left_out():
        program = traced.concrete_program.main_program  # held here: without it its operators are freed memory
    yield from program.global_block().ops


def halved(name: str, array: np.ndarray) -> np.ndarray:
    """An array of weights as float16, a vector as it is. Raises `ValueError` beyond float16's range, naming it."""
    if array.ndim < 2:
        return array
    limit = np.finfo(np.float16).max
    if np.abs(array).max(initial=0) > limit:
        raise ValueError(f"{name} has values beyond {limit:g}, where float16 ends; keep float32")
    return array.astype(np.float16)


class _Graph:
    """Nodes and initializers while they are collected; `names` maps the id of a program's value to its ONNX name."""

    def __init__(self, helper: ModuleType, half: bool) -> None:
        self.helper, self.half = helper, half
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.names: dict[int | str, str] = {}
        self.constants: dict[int, Any] = {}
        self.last: str | None = None
        self.shape: list[int] = []
        self.source = INPUT  # what the network's first operator reads
        self.features = ("", 0)  # what its last linear layer reads: name and width

    def normalise(self, mean, std):
        """Make float32 NCHW of uint8 NHWC, in the steps of `asymmlib.data.pictures.normalise`."""
        scale, shift = 1 / (255 * np.asarray(std)), -np.asarray(mean) / np.asarray(std)
        scaled = self.add("Mul", [self.add("Cast", [INPUT], to=1), self.store("scale", scale.astype(np.float32))])
        shifted = self.add("Add", [scaled, self.store("shift", shift.astype(np.float32))])
        self.source = self.add("Transpose", [shifted], perm=[0, 3, 1, 2])

    def convert(self, op, tensors):
        """Write one operator of Paddle's program."""
        kind = op.name().split(".")[1].rstrip("_")
        if kind not in WRITERS:
            raise ValueError(f"operator {op.name()} has no ONNX form here; known: {', '.join(sorted(WRITERS))}")
        inputs = [value for value in op.operands_source() if value.initialized()]
        result = op.results()[0] if op.num_results() else None
        name = WRITERS[kind](self, op.attrs(), inputs, tensors)
        if result is not None and name is not None:
            self.names[result.id] = self.last = name
            self.shape = list(result.shape)
        elif result is not None:  # not a tensor of the graph: sizes, or a list of tensors
            self.constants[result.id] = op.attrs().get("value", inputs)

    def add(self, kind, inputs, output=None, **attributes):
        """Append a node and return the name of its output."""
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def store(self, name, array):
        """Add an initializer, as float16 with a cast where asked for; return the name to use."""
        if name in self.names:
            return self.names[name]
        stored = halved(name, array) if self.half else array
        if stored.dtype == np.float16:
            self.initializers[name] = _tensor(f"{name}.float16", stored)
            self.names[name] = self.add("Cast", [f"{name}.float16"], output=name, to=1)  # 1: float32
        else:
            self.initializers[name] = _tensor(name, array)
            self.names[name] = name
        return self.names[name]

    def of(self, values):
        """Names of values of the program."""
        return [self.names[value.id] for value in values]


def _tensor(name, array):
    return load_package("onnx").numpy_helper.from_array(np.ascontiguousarray(array), name)


def _expect(attributes, **wanted):
    """Raise `ValueError` where an operator has a setting that its ONNX form here does not express."""
    for key, value in wanted.items():
        if attributes.get(key, value) != value:
            raise ValueError(f"operator setting {key}={attributes[key]!r} has no ONNX form here; known: {value!r}")


def _window(attributes):
    """ONNX's attributes for strides and padding. Paddle pads (h, w) or (top, bottom, left, right)."""
    _expect(attributes, data_format="NCHW", padding_algorithm="EXPLICIT")
    pads = list(attributes["paddings"])
    top, bottom, left, right = pads if len(pads) == 4 else [pads[0], pads[0], pads[1], pads[1]]
    return {"strides": list(attributes["strides"]), "pads": [top, left, bottom, right]}


def _parameter(graph, attributes, inputs, tensors):
    return graph.store(*tensors[attributes["parameter_name"]])


def _conv(graph, attributes, inputs, _):
    return graph.add("Conv", graph.of(inputs), group=attributes["groups"], dilations=list(attributes["dilations"]),
                     **_window(attributes))


def _batch_norm(graph, attributes, inputs, _):
    _expect(attributes, is_test=True, data_format="NCHW")
    x, mean, variance, scale, bias = graph.of(inputs)
    return graph.add("BatchNormalization", [x, scale, bias, mean, variance], epsilon=attributes["epsilon"])


def _pool(graph, attributes, inputs, _):
    size, source = list(graph.constants[inputs[1].id]), graph.of(inputs[:1])
    if not attributes["adaptive"]:
        _expect(attributes, pooling_type="max", ceil_mode=False, global_pooling=False)
        return graph.add("MaxPool", source, kernel_shape=size, **_window(attributes))
    _expect(attributes, pooling_type="avg")
    if size == [1, 1]:
        return graph.add("GlobalAveragePool", source)
    given = list(inputs[0].shape[2:])
    if min(given) < 1:
        raise ValueError(f"adaptive pooling to {size} has no ONNX form for pictures of any size; export for one size")
    step = [a // b for a, b in zip(given, size, strict=True)]
    if [a * b for a, b in zip(step, size, strict=True)] != given:
        raise ValueError(f"adaptive pooling from {given} to {size} has no ONNX form; choose an image size that divides")
    return graph.add("AveragePool", source, kernel_shape=step, strides=step)


def _reshape(graph, attributes, inputs, _):
    shape = np.array(graph.constants[inputs[1].id], np.int64)
    return graph.add("Reshape", [*graph.of(inputs[:1]), graph.store(f"shape_{'x'.join(map(str, shape))}", shape)])


def _concat(graph, attributes, inputs, _):
    return graph.add("Concat", graph.of(graph.constants[inputs[0].id]), axis=int(graph.constants[inputs[1].id]))


def _flatten(graph, attributes, inputs, _):
    _expect(attributes, start_axis=1, stop_axis=len(inputs[0].shape) - 1)
    return graph.add("Flatten", graph.of(inputs), axis=1)


def _dropout(graph, attributes, inputs, _):
    _expect(attributes, is_test=True, mode="upscale_in_train")
    return graph.of(inputs[:1])[0]


def _matmul(graph, attributes, inputs, _):
    _expect(attributes, transpose_x=False, transpose_y=False)
    graph.features = graph.of(inputs)[0], inputs[0].shape[1]
    return graph.add("MatMul", graph.of(inputs))


def _hard_sigmoid(graph, attributes, inputs, _):
    return graph.add("HardSigmoid", graph.of(inputs), alpha=attributes["slope"], beta=attributes["offset"])


def _relu6(graph, attributes, inputs, _):
    limits = [graph.store(name, np.array(value, np.float32)) for name, value in (("zero", 0), ("six", 6))]
    return graph.add("Clip", graph.of(inputs) + limits)


def _same(kind):
    return lambda graph, attributes, inputs, _: graph.add(kind, graph.of(inputs))


def _later(graph, attributes, inputs, _):
    """A constant or a list: written by the operator that uses it."""


# Paddle's operator -> what writes it
WRITERS = {
    "parameter": _parameter, "data": lambda graph, *_: graph.source, "full": _later, "full_int_array": _later,
    "combine": _later,
    "conv2d": _conv, "depthwise_conv2d": _conv, "batch_norm": _batch_norm, "pool2d": _pool, "matmul": _matmul,
    "add": _same("Add"), "multiply": _same("Mul"), "concat": _concat, "reshape": _reshape, "flatten": _flatten,
    "dropout": _dropout, "relu": _same("Relu"), "relu6": _relu6, "hardswish": _same("HardSwish"),
    "hardsigmoid": _hard_sigmoid,
}
