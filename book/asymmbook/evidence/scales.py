"""What a start does to the layers of a network: how large filters, signals and first steps are, layer by layer.

For the page on the trial. A batch norm behind a convolution forgets how large its filters are, except in two ways:
its epsilon is added to a variance that may be tiny, and a step of the optimizer turns small filters further than
large ones.
"""
import paddle
import pandas as pd
from paddle import nn

from asymmlib.models import he_deviation

__all__ = ["COLUMNS", "layer_scales"]

COLUMNS = ("layer", "kind", "filters", "kept", "step")


def layer_scales(network: nn.Layer, pictures: paddle.Tensor, labels: paddle.Tensor) -> pd.DataFrame:
    """One row a convolution that a batch norm follows, in the order of execution (`COLUMNS`), from one training batch.

    pictures: float32 `[N, 3, H, W]`; labels: int64 `[N]`. layer, kind ("depthwise" or "other"). filters: standard
    deviation of its weights over He's. kept: mean share of its output's variance that is left after batch norm's
    epsilon, var / (var + epsilon). step: norm of its gradient over norm of its weights, per unit of learning rate.
    The network's weights stay; it is in training mode afterwards, its running statistics have moved.
    """
    convolutions, norms, variances, handles = [], [], [], []

    def remember(layer, inputs, output):
        if isinstance(layer, nn.Conv2D):
            convolutions.append(layer)
        else:  # of the convolution before it
            norms.append(layer)
            variances.append((convolutions[-1], inputs[0].numpy().astype("float64").var((0, 2, 3))))
    for layer in network.sublayers():
        if isinstance(layer, nn.Conv2D | nn.BatchNorm2D):
            handles.append(layer.register_forward_post_hook(remember))
    network.train()
    try:
        nn.functional.cross_entropy(network(pictures), labels).backward()
    finally:
        for handle in handles:
            handle.remove()
    names = {id(layer): name for name, layer in network.named_sublayers()}
    rows = [_row(names[id(layer)], layer, norm, variance) for norm, (layer, variance) in zip(norms, variances,
                                                                                             strict=True)]
    network.clear_gradients()
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(name, layer, norm, variance):
    weight = layer.weight
    kind = "depthwise" if layer._groups == layer._in_channels > 1 else "other"
    kept = float((variance / (variance + norm._epsilon)).mean())
    filters = float(weight.numpy().std(ddof=1)) / he_deviation(layer)
    return name, kind, filters, kept, float(weight.grad.norm() / weight.norm())
