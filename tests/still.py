"""Channels to which nothing arrives, in a network that has none."""
import paddle


def quieten(network: paddle.nn.Layer, layer: str, channel: int) -> None:
    """Let a depthwise channel of a network be one to which nothing arrives, as training leaves it behind."""
    parts = dict(network.named_sublayers())
    names = [name for name, part in parts.items() if isinstance(part, (paddle.nn.Conv2D, paddle.nn.BatchNorm2D))]
    before, own = (parts[names[names.index(layer) + step]] for step in (-1, 1))
    for part, value in ((before.weight, 0.0), (before.bias, -1.0), (own._mean, 0.0), (own._variance, 1e-20)):
        array = part.numpy()
        array[channel] = value
        paddle.assign(paddle.to_tensor(array), part)
