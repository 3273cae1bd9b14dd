"""Open the folder of a run for training: what may be written there, and whether it holds the run that is asked for.

Only what this library has made is ever deleted, only below the runs' folder, and only when the caller asks for a fresh
start. The record, run.json, is replaced first and in one step: from then on the folder is the new run's, and weights
and checkpoints of the old one are known by its id and not used.
"""
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd

from asymmlib.base.files import has_file, locked, make_folder, sweep
from asymmlib.base.folders import runs_dir
from asymmlib.checkpoint import is_checkpoint
from asymmlib.data.changes import changes
from asymmlib.data.manifest import write_manifest
from asymmlib.recipes import as_recorded
from asymmlib.runs import Run, find_run

__all__ = ["locked_run", "open_run", "run_folder"]

# All that a run, its predictions and its export leave in the folder, run.json apart
MADE = ("history.csv", "best.safetensors", "last.safetensors", "manifest.csv", "predictions.npz", "failure.txt",
        "checkpoints/epoch-[0-9][0-9][0-9][0-9].safetensors", "checkpoints/epoch-[1-9][0-9][0-9][0-9][0-9].safetensors",
        "visualdl/vdlrecords.*.log", "export/export.json", "export/inference.*", "export/model.onnx",
        "export/model-*.onnx", "export/model-int8.*", "export/weights-float16.safetensors", "export/reference.png")
NOTES = ("failure.txt", "log.txt")  # what asks for a run may write there before it has begun: no other work
WORDS = {"model": "model", "settings": "settings", "recipe": "recipe", "manifest_sha256": "set of pictures",
         "start": "start"}


def run_folder(name: Path | str) -> Path:
    """The folder of the run called `name`, below the runs' folder. Raises `ValueError` for a name that leads elsewhere.
    """
    root, text = runs_dir(), str(name)
    parts = [*PurePosixPath(text).parts, *PureWindowsPath(text).parts]
    outside = PurePosixPath(text).is_absolute() or PureWindowsPath(text).anchor or any(
        part.startswith((".", "~")) or not part.isprintable() for part in parts)
    if outside or not parts:
        raise ValueError(f"{text!r} is no name for a run: give letters, digits and dashes, without '..' and not an "
                         f"absolute path; runs lie in {root} (ASYMMLIB_RUNS moves it)")
    if not (root / text).resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{root / text} is a link to {(root / text).resolve()}, outside the runs' folder: choose "
                         "another name, or name the folder there with ASYMMLIB_RUNS")
    return root / text


@contextmanager
def locked_run(folder: Path, fresh: bool = False) -> Iterator[None]:
    """Keep other jobs out of a run's folder: a second one says that it waits, then opens the finished run.

    Raises `ValueError` before anything is touched where the folder is not a run's.
    """
    _refuse_foreign(folder, fresh)
    with locked(folder, make_folder(folder) / ".lock"):
        if has_file(folder / "run.json"):
            for place in (folder, folder / "checkpoints"):
                sweep(place)  # what a killed job left
        yield


def open_run(folder: Path, wanted: dict[str, Any], manifest: pd.DataFrame, fresh: bool) -> Run:
    """The run in this folder, checked against what is asked for; a new one where there is none, or with `fresh`.

    wanted: model, settings, recipe, manifest_sha256 and perhaps start, as run.json has them. manifest: the pictures'.
    Raises `ValueError` that names each difference, and for a folder that holds something else.
    """
    _refuse_foreign(folder, fresh)
    if fresh or not has_file(folder / "run.json"):
        return _begin(Run(folder, {**wanted, "id": uuid.uuid4().hex, "beginning": True}).write(), manifest)
    run = find_run(folder)
    kinds, lines = _differences(run, wanted, manifest)
    if kinds:
        raise ValueError(f"{folder} holds a run with another {', '.join(kinds)} ({'; '.join(lines)}): give this run "
                         "another name (--name), ask for what it was made with, or replace it with fresh=True "
                         "(--fresh)")
    if run.info.get("beginning"):
        run = _begin(run, manifest)
    place = wanted["recipe"]["data"]  # the same pictures may lie elsewhere now
    return run if run.info["recipe"].get("data") == place else run.write(recipe={**run.info["recipe"], "data": place})


def _begin(run, manifest):
    """Remove what the run before left, note the pictures, and mark that this is done."""
    _clear(run.folder)
    write_manifest(manifest, run.folder / "manifest.csv")
    return Run(run.folder, {key: value for key, value in run.info.items() if key != "beginning"}).write()


def _clear(folder):
    root = folder.resolve()
    for pattern in MADE:
        for path in folder.glob(pattern):
            if path.parent.resolve().is_relative_to(root) and not path.is_dir():
                path.unlink()


def _refuse_foreign(folder, fresh=False):
    """Raise `ValueError` where a folder has no record of a run but other content."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file, where the folder of a run should be: choose another name (--name)")
    if has_file(folder / "run.json"):
        return _refuse_foreign_record(folder, fresh)
    names = (path.name for path in folder.iterdir())
    found = sorted(name for name in names if not name.startswith(".") and name not in NOTES)
    if found and not (fresh and _is_ours(folder)):
        shown = ", ".join(found[:5]) + (" ..." if len(found) > 5 else "")
        lost = ("its run.json is lost: put it back, or start over with fresh=True (--fresh)" if _is_ours(folder)
                else "it has no run.json, so it is not a run of this library")
        raise ValueError(f"{folder} holds {shown}, but {lost}. Nothing was changed; another name (--name) makes a new "
                         "run")
    return None


def _refuse_foreign_record(folder, fresh):
    """A damaged record may be replaced where the checkpoints show whose folder it is."""
    try:
        find_run(folder)
    except ValueError as error:
        if not fresh or not _is_ours(folder):
            raise ValueError(f"{error}. Nothing was changed") from error


def _is_ours(folder):
    """Whether the checkpoints in a folder are this library's, all of them and at least one."""
    inside = list(folder.glob("checkpoints/*"))
    return bool(inside) and all(map(is_checkpoint, inside))


def _differences(run, wanted, manifest):
    """(words for what differs, a line for each field with its old and its new value)."""
    known = {**run.info, "recipe": {**as_recorded(run.info["recipe"]), "data": wanted["recipe"]["data"]}}
    kinds, lines = [], []
    for key, word in WORDS.items():
        old, new = known.get(key), wanted.get(key)
        if old == new:
            continue
        kinds.append(word)
        if key == "manifest_sha256":
            recorded = run.manifest
            lines.append("the pictures have changed"
                         + ("" if recorded is None else f": {changes(recorded, manifest) or 'their order'}"))
        elif isinstance(old, dict) or isinstance(new, dict):
            old, new = old or {}, new or {}
            prefix = "start " if key == "start" else ""
            lines += [f"{prefix}{field}: {_shown(old, field)}, asked {_shown(new, field)}"
                      for field in sorted({*old, *new}) if old.get(field) != new.get(field)]
        else:
            lines.append(f"{word}: {old}, asked {new}")
    return kinds, lines


def _shown(values, field):
    value = values.get(field, "default")
    return f"{value[:12]}..." if field == "sha256" and isinstance(value, str) and len(value) > 12 else value
