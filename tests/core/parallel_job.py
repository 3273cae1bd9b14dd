"""What each process of test_parallel.py runs: python parallel_job.py PICTURES NAME [EPOCH_OF_DEATH | apart].

Prints RESULT, the run's result with a digest of what was evaluated, and WROTE with every file that this process opened
for writing below the data and the runs, locks apart. With an epoch of death, rank 1 is killed as that epoch ends; with
"apart" it looks for the runs in a folder of its own, as a second machine without a shared disk does.
"""
import json
import os
import signal
import sys

from asymmlib.base.startup import load_paddle

load_paddle()

from asymmlib.base import parallel  # noqa: E402
from asymmlib.base.folders import home, runs_dir  # noqa: E402
from asymmlib.callbacks import EpochLog  # noqa: E402
from asymmlib.data.sources import prepare  # noqa: E402
from asymmlib.recipes import Recipe  # noqa: E402
from asymmlib.training import train  # noqa: E402

# no dropout: its draws differ between processes. 24 pictures in batches of 9 leave 6.
RECIPE = Recipe("pair", image_size=64, epochs=2, batch_size=9, base_lr=0.01, dropout=0.0, accelerate=False)


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


if __name__ == "__main__":
    wrote = []
    note_writes(wrote)
    if sys.argv[3:] == ["apart"]:
        os.environ["ASYMMLIB_RUNS"] += f"-of-{parallel.rank()}" * (parallel.rank() > 0)
    elif len(sys.argv) > 3:
        die_after(int(sys.argv[3]))
    with parallel.in_turn(parallel.local_rank()):
        prepared = prepare(sys.argv[1], progress=False)
    run = train("asymmnet_small", RECIPE, prepared=prepared, name=sys.argv[2])
    print("RESULT", json.dumps(run.info["result"]), flush=True)
    print("WROTE", json.dumps(wrote), flush=True)
