"""An exported network in integers of 8 bits: `quantise(classifier, folder, prepared)`, after `export`.

- model-int8.onnx, by ONNX Runtime's static quantiser: for ONNX Runtime, OpenVINO, tract
- model-int8.xml, model-int8.bin, where asked for, by NNCF (the extra `quantise`): for OpenVINO

Pictures of the train split calibrate them (`asymmlib.deploy.quantisers`). Each file is run on held-out pictures and
timed; one that loses more answers than it may is not written. The page int8 of the book tells why one step for all
channels of a layer ruins MobileNetV2.
"""
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from asymmlib.base.environment import package_versions
from asymmlib.base.extras import load_package, missing_package
from asymmlib.base.files import atomic_write
from asymmlib.data.changes import check_evaluation
from asymmlib.data.pictures import normalise
from asymmlib.deploy.description import PICTURE, reference_pixels, with_logits
from asymmlib.deploy.engines import Runner, run_onnx
from asymmlib.deploy.export import QUANTISED, file_facts
from asymmlib.deploy.quantisers import CALIBRATION, FORMS, calibration_pictures
from asymmlib.deploy.timing import spread, take_turns
from asymmlib.evaluation import Evaluation

if TYPE_CHECKING:
    from asymmlib.data.manifest import Prepared
    from asymmlib.dataset import Pictures
    from asymmlib.runs import Classifier

__all__ = ["LARGEST_LOSS", "answers_of", "quantise", "readable", "require", "share_interval"]

LARGEST_LOSS = 3.0  # points of accuracy that a file may lose on the eval pictures; one picture always
TOLERANCE = 5e-2    # of the reference's logits: a few steps of 8 bits, which processors round differently
BATCH = 16          # pictures that are answered at a time
CONFIDENCE = 1.959964  # standard deviations of an interval that holds in 95 of 100 cases
SPLITS = ("eval", "test")  # the first decides


def quantise(classifier: "Classifier", folder: Path | str, prepared: "Prepared", forms: Sequence[str] = ("int8",),
             calibration: int = CALIBRATION, largest_loss: float = LARGEST_LOSS) -> pd.DataFrame:
    """Add int8 files to the folder of an export of `classifier`; return a table with a row a file and split.

    prepared: the pictures: the train split calibrates, eval decides whether a file is good enough, test is told where
    there is one. forms: of `FORMS`. calibration: how many train pictures. Columns: file, bytes, split, right, pictures,
    low and high (interval of the share that is right, at 95 %), lost and gained (answers that float32 has right and the
    file wrong, and the other way round), and ms, ms_low, ms_high for one picture (median, and medians of the fastest
    and slowest of a few turns). export.json gets the same rows.

    Raises `RuntimeError` for a missing package, naming its extra, `FileNotFoundError` for a folder without model.onnx,
    and `ValueError` for pictures of other classes or without a train split, and for a file that loses more than
    `largest_loss` points of accuracy on the eval pictures: it is not written then.
    """
    folder = Path(folder)
    require(forms)
    source = folder / "model.onnx"
    if not source.is_file():
        raise FileNotFoundError(f"{source} is not there: int8 is made of what export writes; export the network first")
    images = calibration_pictures(classifier.pictures(prepared, "train"), calibration)
    held_out = _held_out(classifier, prepared)
    for name in QUANTISED:  # nothing of an earlier call must stay beside the new ones, or where these are refused
        (folder / name).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:  # Windows keeps a file that is open
        made = {Path(place) / FORMS[name].files[0]: FORMS[name] for name in forms}
        for path, form in made.items():
            form.write(source, path, images)
        runs = _load(source, made)
        table = _measure(runs, held_out)
        _refuse(table, classifier.name, largest_loss)
        table = _time(table, _load(source, made, batch=1), images[:1])
        for path, form in made.items():
            form.describe(path, _properties(folder, runs[path.name], form.packages[-1], len(images)))
            _move(path, form, folder)
    files = {source.name: [source.name], **{form.files[0]: form.files for form in made.values()}}
    table.insert(1, "bytes", [sum((folder / part).stat().st_size for part in files[name]) for name in table["file"]])
    _record(folder, table)
    return table


def require(forms: Sequence[str]) -> None:
    """Raise `RuntimeError` where forms of int8 need a package that is not here, naming the extra that brings it."""
    if reasons := [reason for name in forms for reason in map(missing_package, FORMS[name].packages) if reason]:
        raise RuntimeError(f"{', '.join(forms)}: {reasons[0]}")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `quantise` for people: a row a file, with megabytes, accuracy by split, and time of one picture."""
    rows: dict[str, dict[str, str]] = {}
    for _, row in table.iterrows():
        entry = rows.setdefault(row["file"], {"MB": f"{row['bytes'] / 1e6:.2f}"})
        entry[f"{row['split']} pictures right"] = (f"{row['right']} of {row['pictures']}, {row['low']:.1%} to "
                                                   f"{row['high']:.1%}")
        entry["ms a picture"] = f"{row['ms']:.2f} ({row['ms_low']:.2f} to {row['ms_high']:.2f})"
    return pd.DataFrame.from_dict(rows, orient="index")


def answers_of(run: Runner, pictures: "Pictures") -> Evaluation:
    """`Evaluation` of a network as a function on a split of pictures."""
    parts = [np.stack([pictures[index][0] for index in range(at, min(at + BATCH, len(pictures)))])
             for at in range(0, len(pictures), BATCH)]
    return Evaluation(np.concatenate([run(part) for part in parts]), pictures.labels)


def share_interval(right: int, total: int) -> tuple[float, float]:
    """The interval in which the share of right answers lies in 95 of 100 cases. Source: Wilson, 1927."""
    share, doubt = right / total, CONFIDENCE**2 / total
    middle, half = share + doubt / 2, CONFIDENCE * np.sqrt(share * (1 - share) / total + (doubt / 2 / CONFIDENCE)**2)
    return float((middle - half) / (1 + doubt)), float((middle + half) / (1 + doubt))


def _held_out(classifier, prepared):
    """{split: pictures}, the one that decides first; says where they are not those of the training any more."""
    about, given = classifier.provenance, set(prepared.manifest["split"])
    record = classifier.record or {"manifest": None, "sha256": about.get("manifest_sha256"),
                                   "recipe": about.get("recipe", {})}
    splits = [split for split in SPLITS if split in given] or SPLITS[:1]
    for split in splits:
        if record["sha256"]:
            check_evaluation(classifier.name, record, prepared, split)
    return {split: classifier.pictures(prepared, split) for split in splits}


def _load(source, made, batch=None):
    """{name of a file: function pictures -> logits}, float32 first."""
    return {source.name: run_onnx(source), **{path.name: form.run(path, batch) for path, form in made.items()}}


def _time(table, runs, picture):
    """The table with the milliseconds of one picture: all files in turns."""
    times = {name: spread(turns) for name, turns in take_turns(runs, picture, rounds=3, turn_s=0.2).items()}
    columns = pd.DataFrame([times[name] for name in table["file"]], columns=["ms", "ms_low", "ms_high"])
    return pd.concat([table, columns], axis=1)


def _move(path, form, folder):
    for part in form.files:
        with atomic_write(folder / part) as file:
            file.write(path.with_name(part).read_bytes())


def _measure(runs, held_out):
    """A row a file and split; the first file is what the others are compared with."""
    found = {name: {split: answers_of(run, pictures) for split, pictures in held_out.items()}
             for name, run in runs.items()}
    first, rows = next(iter(found.values())), []
    for name, evaluations in found.items():
        for split, evaluation in evaluations.items():
            before, right = first[split].right, evaluation.right
            low, high = share_interval(int(right.sum()), len(right))
            rows.append({"file": name, "split": split, "right": int(right.sum()), "pictures": len(right), "low": low,
                         "high": high, "lost": int((before & ~right).sum()), "gained": int((right & ~before).sum())})
    return pd.DataFrame(rows)


def _refuse(table: pd.DataFrame, network: str, largest_loss: float) -> None:
    """Raise `ValueError` for a file that loses more than it may on the pictures of the first split."""
    split = table["split"].iloc[0]
    for _, row in table[table["split"] == split].iterrows():
        lost, total = row["lost"] - row["gained"], row["pictures"]
        if lost > max(1, largest_loss / 100 * total):
            raise ValueError(f"{row['file']} of {network} gets {row['right']} of {total} {split} pictures right, "
                             f"float32 {row['right'] + lost}: {100 * lost / total:.1f} points are lost and "
                             f"{largest_loss:g} allowed, so it is not written. Calibrate on more pictures "
                             "(--calibration), stay with float16, or allow it (--largest-loss)")


def _properties(folder, run, maker, count):
    """The properties of model.onnx with what int8 changes: {text: text}."""
    source = load_package("onnx").load(folder / "model.onnx")
    known = {entry.key: entry.value for entry in source.metadata_props}
    how = f"{count} train pictures, by {maker} {package_versions([maker]).get(maker, '')}"
    added: dict[str, Any] = {"quantisation": {"weights": "int8, a step per output channel", "activations": "int8, a "
                                              "step per tensor", "calibration": how}}
    if "reference" in known:
        size, steps = int(known["image_size"]), json.loads(known["preprocessing"])
        images = normalise(reference_pixels(folder / PICTURE, size), steps["mean"], steps["std"])
        added["reference"] = with_logits(folder / PICTURE, run(images)[0], TOLERANCE, embedded=True)
    return {**known, **{key: json.dumps(value, ensure_ascii=False) for key, value in added.items()}}


def _record(folder: Path, table: pd.DataFrame) -> None:
    """Put the table and the new files into export.json."""
    path = folder / "export.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    rows: Iterable[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    facts = {**facts, "int8": rows, "files": file_facts(folder)}
    with atomic_write(path, "w") as file:
        file.write(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
