"""Batch norm at inference, folded into the convolution in front of it: fewer numbers, and the same answers."""
from itertools import pairwise

import paddle
from paddle import nn

__all__ = ["fold"]


def fold(network: nn.Layer) -> nn.Layer:
    """Put the running averages of batch norms into the weights of the convolutions before them, in place; return it.

    Without them, y = (w * x - mean) * gamma / sqrt(variance + epsilon) + beta is a convolution with other weights and a
    bias; the batch norm becomes `nn.Identity`. For inference by the networks of `asymmlib.models`, whose layers list
    each batch norm behind its convolution; it answers as before in eval mode, up to rounding, and cannot be trained on.
    """
    for layer in network.sublayers(include_self=True):
        for (_, conv), (name, bn) in pairwise(list(layer.named_children())):
            if isinstance(conv, nn.Conv2D) and isinstance(bn, nn.BatchNorm2D) and conv.bias is None:
                _fold_pair(conv, bn)
                setattr(layer, name, nn.Identity())
    return network


@paddle.no_grad()
def _fold_pair(conv, bn):
    factor = bn.weight / paddle.sqrt(bn._variance + bn._epsilon)
    paddle.assign(conv.weight * factor.reshape([-1, 1, 1, 1]), conv.weight)
    conv.bias = conv.create_parameter(bn.bias.shape, dtype=bn.bias.dtype, is_bias=True)
    paddle.assign(bn.bias - bn._mean * factor, conv.bias)
