"""Measure a trained network: logits over a whole split, mean loss, top-1. Notebook 05, section 1, does it.

`paddle.Model.evaluate` reports the loss of the last batch only; here every picture counts once.
"""
from dataclasses import dataclass

import numpy as np
import paddle
from numpy.typing import ArrayLike

from asymmlib.base import interrupts, parallel

__all__ = ["Evaluation", "check_finite", "evaluate", "softmax"]


def softmax(logits: ArrayLike) -> np.ndarray:
    """Probabilities of logits `[N, C]`, computed in float64 with the largest logit subtracted first."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Evaluation:
    """Logits `[N, C]` and labels `[N]` of a split, in the order of its manifest, and what follows from them."""

    logits: np.ndarray
    labels: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """Class number with the largest logit: int64 `[N]`."""
        return self.logits.argmax(axis=1)

    @property
    def right(self) -> np.ndarray:
        """Whether each picture's largest logit is the right one: bool `[N]`; logits that are not finite are wrong."""
        return (self.predicted == self.labels) & np.isfinite(self.logits).all(axis=1)

    @property
    def top1(self) -> float:
        """Share of the pictures that are right, 0 to 1."""
        return float(self.right.mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy over all pictures, in nats."""
        logits = np.asarray(self.logits, dtype=np.float64)
        shifted = logits - logits.max(axis=1, keepdims=True)  # log-softmax: exact however small the probability
        chosen = shifted[np.arange(len(self.labels)), self.labels] - np.log(np.exp(shifted).sum(axis=1))
        return float(-chosen.mean())

    def confusion(self) -> np.ndarray:
        """Counts `[C, C]`: row = true class, column = predicted class."""
        size = self.logits.shape[1]
        return np.bincount(self.labels * size + self.predicted, minlength=size**2).reshape(size, size)


def evaluate(network: paddle.nn.Layer, pictures: paddle.io.Dataset, batch_size: int = 64,
             finite: bool = False) -> Evaluation:
    """Run a network over one split of `Pictures` in eval mode, without gradients; its mode is put back afterwards.

    Of several processes each takes a part, and all get the whole result, in which every picture counts once.
    Outputs that are not finite count as wrong and make the loss nan; with `finite` they raise `FloatingPointError`.
    """
    training, logits = network.training, []
    network.eval()
    with paddle.no_grad(), interrupts.postponed():
        for images, _ in paddle.io.DataLoader(parallel.share(pictures), batch_size=batch_size):
            interrupts.check()
            logits.append(network(images).numpy())
    if training:
        network.train()
    result = Evaluation(parallel.gather(np.concatenate(logits), len(pictures)), pictures.labels)
    if finite:
        check_finite(result.logits)
    return result


def check_finite(logits: np.ndarray) -> None:
    """Raise `FloatingPointError` unless all logits `[N, C]` are finite numbers."""
    bad = int((~np.isfinite(logits)).any(axis=1).sum())
    if bad:
        raise FloatingPointError(f"the network's outputs are not finite for {bad} of {len(logits)} pictures: its "
                                 "weights have grown beyond what float32 holds (train with a lower base_lr), or are "
                                 "damaged")
