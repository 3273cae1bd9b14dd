"""Callbacks of `paddle.Model.fit`: small observers that seed, measure, write and report, once an epoch.

They go into `fit` in this order: `Reproducible`, `Frozen` where layers are, `Finite`, `EpochLog`, then those that read
`logs["row"]`, the row that `EpochLog` makes, then the learning rate's scheduler, last `Checkpoint`, which stores the
state of all before it.
Notebook 03, section 4, runs the loop around which they stand; section 5 looks at what they leave on disk.
"""
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pandas as pd
from paddle import nn
from tqdm import tqdm

from asymmlib.base import interrupts, parallel
from asymmlib.base.extras import missing_package
from asymmlib.base.files import atomic_write
from asymmlib.checkpoint import save_checkpoint
from asymmlib.evaluation import evaluate
from asymmlib.weights.own import save_weights

__all__ = ["BestModel", "Checkpoint", "EarlyStop", "EpochLog", "Finite", "Frozen", "Progress", "Reproducible",
           "VisualDLLog", "out_of_patience"]

Row = dict[str, float]  # one epoch in history.csv, as `EpochLog` describes it
WATCHED = 8  # weights looked at after each batch


class Reproducible(paddle.callbacks.Callback):
    """Make every epoch a function of (seed, epoch): order, augmentation and dropout (which differs between processes).

    `fit` counts epochs from 0 even when a run goes on; `first_epoch` is where it goes on. Before each batch a signal
    that came meanwhile is obeyed.
    """

    def __init__(self, loader: paddle.io.DataLoader, seed: int, first_epoch: int = 0) -> None:
        super().__init__()
        self.loader, self.seed, self.first_epoch = loader, seed, first_epoch

    def on_train_batch_begin(self, step: int, logs: dict | None = None) -> None:
        interrupts.check()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        epoch += self.first_epoch
        self.loader.batch_sampler.set_epoch(epoch)
        self.loader.dataset.set_epoch(epoch)
        paddle.seed(self.seed * 100_003 + epoch + (parallel.rank() << 40))


class Frozen(paddle.callbacks.Callback):
    """Hold layers still through the first `epochs` epochs, by `freeze(network, whether)`, such as that of
    `asymmlib.weights.head`, which spares the last layer.

    Only while batches are trained: whoever measures or stores the network at an epoch's end sees no mark of it.
    `first_epoch` is as for `Reproducible`.
    """

    def __init__(self, freeze: Callable[[nn.Layer, bool], None], epochs: int, first_epoch: int = 0) -> None:
        super().__init__()
        self.freeze, self.epochs, self.first_epoch = freeze, epochs, first_epoch

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.freeze(self.model.network, epoch + self.first_epoch < self.epochs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.freeze(self.model.network, False)


class Finite(paddle.callbacks.Callback):
    """End a training whose numbers are no longer finite, before anything of it is stored.

    Looked at are the loss of every batch, the weights and running averages a few at a time after each batch (all would
    cost a good part of a small step), and all of them after the epoch's last. Raises `FloatingPointError`.
    """

    def __init__(self, first_epoch: int = 0) -> None:
        super().__init__()
        self.epoch = first_epoch

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch, self.weights = self.epoch + 1, list(self.model.network.state_dict().items())

    def on_train_batch_end(self, step: int, logs: dict) -> None:
        if not np.isfinite(logs["loss"]).all():
            self._end(f"the loss became {logs['loss'][0]}", step)
        start = step * WATCHED % len(self.weights)
        self._watch(self.weights[start:start + WATCHED], step)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._watch(self.weights, self.params["steps"] - 1)

    def _watch(self, weights, step):
        for name, value in weights:
            if not np.isfinite(value.numpy()).all():
                self._end(f"{name} has values that are not finite", step)

    def _end(self, what, step):
        raise FloatingPointError(f"{what} in epoch {self.epoch}, batch {step + 1}, at learning rate "
                                 f"{self.model._optimizer.get_lr():g}: lower base_lr (--base-lr)")


class EpochLog(paddle.callbacks.Callback):
    """Measure each epoch: one row, kept in `rows` and in `history.csv`.

    epoch (from 1), train_loss (mean over pictures, in train mode), train_top1, eval_loss, eval_top1, lr (at the
    epoch's first batch), images_per_s (training only), seconds (training only). Shares lie between 0 and 1. Of several
    processes all make the row, and rank 0 writes it.
    Outputs of the evaluation that are not finite, as after the first steps at a high rate, when running averages lag
    behind, are told; such pictures count as wrong, and there is no eval_loss.
    """

    def __init__(self, eval_pictures: paddle.io.Dataset, path: Path | str, rows: Iterable[Row] = ()) -> None:
        super().__init__()
        self.eval_pictures, self.path, self.rows = eval_pictures, Path(path), list(rows)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.loss_sum, self.seen, self.started = 0.0, 0, time.perf_counter()
        self.lr = self.model._optimizer.get_lr()

    def on_train_batch_end(self, step: int, logs: dict) -> None:
        self.loss_sum += logs["loss"][0] * logs["batch_size"]
        self.seen += logs["batch_size"]

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        seconds = time.perf_counter() - self.started
        result = evaluate(self.model.network, self.eval_pictures)
        loss, top1 = parallel.mean([self.loss_sum / self.seen, logs["acc"]], self.seen)
        logs["row"] = {"epoch": len(self.rows) + 1, "train_loss": loss, "train_top1": top1,
                       "eval_loss": result.loss if np.isfinite(result.loss) else None, "eval_top1": result.top1,
                       "lr": self.lr,
                       "images_per_s": self.seen / seconds, "seconds": seconds}
        self.rows.append(logs["row"])
        if parallel.rank():
            return
        if logs["row"]["eval_loss"] is None:
            print(f"epoch {len(self.rows)}: outputs for eval pictures are not finite; they count as wrong. Where that "
                  "stays so, lower base_lr (--base-lr)", flush=True)
        with atomic_write(self.path) as file:
            file.write(pd.DataFrame(self.rows).to_csv(index=False, float_format="%.8g").encode())


class BestModel(paddle.callbacks.Callback):
    """Keep the weights of the epoch with the highest eval top-1 (the first one, among equals) in the run's folder.

    metadata: what `save_weights` stores with them.
    """

    def __init__(self, path: Path | str, rows: Iterable[Row] = (),
                 metadata: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.path, self.metadata = Path(path), metadata
        self.best = max((row["eval_top1"] for row in rows), default=-1.0)

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        if logs["row"]["eval_top1"] > self.best:
            self.best = logs["row"]["eval_top1"]
            save_weights(self.model.network, self.path, self.metadata)


def out_of_patience(rows: Sequence[Row], patience: int | None) -> bool:
    """Whether the last `patience` epochs of a history brought no better eval top-1; never for None."""
    tops = [row["eval_top1"] for row in rows]
    return patience is not None and len(tops) > patience and max(tops[-patience:]) <= max(tops[:-patience])


class EarlyStop(paddle.callbacks.Callback):
    """End the run when `out_of_patience` says so. Goes before `Checkpoint`, behind `EpochLog`, whose rows it reads."""

    def __init__(self, rows: Sequence[Row], patience: int | None) -> None:
        super().__init__()
        self.rows, self.patience = rows, patience

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if out_of_patience(self.rows, self.patience):
            print(f"stopped: {self.patience} epochs without a better eval top-1", flush=True)
            self.model.stop_training = True


class VisualDLLog(paddle.callbacks.Callback):
    """Write every column of the epoch's row for VisualDL: `visualdl --logdir runs --disable-telemetry`.

    Paddle's own VisualDL callback leaves out the learning rate, which is what the article needed to see.
    """

    def __init__(self, folder: Path | str) -> None:
        super().__init__()
        self.folder = str(folder)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.writer: Any = None
        if os.path.expanduser("~") == "~":  # it would make a folder of that name wherever we are
            print("no curves for VisualDL: no home folder is known for this user; set HOME to a folder", flush=True)
            return
        try:
            from visualdl import LogWriter  # here, because it takes a second to import
        except ImportError as error:
            print(f"no curves for VisualDL: {missing_package('visualdl') or error}", flush=True)
            return
        self.writer = LogWriter(logdir=self.folder)

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        for key, value in logs["row"].items() if self.writer else ():
            if key != "epoch" and value is not None:
                self.writer.add_scalar(tag=key.replace("_", "/", 1), value=value, step=logs["row"]["epoch"])

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.writer:
            self.writer.close()


class Progress(paddle.callbacks.Callback):
    """A bar over the batches in a terminal, and one line per finished epoch everywhere."""

    def __init__(self, epochs: int, first_epoch: int = 0) -> None:
        super().__init__()
        self.epochs, self.first_epoch = epochs, first_epoch

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.bar = tqdm(total=self.params["steps"], desc=f"epoch {epoch + 1 + self.first_epoch}/{self.epochs}",
                        unit="batch", leave=False, disable=not sys.stderr.isatty())

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        self.bar.close()
        row = logs["row"]
        loss = "not finite" if row["eval_loss"] is None else f"{row['eval_loss']:.3f}"
        print(f"epoch {row['epoch']:>3}/{self.epochs}  loss {row['train_loss']:.3f} (eval {loss})  "
              f"top-1 {row['train_top1']:6.1%} (eval {row['eval_top1']:6.1%})  lr {row['lr']:.4f}  "
              f"{row['images_per_s']:.0f} images/s{self._left(row)}", flush=True)

    def _left(self, row):
        """Time that the epochs to come take at this one's pace, as h:mm:ss, from a minute up."""
        seconds = round(row["seconds"] * (self.epochs - row["epoch"]))
        return f"  {timedelta(seconds=seconds)} left" if seconds >= 60 else ""


class Checkpoint(paddle.callbacks.Callback):
    """Store everything a killed run needs to go on from the end of this epoch; run: the run's id."""

    def __init__(self, folder: Path | str, rows: list[Row], run: str | None = None) -> None:
        super().__init__()
        self.folder, self.rows, self.run = Path(folder), rows, run

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        save_checkpoint(self.folder, self.model.network, self.model._optimizer, self.rows,
                        getattr(self.model, "_scaler", None), self.run)
