"""What the paper and the authors' code say, as numbers: tables, a log, and answers to states drawn from a seed.

The files lie in `book/reference/` (its README says what each is); tests and notebooks read them through this module.
A state of 2 to 25 MB need not be stored where a rule can draw it again: `draw` is that rule, and `seeded.py` there
recorded what the authors' code answers to it.
"""
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from asymmbook.checkout import project_root

if TYPE_CHECKING:
    import pandas as pd

    from asymmlib.network import AsymmNet

__all__ = ["CLASSES", "EVALUATED", "GPUS", "IMAGENET_TRAIN", "PUBLISHED", "REFERENCE", "TRAINED", "draw", "draw_batch",
           "imagenet_cost", "key", "load_drawn", "read_arrays", "read_table", "reference_file", "thin",
           "training_step"]

REFERENCE = project_root() / "book" / "reference"


class Published(NamedTuple):
    """What the paper prints for a network at rate 1: top-1 in per cent, MACs and parameters in millions, as printed."""

    top1: str
    macs: str
    params: str


# (variant, width) -> the figures of arXiv 2104.07770; the paper has no row for another width or rate of these
PUBLISHED = {("large", 1.0): Published("75.4", "216.9", "5.99"), ("large", 0.5): Published("69.2", "67.2", "2.8"),
             ("small", 1.0): Published("68.4", "57.7", "3.1")}
GPUS = 8  # of the authors' run on ImageNet, 256 pictures each; the log does not name their kind
BATCH = 256 * GPUS
IMAGENET_TRAIN = 1_281_167  # pictures of ILSVRC 2012's train split

CLASSES = 16  # of all networks below
EVALUATED = [(variant, width, rate) for variant in ("large", "small") for width in (0.35, 0.5, 0.75, 1.0)
             for rate in (0, 1, 2) if (width, rate) != (0.35, 2)]
TRAINED = [("large", 0.35, 1), ("small", 0.5, 2)]
KEPT = 128  # values kept of one gradient or running average


def reference_file(name: str) -> Path:
    """The path of a file of `book/reference/`. Raises `FileNotFoundError` where there is none."""
    if not (REFERENCE / name).is_file():
        raise FileNotFoundError(f"no {name} in {REFERENCE}: the reference numbers come with a checkout of the project, "
                                "not with an installed package")
    return REFERENCE / name


def read_table(name: str) -> "pd.DataFrame":
    """One of the CSV files, such as "official_complexity", as a DataFrame."""
    import pandas as pd
    return pd.read_csv(reference_file(f"{name}.csv"))


def read_arrays(name: str) -> dict[str, np.ndarray]:
    """One of the `.npz` files, such as "seeded_torch", as {name: array}."""
    with np.load(reference_file(f"{name}.npz")) as file:
        return dict(file)


def imagenet_cost(log: "pd.DataFrame", gpus: int = GPUS) -> dict[str, float]:
    """What training took: {"hours", "gpu_hours", "gpu_days"}, and "validation_s", the rest of an epoch in the mean.

    log: columns `samples_per_s`, measured when an epoch's training ends, and `seconds`, taken after its validation. An
    epoch is counted as the whole batches in it: one more or fewer moves the hours by 0.2 %.
    """
    training = IMAGENET_TRAIN // BATCH * BATCH / log["samples_per_s"]
    hours = float(training.sum()) / 3600
    return {"hours": hours, "gpu_hours": gpus * hours, "gpu_days": gpus * hours / 24,
            "validation_s": float((log["seconds"] - training).mean())}


def key(variant: str, width: float, rate: int) -> str:
    """Name of a network's settings in the recorded files."""
    return f"{variant}_{width}_r{rate}"


def draw(name: str, shape: Sequence[int]) -> np.ndarray:
    """A float32 array for a parameter by its official name; no batch norm is close to the identity."""
    # RandomState's stream is frozen, and no function of the C library comes in: the same bits everywhere
    uniform = np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape) * 2 - 1
    if len(shape) == 1 and name.endswith(("running_var", "weight", "gamma")):
        return (1 + uniform / 2).astype(np.float32)
    if len(shape) == 1:
        return (uniform / 5).astype(np.float32)
    return (uniform * np.sqrt(5 / np.prod(shape[1:]))).astype(np.float32)


def draw_batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures float32 `[size, 3, 64, 64]` between -3 and 3, and labels int64 `[size]`."""
    return draw(f"pictures {size}", (size, 3, 64, 64)) * np.sqrt(8, dtype=np.float32), np.arange(size) * 5 % CLASSES


def thin(values: ArrayLike) -> np.ndarray:
    """At most `KEPT` values, evenly spaced, of an array in PyTorch's layout."""
    flat = np.ravel(values)
    return flat[::max(1, -(-flat.size // KEPT))]


def load_drawn(network: "AsymmNet", naming: str, path: Path | str) -> None:
    """Give an `AsymmNet` the drawn state, through an `.npz` file at `path` in the authors' names, as a user would.

    naming: a key of `asymmlib.weights.names.NAMINGS`, "pytorch" or "gluon".
    """
    from asymmlib.weights.names import NAMINGS
    from asymmlib.weights.official import load_official
    state = network.state_dict()
    names = NAMINGS[naming].translate(list(state), network.asymmrate)
    shapes = {names[name]: tuple(value.shape) for name, value in state.items()}
    head = names["classifier.weight"]
    shapes[head] = shapes[head][::-1] + ((1, 1) if naming == "gluon" else ())
    drawn: dict[str, Any] = {name: draw(name, shape) for name, shape in shapes.items()}
    np.savez(path, **drawn)
    load_official(network, path, any_port=True)  # notebook 6 shows what the other port makes of them


def training_step(network: "AsymmNet", pictures: np.ndarray,
                  labels: np.ndarray) -> tuple[float, np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """One step in train mode: loss, logits `[N, classes]`, gradients and running averages.

    Returns (float, array, {name: array}, {name: array}), in PyTorch's names and layout. The weights stay as they are.
    """
    import paddle

    from asymmlib.weights.names import NAMINGS
    network.train()
    logits = network(paddle.to_tensor(pictures))
    loss = paddle.nn.functional.cross_entropy(logits, paddle.to_tensor(labels))
    loss.backward()
    names = NAMINGS["pytorch"].translate(list(network.state_dict()), network.asymmrate)
    gradients = {names[name]: value.grad.numpy().T if name == "classifier.weight" else value.grad.numpy()
                 for name, value in network.named_parameters() if not value.stop_gradient}
    averages = {names[name]: value.numpy() for name, value in network.state_dict().items()
                if name.endswith(("._mean", "._variance"))}
    return loss.item(), logits.numpy(), gradients, averages
