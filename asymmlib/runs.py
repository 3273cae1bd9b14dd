"""Trained networks: the folder of a run, how to open it, and the one record that everybody uses a network by.

`runs/<name>/` holds run.json (model, recipe, data, environment, result), history.csv (one row per epoch),
best.safetensors and last.safetensors (weights), checkpoints/ and visualdl/. One run never writes into another's folder.
A `Classifier` is a network ready for use, out of a run or out of the weights that come with the book. Notebook 03,
section 5, looks into the folder of a run; notebook 05, section 1, opens runs and measures their networks again.
"""
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from asymmlib.base.files import atomic_write
from asymmlib.base.folders import runs_dir
from asymmlib.recipes import BEFORE
from asymmlib.weights.released import find_released

if TYPE_CHECKING:
    import paddle

    from asymmlib.data.sources import Prepared
    from asymmlib.dataset import Pictures
    from asymmlib.evaluation import Evaluation

__all__ = ["LICENCE", "Classifier", "Run", "find_run", "list_runs", "load_pretrained"]

KINDS = {"model": str, "settings": dict, "recipe": dict}  # what every run.json has
LICENCE = "MIT"  # of all weights that this library trains; the pictures keep their own
FIELDS = ("model", "classes", "image_size", "mean", "std", "licence")  # of a card that a Classifier has by itself
BATCH = 64  # pictures that `Classifier.predict` holds in memory at a time


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained network and all that one needs to use it.

    name: of the run or the release. model: key of `asymmlib.models.MODELS`. network: `paddle.nn.Layer` in eval mode,
    float32 `[N, 3, image_size, image_size]` -> logits `[N, len(classes)]`. mean, std: per channel, on the scale 0 to 1.
    provenance: where the weights come from, as a dictionary for JSON.
    """

    name: str
    model: str
    network: "paddle.nn.Layer"
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    provenance: dict[str, Any]

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How a picture becomes an input, as data for JSON; `describe` says it in words."""
        return {"colour": "RGB, upright by EXIF", "resize": "squash", "filter": "bilinear", "size": self.image_size,
                "range": [0, 1], "mean": list(self.mean), "std": list(self.std), "layout": "NCHW", "dtype": "float32",
                "output": "logits"}

    def describe(self) -> str:
        """The preprocessing in one sentence."""
        numbers = (f"({', '.join(f'{value:.4f}' for value in values)})" for values in (self.mean, self.std))
        return ("RGB pictures, upright, squashed to {size} × {size} pixels (bilinear), divided by 255 and normalised "
                "per channel with mean {} and standard deviation {}: float32 [N, 3, {size}, {size}]"
                .format(*numbers, size=self.image_size))

    def pictures(self, prepared: "Prepared", split: str) -> "Pictures":
        """One split of prepared data as `Pictures`, prepared as in training. `ValueError` for other classes."""
        return _pictures(self.name, prepared, split, self.classes, self.image_size, self.mean, self.std)

    def evaluate(self, prepared: "Prepared", split: str = "eval") -> "Evaluation":
        """`Evaluation` of the network on a split: logits, mean loss and top-1 over every picture."""
        from asymmlib.evaluation import evaluate
        return evaluate(self.network, self.pictures(prepared, split))

    def predict(self, paths: Iterable[Path | str]) -> np.ndarray:
        """Class probabilities float64 `[len(paths), len(classes)]` of picture files, in batches of bounded memory.

        Raises for a file that is missing or no picture, naming it.
        """
        import paddle

        from asymmlib.data.pictures import load_picture, normalise
        from asymmlib.evaluation import softmax
        paths, rows = list(paths), [np.empty((0, len(self.classes)))]
        for start in range(0, len(paths), BATCH):
            pixels = np.stack([load_picture(path, self.image_size) for path in paths[start:start + BATCH]])
            with paddle.no_grad():
                rows.append(softmax(self.network(paddle.to_tensor(normalise(pixels, self.mean, self.std))).numpy()))
        return np.concatenate(rows)


def load_pretrained(name: str, folder: Path | str | None = None) -> Classifier:
    """A `Classifier` with weights that come with the book: "asymmnet_large", "asymmnet_small" or "mobilenet_v2".

    folder: where they lie (default: `ASYMMLIB_WEIGHTS`, else the checkout's `weights/`, else those of the wheel, which
    brings "asymmnet_small"). Raises as `asymmlib.weights.released.find_released`.
    """
    card, path = find_released(name, folder)
    provenance = {key: value for key, value in card.items() if key not in FIELDS}
    return _classifier(name, card, card["image_size"], path, card["licence"], provenance)


def _classifier(name, info, image_size, path, licence, provenance):
    """A `Classifier` of what a card or a run.json says, with the weights of a file."""
    from asymmlib.models import create_model, treat
    from asymmlib.weights.own import load_weights
    network = create_model(info["model"], len(info["classes"]), **info["settings"])
    norm = info.get("recipe", {}).get("norm", BEFORE["norm"])  # no weight, yet part of what the network computes
    treat(network, "as-built", norm)
    load_weights(network, path)
    network.eval()
    return Classifier(name, info["model"], network, tuple(info["classes"]), image_size, tuple(info["mean"]),
                      tuple(info["std"]), licence, provenance)


def _pictures(name, prepared, split, classes, image_size, mean, std):
    """A split as a network saw it in training. `ValueError` where it knows other classes."""
    from asymmlib.dataset import Pictures
    if list(prepared.class_names) != list(classes):
        raise ValueError(f"run {name} knows other classes than {prepared.name}; pass its data with --data")
    return Pictures(prepared, split, image_size, mean=mean, std=std)


@dataclass(frozen=True)
class Run:
    """A run on disk; `info` is the content of its run.json."""

    folder: Path
    info: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether the last epoch was reached."""
        return "result" in self.info

    @property
    def history(self) -> pd.DataFrame:
        """DataFrame with one row per epoch; columns in `asymmlib.callbacks.EpochLog`."""
        return pd.read_csv(self.folder / "history.csv")

    def classifier(self, which: str = "last") -> Classifier:
        """The `Classifier` of a run: its weights after the "last" epoch, or the "best" by the eval split.

        Raises `ValueError` for another word and `FileNotFoundError` for a run that has not got that far.
        """
        if which not in ("last", "best"):
            raise ValueError(f"unknown weights {which!r}; known: last, best")
        keys = ("settings", "recipe", "manifest_sha256", "pictures", "environment", "result")
        provenance = {"run": self.name, "weights": which, **{key: self.info[key] for key in keys if key in self.info}}
        return _classifier(self.name, self.info, self.info["recipe"]["image_size"],
                           self.folder / f"{which}.safetensors", LICENCE, provenance)

    def network(self, which: str = "last") -> "paddle.nn.Layer":
        """The run's network in eval mode: `classifier(which).network`."""
        return self.classifier(which).network

    def pictures(self, split: str = "eval", prepared: "Prepared | None" = None) -> "Pictures":
        """A split of the run's data as `Pictures`, prepared as in training; prepared: that data, if it is at hand."""
        from asymmlib.data.sources import prepare
        info, recipe = self.info, self.info["recipe"]
        if prepared is None:
            prepared = prepare(recipe["data"], test_share=recipe.get("test_share", False), progress=False)
        return _pictures(self.name, prepared, split, info["classes"], recipe["image_size"], info["mean"], info["std"])

    def write(self, **changes: Any) -> "Run":
        """Return the run with changed info, after storing it."""
        run = Run(self.folder, {**self.info, **changes})
        with atomic_write(self.folder / "run.json") as file:
            file.write((json.dumps(run.info, indent=1, ensure_ascii=False) + "\n").encode())
        return run


def find_run(name: Path | str) -> Run:
    """Open a run by its name in the runs' folder, or by its path; `FileNotFoundError` lists the known ones.

    Raises `ValueError` where its run.json is damaged or not of a run.
    """
    for folder in (runs_dir() / str(name), Path(name)):
        if (folder / "run.json").is_file():
            return Run(folder, _read_info(folder / "run.json"))
    known = ", ".join(sorted(path.parent.name for path in runs_dir().glob("*/run.json")))
    raise FileNotFoundError(f"no run {str(name)!r}; known: {known or 'none yet; python -m asymmlib train makes one'}")


def _read_info(path):
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        wrong = [key for key, kind in KINDS.items() if not isinstance(info[key], kind)]
    except (ValueError, LookupError, TypeError, RecursionError) as error:  # no JSON, no object, a missing key
        raise ValueError(f"{path} is damaged or not of a run ({type(error).__name__}: {error}); train the run anew or "
                         "remove its folder") from error
    if wrong:
        raise ValueError(f"{path} is not of a run: its {', '.join(wrong)} is of another kind")
    return info


def list_runs() -> list[Run]:
    """All runs in the runs' folder, by name."""
    return [find_run(path.parent) for path in sorted(runs_dir().glob("*/run.json"))]
