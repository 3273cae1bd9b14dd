"""The trained networks that come with the book, in `weights/`: choosing, writing and loading them.

`release` takes the best recorded run of each network, best by the eval split, and stores its weights with everything
that is needed to use them; accuracy is that on the test split. `python -m asymmlib predict IMAGE...` uses them.
"""
import json

import numpy as np

from asymmlib.paths import atomic_write, project_root

__all__ = ["RELEASED", "load_released", "model_card", "release", "weights_dir"]

# model: settings; MobileNetV2 for those who want to compare, as the live page does
RELEASED = {"asymmnet_large": {"asymmrate": 1}, "asymmnet_small": {"asymmrate": 1}, "mobilenet_v2": {}}
SPLITS = ("eval", "test")

CARD = """# Trained weights

Written by `python -m asymmlib release`; do not edit. Networks of this book, trained from random weights to tell
sixteen classes of Caltech-101 apart. Use them with

```shell
python -m asymmlib predict IMAGE...                          # {default}, the five most probable classes
{others}
```

or in Python: `network, info = asymmlib.release.load_released("{default}")`. Inputs are RGB pictures resized to
{size} × {size}, divided by 255 and normalised by `info["mean"]` and `info["std"]`: float32 `[N, 3, {size}, {size}]`.

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

- They know these sixteen classes and nothing else: any other picture is put into one of them, too.
- Pictures of Caltech-101 show one centred object. All of `car_side` is grey, so greyness itself may count as a car.
- {size} × {size} pixels; small details are gone before the network sees them.
- The probabilities were not calibrated. For study, not for decisions about anything or anyone.

## Licence

MIT, like the code. They were trained on Caltech-101 (CC BY 4.0), whose pictures are not part of this repository.
"""


def weights_dir():
    """The folder of released weights, `weights/` in the project."""
    return project_root() / "weights"


def load_released(name, folder=None):
    """Return (network in eval mode, info) of a released model; info has classes, image_size, mean, std and more.

    Raises `ValueError` for an unknown name and `FileNotFoundError` where its weights are missing.
    """
    from asymmlib.baselines import create_model
    from asymmlib.weights import load_weights
    if name not in RELEASED:
        raise ValueError(f"no released weights of {name!r}; there are: {', '.join(RELEASED)}")
    path = (folder or weights_dir()) / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no released weights at {path}: they come with a checkout of the project; --run names "
                                "a run of your own")
    info = json.loads(path.read_text(encoding="utf-8"))
    network = create_model(info["model"], len(info["classes"]), **info["settings"])
    load_weights(network, path.with_suffix(".safetensors"))
    network.eval()
    return network, info


def release(folder=None):
    """Write the best recorded run of each network in `RELEASED` to `weights/`, and their model card; return the infos.

    Weights are float16 where that leaves every measured accuracy as it is, else float32. Needs the runs' own weights
    (`ASYMMLIB_RUNS`) and their pictures. Raises `ValueError` where no run of a model is recorded, `FileNotFoundError`
    where its weights are not on this machine.
    """
    from asymmlib.sources import prepare
    folder, infos, prepared = folder or weights_dir(), {}, {}
    for model in RELEASED:
        run, candidates = best_run(model)
        data = run.info["recipe"]["data"]
        if data not in prepared:
            prepared[data] = prepare(data, test_share=True, progress=False)
        tensors, info = _compact(run, prepared[data])
        infos[model] = {**info, "candidates": candidates}
        _write(folder / model, tensors, infos[model])
    with atomic_write(folder / "README.md", "w") as file:
        file.write(model_card(infos))
    return infos


def best_run(model):
    """(run with the best eval top-1 among the recorded ones of a released model, number of these)."""
    from asymmlib.evidence import recorded
    from asymmlib.runs import find_run
    runs = recorded("compare")
    runs = runs[(runs["model"] == model) & (runs["settings"] == json.dumps(RELEASED[model]))] if len(runs) else runs
    if runs.empty:
        raise ValueError(f"no run of {model} is recorded; python -m asymmlib experiments run, then collect")
    return find_run(runs.loc[runs["best_eval_top1"].idxmax(), "run"]), len(runs)


def _compact(run, prepared):
    """The tensors to store and what is known about them."""
    from asymmlib.weights import read_tensors
    full = read_tensors(run.folder / "best.safetensors")
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

    from asymmlib.dataset import Pictures
    from asymmlib.evaluation import evaluate
    network = run.network("best")
    network.set_state_dict({name: paddle.to_tensor(value.astype(np.float32)) for name, value in tensors.items()})
    measured = {}
    for split in SPLITS:
        result = evaluate(network, Pictures(prepared, split, run.info["recipe"]["image_size"], mean=run.info["mean"],
                                            std=run.info["std"]))
        right = int((result.predicted == result.labels).sum())
        measured[split] = {"right": right, "pictures": len(result.labels), "top1": right / len(result.labels)}
    return measured


def _write(path, tensors, info):
    from safetensors.numpy import save
    with atomic_write(path.with_suffix(".safetensors")) as file:
        file.write(save(tensors))
    with atomic_write(path.with_suffix(".json"), "w") as file:
        file.write(json.dumps(info, indent=1, ensure_ascii=False) + "\n")


def model_card(infos):
    """The text of `weights/README.md` for {model: info}."""
    first, (default, *others) = next(iter(infos.values())), infos
    counts = {split: first["accuracy"][split]["pictures"] for split in SPLITS}
    recipe = [f"| {name} | {value} |" for name, value in first["recipe"].items()
              if name != "seed" and value is not None]
    return CARD.format(
        default=default, others="\n".join(f"python -m asymmlib predict --model {name} IMAGE..." for name in others),
        size=first["image_size"], accuracy="\n".join(_accuracy_rows(infos)),
        storage=" ".join(_storage(model, info) for model, info in infos.items()),
        runs=", ".join(f"{info['candidates']} of {model}" for model, info in infos.items()),
        train=first["train_pictures"], classes=", ".join(first["classes"]), evals=counts["eval"], tests=counts["test"],
        manifest=first["manifest_sha256"], recipe="\n".join(["| setting | value |", "|---|---|", *recipe]))


def _accuracy_rows(infos):
    from asymmlib.statistics import wilson
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
