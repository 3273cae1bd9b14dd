"""The trained networks that come with the book, in `weights/`: finishing and writing them.

`release` takes the runs that the plan of the trial trains for release (group "weights"), after their last epoch, makes
their probabilities honest by one temperature, and stores their weights with everything that is needed to use them.
Accuracy is that on the test split. `asymmlib.weights.released` finds them again; `model_card` writes their card.
"""
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asymmbook.evidence import records
from asymmbook.evidence.inference import calibration_error, fit_temperature
from asymmbook.evidence.model_card import model_card
from asymmbook.evidence.trial import TrialRun, plan
from asymmlib.base.files import atomic_write
from asymmlib.base.folders import weights_dir
from asymmlib.evaluation import evaluate, softmax
from asymmlib.models import create_model
from asymmlib.runs import LICENCE, Classifier, find_run, load_pretrained
from asymmlib.weights.own import head_names, pack_tensors, read_safetensors
from asymmlib.weights.released import RELEASED, find_released
from asymmlib.weights.settings import complete, marks

__all__ = ["amend", "cool", "release", "released_runs", "renew", "write_card"]

SPLITS = ("eval", "test")
WRITTEN = ("licence", "sha256")  # the last of a card


def release(folder: Path | None = None) -> dict[str, Classifier]:
    """Write the network that was trained for release of each model in `RELEASED` to `weights/`, and their model card.

    Returns {model: `Classifier`} as loaded from the new files.

    Weights are float16 where that leaves every measured accuracy as it is, else float32. Needs the runs' own weights
    (`ASYMMLIB_RUNS`) and their pictures. Raises `ValueError` where such a run is not planned yet or not recorded,
    `FileNotFoundError` where its weights are not on this machine, `FloatingPointError` for answers that are no numbers.
    """
    from asymmlib.data.sources import prepare
    folder, prepared = folder or weights_dir(), {}
    for model, planned in released_runs().items():
        if planned.pictures not in prepared:
            prepared[planned.pictures] = prepare(planned.pictures, test_share=True, progress=False)
        _write(folder / model, *_finish(find_run(planned.name), planned, prepared[planned.pictures]))
    return write_card(folder)


def write_card(folder: Path | None = None) -> dict[str, Classifier]:
    """Write `README.md` beside released files, and return what they are, {model: `Classifier`}."""
    folder = folder or weights_dir()
    released = {model: load_pretrained(model, folder) for model in RELEASED}
    with atomic_write(folder / "README.md", "w") as file:
        file.write(model_card(released))
    return released


def released_runs() -> dict[str, TrialRun]:
    """{model: the recorded run of the plan that trained it for release}; raises as `release`."""
    done = records.scores()
    runs = {run.model: run for run in plan(done) if run.group == "weights" and run.recipe.name == "released"}
    for model, run in runs.items():
        if run.awaits or run.name not in done:
            raise ValueError(f"no run for the release of {model} is recorded; python -m asymmbook experiments run "
                             "--only 'weights-*', then collect")
    return {model: runs[model] for model in RELEASED}


def _finish(run, planned, prepared):
    """(the tensors to store, what is known about them) of a finished run."""
    full, _ = read_safetensors(run.weights("last"))
    temperature = _temperature(run, full, prepared)
    full = cool(full, temperature, head_names(run.network("last")))
    with np.errstate(over="ignore"):  # beyond 65,504 float16 has only infinity, which `same` refuses
        half = {name: value.astype(np.float16) if value.ndim > 1 else value for name, value in full.items()}
    before, after = (_measure(run, tensors, prepared) for tensors in (full, half))
    same = (all(np.isfinite(value).all() for value in half.values())
            and all((before[split].right == after[split].right).all() for split in SPLITS))
    kept, info = after if same else before, run.info
    return half if same else full, {
        "model": info["model"], "settings": info["settings"], "classes": info["classes"],
        "image_size": info["recipe"]["image_size"], "mean": info["mean"], "std": info["std"],
        "dtype": "float16" if same else "float32", "accuracy": _accuracy(kept), "accuracy_float32": _accuracy(before),
        "accuracy_float16": _accuracy(after), "per_class": _per_class(kept["test"], info["classes"]),
        "temperature": temperature, "calibration_error": _calibration(kept["test"], temperature),
        "run": run.name, "epoch": info["recipe"]["epochs"], "train_pictures": info["pictures"]["train"],
        "recipe": info["recipe"], "source": _source(planned), "manifest_sha256": info["manifest_sha256"],
        "commit": info["environment"]["commit"]}


def cool(tensors: Mapping[str, np.ndarray], temperature: float, head: tuple[str, str]) -> dict[str, np.ndarray]:
    """{name: array} with the last layer, named by `head`, divided by a temperature: logits are, and no answer changes.
    """
    return {name: (value / temperature).astype(value.dtype) if name in head else value
            for name, value in tensors.items()}


def _with(run, tensors):
    import paddle
    network = run.network("last")
    network.set_state_dict({name: paddle.to_tensor(value.astype(np.float32)) for name, value in tensors.items()})
    return network


def _temperature(run, tensors, prepared):
    result = evaluate(_with(run, tensors), run.pictures("eval", prepared), finite=True)
    return fit_temperature(result.logits, result.labels)


def _measure(run, tensors, prepared):
    """{split: what a run's network says with these weights}."""
    network = _with(run, tensors)
    return {split: evaluate(network, run.pictures(split, prepared)) for split in SPLITS}


def _accuracy(measured):
    return {split: {"right": int(result.right.sum()), "pictures": len(result.labels), "top1": result.top1}
            for split, result in measured.items()}


def _per_class(result, classes):
    """{class: [right, pictures]}."""
    return {name: [int(result.right[result.labels == label].sum()), int((result.labels == label).sum())]
            for label, name in enumerate(classes)}


def _calibration(result, temperature):
    """Expected calibration error without the temperature and with it."""
    return {when: calibration_error(softmax(result.logits * factor).max(axis=1), result.right)
            for when, factor in (("before", temperature), ("after", 1.0))}


def _source(planned):
    """What a run started from; None for random weights."""
    if planned.start is None:
        return None
    run = find_run(planned.start)
    return {"run": run.name, "classes": len(run.info["classes"]), "train_pictures": run.info["pictures"]["train"],
            "recipe": run.info["recipe"], "pictures": run.info["recipe"]["data"]}


def renew(folder: Path | None = None) -> None:
    """Write the released files of a folder (default `weights/`) anew as `release` would today, without their runs.

    Every tensor stays as it is, bit for bit; what stands beside them, such as settings and digest, is made anew (the
    library writes metadata in any order, so the file's SHA-256 is another one each time).
    Raises as `asymmlib.weights.released.find_released`.
    """
    for model in RELEASED:
        card, path = find_released(model, folder)
        tensors, _ = read_safetensors(path)
        _write(path.with_suffix(""), tensors, {key: card[key] for key in card if key not in WRITTEN})


def _write(path, tensors, info):
    network = create_model(info["model"], len(info["classes"]), **info["settings"])
    content = pack_tensors(tensors, complete(network, marks({**info, "size": info["image_size"]})))
    info = {**info, **dict(zip(WRITTEN, (LICENCE, hashlib.sha256(content).hexdigest()), strict=True))}
    with atomic_write(path.with_suffix(".safetensors")) as file:
        file.write(content)
    _write_card(path, info)


def amend(model: str, facts: Mapping[str, Any], folder: Path | None = None) -> None:
    """Put facts into the card of a released model, such as {"none_below": 0.4}; its weights and digest stay.

    Raises as `asymmlib.weights.released.find_released`.
    """
    card, path = find_released(model, folder)
    _write_card(path, {**{key: card[key] for key in card if key not in WRITTEN}, **facts,
                       **{key: card[key] for key in WRITTEN}})


def _write_card(path, info):
    with atomic_write(path.with_suffix(".json"), "w") as file:
        file.write(json.dumps(info, indent=1, ensure_ascii=False) + "\n")
