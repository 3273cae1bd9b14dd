"""The head of a network, its last linear layer, and what is in front of it, the backbone, which can be held still."""
from paddle import Tensor, nn

from asymmlib.weights.own import head_names

__all__ = ["backbone", "freeze"]

AVERAGES = ("._mean", "._variance")  # ends of the names of batch norm's running averages, which are never trained


def backbone(network: nn.Layer) -> list[Tensor]:
    """All parameters that can be trained but those of the head."""
    head = head_names(network)
    return [value for name, value in network.named_parameters() if name not in head and not name.endswith(AVERAGES)]


def freeze(network: nn.Layer, frozen: bool = True) -> None:
    """Hold a network but for its head still, in place, while that trains; `frozen=False` lets all of it train again.

    A frozen layer is one fixed function: its parameters get no gradient, which the backward pass then does not make
    either, and batch norm normalises by its running averages and leaves them alone, also in train mode (averages that
    went on would change what the head learns from). Dropout in front of the head stays.
    """
    for parameter in backbone(network):
        parameter.stop_gradient = frozen
    for layer in network.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer._use_global_stats = True if frozen else None
