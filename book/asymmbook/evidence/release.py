"""The trained networks that come with the book, in `weights/`: choosing and writing them, and their model card.

`release` takes the best recorded run of each network, best by the eval split, and stores its weights with everything
that is needed to use them; accuracy is that on the test split. `asymmlib.weights.released` finds them again.
"""
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asymmbook.evidence.findings import recorded
from asymmbook.evidence.statistics import wilson
from asymmlib.base.files import atomic_write
from asymmlib.base.folders import weights_dir
from asymmlib.models import create_model
from asymmlib.runs import LICENCE, Classifier, Run, find_run, load_pretrained
from asymmlib.weights.own import pack_tensors, read_safetensors
from asymmlib.weights.released import RELEASED, find_released
from asymmlib.weights.settings import complete, marks

__all__ = ["amend", "best_run", "model_card", "release", "renew"]

SPLITS = ("eval", "test")
WRITTEN = ("licence", "sha256")  # the last of a card

CARD = """# Trained weights

Written by `python -m asymmbook release`; do not edit. Networks of this book, trained from random weights to tell
sixteen classes of Caltech-101 apart. Use them with

```shell
python -m asymmlib predict IMAGE...                          # {default}, the five most probable classes
{others}
```

or in Python

```python
import asymmlib
classifier = asymmlib.load_pretrained("{default}")
probabilities = classifier.predict(["IMAGE"])     # [1, {count}]; classifier.classes names the columns
```

What becomes of a picture (`classifier.preprocessing`): {preprocessing}.
Each file is checked against the SHA-256 of its card, `<name>.json`, before it is loaded.

## Accuracy

Top-1. Each run was chosen for its accuracy on the eval split, among {runs}, and so was its epoch: that number flatters.
Nothing was chosen on the test split. Intervals are Wilson's at 95 %.

{accuracy}

{storage}

## Data

{train} pictures of Caltech-101 (Li, Andreeto, Ranzato and Perona, 2022, doi 10.22002/D1.20086, CC BY 4.0), the sixteen
largest categories under 400 pictures: {classes}.
{evals} more are the eval split, {tests} the test split. Notebook 1 has the rule; the SHA-256 of the manifest is
`{manifest}`.

## Recipe

{recipe}

## Limits

- They know these sixteen classes and nothing else.{none}
- Pictures of Caltech-101 show one centred object. All of `car_side` is grey, so greyness itself may count as a car.
- {size} × {size} pixels; small details are gone before the network sees them.
- The probabilities are as they come out of the softmax. For study, not for decisions about anything or anyone.

## Licence

{licence}, like the code. They were trained on Caltech-101 (CC BY 4.0), whose pictures are not part of this repository.
"""


def release(folder: Path | None = None) -> dict[str, Classifier]:
    """Write the best recorded run of each network in `RELEASED` to `weights/`, and their model card.

    Returns {model: `Classifier`} as loaded from the new files.

    Weights are float16 where that leaves every measured accuracy as it is, else float32. Needs the runs' own weights
    (`ASYMMLIB_RUNS`) and their pictures. Raises `ValueError` where no run of a model is recorded, `FileNotFoundError`
    where its weights are not on this machine.
    """
    from asymmlib.data.sources import prepare
    folder, released, prepared = folder or weights_dir(), {}, {}
    for model in RELEASED:
        run, candidates = best_run(model)
        data = run.info["recipe"]["data"]
        if data not in prepared:
            prepared[data] = prepare(data, test_share=True, progress=False)
        tensors, info = _compact(run, prepared[data])
        _write(folder / model, tensors, {**info, "candidates": candidates})
        released[model] = load_pretrained(model, folder)
    with atomic_write(folder / "README.md", "w") as file:
        file.write(model_card(released))
    return released


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


def best_run(model: str) -> tuple[Run, int]:
    """(run with the best eval top-1 among the recorded ones of a released model, number of these)."""
    runs = recorded("compare")
    runs = runs[(runs["model"] == model) & (runs["settings"] == json.dumps(RELEASED[model]))] if len(runs) else runs
    if runs.empty:
        raise ValueError(f"no run of {model} is recorded; python -m asymmbook experiments run, then collect")
    return find_run(runs.loc[runs["best_eval_top1"].idxmax(), "run"]), len(runs)


def _compact(run, prepared):
    """The tensors to store and what is known about them."""
    full, _ = read_safetensors(run.folder / "best.safetensors")
    with np.errstate(over="ignore"):  # beyond 65,504 float16 has only infinity, which `same` refuses
        half = {name: value.astype(np.float16) if value.ndim > 1 else value for name, value in full.items()}
    before, after = (_measure(run, tensors, prepared) for tensors in (full, half))
    same = (all(np.isfinite(value).all() for value in half.values())
            and all(before[split]["right"] == after[split]["right"] for split in SPLITS))
    info, recipe = run.info, run.info["recipe"]
    return half if same else full, {
        "model": info["model"], "settings": info["settings"], "classes": info["classes"],
        "image_size": recipe["image_size"], "mean": info["mean"], "std": info["std"],
        "dtype": "float16" if same else "float32",
        "accuracy": after if same else before, "accuracy_float32": before, "accuracy_float16": after, "run": run.name,
        "epoch": info["result"]["best_epoch"], "train_pictures": info["pictures"]["train"], "recipe": recipe,
        "manifest_sha256": info["manifest_sha256"], "commit": info["environment"]["commit"]}


def _measure(run, tensors, prepared):
    """{split: right answers, pictures, top-1} of a run's network with these weights."""
    import paddle

    from asymmlib.evaluation import evaluate
    network = run.network("best")
    network.set_state_dict({name: paddle.to_tensor(value.astype(np.float32)) for name, value in tensors.items()})
    measured = {}
    for split in SPLITS:
        result = evaluate(network, run.pictures(split, prepared))
        right = int(result.right.sum())
        measured[split] = {"right": right, "pictures": len(result.labels), "top1": right / len(result.labels)}
    return measured


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


def model_card(released: Mapping[str, Classifier]) -> str:
    """The text of `weights/README.md` for {model: `Classifier`}."""
    first, (default, *others) = next(iter(released.values())), released
    infos = {model: classifier.provenance for model, classifier in released.items()}
    counts = {split: infos[default]["accuracy"][split]["pictures"] for split in SPLITS}
    recipe = [f"| {name} | {value} |" for name, value in infos[default]["recipe"].items()
              if name != "seed" and value is not None]
    return CARD.format(
        default=default, others="\n".join(f"python -m asymmlib predict --from {name} IMAGE..." for name in others),
        size=first.image_size, preprocessing=first.describe(), count=len(first.classes), licence=first.licence,
        accuracy="\n".join(_accuracy_rows(infos)),
        storage=" ".join(_storage(model, info) for model, info in infos.items()),
        runs=", ".join(f"{info['candidates']} of {model}" for model, info in infos.items()),
        train=infos[default]["train_pictures"], classes=", ".join(first.classes), evals=counts["eval"],
        tests=counts["test"], none=_none_of_these(infos), manifest=infos[default]["manifest_sha256"],
        recipe="\n".join(["| setting | value |", "|---|---|", *recipe]))


def _none_of_these(infos):
    """What the cards say about other pictures."""
    limits = {model: info.get("none_below") for model, info in infos.items()}
    if None in limits.values():
        return " Any other picture is put into one of them, too."
    words = ", ".join(f"{limit} ({model})" for model, limit in limits.items())
    return (f" Where the best class is less probable than {words}, the answer is \"none of these\"\n  "
            "(`none_below` in the cards). results/protocol.md has the rule, results/unknown.csv how often it errs on "
            "classes\n  that no training saw: too often to rely on.")


def _accuracy_rows(infos):
    yield "| model | file | test | interval | eval | run |"
    yield "|---|---|---|---|---|---|"
    for model, info in infos.items():
        test, evaluated = info["accuracy"]["test"], info["accuracy"]["eval"]
        low, high = wilson(test["top1"], test["pictures"])
        yield (f"| {model} | `{model}.safetensors`, {info['dtype']} | {test['top1']:.1%} ({test['right']} of "
               f"{test['pictures']}) | {low:.1%} to {high:.1%} | {evaluated['top1']:.1%} | `{info['run']}`, "
               f"epoch {info['epoch']} |")


def _storage(model, info):
    (full, half), halves = (info[f"accuracy_{kind}"] for kind in ("float32", "float16")), info["dtype"] == "float16"
    right = " and ".join(f"{full[split]['right']} and {half[split]['right']} {split} pictures" for split in SPLITS)
    kept = "are stored in float16" if halves else "stay in float32"
    return (f"Weights of {model} {kept} (batch norm and biases are float32 in any case): with float32 and float16 it "
            f"gets {right} right.")
