"""Answers for many pictures: names of files in, lines, JSON or CSV out; memory is bounded, one bad file stops nothing.

`python -m asymmlib predict` is this: `find_pictures` lists the files, `answers` reads and classifies them a batch at a
time, `write_answers` says what was found in one of `FORMS`.
"""
import csv
import glob
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from asymmlib.data.layout import PICTURES, picture_files
from asymmlib.data.pictures import load_picture

if TYPE_CHECKING:
    from asymmlib.runs import Classifier

__all__ = ["FORMS", "Answer", "answers", "find_pictures", "form_of", "write_answers"]

NONE = "none of these"


@dataclass(frozen=True)
class Answer:
    """What is said of one picture: its most probable classes, best first, or why it could not be read.

    none: the best class is below the probability that the weights ask for (`Classifier.none_below`).
    """

    path: str
    classes: tuple[tuple[str, float], ...] = ()
    none: bool = False
    error: str = ""


def find_pictures(words: Iterable[str], listed: IO[bytes] | None = None) -> list[str]:
    """Paths of the pictures that some words name: files, folders (with all below), patterns such as `"*.jpg"`, and "-".

    "-" stands for the paths in `listed`, one a line, or between zero bytes as `find -print0` writes them. What is not
    there stays in the list, so that `answers` tells of it. Raises `ValueError` where nothing at all is named.
    """
    paths: list[str] = []
    for word in words:
        if word == "-" and listed is not None:
            paths += _lines(listed.read())
        elif os.path.lexists(word):
            paths += map(str, picture_files(word)) if os.path.isdir(word) else [word]
        else:  # a shell has put names in the pattern's place already; Windows' shells leave it to the program
            paths += sorted(glob.glob(word, recursive=True)) or [word]
    if not paths:
        raise ValueError("no picture is named: give files, folders or patterns, or - with a path a line on standard "
                         "input")
    return paths


def _lines(data):
    parts = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [os.fsdecode(part) for part in parts if part.strip()]


def answers(classifier: "Classifier", paths: Sequence[str], top: int = 5,
            step: Callable[[int], Any] = lambda number: None) -> Iterator[Answer]:
    """The `Answer` of each path, in order; pictures are decoded and classified `classifier.batch` at a time.

    top: how many classes each says. step: called with the number of pictures that are done since the last call.
    Raises `FloatingPointError` for outputs that are not finite: that is no picture's fault.
    """
    for start in range(0, len(paths), classifier.batch):
        part = paths[start:start + classifier.batch]
        read = [_read(path, classifier.image_size) for path in part]
        pixels = [found for found in read if not isinstance(found, str)]
        rows = iter(_probabilities(classifier, np.stack(pixels)) if pixels else ())
        for path, found in zip(part, read, strict=True):
            yield Answer(path, error=found) if isinstance(found, str) else _answer(classifier, path, next(rows), top)
        step(len(part))


def _read(path, size):
    """The pixels of a picture, or a line that says why there are none."""
    try:
        if os.path.isdir(path):
            raise ValueError(f"{path} is a folder without pictures in it ({', '.join(PICTURES)})")
        return load_picture(path, size)
    except (ValueError, OSError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        return reason if str(path) in reason else f"{path}: {reason}"


def _probabilities(classifier, pixels):
    try:
        return classifier.probabilities(pixels)
    except FloatingPointError as error:
        raise FloatingPointError(f"{classifier.name} answers with numbers that are not finite: its weights are "
                                 "damaged, or were trained at too high a rate; use other ones (--from)") from error


def _answer(classifier, path, probabilities, top):
    best = probabilities.argsort(kind="stable")[::-1][:top]
    limit = classifier.none_below
    return Answer(str(path), tuple((classifier.classes[index], float(probabilities[index])) for index in best),
                  none=limit is not None and bool(probabilities[best[0]] < limit))


def _text(found, file, top):
    for answer in found:
        if not answer.error:
            lines = [f"{answer.path}\n", *([f"          {NONE}; the most probable are\n"] if answer.none else [])]
            file.write("".join([*lines, *(f"  {share:6.1%}  {name}\n" for name, share in answer.classes)]))
        yield answer


def _json(found, file, top):
    for answer in found:
        classes = [{"class": name, "probability": share} for name, share in answer.classes]
        said = {"error": answer.error} if answer.error else {"none_of_these": answer.none, "classes": classes}
        file.write(json.dumps({"path": answer.path, **said}, ensure_ascii=False) + "\n")
        yield answer


def _csv(found, file, top):
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["path", "none_of_these", *(f"{column}_{rank}" for rank in range(1, top + 1)
                                               for column in ("class", "probability")), "error"])
    for answer in found:
        cells = [cell for name, share in answer.classes for cell in (name, f"{share:.6f}")]
        table.writerow([answer.path, "" if answer.error else int(answer.none), *cells,
                        *[""] * (2 * top - len(cells)), answer.error])
        yield answer


# form: (ends of file names that ask for it, what writes it)
FORMS = {"text": ((".txt",), _text), "json": ((".json", ".jsonl", ".ndjson"), _json), "csv": ((".csv",), _csv)}


def form_of(path: Path | str | None, asked: str | None = None) -> str:
    """The form of a file by its end, "text" on a screen; `asked` decides. `ValueError` for an end that tells none."""
    if asked or path is None:
        return asked or "text"
    for form, (ends, _) in FORMS.items():
        if Path(path).suffix.lower() in ends:
            return form
    raise ValueError(f"{path}: the end of the name tells no form; known: "
                     f"{', '.join(end for ends, _ in FORMS.values() for end in ends)}; or say --json or --csv")


def write_answers(found: Iterable[Answer], file: IO[str], form: str, top: int) -> Iterator[Answer]:
    """Write each `Answer` as it comes, in one of `FORMS`, and pass it on; `top` is the number of columns of a table.

    "json" is one object a line: path, and classes (class, probability) with none_of_these, or error. Names that no
    Unicode text can hold are written with their bytes escaped.
    """
    with io.StringIO() as text:
        for answer in FORMS[form][1](found, text, top):
            file.write(text.getvalue().encode("utf-8", "backslashreplace").decode())
            text.seek(0)
            text.truncate()
            yield answer
