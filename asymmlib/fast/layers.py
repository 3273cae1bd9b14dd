"""Which layers the kernels know as blocks, and how a list of them runs: what is known in chains, the rest by Paddle."""
from collections.abc import Callable, Iterable, Iterator

import paddle
from paddle import nn
from paddle.vision.models import mobilenetv2, mobilenetv3, resnet

from asymmlib.fast.kernels import ACTIVATIONS, Block, Stage, covers, run_chain, suits
from asymmlib.network import AsymmetricalBottleneck, ConvBNAct, SqueezeExcitation

__all__ = ["is_mean", "run", "run_alone"]


def run(x: paddle.Tensor, *layers: nn.Layer) -> paddle.Tensor:
    """What the layers make of `x` one after the other. Those that the kernels do not know, that have hooks or that were
    exchanged are called; what lies between them runs in chains."""
    items = list(_items(_flat(layers)))
    while items:
        chain = _longest([block for block, _ in items], x)
        if chain:
            x, items = run_chain(x, chain), items[len(chain):]
        else:
            for layer in items.pop(0)[1]:
                x = layer(x)
    return x


def run_alone(x: paddle.Tensor, layer: nn.Layer) -> paddle.Tensor | None:
    """What one layer makes of `x`, by the kernels; None where they do not know it."""
    chain = _longest([block for block, _ in _items([layer])], x)
    return run_chain(x, chain) if chain else None


def _longest(blocks, x):
    """The blocks from the first one on that can run as one chain on `x`."""
    chain = []
    shape = list(x.shape) if blocks and blocks[0] is not None and suits(x) else None
    for block in blocks if shape else ():
        shape = None if block is None else covers(block, shape) if block.stages else _pooled(chain, shape)
        if shape is None:
            break
        chain.append(block)
    return chain


def _pooled(chain, shape):
    """The shape after the means of planes, which follow a stage that is left raw for them: one without a shortcut."""
    return [*shape[:2], 1, 1] if chain and chain[-1].stages and not chain[-1].shortcut else None


def _flat(layers: Iterable[nn.Layer]) -> Iterator[nn.Layer]:
    """The layers, those of a Sequential in its place, without those that do nothing."""
    for layer in layers:
        if own(layer, nn.Sequential):
            yield from _flat(layer._sub_layers.values())
        elif not own(layer, nn.Identity):
            yield layer


def _items(layers):
    """(block, layers that it stands for), or (None, [layer]) for one that is called."""
    layers = list(layers)
    while layers:
        conv, bn, act = [*layers, None, None][:3]
        make = _BLOCKS.get(type(conv).forward)
        block, used = make(conv) if make and own(conv) else None, 1
        if own(conv, nn.Conv2D):
            bn = bn if own(bn, nn.BatchNorm2D) else None
            used = 1 if bn is None else 2
            act = layers[used] if len(layers) > used else None
            kind = type(act) if type(act) in ACTIVATIONS and own(act) else None
            block, used = Block((Stage(conv, bn, kind),)), used + (kind is not None)
        yield block, layers[:used]
        layers = layers[used:]


def own(layer: nn.Layer | None, kind: type[nn.Layer] | None = None) -> bool:
    """Whether nobody would notice that a layer (of this kind) is not called: no hooks, no `forward` of its own."""
    if layer is None or layer._forward_pre_hooks or layer._forward_post_hooks:
        return False
    forward = vars(layer).get("forward")
    return (kind is None or type(layer).forward is kind.forward) and (
        forward is None or getattr(forward, "__module__", "").startswith(__package__))


def _all_own(layer):
    return own(layer) and all(map(_all_own, layer._sub_layers.values()))


def _conv_bn_act(layer):
    return Block((_stage(layer.conv, layer.bn, layer.activation),)) if _standard(layer) else None


def _standard(*parts):
    """Whether each is a ConvBNAct, without a hook, of a convolution and batch norm (folded: none) as Paddle has it."""
    return all(type(part) is ConvBNAct and _all_own(part) and _normed(part.conv, part.bn) for part in parts)


def _normed(conv, bn):
    """Whether these are a convolution and batch norm (folded: none) as Paddle has them."""
    return own(conv, nn.Conv2D) and (own(bn, nn.BatchNorm2D) or own(bn, nn.Identity))


def _stage(conv, bn, activation=None, copies=0):
    return Stage(conv, None if own(bn, nn.Identity) else bn, activation, copies)


def _bottleneck(block):
    parts = [part for part in (block.expand, block.depthwise, block.project) if part is not None]
    if not _standard(*parts) or not _all_own(block) or type(block.se) not in (type(None), SqueezeExcitation):
        return None
    stages = tuple(_stage(part.conv, part.bn, part.activation, block.plan.copies if part is block.depthwise else 0)
                   for part in parts)
    squeeze = _squeeze(block.se.pool, block.se.reduce, block.se.restore) if block.se else ()
    return None if squeeze is None else Block(stages, squeeze, block.plan.shortcut)


def _squeeze(pool, reduce, restore):
    """The stages of squeeze-and-excitation, whose parts may have been exchanged: None then."""
    known = own(pool, nn.AdaptiveAvgPool2D) and own(reduce, nn.Conv2D) and own(restore, nn.Conv2D)
    return (Stage(reduce, None, "relu"), Stage(restore, None, "hardsigmoid")) if known else None


def _inverted(layers, squeeze, shortcut):
    """A block of the other MobileNets, of one Sequential's layers."""
    found = [item[0] for item in _items(_flat(layers))]
    if squeeze is None or any(block is None or len(block.stages) != 1 for block in found):
        return None
    return Block(tuple(block.stages[0] for block in found), squeeze, shortcut)


def _mobilenet_v2(block):
    return _inverted([block.conv], (), block.use_res_connect) if _all_own(block) else None


def _mobilenet_v3(block):
    squeeze = ()
    if block.use_se:
        se = block.mid_se
        usual = (type(se) is mobilenetv3.SqueezeExcitation and type(se.activation) is nn.ReLU
                 and type(se.scale_activation) is nn.Hardsigmoid)
        squeeze = _squeeze(se.avgpool, se.fc1, se.fc2) if usual else None
    layers = [block.expand_conv] if block.expand else []
    return _inverted([*layers, block.bottleneck_conv, block.linear_conv], squeeze, block.use_res_connect) if _all_own(
        block) else None


def _resnet(block):
    """A bottleneck block of ResNet, whose shortcut may be a convolution with batch norm."""
    pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2), (block.conv3, block.bn3)]
    down = block.downsample
    pairs += [] if down is None else [tuple(down.children()) if own(down, nn.Sequential) else ()]
    if not (_all_own(block) and own(block.relu, nn.ReLU) and all(len(pair) == 2 and _normed(*pair) for pair in pairs)):
        return None
    first, second, third, *beside = pairs
    stages = _stage(*first, nn.ReLU), _stage(*second, nn.ReLU), _stage(*third)
    return Block(stages, shortcut=True, beside=_stage(*beside[0]) if beside else None, rectify=True)


def is_mean(pool: nn.AdaptiveAvgPool2D) -> bool:
    """Whether a pooling makes one number of each plane of `[N, C, H, W]`."""
    return pool._output_size in (1, [1, 1], (1, 1)) and pool._data_format == "NCHW"


def _pool(layer):
    return Block() if is_mean(layer) else None


_BLOCKS: dict[Callable, Callable] = {
    ConvBNAct.forward: _conv_bn_act, AsymmetricalBottleneck.forward: _bottleneck,
    mobilenetv2.InvertedResidual.forward: _mobilenet_v2, mobilenetv3.InvertedResidual.forward: _mobilenet_v3,
    resnet.BottleneckBlock.forward: _resnet, nn.AdaptiveAvgPool2D.forward: _pool,
}
