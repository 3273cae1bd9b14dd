"""Which baselines the notebooks train, and how long a training will take here, told before it begins.

`ASYMMLIB_BASELINES` names the baselines. The pace is that of this machine: a step of each network, timed.
"""
import os
import time
from collections.abc import Iterable, Mapping

import paddle
import paddle.nn.functional as F
import pandas as pd

from asymmlib.data.sources import Prepared
from asymmlib.fast import accelerate
from asymmlib.models import MODELS, create_model
from asymmlib.recipes import Recipe
from asymmlib.runs import find_run
from asymmlib.training import make_optimizer, make_schedule, run_name

__all__ = ["BASELINES", "baselines", "forecast", "pace", "sentence"]

BASELINES = ("resnet50", "vgg19", "mobilenet_v2")  # of the article, in its order
FEW, MANY = 2, 6  # pictures of the two steps that are timed: what a step costs by itself, and each picture in it
EVALUATED = 1 / 3  # of the time of training: a picture that is only evaluated goes forward, not back
HOURS = 3600  # from two of them on, minutes are hours


def baselines(names: Iterable[str] = BASELINES) -> tuple[str, ...]:
    """Those of `names`, all baselines unless told, that `ASYMMLIB_BASELINES` names (between commas), or all of them.

    Raises `ValueError` that names what is no baseline, and what the setting accepts.
    """
    wanted = [name for name in os.environ.get("ASYMMLIB_BASELINES", "").replace(",", " ").split() if name]
    for name in wanted:
        if name not in BASELINES:
            raise ValueError(f"ASYMMLIB_BASELINES: {name!r} is no baseline; accepted are {', '.join(BASELINES)}, one "
                             "or more of them between commas")
    return tuple(name for name in names if not wanted or name in wanted)


def forecast(recipes: Mapping[str, Recipe], prepared: Prepared) -> pd.DataFrame:
    """What training each network by its recipe means: a row a network, by its label, with readers' words as columns.

    The time, in `seconds` of `attrs`, is that of the epochs that its run has not finished. Nothing is written.
    """
    shares = prepared.manifest["split"].value_counts()
    rows, seconds = {}, []
    for name, recipe in recipes.items():
        todo = recipe.epochs - _done(name, recipe.replace(data=prepared.name))
        train = _pictures(prepared, recipe)
        visits = todo * (train + EVALUATED * shares.get("eval", 0))
        seconds.append(visits * pace(name, recipe, len(prepared.class_names)) if todo else 0.0)
        rows[MODELS[name].label] = {"recipe": recipe.name, "pixels, each side": recipe.image_size,
                                    "training pictures": train, "epochs to train": todo}
    table = pd.DataFrame(rows).T
    unit, scale = _unit(sum(seconds))
    table[f"{unit} here, about"] = [f"{value / scale:.1f}" for value in seconds]
    table.attrs["seconds"] = dict(zip(recipes, seconds, strict=True))
    return table


def sentence(table: pd.DataFrame) -> str:
    """What a table of `forecast` comes to."""
    seconds = table.attrs["seconds"].values()
    if not any(seconds):
        return "All of these runs are finished: they are opened, and nothing is trained."
    total, count = sum(seconds), sum(value > 0 for value in seconds)
    unit, scale = _unit(total)
    return (f"{count} of {len(seconds)} networks will be trained, which takes about {total / scale:.1f} {unit} on this "
            "machine at the pace of one step of each, timed just now.")


def _unit(seconds):
    """In what readers are told of that time, and how many seconds one is."""
    return ("hours", HOURS) if seconds >= 2 * HOURS else ("minutes", 60)


def pace(name: str, recipe: Recipe, classes: int) -> float:
    """Seconds a picture of training here, by the recipe's size, batch and kernels: from steps of few pictures."""
    network = create_model(name, classes)
    optimizer = make_optimizer(network, recipe, make_schedule(recipe, 1)[0])
    if recipe.accelerate and paddle.device.get_device() == "cpu":
        accelerate(network, optimizer=optimizer)
    _step(network, optimizer, FEW, recipe.image_size)  # memory is fetched
    few, many = (_step(network, optimizer, pictures, recipe.image_size) for pictures in (FEW, MANY))
    each = max(many - few, 0) / (MANY - FEW)
    return each + max(few - FEW * each, 0) / recipe.batch_size


def _step(network, optimizer, pictures, size):
    images, labels = paddle.randn([pictures, 3, size, size]), paddle.zeros([pictures, 1], "int64")
    started = time.perf_counter()
    F.cross_entropy(network(images), labels).backward()
    optimizer.step()
    optimizer.clear_grad()
    network.parameters()[0].sum().item()  # a GPU answers when it is done
    return time.perf_counter() - started


def _pictures(prepared, recipe):
    train = prepared.manifest.loc[prepared.manifest["split"] == "train", "class"]
    most = recipe.train_per_class or len(train)
    return int(train.value_counts().clip(upper=most).sum())


def _done(name, recipe):
    """Epochs that the run of a network has behind it; 0 where there is none that can be opened."""
    try:
        run = find_run(run_name(name, recipe, {}))
        return recipe.epochs if run.finished else len(run.history)
    except (FileNotFoundError, ValueError):
        return 0
