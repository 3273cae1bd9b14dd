"""The model card of the released weights, `weights/README.md`, in the format of the Hugging Face Hub.

A block of YAML with the licence, the data and the results, then text. Everything in it comes from the cards of the
weights (`<name>.json`) and the recorded runs. Format: the Hub's documentation, "Model Cards".
"""
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd
import yaml

from asymmbook.evidence.candidates import shown
from asymmbook.evidence.shipping import CANDIDATES
from asymmbook.evidence.statistics import wilson
from asymmlib.recipes import AUGMENTATIONS
from asymmlib.runs import Classifier

__all__ = ["model_card"]

DATA = "Caltech-101, sixteen categories"
CARD = """---
{head}---

# Trained weights

Written by `python -m asymmbook release`; do not edit. Networks of this book that tell sixteen classes of Caltech-101
apart: {classes}.

## Use

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

**Meant for** learning and trying out: comparing architectures at equal treatment, exporting, quantising, starting
another training. **Not meant for** decisions about anything or anyone, nor for other pictures than these kinds.

## Accuracy

Top-1 on the test pictures, which chose nothing: not the recipe, the epoch or the seed. Intervals are Wilson's at 95 %.

{accuracy}

{storage}

By class, right answers of the test pictures:

{per_class}

**Calibration.** The last layer is divided by a temperature that was fitted on the eval pictures; no answer changes by
it. Expected calibration error on the test pictures (15 bins), before and after:

{calibration}

## Training

By one recipe for all three networks. {source} {train} pictures of the sixteen, {epochs} epochs
({augmentation}); the weights are those after the last epoch. {evals} pictures more are the eval split, {tests} the
test split (notebook 1 has the rule). Pictures: Li, Andreeto, Ranzato and Perona (2022), doi 10.22002/D1.20086,
CC BY 4.0. SHA-256 of the manifest: `{manifest}`.

The recipe is the best of {tried} that were tried on sixteen other classes ({size} px, one fold, by the mean of two
networks; `results/protocol.md` has the rule). Those called `scratch` began with random weights, all others with weights
pre-trained on other classes. Pictures count each time that they go forward and back, pre-training included; minutes are
those of one thread, beside another training.

{candidates}

All settings:

{recipe}

## Limits

- They know these sixteen classes and nothing else.{none}
- Pictures of Caltech-101 show one centred object. All of `car_side` is grey, so greyness itself may count as a car.
- {size} × {size} pixels; small details are gone before the network sees them.
- {tests} test pictures of one data set say little about pictures from elsewhere.

## Licence

{licence}, like the code. They were trained on Caltech-101 (CC BY 4.0), whose pictures are not part of this repository.
"""


def model_card(released: Mapping[str, Classifier]) -> str:
    """The text of `weights/README.md` for {model: `Classifier`}."""
    first, (default, *others) = next(iter(released.values())), released
    infos = {model: classifier.provenance for model, classifier in released.items()}
    info = infos[default]
    counts = {split: info["accuracy"][split]["pictures"] for split in ("eval", "test")}
    recipe = {name: value for name, value in info["recipe"].items() if name != "seed" and value is not None}
    return CARD.format(
        head=_head(released, infos), default=default,
        others="\n".join(f"python -m asymmlib predict --from {name} IMAGE..." for name in others),
        size=first.image_size, preprocessing=first.describe(), count=len(first.classes), licence=first.licence,
        accuracy=_table(_accuracy_rows(infos)), per_class=_table(_class_rows(infos)),
        calibration=_table(_calibration_rows(infos)), source=_source(info["source"]), epochs=info["epoch"],
        augmentation=AUGMENTATIONS[info["recipe"]["augmentation"]], tried=len(CANDIDATES),
        candidates=_table(shown()),
        storage=" ".join(_storage(model, info) for model, info in infos.items()), train=info["train_pictures"],
        classes=", ".join(first.classes), evals=counts["eval"], tests=counts["test"], none=_none_of_these(infos),
        manifest=info["manifest_sha256"],
        recipe=_table({"setting": name, "value": value} for name, value in recipe.items()))


def _head(released, infos):
    """The YAML that the Hub reads: https://huggingface.co/docs/hub/model-cards#model-card-metadata."""
    results = [{"name": model, "results": [{
        "task": {"type": "image-classification"},
        "dataset": {"type": "caltech101", "name": DATA, "split": "test"},
        "metrics": [{"type": "accuracy", "name": "top-1", "value": round(info["accuracy"]["test"]["top1"], 4)}]}]}
        for model, info in infos.items()]
    licence = next(iter(released.values())).licence.lower()
    return yaml.safe_dump({
        "license": licence, "language": "en", "library_name": "asymmlib", "pipeline_tag": "image-classification",
        "tags": ["paddlepaddle", "image-classification", "asymmnet", "mobilenet-v2", "caltech-101"],
        "metrics": ["accuracy"], "model-index": results}, sort_keys=False)


def _table(rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> str:
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def _accuracy_rows(infos: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for model, info in infos.items():
        test = info["accuracy"]["test"]
        low, high = wilson(test["top1"], test["pictures"])
        yield {"model": model, "file": f"`{model}.safetensors`, {info['dtype']}",
               "test": f"{test['top1']:.1%} ({test['right']} of {test['pictures']})",
               "interval": f"{low:.1%} to {high:.1%}", "eval": f"{info['accuracy']['eval']['top1']:.1%}",
               "run": f"`{info['run']}`"}


def _class_rows(infos):
    for label in next(iter(infos.values()))["per_class"]:
        yield {"class": label, **{model: "{} of {}".format(*info["per_class"][label])
                                  for model, info in infos.items()}}


def _calibration_rows(infos):
    for model, info in infos.items():
        error = info["calibration_error"]
        yield {"model": model, "temperature": f"{info['temperature']:.2f}", "before": f"{error['before']:.3f}",
               "after": f"{error['after']:.3f}"}


def _source(source):
    if source is None:
        return "From random weights:"
    recipe = source["recipe"]
    return (f"First {source['train_pictures']:,} pictures of {source['classes']} other classes, {recipe['epochs']} "
            f"epochs ({AUGMENTATIONS[recipe['augmentation']]}). Then, with a new last layer,")


def _none_of_these(infos):
    """What the cards say about other pictures."""
    limits = {model: info.get("none_below") for model, info in infos.items()}
    if None in limits.values():
        return " Any other picture is put into one of them, too."
    words = ", ".join(f"{limit} ({model})" for model, limit in limits.items())
    return (f" Where the best class is less probable than {words}, the answer is \"none of these\"\n  "
            "(`none_below` in the cards). results/protocol.md has the rule, results/unknown.csv how often it errs on "
            "classes\n  that no training saw: too often to rely on.")


def _storage(model, info):
    (full, half), halves = (info[f"accuracy_{kind}"] for kind in ("float32", "float16")), info["dtype"] == "float16"
    right = " and ".join(f"{full[split]['right']} and {half[split]['right']} {split} pictures"
                         for split in ("eval", "test"))
    kept = "are stored in float16" if halves else "stay in float32"
    return (f"Weights of {model} {kept} (batch norm and biases are float32 in any case): with float32 and float16 it "
            f"gets {right} right.")
