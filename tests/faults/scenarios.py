"""The five kinds of work that a fault may hit: each can be done, looked at while half done, and compared when done.

Everything that work writes lies below `root/out`, which starts as a copy of `root/template`.
"""
import hashlib
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from outcomes import Ended
from PIL import Image

from asymmlib.data.sources import CALTECH16

MEMBERS, PICTURES, EPOCHS, SIZE = 200, 60, 6, 96
CLASSES = ("blue", "green", "red")


class Work:
    """Base: `make` inputs once, `do` the work, look at what is there with `visible`, which raises where it is torn.

    `visible` returns a description of the finished part; after `do` it must equal that of undisturbed work.
    """

    def __init__(self, root):
        self.root, self.out, self.template = root, root / "out", root / "template"
        os.environ["ASYMMLIB_HOME"], os.environ["ASYMMLIB_RUNS"] = str(self.out / "home"), str(root / "runs")

    def make(self):
        """Make the inputs, and what is there already in `template`."""

    def do(self, report, number=0):
        """Do the work; `report()` after each piece that must not be lost. `number`: which of two processes."""

    def visible(self):
        """A description of what carries its final name; raises for anything half-written."""

    def pieces(self):
        """How many reported pieces are there."""
        return 0


def visible(work):
    """What `work.visible` says; what is torn counts as lost."""
    try:
        return work.visible()
    except Exception as error:
        raise Ended("lost", f"{type(error).__name__}: {error}") from error


class Unpacking(Work):
    def make(self):
        rng = np.random.default_rng(0)
        with zipfile.ZipFile(self.root / "pictures.zip", "w") as packed:
            for number in range(MEMBERS):
                packed.writestr(f"Images/{CLASSES[number % 3]}/{number}.jpg", rng.bytes(20_000))

    def do(self, report, number=0):
        from asymmlib.data.archive import unpack
        unpack(self.root / "pictures.zip", self.out / "Images")

    def visible(self):
        return whole(self.out / "Images", MEMBERS)


class Splitting(Work):
    def make(self):
        draw_pictures(self.root / "pictures")

    def do(self, report, number=0):
        from asymmlib.data.sources import prepare
        return prepare(str(self.root / "pictures"), progress=False)

    def visible(self):
        from asymmlib.data.manifest import read_manifest
        return [read_manifest(path).to_csv() for path in self.out.glob("home/*/manifest.csv")]


class Caching(Splitting):
    def make(self):
        super().make()
        os.environ["ASYMMLIB_HOME"] = str(self.template / "home")
        super().do(None)

    def do(self, report, number=0):
        from asymmlib.data.manifest import read_manifest
        from asymmlib.data.pictures import cached_pixels
        from asymmlib.data.sources import Prepared
        folder = next(path.parent for path in self.out.glob("home/*/manifest.csv"))
        cached_pixels(Prepared("x", self.root / "pictures", folder, read_manifest(folder / "manifest.csv")), SIZE)

    def visible(self):
        found = [np.load(path) for path in self.out.glob("home/*/cache/*.npy")]
        assert all(pixels.shape == (PICTURES, SIZE, SIZE, 3) for pixels in found), "a cache of another length"
        return [hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in found]


class Checkpointing(Work):
    def state(self):
        import paddle

        from asymmlib.network import asymmnet_small
        network = asymmnet_small(width=0.35, num_classes=4)
        return network, paddle.optimizer.Momentum(0.1, 0.9, parameters=network.parameters())

    def do(self, report, number=0):
        import paddle

        from asymmlib.base.files import sweep
        from asymmlib.checkpoint import load_checkpoint, save_checkpoint
        sweep(self.out)  # as `train` does under the run's lock
        network, optimizer = self.state()
        rows = load_checkpoint(self.out, network, optimizer)
        while len(rows) < EPOCHS:
            rows.append({"epoch": len(rows) + 1})
            network.classifier.bias.set_value(paddle.full([4], len(rows), "float32"))
            save_checkpoint(self.out, network, optimizer, rows)
            report()

    def visible(self):
        from asymmlib.checkpoint import load_checkpoint
        network, optimizer = self.state()
        rows = load_checkpoint(self.out, network, optimizer)
        assert not rows or (network.classifier.bias.numpy() == len(rows)).all(), "weights of another epoch"
        return rows

    def pieces(self):
        return len(self.visible())


class Recording(Work):
    def make(self):
        from asymmbook.evidence.records import record, trial_dir
        classes = [f"{name}/{number:03}.jpg" for name in CALTECH16 for number in range(2)]
        trial_dir(self.template).mkdir(parents=True)
        folds = pd.DataFrame({"name": classes, "class": np.repeat(CALTECH16, 2), "repeat0": [0, 1] * len(CALTECH16)})
        folds.to_csv(trial_dir(self.template) / "folds.csv", index=False)
        for run in self.runs():
            folder = self.root / "runs" / run.name
            folder.mkdir(parents=True)
            about = dict.fromkeys(("python", "packages", "device", "cpu", "threads", "commit"), "x")
            (folder / "run.json").write_text(json.dumps({
                "model": run.model, "settings": run.settings, "recipe": run.recipe.as_dict(), "classes": CALTECH16,
                "result": {"last_eval_top1": 0.5, "best_eval_top1": 0.5, "train_seconds": 1.0}, "environment": about,
                "pictures": {"train": 16}, "sessions": [], "manifest_sha256": "0", "accelerated": False}))
            rows = pd.DataFrame({"epoch": range(1, 41), "eval_top1": 0.5, "images_per_s": 100.0, "seconds": 1.0})
            rows.to_csv(folder / "history.csv", index=False)
            np.savez(folder / "predictions.npz", predicted=np.zeros(len(CALTECH16), np.uint8),
                     confidence=np.full(len(CALTECH16), 0.5, np.float16))
        record([self.runs()[0]], self.template)

    def runs(self):
        from asymmbook.evidence.trial import BASE, TrialRun
        return [TrialRun("a", "asymmnet_small", {"width": 0.35}, BASE.replace(name=name, image_size=32, epochs=40),
                         "caltech16", 0, 0) for name in ("old", "new0", "new1")]

    def do(self, report, number=None):
        from asymmbook.evidence.records import record
        for run in self.runs()[1:] if number is None else [self.runs()[1 + number]]:
            record([run], self.out)
            report()

    def visible(self):
        from asymmbook.evidence.records import answers, read_curves, read_runs
        runs, curves = read_runs(self.out), read_curves(self.out)
        assert "old" in set(runs["recipe"]), "a row that was there is lost"
        assert (curves["run"].value_counts()[runs["run"]] == 40).all(), "a recorded run without its curve"
        assert len(answers(runs, self.out)) == len(CALTECH16) * len(runs), "a recorded run without its predictions"
        return sorted(runs["run"])

    def pieces(self):
        return len(self.visible()) - 1


WORKS = {"unpacking": Unpacking, "caching": Caching, "splitting": Splitting, "checkpointing": Checkpointing,
         "recording": Recording}


def whole(folder, count):
    """Digest of a folder's files, None where there is no folder; raises unless it has `count` files."""
    if not folder.exists():
        return None
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    assert len(files) == count, f"{folder} has {len(files)} of {count} files"
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def draw_pictures(folder):
    rng = np.random.default_rng(1)
    for number in range(PICTURES):
        path = folder / CLASSES[number % 3] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (200, 220, 3), dtype=np.uint8)).save(path)
