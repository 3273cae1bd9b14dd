"""What each process of test_parallel.py runs: python parallel_job.py PICTURES NAME [options, see below].

Prints RESULT, the run's result with a digest of what was evaluated, and WROTE with every file that this process opened
for writing below the data and the runs, locks apart.
"""
import argparse
import json
import os
import signal
import sys

from asymmlib.base.startup import load_paddle

paddle = load_paddle()

import numpy as np  # noqa: E402

from asymmlib import training  # noqa: E402
from asymmlib.base import parallel  # noqa: E402
from asymmlib.base.folders import home, runs_dir  # noqa: E402
from asymmlib.callbacks import EpochLog  # noqa: E402
from asymmlib.data.sources import prepare  # noqa: E402
from asymmlib.dataset import EpochSampler  # noqa: E402
from asymmlib.recipes import Recipe  # noqa: E402

# no dropout: its draws differ between processes. 24 pictures in batches of 9 leave 6.
RECIPE = Recipe("pair", image_size=64, epochs=2, batch_size=9, base_lr=0.01, dropout=0.0, accelerate=False)
OPTIONS = argparse.ArgumentParser()
OPTIONS.add_argument("pictures")
OPTIONS.add_argument("name")
OPTIONS.add_argument("--float64", action="store_true", help="train in it")
OPTIONS.add_argument("--shifts", type=int, nargs="+", help="a run for each, NAME-SHIFT, whose batches begin elsewhere")
OPTIONS.add_argument("--death", type=int, help="the epoch at whose end rank 1 is killed")
OPTIONS.add_argument("--apart", action="store_true", help="rank 1 keeps its runs apart, without a shared disk")


def note_writes(wrote):
    """Collect what this process opens for writing, moves or makes below the data and the runs."""
    roots = (str(home()), str(runs_dir()))

    def note(event, arguments):
        writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        path = str(arguments[0]) if writes or event in ("os.rename", "os.remove") else ""
        if path.startswith(roots) and not path.endswith((".lock", ".lock.owner")):
            wrote.append(path)

    sys.addaudithook(note)


def die_after(epoch):
    """Kill rank 1 when it has finished its part of an epoch."""
    def finish(self, number, logs=None, original=EpochLog.on_epoch_end):
        original(self, number, logs)
        if parallel.rank() == 1 and len(self.rows) == epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    EpochLog.on_epoch_end = finish


def train_in_float64():
    """Make networks that compute in float64 from the weights of float32, and turn pictures into it.

    Paddle's batch norm takes these two constants as float32; of a SharedNorm they would be float64.
    """
    def create(*arguments, original=training.create_model, **settings):
        paddle.set_default_dtype("float32")
        return original(*arguments, **settings)

    def treat(*arguments, original=training.treat):
        network = original(*arguments).to(dtype="float64")
        for layer in network.sublayers():
            if isinstance(layer, paddle.nn.BatchNorm2D):
                layer._momentum, layer._epsilon = float(np.float32(layer._momentum)), float(np.float32(layer._epsilon))
        network.register_forward_pre_hook(lambda layer, inputs: tuple(x.astype("float64") for x in inputs))
        paddle.set_default_dtype("float64")
        return network

    training.create_model, training.treat = create, treat


def shift_batches(shift, original=EpochSampler.__iter__):
    """The same pictures in every batch, beginning with another one: sums in another order, and no other change."""
    EpochSampler.__iter__ = lambda self: (np.roll(batch, shift).tolist() for batch in original(self))


if __name__ == "__main__":
    options, wrote = OPTIONS.parse_args(), []
    note_writes(wrote)
    if options.apart:
        os.environ["ASYMMLIB_RUNS"] += f"-of-{parallel.rank()}" * (parallel.rank() > 0)
    if options.float64:
        train_in_float64()
    if options.death:
        die_after(options.death)
    with parallel.in_turn(parallel.local_rank()):
        prepared = prepare(options.pictures, progress=False)
    for shift in options.shifts or [0]:
        shift_batches(shift)
        name = f"{options.name}-{shift}" if options.shifts else options.name
        run = training.train("asymmnet_small", RECIPE, prepared=prepared, name=name)
    print("RESULT", json.dumps(run.info["result"]), flush=True)
    print("WROTE", json.dumps(wrote), flush=True)
