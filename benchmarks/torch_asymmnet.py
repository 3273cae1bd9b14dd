"""An independent AsymmNet-Large in PyTorch, for the comparison of speeds alone: the graph of the paper's table 1."""
import torch
import torch.nn.functional as F
from torch import nn

# kernel, expansion, out, squeeze-and-excitation, hard-swish, stride (paper, table 1)
ROWS = ((3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2), (5, 120, 40, 1, 0, 1),
        (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1),
        (3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2),
        (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1))


def composed_hardswish(x):
    """Hard-swish out of single operations, as the authors' PyTorch code has it."""
    return x * (F.relu6(x + 3) / 6)


def conv_bn(c_in, c_out, kernel=1, stride=1, groups=1):
    """Convolution without bias, then batch norm."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
                         nn.BatchNorm2d(c_out))


class Block(nn.Module):
    """Asymmetrical bottleneck of rate 1: the depthwise layer sees x, the new channels and x again."""

    def __init__(self, c_in, kernel, expansion, out, se, act, stride):
        super().__init__()
        self.act, self.shortcut = act, c_in == out and stride == 1
        self.expand = conv_bn(c_in, expansion - c_in) if expansion > c_in else None
        width = expansion + c_in if self.expand is not None else expansion
        squeezed = -(-(width // 4) // 8) * 8
        self.depthwise = conv_bn(width, width, kernel, stride, width)
        self.se = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, squeezed, 1), nn.ReLU(),
                                nn.Conv2d(squeezed, width, 1), nn.Hardsigmoid()) if se else None
        self.project = conv_bn(width, out)

    def forward(self, x):
        y = x
        if self.expand is not None:
            y = torch.cat([x, self.act(self.expand(x)), x], 1)
        y = self.act(self.depthwise(y))
        y = self.project(y if self.se is None else y * self.se(y))
        return x + y if self.shortcut else y


def asymmnet_large(num_classes=16, hardswish=F.hardswish):
    """The whole network: float32 `[N, 3, H, W]` -> logits `[N, num_classes]`."""
    layers, c_in = [], 16
    for kernel, expansion, out, se, hard, stride in ROWS:
        layers.append(Block(c_in, kernel, expansion, out, se, hardswish if hard else F.relu, stride))
        c_in = out

    class Activation(nn.Module):
        def forward(self, x):
            return hardswish(x)

    return nn.Sequential(conv_bn(3, 16, 3, 2), Activation(), *layers, conv_bn(160, 960), Activation(),
                         nn.AdaptiveAvgPool2d(1), nn.Conv2d(960, 1280, 1, bias=False), Activation(), nn.Dropout(0.2),
                         nn.Flatten(), nn.Linear(1280, num_classes))
