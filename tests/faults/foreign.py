"""Ask for a run where another program's files lie: python foreign.py FOLDER.

Every content below is met by `train` with and without a fresh start, under the folder's own name and under one that
leads there by a detour. It has to be refused in words that name the folder, and every byte has to stay. Then folders of
runs with something foreign beside: a fresh start there deletes what is the run's, and nothing else. Prints the line of
`outcomes.Counts`.
"""
import contextlib
import io
import os
import shutil
import sys
import warnings
from pathlib import Path

import fuzzer
from outcomes import Counts, expect

from asymmlib.base.startup import load_paddle

# name of a content: {file: bytes, or the folder that a link leads to}
FOREIGN = {
    "checkpoints of PyTorch": {"checkpoints/model.pt": b"theirs", "checkpoints/last.ckpt": b"theirs"},
    "checkpoints under our names": {"checkpoints/epoch-0001.safetensors": fuzzer.safetensors()},
    "a checkpoint of ours among theirs": {"checkpoints/epoch-0001.safetensors": fuzzer.checkpoint,
                                          "checkpoints/model.pt": b"theirs"},
    "weights under our names": {"best.safetensors": fuzzer.safetensors(), "last.safetensors": fuzzer.safetensors()},
    "tables under our names": {"history.csv": b"epoch,loss\n1,2\n", "manifest.csv": b"a,b\n1,2\n"},
    "logs of VisualDL": {"visualdl/vdlrecords.1.log": b"theirs"},
    "an export": {"export/model.onnx": b"theirs", "export/inference.json": b"{}"},
    "a record of another program": {"run.json": b'{"id": 7, "started": "today"}', "log.txt": b"theirs"},
    "a record that is cut off": {"run.json": b'{"model": "asymmnet_sm', "checkpoints/model.pt": b"theirs"},
    "a list as a record": {"run.json": b"[]\n", "notes.txt": b"theirs"},
    "pictures": {"cats/1.jpg": b"theirs", "dogs/1.jpg": b"theirs"},
    "a repository": {".git/HEAD": b"ref: refs/heads/main\n", "README.md": b"theirs"},
    "an empty file": {"notes": b""},
    "a link to a folder of checkpoints": {"checkpoints": Path("elsewhere"), "notes.txt": b"theirs"},
}
# what may lie beside a run's own files; a fresh start leaves it
BESIDE = {
    "notes": {"notes.txt": b"mine"}, "a copy of a checkpoint": {"checkpoints/epoch-best.safetensors": b"mine"},
    "a numbered copy": {"checkpoints/epoch-0001-copy.safetensors": b"mine"},
    "another program's checkpoint": {"checkpoints/model.pt": b"theirs"},
    "a folder inside": {"checkpoints/epoch-0009.safetensors/notes.txt": b"mine"},
    "a link to other logs": {"visualdl": Path("elsewhere")},
    "more in the export's folder": {"export/report.pdf": b"mine", "export/model.onnx.txt": b"mine"},
}


def fill(folder, content):
    """Put files and links into a folder."""
    for name, value in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, Path):
            shutil.rmtree(path, ignore_errors=True)
            path.symlink_to(Path(os.environ["ASYMMLIB_RUNS"]).parent / value)
        else:
            path.write_bytes(value() if callable(value) else value)


def seen(folder):
    """All that is below a folder: {name: bytes, or where a link leads}."""
    return {path.relative_to(folder).as_posix(): os.readlink(path) if path.is_symlink() else
            path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def ask(name, fresh):
    """Train one epoch on a few small pictures under this name."""
    from asymmlib.recipes import Recipe
    from asymmlib.training import train
    with contextlib.redirect_stdout(io.StringIO()):
        return train("asymmnet_small", Recipe("tiny", image_size=32, epochs=1, batch_size=8, accelerate=False),
                     width=0.35, prepared=fuzzer.prepared_pictures(), name=name, fresh=fresh)


def refused(root, name, fresh):
    """Nothing changes, and the message names the folder."""
    before = seen(root)
    try:
        ask(name, fresh)
    except ValueError as error:
        expect("theirs" in str(error), "crashed", f"the folder is not named: {error}")
    else:
        expect(False, "silent", "a run was begun there")
    finally:
        after = seen(root)
        gone = [path for path in before if after.get(path) != before[path]]
        expect(not gone, "lost", f"gone or changed: {gone}")
        expect(after.keys() == before.keys(), "silent", f"written: {sorted(after.keys() - before.keys())}")


def kept(root, content):
    """A fresh start in a run's folder with something beside; that stays."""
    folder = root / "runs" / "ours"
    before = {name: value for name, value in seen(root).items() if name.startswith("elsewhere")}
    fill(folder, content)
    before |= {f"runs/ours/{name}": seen(folder)[name] for name in content}
    expect(ask("ours", True).finished, "crashed", "the fresh run is not finished")
    after = seen(root)
    expect(not [name for name in before if after.get(name) != before[name]], "lost",
           f"gone or changed: {[name for name in before if after.get(name) != before[name]]}")
    for name in content:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


if __name__ == "__main__":
    root = Path(sys.argv[1]).absolute()
    warnings.simplefilter("ignore")
    load_paddle()
    os.environ["ASYMMLIB_RUNS"] = str(root / "runs")
    fill(root / "elsewhere", {"epoch-0001.safetensors": fuzzer.checkpoint, "vdlrecords.7.log": b"theirs"})
    counts, places = Counts(), ("theirs", "group/theirs")
    for name, content in FOREIGN.items():
        for place in places:
            fill(root / "runs" / place, content)
            for fresh in (False, True):
                with counts.trial(f"{name}, {place}, fresh={fresh}"):
                    refused(root, place, fresh)
            shutil.rmtree(root / "runs" / place)
    ask("ours", False)
    for name, content in BESIDE.items():
        with counts.trial(f"a fresh start beside {name}"):
            kept(root, content)
    counts.report()
