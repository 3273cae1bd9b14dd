"""AsymmNet: a MobileNetV3-like network of asymmetrical bottlenecks.

The file is the network and nothing else: rows of the paper's table, the plan that turns a row into channel
counts, the block, the whole. Training lives in `asymmlib.training`, counting in `asymmlib.complexity`,
the authors' checkpoints in `asymmlib.weights.official`. Notebook 04 writes every class itself and compares,
bit for bit: layers in sections 1 and 2, the block in 3 and 4, rows and the whole network in section 5.

Source: Yang, Shen and Zhao, arXiv 2104.07770, and the released implementation, read for its facts.
"""
import math
from dataclasses import dataclass
from typing import NamedTuple

import paddle
import paddle.nn.functional as F
from paddle import nn

__all__ = ["PORTS", "ROWS", "SQUEEZE", "AsymmNet", "AsymmetricalBottleneck", "BlockPlan", "ConvBNAct",
           "SqueezeExcitation", "asymmnet_large", "asymmnet_small", "make_divisible", "plan_blocks"]


class Row(NamedTuple):
    """One line of the architecture table, at width 1.0: channel counts are scaled later."""

    kernel: int
    expansion: int
    out: int
    se: bool
    activation: str
    stride: int


# kernel, expansion width, output channels, squeeze-and-excitation, activation, stride
ROWS = {
    "large": tuple(Row(*row) for row in (
        (3, 16, 16, False, "relu", 1),
        (3, 64, 24, False, "relu", 2),
        (3, 72, 24, False, "relu", 1),
        (5, 72, 40, True, "relu", 2),
        (5, 120, 40, True, "relu", 1),
        (5, 120, 40, True, "relu", 1),
        (3, 240, 80, False, "hardswish", 2),
        (3, 200, 80, False, "hardswish", 1),
        (3, 184, 80, False, "hardswish", 1),
        (3, 184, 80, False, "hardswish", 1),
        (3, 480, 112, True, "hardswish", 1),
        (3, 672, 112, True, "hardswish", 1),
        (5, 672, 160, True, "hardswish", 2),
        (5, 960, 160, True, "hardswish", 1),
        (5, 960, 160, True, "hardswish", 1),
    )),
    "small": tuple(Row(*row) for row in (
        (3, 16, 16, True, "relu", 2),
        (3, 72, 24, False, "relu", 2),
        (3, 88, 24, False, "relu", 1),
        (5, 96, 40, True, "hardswish", 2),
        (5, 240, 40, True, "hardswish", 1),
        (5, 240, 40, True, "hardswish", 1),
        (5, 120, 48, True, "hardswish", 1),
        (5, 144, 48, True, "hardswish", 1),
        (5, 288, 96, True, "hardswish", 2),
        (5, 576, 96, True, "hardswish", 1),
        (5, 576, 96, True, "hardswish", 1),
    )),
}
SQUEEZE = {"large": 960, "small": 576}  # width of the head's first 1x1 convolution
STEM_CHANNELS = 16
FEATURES = 1280  # the vector in front of the classifier; the paper does not scale it
ACTIVATIONS = {"relu": F.relu, "hardswish": F.hardswish, None: lambda x: x}

# The authors released two ports. They give the first block different input widths: PyTorch the scaled stem
# width, Gluon the unscaled 16. Where the two differ (width 0.35 and 0.5), Gluon's block loses its shortcut.
PORTS = ("pytorch", "gluon")


def make_divisible(channels: float) -> int:
    """Round a channel count up to the next multiple of 8 (a plain ceiling, unlike MobileNetV3's rule)."""
    return math.ceil(channels / 8) * 8


@dataclass(frozen=True)
class BlockPlan:
    """Channel counts of one asymmetrical bottleneck, after scaling.

    `copies` is how often the input is put on each side of the `new` expanded channels: the asymmetry rate where
    the block expands, 0 where it does not. The depthwise convolution sees `depthwise` channels.
    """

    index: int
    c_in: int
    new: int
    copies: int
    depthwise: int
    out: int
    kernel: int
    stride: int
    se: bool
    activation: str
    shortcut: bool

    @property
    def expands(self) -> bool:
        """Whether the block has its first pointwise convolution."""
        return self.new > 0

    @property
    def squeezed(self) -> int:
        """Channels between the two layers of squeeze-and-excitation."""
        return make_divisible(self.depthwise // 4)


def _plan_block(index, row, c_in, width, asymmrate, declared):
    """Apply the expansion rule to one row; `declared` is the input width that the official code passes on."""
    expansion, out = make_divisible(width * row.expansion), make_divisible(width * row.out)
    expands = expansion > max(declared, asymmrate * declared)
    where = f"block {index} at width {width} with asymmrate {asymmrate}"
    if expands and declared != c_in:
        raise ValueError(f"{where}: the Gluon port cannot be built here, its first block is declared for "
                         f"{declared} channels and receives {c_in}; use port='pytorch'")
    if not expands and expansion != c_in:
        raise ValueError(f"{where} cannot be built: its expansion ({expansion} channels) is not wider than "
                         f"max(c_in, asymmrate*c_in) = {max(c_in, asymmrate * c_in)}, so the block would not expand, "
                         f"yet its depthwise convolution needs {expansion} channels and gets {c_in}; "
                         "use a larger width or a smaller asymmrate")
    copies = asymmrate if expands else 0
    return BlockPlan(index, c_in, expansion - copies * c_in if expands else 0, copies,
                     expansion + copies * c_in, out, row.kernel, row.stride, row.se, row.activation,
                     shortcut=declared == out and row.stride == 1)


def plan_blocks(variant: str = "large", width: float = 1.0, asymmrate: int = 1,
                port: str = "pytorch") -> tuple[BlockPlan, ...]:
    """Return the `BlockPlan` of every block of a variant, in order.

    Raises `ValueError` for an unknown variant or port, a width that is not a positive number, an asymmrate that is
    not an integer >= 0, and a combination whose blocks do not fit together (it names the block).
    Source: paper section 3.2 and tables 1 and 2; the same refusals hold in both official ports, as crashes.
    """
    _check_settings(variant, width, asymmrate, port)
    c_in, plans = make_divisible(width * STEM_CHANNELS), []
    for index, row in enumerate(ROWS[variant]):
        declared = STEM_CHANNELS if port == "gluon" and index == 0 else c_in
        plans.append(_plan_block(index, row, c_in, width, asymmrate, declared))
        c_in = plans[-1].out
    return tuple(plans)


def _check_settings(variant, width, asymmrate, port):
    if variant not in ROWS:
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(ROWS)}")
    if port not in PORTS:
        raise ValueError(f"unknown port {port!r}; known: {', '.join(PORTS)}")
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width < math.inf:
        raise ValueError(f"width is {width!r}; it must be a number above 0, such as 0.5 or 1.0")
    if isinstance(asymmrate, bool) or not isinstance(asymmrate, int) or asymmrate < 0:
        raise ValueError(f"asymmrate is {asymmrate!r}; it must be an integer of at least 0, such as 0, 1 or 2")


def _conv(c_in, c_out, kernel=1, stride=1, groups=1, bias=False):
    """Convolution with 'same' padding and He initialisation by each filter's own fan-in.

    Paddle's default counts all input channels even of a depthwise filter, which starts those filters far too small.
    """
    return nn.Conv2D(c_in, c_out, kernel, stride=stride, padding=kernel // 2, groups=groups,
                     weight_attr=nn.initializer.KaimingNormal(), bias_attr=None if bias else False)


class ConvBNAct(nn.Layer):
    """Convolution without bias, batch norm, activation: `[N, c_in, H, W]` -> `[N, c_out, H/stride, W/stride]`.

    `activation` is "relu", "hardswish" or None.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1,
                 activation: str | None = None) -> None:
        super().__init__()
        self.conv = _conv(c_in, c_out, kernel, stride, groups)
        self.bn = nn.BatchNorm2D(c_out, momentum=0.9, epsilon=1e-5)
        self.activation = activation

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return ACTIVATIONS[self.activation](self.bn(self.conv(x)))


class SqueezeExcitation(nn.Layer):
    """Scale every channel of `[N, C, H, W]` by a factor in [0, 1] computed from all channel means.

    Source: Hu et al., 2018, with MobileNetV3's hard sigmoid relu6(x + 3) / 6.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.reduce = _conv(channels, squeezed, bias=True)
        self.restore = _conv(squeezed, channels, bias=True)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        scale = self.restore(F.relu(self.reduce(self.pool(x))))  # [N, C, 1, 1]
        return x * F.hardsigmoid(scale)


class AsymmetricalBottleneck(nn.Layer):
    """The paper's block: `[N, c_in, H, W]` -> `[N, out, H/stride, W/stride]`.

    The first pointwise convolution makes `asymmrate * c_in` channels fewer than the inverted residual's; copies of
    the input itself take their place on both sides, and the depthwise and second pointwise convolution see
    `asymmrate * c_in` channels more. Rate 0 is MobileNetV3's inverted residual.
    Source: paper figure 1 and section 3.2; built step by step in notebook 04.
    """

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.plan = plan
        width = plan.depthwise
        self.expand = ConvBNAct(plan.c_in, plan.new, activation=plan.activation) if plan.expands else None
        self.depthwise = ConvBNAct(width, width, plan.kernel, plan.stride, groups=width, activation=plan.activation)
        self.se = SqueezeExcitation(width, plan.squeezed) if plan.se else None
        self.project = ConvBNAct(width, plan.out)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = x                                                    # [N, c_in, H, W]
        if self.expand is not None:
            y = self.expand(x)                                   # [N, new, H, W]
            if self.plan.copies:
                copies = [x] * self.plan.copies
                y = paddle.concat([*copies, y, *copies], axis=1)  # [N, depthwise, H, W]
        y = self.depthwise(y)                                    # [N, depthwise, H/stride, W/stride]
        if self.se is not None:
            y = self.se(y)
        y = self.project(y)                                      # [N, out, H/stride, W/stride]
        return x + y if self.plan.shortcut else y


class AsymmNet(nn.Layer):
    """AsymmNet: float32 pictures `[N, 3, H, W]` (normalised, H and W from 32 up) -> logits `[N, num_classes]`.

    `variant` is "large" or "small"; `width` multiplies channel counts; `asymmrate` is the paper's r; `dropout` is the
    probability in front of the classifier; `port` picks the official release to follow (see `PORTS`).
    Raises `ValueError` for settings that cannot be built, naming the block.
    Source: paper tables 1 and 2; the counts of every layer are tested against the authors' code.
    """

    def __init__(self, variant: str = "large", num_classes: int = 1000, width: float = 1.0, asymmrate: int = 1,
                 dropout: float = 0.2, port: str = "pytorch") -> None:
        super().__init__()
        plans = plan_blocks(variant, width, asymmrate, port)
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes is {num_classes!r}; it must be an integer of at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout!r}; it must be a probability from 0 up to, not including, 1")
        self.variant, self.width, self.asymmrate, self.port = variant, width, asymmrate, port
        squeeze = make_divisible(width * SQUEEZE[variant])
        self.stem = ConvBNAct(3, plans[0].c_in, kernel=3, stride=2, activation="hardswish")
        self.blocks = nn.LayerList([AsymmetricalBottleneck(plan) for plan in plans])
        self.head = ConvBNAct(plans[-1].out, squeeze, activation="hardswish")
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.features = _conv(squeeze, FEATURES)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(FEATURES, num_classes, weight_attr=nn.initializer.Normal(0.0, 0.01))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.stem(x)                                         # [N, 16 * width, H/2, W/2]
        for block in self.blocks:
            x = block(x)                                         # ends at [N, out, H/32, W/32]
        x = self.pool(self.head(x))                              # [N, squeeze, 1, 1]
        x = F.hardswish(self.features(x)).flatten(1)             # [N, 1280]
        return self.classifier(self.dropout(x))                  # [N, num_classes]


def asymmnet_large(num_classes: int = 1000, width: float = 1.0, asymmrate: int = 1, dropout: float = 0.2,
                   port: str = "pytorch") -> AsymmNet:
    """AsymmNet-Large (15 blocks): see `AsymmNet`. Source: paper table 1."""
    return AsymmNet("large", num_classes, width, asymmrate, dropout, port)


def asymmnet_small(num_classes: int = 1000, width: float = 1.0, asymmrate: int = 1, dropout: float = 0.2,
                   port: str = "pytorch") -> AsymmNet:
    """AsymmNet-Small (11 blocks): see `AsymmNet`. Source: paper table 2."""
    return AsymmNet("small", num_classes, width, asymmrate, dropout, port)
