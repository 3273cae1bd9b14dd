"""Flip one bit of a file that carries a digest: python digests.py KIND TRIALS.

The damage has to be seen when the file is read, and told by the file's name. Where there is an older checkpoint, or
pictures to make a cache from, these take over; a released network and a run's weights are refused, and read again
once the bit is back. Prints the line of `outcomes.Counts`.
"""
import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import fuzzer
from outcomes import Counts, expect

from asymmlib.base.startup import load_paddle


class Kind:
    """A file to damage: `path` names it, `read` uses it as its owner does and returns what was read, as bytes."""

    def __init__(self, root):
        self.root, self.path = root, None

    def read(self):
        """What the file's owner makes of it; raises where it is refused."""

    def check(self, good, read, said):
        """Raise `Ended` unless the damage was told and something right taken, or was refused by name."""


class Replaced(Kind):
    """Something else takes over, and a printed line names what was damaged."""

    def takes_over(self, good):
        """What should be read in place of the damaged file."""
        return good

    def check(self, good, read, said):
        value = read()
        expect(self.path.name in said.getvalue(), "silent", "nothing was said")
        expect(value == self.takes_over(good), "silent", "something else took over")


class Refused(Kind):
    """The file is refused by its name."""

    def check(self, good, read, said):
        try:
            read()
        except ValueError as error:
            expect(self.path.name in str(error), "crashed", f"the file is not named: {error}")
        else:
            expect(False, "silent", "it was read")


class Checkpoint(Replaced):
    def __init__(self, root):
        super().__init__(root)
        import paddle

        from asymmlib.checkpoint import save_checkpoint
        self.state, rows = fuzzer.small_network(), []
        for epoch in (1, 2):
            rows.append({"epoch": epoch})
            self.state[0].classifier.bias.set_value(paddle.full([2], epoch, "float32"))
            save_checkpoint(root, *self.state, rows, run="x")
        self.path = root / "epoch-0002.safetensors"

    def read(self):
        from asymmlib.checkpoint import load_checkpoint
        rows = load_checkpoint(self.root, *self.state, run="x")
        return json.dumps(rows).encode() + self.state[0].classifier.bias.numpy().tobytes()

    def takes_over(self, good):
        import numpy as np
        return json.dumps([{"epoch": 1}]).encode() + np.ones(2, np.float32).tobytes()


class Cache(Replaced):
    def __init__(self, root):
        super().__init__(root)
        fuzzer.cache()
        self.path = next((fuzzer.prepared_pictures().folder / "cache").glob("pixels-16-*.npy"))

    def read(self):
        from asymmlib.data import pictures
        pictures._has_digest.cache_clear()  # as in a new process
        return pictures.cached_pixels(fuzzer.prepared_pictures(), 16).tobytes()


class Released(Refused):
    def __init__(self, root):
        super().__init__(root)
        from asymmlib.base.folders import weights_dir
        for suffix in (".json", ".safetensors"):
            shutil.copy(weights_dir() / f"asymmnet_small{suffix}", root)
        self.path = root / "asymmnet_small.safetensors"

    def read(self):
        from asymmlib.runs import load_pretrained
        return load_pretrained("asymmnet_small", self.root).network.classifier.weight.numpy().tobytes()


class Weights(Refused):
    def __init__(self, root):
        super().__init__(root)
        from asymmlib.weights.own import save_weights
        self.path, self.network = root / "last.safetensors", fuzzer.small_network()[0]
        save_weights(self.network, self.path, {"run": "x"})

    def read(self):
        from asymmlib.weights.own import load_weights
        load_weights(self.network, self.path)
        return self.network.classifier.weight.numpy().tobytes()


KINDS = {"checkpoint": Checkpoint, "pixel cache": Cache, "released weights": Released, "weights of a run": Weights}


def flip(path, rng):
    """Flip a bit anywhere in a file, as a failing disk does: its times stay."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


if __name__ == "__main__":
    name, trials = sys.argv[1], int(sys.argv[2])
    warnings.simplefilter("ignore")
    load_paddle()
    counts, rng = Counts(), random.Random(name)
    with tempfile.TemporaryDirectory() as folder:
        kind = KINDS[name](Path(folder))
        content, good = kind.path.read_bytes(), kind.read()
        for number in range(trials):
            with counts.trial(number), contextlib.redirect_stdout(io.StringIO()) as said:
                flip(kind.path, rng)
                kind.check(good, kind.read, said)
                kind.path.write_bytes(content)
                expect(kind.read() == good, "lost", "with the bit turned back it is not read")
    counts.report()
