"""Train a model by a recipe: `train("asymmnet_large", get_recipe("quick"))`.

`paddle.Model.fit` runs the loop; this module gives it what the article's notebook left to chance: a schedule that
steps when it should, a seed for everything, a folder per run, and a checkpoint to go on from. Notebook 03 builds
the schedule in section 3 and the loop, by hand, in section 4.
"""
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import paddle
import paddle.nn.functional as F
from paddle.optimizer import lr as schedules

from asymmlib import callbacks as cb
from asymmlib.base import interrupts, parallel
from asymmlib.base.environment import environment
from asymmlib.base.files import checksum
from asymmlib.checkpoint import load_checkpoint
from asymmlib.data.manifest import manifest_hash
from asymmlib.data.sources import Prepared, prepare
from asymmlib.dataset import ARTICLE_MEAN, ARTICLE_STD, Pictures, make_loader
from asymmlib.fast import accelerate, is_accelerated
from asymmlib.models import create_model, treat
from asymmlib.network import AsymmetricalBottleneck, AsymmNet
from asymmlib.recipes import Recipe
from asymmlib.records.classifiers import find_weights
from asymmlib.records.opening import locked_run, open_run, run_folder
from asymmlib.runs import Run
from asymmlib.weights.convert import start_from
from asymmlib.weights.head import backbone, freeze
from asymmlib.weights.own import save_weights
from asymmlib.weights.settings import marks

__all__ = ["make_loss", "make_optimizer", "make_pictures", "make_schedule", "run_name", "train", "zero_last_gamma"]


def train(model_name: str, recipe: Recipe, *, width: float | None = None, asymmrate: int | None = None,
          prepared: Prepared | None = None, name: str | None = None, fresh: bool = False,
          start: Path | str | None = None, new_head: bool = False) -> Run:
    """Train a model by a `Recipe` and return its `Run`.

    A finished run of the same settings is opened instead, an interrupted one goes on at its last checkpoint; both
    are said in a printed line. `fresh=True` starts over; nothing is deleted without it. `prepared` is the data (None:
    what the recipe or `ASYMMLIB_DATA` names), `name` the folder below the runs' folder. `start` are weights in place of
    random ones: a run's, a released network's, those of a file, ours or one that `asymmlib.weights.convert` reads;
    `new_head` leaves their last layer out; the recipe's `frozen_epochs` and `backbone_rate` say how the rest trains.
    Started by Paddle's launcher, all processes call this and share the work (`asymmlib.base.parallel`); rank 0 writes.
    Raises `ValueError` when that folder holds a run of other settings or something else, for unknown names, for weights
    that do not fit, and for processes that do not agree; `FloatingPointError` for a loss or weights that are not
    finite; `RuntimeError` when another process of the job is lost.
    """
    settings = {key: value for key, value in (("width", width), ("asymmrate", asymmrate)) if value is not None}
    if prepared is None:
        with parallel.in_turn(parallel.local_rank()):
            prepared = prepare(recipe.data, test_share=recipe.test_share)
    recipe = recipe.replace(data=prepared.name)
    start = _check_start(start, new_head, recipe)
    build = partial(_build, model_name, prepared.class_names, settings, recipe, start, new_head)
    folder = run_folder(run_name(model_name, recipe, settings) if name is None else name)
    if start is not None and start.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{start} lies in the folder of the run that would start from it: give this run another name "
                         "(--name)")
    build(tell=True)  # wrong names, settings and weights end here, early
    settings_of_run = {"model": model_name, "settings": settings, "recipe": recipe.as_dict(),
                       "manifest_sha256": manifest_hash(prepared.manifest)}
    if start is not None:
        settings_of_run["start"] = {"sha256": checksum(start), "new_head": new_head}
    with parallel.lost_rank_told():
        parallel.agree(settings_of_run | {"recipe": {**recipe.as_dict(), "data": None}})
        if parallel.rank():  # the lock and the record are rank 0's
            return _open_and_fit(folder, recipe, prepared, build, settings_of_run, fresh)
        with locked_run(folder, fresh):
            return _open_and_fit(folder, recipe, prepared, build, settings_of_run, fresh)


def _check_start(start: Path | str | None, new_head: bool, recipe: Recipe) -> Path | None:
    """The file to start from, or None; `ValueError` for settings that do not go together."""
    if start is None and (new_head or recipe.frozen_epochs):
        option = "new_head (--new-head)" if new_head else "frozen_epochs (--frozen-epochs)"
        raise ValueError(f"{option} needs start (--start): weights, all but the last layer of which are kept")
    if recipe.frozen_epochs and parallel.ranks() > 1:
        raise ValueError(f"frozen_epochs ({recipe.frozen_epochs}) needs a single process: several share the gradients "
                         "of all layers")
    return None if start is None else find_weights(start)


def _open_and_fit(folder, recipe, prepared, build, wanted, fresh):
    run = Run(folder, parallel.from_first(lambda: open_run(folder, wanted, prepared.manifest, fresh).info))
    interrupts.promise(f"the same command{' without --fresh' if fresh else ''} goes on from the last finished epoch")
    if run.finished:
        print(f"run {run.name} is finished: loaded, not trained (fresh=True trains anew)", flush=True)
        return run
    return _fit(run, recipe, prepared, build)


def run_name(model_name: str, recipe: Recipe, settings: Mapping[str, float]) -> str:
    """Name of a run's folder, made of everything by which runs usually differ."""
    parts = [model_name, *(f"{key}{value:g}" for key, value in settings.items()), recipe.name,
             cast(str, recipe.data), f"seed{recipe.seed}"]  # `train` has named the data
    return "-".join(parts)


def _build(model_name, classes, settings, recipe, start, new_head, tell=False):
    network = treat(create_model(model_name, len(classes), **settings), recipe.initialisation, recipe.norm,
                    recipe.dropout)
    if recipe.zero_last_gamma:
        zero_last_gamma(network)
    if start is not None:
        start_from(network, start, new_head, classes, tell)
    return network


def _fit(run, recipe, prepared, build):
    paddle.seed(recipe.seed)
    network = build()
    with parallel.in_turn(parallel.local_rank()):
        train_set, eval_set = make_pictures(prepared, recipe)
    loader = make_loader(train_set, recipe.batch_size, shuffle=True, seed=recipe.seed, rank=parallel.rank(),
                         ranks=parallel.ranks(), drop_last=recipe.drop_last)
    schedule, by_epoch = make_schedule(recipe, len(loader))
    optimizer = make_optimizer(network, recipe, schedule)
    if parallel.ranks() > 1:  # the fast kernels normalise within one process, so they stay out
        parallel.share_norms(network)
    elif recipe.accelerate and paddle.device.get_device() == "cpu":
        with interrupts.postponed():
            accelerate(network, optimizer=optimizer)
    model = _model(network, optimizer, recipe)
    rows = load_checkpoint(run.folder / "checkpoints", network, optimizer, getattr(model, "_scaler", None),
                           run.info.get("id"))
    parallel.agree({"the run": run.info.get("id"), "the last finished epoch": len(rows)})
    run = _record(run, classes=prepared.class_names, mean=list(train_set.mean), std=list(train_set.std),
                  pictures={"train": len(train_set) // recipe.passes, "eval": len(eval_set)},
                  **_sessions(run, len(rows), is_accelerated(network)))
    if rows:
        print(f"run {run.name} goes on after epoch {len(rows)} of {recipe.epochs}", flush=True)
    started = time.perf_counter()
    if len(rows) < recipe.epochs and not cb.out_of_patience(rows, recipe.patience):
        observers, log = _observers(run, recipe, loader, eval_set, rows, by_epoch)
        with interrupts.postponed():
            model.fit(loader, epochs=recipe.epochs - len(rows), verbose=0, callbacks=observers)
        rows = log.rows
    if not parallel.rank():
        save_weights(network, run.folder / "last.safetensors", _mark(run))
    return _record(run, result=_result(rows, time.perf_counter() - started))


def _record(run, **changes):
    return Run(run.folder, {**run.info, **changes}) if parallel.rank() else run.write(**changes)


def _mark(run):
    """The metadata of a run's weights: whose they are, and what the pictures were. Runs of old have no id."""
    pictures = marks({**run.info, "size": run.info.get("recipe", {}).get("image_size")})
    return pictures | ({"run": run.info["id"]} if "id" in run.info else {})


def _sessions(run, done, accelerated):
    """What run.json says of kernels, processes and versions: of the first session by itself, and of each one.

    A session is one call of `train`; `first_epoch` is where it went on. One that ended before its first epoch did, or
    whose epochs are done again, is replaced.
    """
    own = {"processes": parallel.ranks(), "accelerated": accelerated, "environment": environment()}
    earlier = run.info.get("sessions", [])
    if not earlier and done and "environment" in run.info:  # a run from before sessions were kept
        earlier = [{"first_epoch": 1, **{key: run.info.get(key) for key in own}}]
    earlier = [session for session in earlier if session["first_epoch"] <= done]
    same = earlier and {key: earlier[-1][key] for key in own} == own
    sessions = earlier if same else [*earlier, {"first_epoch": done + 1, **own}]
    return {"sessions": sessions, **{key: sessions[0][key] for key in own}}


def _model(network, optimizer, recipe):
    """The network with optimiser, loss and metric; with several processes `paddle.Model` makes it DataParallel."""
    loss = make_loss(recipe.label_smoothing)
    amp = recipe.amp and paddle.amp.is_float16_supported()
    if recipe.amp and not amp:
        print(f"amp: {paddle.device.get_device()} has no float16 for training; float32 it is", flush=True)
    model = paddle.Model(network)
    model.prepare(optimizer, parallel.SharedLoss(loss) if parallel.ranks() > 1 else loss, paddle.metric.Accuracy(),
                  amp_configs="O1" if amp else None)
    if amp:  # as the first batch would; here, so that a checkpoint's state can go into it
        model._scaler = paddle.amp.GradScaler(**model._adapter._amp_configs)
    return model


def _observers(run, recipe, loader, eval_set, rows, by_epoch):
    """The callbacks of `fit` in their order, and the one that holds the rows. Those that write are for rank 0."""
    log = cb.EpochLog(eval_set, run.folder / "history.csv", rows)
    writers = [] if parallel.rank() else [
        cb.BestModel(run.folder / "best.safetensors", rows, _mark(run)), cb.VisualDLLog(run.folder / "visualdl"),
        cb.Progress(recipe.epochs, len(rows))]
    last = [] if parallel.rank() else [cb.Checkpoint(run.folder / "checkpoints", log.rows, run.info.get("id"))]
    schedule = paddle.callbacks.LRScheduler(by_step=not by_epoch, by_epoch=by_epoch)
    held = [cb.Frozen(freeze, recipe.frozen_epochs, len(rows))] if recipe.frozen_epochs else []
    return [cb.Reproducible(loader, recipe.seed, len(rows)), *held, cb.Finite(len(rows)), log, *writers, schedule,
            cb.EarlyStop(log.rows, recipe.patience), *last], log


def _result(rows, seconds):
    best = max(rows, key=lambda row: (row["eval_top1"], -row["epoch"]))
    return {"last_eval_top1": rows[-1]["eval_top1"], "last_eval_loss": rows[-1]["eval_loss"],
            "best_eval_top1": best["eval_top1"], "best_epoch": best["epoch"],
            "train_seconds": sum(row["seconds"] for row in rows), "session_seconds": seconds}


def make_pictures(prepared: Prepared, recipe: Recipe) -> tuple[Pictures, Pictures]:
    """The train and eval splits as `Pictures`, with the recipe's augmentation and normalisation."""
    mean, std = (ARTICLE_MEAN, ARTICLE_STD) if recipe.normalisation == "article" else (None, None)
    train_set = Pictures(prepared, "train", recipe.image_size, augmentation=recipe.augmentation, mean=mean, std=std,
                         rotation=recipe.rotation, seed=recipe.seed, per_class=recipe.train_per_class,
                         passes=recipe.passes)
    eval_set = Pictures(prepared, "eval", recipe.image_size, mean=train_set.mean, std=train_set.std)
    return train_set, eval_set


def make_schedule(recipe: Recipe, steps_per_epoch: int) -> tuple[schedules.LRScheduler, bool]:
    """Return the recipe's `LRScheduler` and whether it steps per epoch (else per batch).

    "cosine-per-batch" is flaw 1 of the article: T_max counts epochs, yet `fit` steps it after every batch.
    """
    if recipe.schedule == "warmup-cosine":
        warm_up, steps = recipe.warmup_epochs * steps_per_epoch, recipe.epochs * steps_per_epoch
        cosine = schedules.CosineAnnealingDecay(recipe.base_lr, steps - warm_up)
        if not warm_up:
            return cosine, False
        return schedules.LinearWarmup(cosine, warm_up, start_lr=0.0, end_lr=recipe.base_lr), False
    return schedules.CosineAnnealingDecay(recipe.base_lr, recipe.epochs), recipe.schedule == "cosine"


def make_optimizer(network: paddle.nn.Layer, recipe: Recipe,
                   schedule: schedules.LRScheduler) -> paddle.optimizer.Optimizer:
    """SGD with (Nesterov) momentum and L2 weight decay, on biases and batch norm only where the recipe says so.

    All but the last layer gets the rate times `backbone_rate`.
    """
    decay = recipe.weight_decay
    if isinstance(network, AsymmNet) and recipe.asymmnet_weight_decay is not None:
        decay = recipe.asymmnet_weight_decay
    if not recipe.decay_bias_and_norm:
        for parameter in network.parameters():
            if parameter.ndim == 1:  # biases, gammas and betas are the vectors among the parameters
                parameter.regularizer = paddle.regularizer.L2Decay(0.0)
    for parameter in backbone(network) if recipe.backbone_rate != 1 else ():
        parameter.optimize_attr["learning_rate"] = recipe.backbone_rate
    return paddle.optimizer.Momentum(schedule, recipe.momentum, parameters=network.parameters(), weight_decay=decay,
                                     use_nesterov=recipe.optimizer == "nesterov")


def make_loss(label_smoothing: float = 0.0) -> Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]:
    """Mean cross-entropy of logits `[N, classes]` and labels int64 `[N, 1]`; smoothing spreads that share evenly.

    Paddle's own `label_smoothing` takes labels `[N]` only and fails on the `[N, 1]` that `paddle.Model` works with.
    """
    if not label_smoothing:
        return paddle.nn.CrossEntropyLoss()

    def smoothed(logits, labels):
        targets = F.label_smooth(F.one_hot(labels.squeeze(1), logits.shape[1]), epsilon=label_smoothing)
        return F.cross_entropy(logits, targets, soft_label=True)
    return smoothed


def zero_last_gamma(network: paddle.nn.Layer) -> None:
    """Start every block with a shortcut as the identity: gamma of its last batch norm becomes 0 (Goyal et al., 2017).

    Only for AsymmNet; `ValueError` for a network without its blocks.
    """
    blocks = [layer for layer in network.sublayers() if isinstance(layer, AsymmetricalBottleneck)]
    if not blocks:
        raise ValueError("zero_last_gamma needs a network of asymmetrical bottlenecks; this one has none")
    for block in blocks:
        if block.plan.shortcut:
            paddle.assign(paddle.zeros_like(block.project.bn.weight), block.project.bn.weight)
