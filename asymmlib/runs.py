"""Trained networks: the folder of a run, how to open it, and the one record that everybody uses a network by.

`runs/<name>/` holds run.json (id, model, recipe, data, sessions, result), manifest.csv (its pictures), history.csv (one
row per epoch), best.safetensors and last.safetensors (weights), checkpoints/ and visualdl/. Weights carry the run's id:
those of another run are not used under this one's classes. One run never writes into another's folder.
A `Classifier` is a network ready for use, out of a run or out of the weights that come with the book. Notebook 03,
section 5, looks into the folder of a run; notebook 05, section 1, opens runs and measures their networks again.
"""
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from asymmlib.base.files import atomic_write, has_file
from asymmlib.base.folders import runs_dir
from asymmlib.base.tables import read_table
from asymmlib.data.changes import check_evaluation
from asymmlib.data.manifest import manifest_hash, read_manifest
from asymmlib.recipes import BEFORE, Recipe, as_recorded
from asymmlib.weights.released import find_released

if TYPE_CHECKING:
    import paddle

    from asymmlib.data.manifest import Prepared
    from asymmlib.dataset import Pictures
    from asymmlib.evaluation import Evaluation

__all__ = ["LICENCE", "Classifier", "Run", "find_run", "list_runs", "load_pretrained"]

# what every run.json has, and what it may have: keys and their kinds
KINDS = {"model": str, "settings": dict, "recipe": dict}
MORE = {"classes": list, "mean": list, "std": list, "manifest_sha256": str, "id": str, "result": dict, "pictures": dict,
        "environment": dict, "sessions": list, "processes": int, "accelerated": bool}
LARGEST = 16  # width and asymmetry rate: a network beyond that is an absurd value, and fills the memory
LICENCE = "MIT"  # of all weights that this library trains; the pictures keep their own
FIELDS = ("model", "classes", "image_size", "mean", "std", "licence")  # of a card that a Classifier has by itself
BATCH, BATCH_PIXELS = 64, 2**19  # of pictures that are answered at a time: at most so many, of so many pixels together


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained network and all that one needs to use it.

    name: of the run or the release. model: key of `asymmlib.models.MODELS`. network: `paddle.nn.Layer` in eval mode,
    float32 `[N, 3, image_size, image_size]` -> logits `[N, len(classes)]`. mean, std: per channel, on the scale 0 to 1.
    provenance: where the weights come from, as a dictionary for JSON. record: what `check_evaluation` asks of a run.
    folder: a run's, None for other weights.
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
    record: dict[str, Any] | None = None
    folder: Path | None = None

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How a picture becomes an input, as data for JSON; `describe` says it in words."""
        return {"order": "RGB", "orientation": "upright by EXIF", "transparency": "on white", "resize": "squash",
                "filter": "bilinear, antialiased (Pillow's BILINEAR)", "size": [self.image_size, self.image_size],
                "range": [0, 1], "mean": list(self.mean), "std": list(self.std), "layout": "NCHW", "dtype": "float32",
                "output": "logits"}

    @property
    def none_below(self) -> float | None:
        """The probability that the best class must reach, or the answer is "none of these"; None: not calibrated."""
        return self.provenance.get("none_below")

    @property
    def batch(self) -> int:
        """How many pictures `predict` gives to the network at a time: fewer of large ones, so that memory is bounded.
        """
        return max(1, min(BATCH, BATCH_PIXELS // self.image_size**2))

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
        """`Evaluation` of the network on a split: logits, mean loss and top-1 over every picture.

        Says how the pictures differ from those that were trained on. Raises `ValueError` for a "test" on pictures that
        were trained on, and for other classes.
        """
        from asymmlib.evaluation import evaluate
        if self.record is not None:
            check_evaluation(self.name, self.record, prepared, split)
        return evaluate(self.network, self.pictures(prepared, split), finite=True)

    def predict(self, paths: Iterable[Path | str]) -> np.ndarray:
        """Class probabilities float64 `[len(paths), len(classes)]` of picture files, in batches of bounded memory.

        Raises for a file that is missing or no picture, naming it.
        """
        from asymmlib.data.pictures import load_picture
        paths, rows = list(paths), [np.empty((0, len(self.classes)))]
        for start in range(0, len(paths), self.batch):
            pixels = [load_picture(path, self.image_size) for path in paths[start:start + self.batch]]
            rows.append(self.probabilities(np.stack(pixels)))
        return np.concatenate(rows)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Class probabilities float64 `[N, len(classes)]` of uint8 pictures `[N, image_size, image_size, 3]`."""
        import paddle

        from asymmlib.base import interrupts
        from asymmlib.data.pictures import normalise
        from asymmlib.evaluation import check_finite, softmax
        with paddle.no_grad(), interrupts.postponed():
            logits = self.network(paddle.to_tensor(normalise(pixels, self.mean, self.std))).numpy()
        check_finite(logits)
        return softmax(logits)


def load_pretrained(name: str, folder: Path | str | None = None) -> Classifier:
    """A `Classifier` with weights that come with the book: "asymmnet_large", "asymmnet_small" or "mobilenet_v2".

    folder: where they lie (default: `ASYMMLIB_WEIGHTS`, else the checkout's `weights/`, else those of the wheel, which
    brings "asymmnet_small"). Raises as `asymmlib.weights.released.find_released`.
    """
    card, path = find_released(name, folder)
    provenance = {key: value for key, value in card.items() if key not in FIELDS}
    return _classifier(name, card, card["image_size"], path, card["licence"], provenance)


def _classifier(name, info, image_size, path, licence, provenance, record=None, folder=None):
    """A `Classifier` of what a card or a run.json says, with the weights of a file."""
    from asymmlib.models import create_model, treat
    from asymmlib.weights.own import load_weights
    network = create_model(info["model"], len(info["classes"]), **info["settings"])
    norm = info.get("recipe", {}).get("norm", BEFORE["norm"])  # no weight, yet part of what the network computes
    treat(network, "as-built", norm)
    load_weights(network, path, pictures={**info, "size": image_size})
    network.eval()
    return Classifier(name, info["model"], network, tuple(info["classes"]), image_size, tuple(info["mean"]),
                      tuple(info["std"]), licence, provenance, record, folder)


def _pictures(name, prepared, split, classes, image_size, mean, std):
    """A split as a network saw it in training. `ValueError` where it knows other classes."""
    from asymmlib.dataset import Pictures
    if list(prepared.class_names) != list(classes):
        odd = sorted(set(prepared.class_names) ^ set(classes))
        raise ValueError(f"{name} knows other classes than {prepared.name} ({', '.join(odd[:5]) or 'another order'}"
                         f"{' ...' if len(odd) > 5 else ''}); pass its data with --data")
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
        """DataFrame with one row per epoch; columns in `asymmlib.callbacks.EpochLog`. `ValueError` if damaged."""
        return read_table(self.folder / "history.csv", ("epoch",))

    def weights(self, which: str = "last") -> Path:
        """The file of the weights after the "last" epoch, or the "best" by the eval split.

        Raises `ValueError` for another word and `FileNotFoundError` for a run that has not got that far.
        """
        if which not in ("last", "best"):
            raise ValueError(f"unknown weights {which!r}; known: last, best")
        from asymmlib.weights.own import read_safetensors
        path = self.folder / f"{which}.safetensors"
        if not has_file(path) or read_safetensors(path)[1].get("run") != self.info.get("id"):
            raise FileNotFoundError(f"run {self.name} has no {which} weights yet ({path}): give its train command "
                                    "again, which goes on from the last finished epoch")
        return path

    def classifier(self, which: str = "last") -> Classifier:
        """The `Classifier` of a run, with the weights that `weights` names for the same word."""
        path = self.weights(which)
        keys = ("settings", "recipe", "manifest_sha256", "pictures", "environment", "result")
        provenance = {"run": self.name, "weights": which, **{key: self.info[key] for key in keys if key in self.info}}
        record = {"manifest": self.manifest, "sha256": self.info.get("manifest_sha256"), "recipe": self.info["recipe"]}
        return _classifier(self.name, self.info, self.info["recipe"]["image_size"], path, LICENCE, provenance, record,
                           self.folder)

    @property
    def manifest(self) -> pd.DataFrame | None:
        """The manifest of the pictures that the run was begun with; None for a run that did not keep it.

        Raises `ValueError` for one that is damaged or not this run's.
        """
        path = self.folder / "manifest.csv"
        if not has_file(path):
            return None
        frame = read_manifest(path)
        if manifest_hash(frame) != self.info.get("manifest_sha256"):
            raise ValueError(f"{path} is not the manifest of its run.json: put the right one back, or remove it, and "
                             "what changed since training is not told")
        return frame

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
            file.write((json.dumps(run.info, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
        return run


def find_run(name: Path | str) -> Run:
    """Open a run by its name in the runs' folder, or by its path; `FileNotFoundError` lists the known ones.

    Raises `ValueError` where its run.json is damaged or not of a run.
    """
    folder = recorded_folder(name)
    if folder is None:
        known = ", ".join(known_runs()) or "none yet; python -m asymmlib train makes one"
        raise FileNotFoundError(f"no run {str(name)!r}; known: {known}")
    return Run(folder, _read_info(folder / "run.json"))


def recorded_folder(name: Path | str) -> Path | None:
    """The folder of the run that a name or path means; None where there is none."""
    return next((folder for folder in (runs_dir() / str(name), Path(name)) if has_file(folder / "run.json")), None)


def known_runs() -> list[str]:
    """Names of the folders in the runs' folder that hold a record, sorted."""
    return sorted(path.parent.name for path in runs_dir().glob("*/run.json"))


def _read_info(path):
    """The content of a run.json; `ValueError` that names the file and what is wrong in it."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
        wrong = [key for key, kind in KINDS.items() if not isinstance(info[key], kind)]
        wrong += [key for key, kind in MORE.items() if key in info and not isinstance(info[key], kind)]
        wrong = wrong or list(_odd(info))
    except (ValueError, LookupError, TypeError, RecursionError) as error:  # no JSON, no object, a missing key
        raise ValueError(f"{path} is damaged or not of a run ({type(error).__name__}: {error}); train the run anew or "
                         "remove its folder") from error
    if wrong:
        raise ValueError(f"{path} is not of a run: its {', '.join(wrong)} is of another kind, or no value that a run "
                         "can have; put a good copy back, or train the run anew (--fresh)")
    return info


def _odd(info):
    """Keys of a run.json whose values no run can have; a recipe says by itself what is wrong with it."""
    Recipe(**as_recorded(info["recipe"]))
    for key, value in info["settings"].items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
            yield f"settings ({key})"
    classes = info.get("classes", ["a", "b"])
    if not all(isinstance(name, str) for name in classes) or len(set(classes)) != len(classes) or len(classes) < 2:
        yield "classes"
    for key, least in (("mean", -math.inf), ("std", 0.0)):
        values = info.get(key, [1.0] * 3)
        if len(values) != 3 or not all(isinstance(v, int | float) and least < v < math.inf for v in values):
            yield key
    tops = [info["result"].get(key) for key in ("last_eval_top1", "best_eval_top1")] if "result" in info else []
    if not all(isinstance(top, int | float) and 0 <= top <= 1 for top in tops):
        yield "result"


def _no_constant(text):
    raise ValueError(f"{text} is no number of JSON")


def list_runs() -> list[Run]:
    """All runs in the runs' folder, by name."""
    return [find_run(path.parent) for path in sorted(runs_dir().glob("*/run.json"))]
