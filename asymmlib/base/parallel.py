"""One run on several processes: what Paddle's launcher starts works on shares of each batch, with the same result.

`python -m paddle.distributed.launch --nproc_per_node N -m asymmlib train ...` starts N processes, each with its rank in
the environment; `paddle.Model` then averages gradients over them (DataParallel). This module does the rest: batch
norm and loss over the whole batch, results joined, files written by rank 0 alone. In a single process every function
here gives back what it was given.
"""
import functools
import json
import os
import re
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import paddle
from paddle import distributed, nn

__all__ = ["SharedLoss", "SharedNorm", "agree", "from_first", "gather", "in_turn", "local_rank", "lost_rank_told",
           "mean", "rank", "ranks", "share", "share_norms"]


SIOCGIFADDR = 0x8915  # Linux: ask for an interface's address


def ranks() -> int:
    """Number of processes that work on this run; 1 without Paddle's launcher."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM") or 1)


def rank() -> int:
    """This process's number among them, from 0."""
    return int(os.environ.get("PADDLE_TRAINER_ID") or 0) if ranks() > 1 else 0


def local_rank() -> int:
    """This process's number on its machine, from 0."""
    return int(os.environ.get("PADDLE_RANK_IN_NODE") or rank()) if ranks() > 1 else 0


@contextmanager
def in_turn(number: int) -> Iterator[None]:
    """Let the processes with `number` 0 through the block first; the others find what those have made."""
    if number:
        _barrier()
    yield
    if not number:
        _barrier()


def from_first(function: Callable[[], Any]) -> Any:
    """What `function()` returns in rank 0, as data for JSON, in all processes; the others do not call it.

    A `ValueError` or `OSError` of it ends all of them, with the same message.
    """
    if ranks() == 1:
        return function()
    answer: dict[str, Any] = {}
    if not rank():
        try:
            answer["value"] = function()
        except (ValueError, OSError) as error:
            answer["error"] = str(error)
    answer = _exchange(answer)[0]
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["value"]


def agree(facts: dict[str, Any]) -> None:
    """Compare {fact: data for JSON} over the processes; `ValueError`, in all of them, for the first that differs."""
    if ranks() == 1:
        return
    facts = json.loads(json.dumps(facts))
    found = _exchange(facts)
    for number, theirs in enumerate(found):
        for fact, value in found[0].items():
            if theirs.get(fact) != value:
                raise ValueError(f"the processes do not do the same work: {fact} is {value} in process 0 and "
                                 f"{theirs.get(fact)} in process {number}. All have to see the same runs' folder "
                                 "(ASYMMLIB_RUNS on a shared disk) and the same pictures, and get the same command")


def _exchange(value):
    """The values of all processes, in the order of their ranks; as JSON, since a pickle could run code."""
    _start()
    text = np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int32)
    lengths = []
    distributed.all_gather(lengths, paddle.to_tensor([len(text)], dtype="int32"))
    lengths = [int(length.item()) for length in lengths]
    padded, parts = np.zeros(max(lengths), np.int32), []
    padded[:len(text)] = text
    distributed.all_gather(parts, paddle.to_tensor(padded))
    return [json.loads(part.numpy()[:length].astype(np.uint8).tobytes()) for part, length in
            zip(parts, lengths, strict=True)]


def share(pictures: paddle.io.Dataset) -> paddle.io.Dataset:
    """This process's part of a data set, equally long in all: the last ones are filled up from the beginning."""
    if ranks() == 1:
        return pictures
    each = -(-len(pictures) // ranks())
    return paddle.io.Subset(pictures, (np.arange(rank() * each, (rank() + 1) * each) % len(pictures)).tolist())


def gather(rows: np.ndarray, length: int) -> np.ndarray:
    """Join the rows `[n, ...]` that all processes computed on their `share`, in order, without the filling."""
    if ranks() == 1:
        return rows
    _start()
    parts: list[paddle.Tensor] = []
    distributed.all_gather(parts, paddle.to_tensor(rows))
    return np.concatenate([part.numpy() for part in parts])[:length]


def mean(values: list[float], weight: float) -> list[float]:
    """Means over the processes of some numbers, weighted by each one's `weight`: a list of floats."""
    if ranks() == 1:
        return values
    sums = np.array([*values, 1.0]) * weight
    total = _sum(paddle.to_tensor(sums, dtype="float64")).numpy()
    return [float(value) for value in total[:-1] / total[-1]]


class SharedLoss(nn.Layer):
    """A mean loss whose gradients, averaged over processes, are those of the mean over all their pictures.

    Shares of a last batch may differ by one picture. The value is the mean over this process's pictures.
    """

    def __init__(self, loss: Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        loss, own = self.loss(logits, labels), float(len(labels))
        weighted = loss * (own * ranks() / _sum(paddle.to_tensor([own])))
        return weighted + (loss - weighted).detach()


class SharedNorm(nn.BatchNorm2D):
    """Batch norm over the pictures of all processes, on any device, also where they have different numbers of them.

    Mean first, then the squared distances from it: two sums over the processes, which keeps float32 exact enough.
    """

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not self.training:
            return super().forward(x)
        x = x.astype(self.weight.dtype)  # mixed precision: sums of float16 would overflow
        pixels = paddle.full([1], x.shape[0] * x.shape[2] * x.shape[3], x.dtype)
        total = _Sum.apply(paddle.concat([x.sum([0, 2, 3]), pixels]))
        mean = (total[:-1] / total[-1]).reshape([1, -1, 1, 1])
        variance = _Sum.apply(((x - mean) ** 2).sum([0, 2, 3])) / total[-1]
        with paddle.no_grad():
            for running, new in ((self._mean, mean.flatten()), (self._variance, variance)):
                paddle.assign(self._momentum * running + (1 - self._momentum) * new, running)
        scale = (self.weight / paddle.sqrt(variance + self._epsilon)).reshape([1, -1, 1, 1])
        return (x - mean) * scale + self.bias.reshape([1, -1, 1, 1])


def share_norms(network: nn.Layer) -> None:
    """Turn every `BatchNorm2D` of a network into a `SharedNorm`, in place: parameters and names stay."""
    for layer in network.sublayers():
        if type(layer) is nn.BatchNorm2D:
            layer.__class__ = SharedNorm


@contextmanager
def lost_rank_told() -> Iterator[None]:
    """Turn what happens when another process has gone into a message that says how to go on.

    The network layer raises, or Paddle's launcher, which watches the processes too, is first with a SIGTERM.
    """
    ours = ranks() > 1 and threading.current_thread() is threading.main_thread()  # no other thread sees signals
    before = signal.signal(signal.SIGTERM, _end) if ours else None
    try:
        yield
    except (RuntimeError, OSError) as error:
        if ranks() == 1 or not re.search("gloo|nccl|store|connection|SIGTERM", str(error), re.I):
            raise
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise RuntimeError(f"process {rank()} of {ranks()} lost another one: it was ended or failed (its own log, "
                           "log/workerlog.N, says why). The job ends; the same command goes on from the last finished "
                           f"epoch. ({error})") from error
    finally:
        if ours and signal.getsignal(signal.SIGTERM) is _end:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _end(number, frame):
    """The launcher sends its SIGTERM three times within a second: the later ones must not cut off the message."""
    signal.signal(number, signal.SIG_IGN)
    raise RuntimeError("SIGTERM from the launcher")


class _Sum(paddle.autograd.PyLayer):
    """Sum over the processes. Each one's loss depends on it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x):
        return _sum(x)

    @staticmethod
    def backward(ctx, gradient):
        return _sum(gradient)


def _sum(tensor):
    _start()
    tensor = tensor.clone()
    distributed.all_reduce(tensor)
    return tensor


def _barrier():
    if ranks() > 1:
        _start()
        distributed.barrier()


def interface_of(address):
    """The name of the network interface that has an IPv4 address; None where there is none, and but on Linux."""
    try:
        import fcntl
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            for _, name in socket.if_nameindex():
                with suppress(OSError):  # an interface without an address
                    answer = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                    if socket.inet_ntoa(answer[20:24]) == address:
                        return name
    except (ImportError, OSError):
        pass
    return None


@functools.cache
def _start():
    # gloo asks for the address of the host's name, which on Debian is 127.0.1.1: tell it the launcher's
    name = interface_of(os.environ.get("PADDLE_CURRENT_ENDPOINT", "").rpartition(":")[0])
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    distributed.init_parallel_env()
