"""Why one step for a whole layer can ruin a network in integers of 8 bits: the channels of its convolutions.

Batch norm is folded into the convolution before it: each output channel is multiplied by gamma / sqrt(variance +
epsilon). A channel through which nothing flows any more has a variance of nearly 0, and the largest factor of all.
"""
import tempfile
from pathlib import Path

import numpy as np
import paddle
import pandas as pd
from paddle import nn

from asymmlib.base.extras import load_package
from asymmlib.dataset import Pictures
from asymmlib.deploy.engines import run_onnx
from asymmlib.deploy.quantise import answers_of

__all__ = ["STEPS", "channel_ranges", "clear_still_channels", "layer_by_layer", "still"]

STEPS = 127     # of 8 bits on each side of 0
STILL = 1e-12   # a running variance below this comes of a channel to which nothing has arrived for hundreds of steps


def channel_ranges(network: nn.Layer) -> pd.DataFrame:
    """One row an output channel of each convolution that a batch norm follows, in the order of the network.

    layer, kind ("depthwise" or "other"), channel; range: largest absolute weight with batch norm folded in; variance:
    batch norm's running one; steps: how many of the `STEPS` of its layer the range takes, 1/2 or less being none.
    """
    rows: list[pd.DataFrame] = []
    for name, layer in network.named_sublayers():
        if isinstance(layer, nn.Conv2D):
            before, convolution = name, layer
        elif isinstance(layer, nn.BatchNorm2D):
            rows.append(_rows(before, convolution, layer))
    return pd.concat(rows, ignore_index=True)


def _rows(name, convolution, norm):
    variance = norm._variance.numpy()
    factor = np.abs(norm.weight.numpy()) / np.sqrt(variance + norm._epsilon)
    ranges = np.abs(convolution.weight.numpy()).reshape(len(factor), -1).max(axis=1) * factor
    kind = "depthwise" if convolution._groups == convolution._in_channels > 1 else "other"
    return pd.DataFrame({"layer": name, "kind": kind, "channel": range(len(factor)), "range": ranges,
                         "variance": variance, "steps": STEPS * ranges / ranges.max()})


def still(ranges: pd.DataFrame) -> pd.DataFrame:
    """The rows of `channel_ranges` that are depthwise channels to which nothing arrives."""
    return ranges[(ranges["kind"] == "depthwise") & (ranges["variance"] < STILL)]


def clear_still_channels(network: nn.Layer) -> int:
    """Set the weights of the still channels of a network to 0, in place; return how many there are.

    They are multiplied by nothing but zeros, so that no answer changes.
    """
    layers, rows = dict(network.named_sublayers()), still(channel_ranges(network))
    for name, part in rows.groupby("layer"):
        weight = layers[name].weight.numpy()
        weight[part["channel"]] = 0
        paddle.assign(paddle.to_tensor(weight), layers[name].weight)
    return len(rows)


def layer_by_layer(model: Path, pictures: Pictures) -> pd.DataFrame:
    """One row a convolution of an ONNX file: how many pictures are right with its weights alone rounded to 8 bits.

    One step for the layer, everything else as it is: layer, kind, channels, largest and median (range of a channel,
    with batch norm folded in), right, pictures.
    """
    onnx = load_package("onnx")
    from onnxruntime.quantization import quant_pre_process
    with tempfile.TemporaryDirectory() as folder:
        quant_pre_process(str(model), f"{folder}/folded.onnx", skip_symbolic_shape=True)
        graph = onnx.load(f"{folder}/folded.onnx")
    stored, rows = {tensor.name: tensor for tensor in graph.graph.initializer}, []
    for node in (node for node in graph.graph.node if node.op_type == "Conv"):
        tensor = stored[node.input[1]]
        weight, content = onnx.numpy_helper.to_array(tensor), tensor.SerializeToString()
        step = np.abs(weight).max() / STEPS
        rounded = (np.round(weight / step) * step).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, tensor.name))
        right = answers_of(run_onnx(graph.SerializeToString()), pictures).right
        tensor.ParseFromString(content)
        ranges = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        groups = next(item.i for item in node.attribute if item.name == "group")
        rows.append({"layer": tensor.name.removeprefix("ConvBnFusion_W_").removesuffix(".weight"),
                     "kind": "depthwise" if groups > 1 else "other", "channels": len(weight),
                     "largest": ranges.max(), "median": np.median(ranges), "right": int(right.sum()),
                     "pictures": len(right)})
    return pd.DataFrame(rows)
