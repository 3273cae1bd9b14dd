"""The split as a table: which picture belongs to which share, fixed by the sorted names alone.

The article copies its pictures into two folders, in whatever order `os.listdir` gives. Here nothing is copied: a
manifest of one row a picture says path, class, share and checksum, and is the same on every machine. Notebook 01
builds the rule by hand.
"""
import csv
import hashlib
import io
import re
import unicodedata
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd
from tqdm import tqdm

from asymmlib.base.files import atomic_write, checksum, open_regular
from asymmlib.data.archive import safe_path
from asymmlib.data.decoding import decode
from asymmlib.data.layout import (
    LISTED,
    MINIMUM,
    PICTURES,
    check_classes,
    check_given,
    class_entries,
    given_split,
    list_pictures,
    nfc,
    share_of,
    shown,
)

__all__ = ["COLUMNS", "MINIMUM", "PICTURES", "SPLITS", "Prepared", "class_names", "counts", "list_pictures",
           "make_manifest", "manifest_hash", "read_manifest", "write_manifest"]

# path: below the folder of class folders; name: `<class>/<file>` without spaces, unique; sha256: of the file's bytes
COLUMNS = ("path", "class", "split", "sha256", "name")
SPLITS = ("train", "eval", "test")
EVERY = MINIMUM  # the article's rule: of every five files in sorted order ...
SHARES = {0: "eval", 1: "test"}  # ... the first is for evaluation, the second for the test where one is asked for


@dataclass(frozen=True, eq=False)
class Prepared:
    """Checked pictures, ready to use.

    name: usable as a file name. images: folder of the class folders. folder: `home() / name`, where the manifest and
    caches lie. manifest: DataFrame as `make_manifest` describes it.
    """

    name: str
    images: Path
    folder: Path
    manifest: pd.DataFrame

    @property
    def class_names(self) -> list[str]:
        """The classes, in the order of their labels."""
        return class_names(self.manifest)


def make_manifest(images: Path | str, test_share: bool = False, on_error: str = "error",
                  known: Collection[str] | None = None, progress: bool = False) -> pd.DataFrame:
    """Check all pictures below a folder of class folders and assign each one to a share.

    Names are sorted by the code points of their NFC form. Of the sorted files of a class, those at index 0, 5, 10 ...
    go to `eval`; with `test_share` those at 1, 6, 11 ... to `test`; the others to `train`. Hidden files and folders do
    not count; visible files that are no pictures by their suffix are left out with a printed line.

    images: folder with one subfolder a class. on_error: "error" to refuse unreadable pictures, "skip" to leave them out
    with a warning. known: SHA-256 digests of pictures that were decoded before and need not be again.
    Where `images` holds the folders `train` and `val` with class folders in each, as ImageNet does, and maybe `test`,
    that split is kept (`asymmlib.data.layout.given_split`): `val` is `eval`, and no test share is taken from `train`.
    Returns a DataFrame with `COLUMNS`, ordered by class and file.
    Raises `FileNotFoundError`; `ValueError` for fewer than two classes, fewer than five pictures in one, unreadable
    pictures (listed by path), names that not every machine can hold, folders called train and test in place of classes.
    """
    if on_error not in ("error", "skip"):
        raise ValueError(f"on_error is {on_error!r}; accepted are 'error' and 'skip'")
    images = Path(images)
    folders = given_split(images)
    if folders:
        return _keep_split(images, folders, test_share, on_error, known, progress)
    files, digests = _readable(list_pictures(images), check_classes, images, on_error, known, progress)
    rows = [row for label, paths in files.items() for row in _rows(label, paths, digests, test_share)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _readable(files, check, images, on_error, known, progress):
    """({group: readable files}, their digests): `check` sees the groups before pictures are left out, and after."""
    check(files, images)
    digests, problems = _inspect(files, known or (), progress)
    if problems:
        _report(problems, images, on_error)
        files = {group: [path for path in paths if path in digests] for group, paths in files.items()}
        check(files, images)
    return files, digests


def _keep_split(images, folders, test_share, on_error, known, progress):
    """The manifest of a tree that is split already: `folders` as `given_split` gives them."""
    names = " and ".join(folder.name for folder in folders.values())
    if test_share and "test" not in folders:
        raise ValueError(f"{images} is split into {names} already, without a test share: leave test_share "
                         "(--test-share) away")
    others = [path.name for path in class_entries(images) if path not in folders.values()]
    if others:
        print(f"{images}: only {names} are used; left out: {shown(others)}")
    files = {(label, share): paths for share, folder in folders.items()
             for label, paths in list_pictures(folder).items()}
    files, digests = _readable(files, lambda *both: check_given(*both, folders), images, on_error, known, progress)
    rows = []
    for label in dict.fromkeys(label for label, _ in files):
        paths = [(path, share) for share in folders for path in files[label, share]]
        names = _names([path.name for path, _ in paths])
        rows += [(path.relative_to(images).as_posix(), label, share, digests[path], f"{label}/{name}")
                 for (path, share), name in zip(paths, names, strict=True)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_manifest(frame: pd.DataFrame, path: Path | str) -> None:
    """Write a manifest as UTF-8 CSV with LF line ends, whole or not at all. Raises `OSError` that names the folder."""
    with atomic_write(path, "w") as file:
        frame.to_csv(file, columns=list(COLUMNS), index=False, lineterminator="\n")


def read_manifest(path: Path | str) -> pd.DataFrame:
    """Read and check a manifest; nothing in it may point outside the folder it belongs to.

    Returns a DataFrame with `COLUMNS`. Raises `FileNotFoundError`; `ValueError` that names file and line for other
    columns, an unknown split, an unsafe or doubled path or name, a damaged checksum.
    """
    path = Path(path)
    try:
        raw = open_regular(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no manifest {path}: make one with python -m asymmlib prepare") from None
    rows: list[list[str]] = []
    seen: set[tuple[str, str]] = set()
    with io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        try:
            for row in lines:
                problem = _row_problem(row, lines.line_num, seen)
                if problem:
                    raise ValueError(f"{path}, line {lines.line_num}: {problem}; make the manifest again with "
                                     "python -m asymmlib prepare")
                rows.append(row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, after line {lines.line_num}: not a CSV in UTF-8 ({error})") from error
    if len(rows) < 2:
        raise ValueError(f"{path}, line 1: the manifest lists no pictures")
    return pd.DataFrame(rows[1:], columns=list(COLUMNS))


def manifest_hash(frame: pd.DataFrame) -> str:
    """SHA-256 of a manifest's rows: two runs with the same one saw the same pictures in the same shares."""
    return hashlib.sha256(frame.to_csv(index=False, lineterminator="\n").encode()).hexdigest()


def class_names(frame: pd.DataFrame) -> list[str]:
    """The classes of a manifest in its order: the position in this list is the label."""
    return list(dict.fromkeys(frame["class"]))


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Pictures of each class in each split that occurs, and their total: a DataFrame, classes down, splits across."""
    table = pd.crosstab(frame["class"], frame["split"])
    table = table.reindex(index=class_names(frame), columns=[split for split in SPLITS if split in table])
    return table.assign(total=table.sum(axis=1))


def _inspect(files, known, progress):
    """Checksum and decode every picture; return ({path: digest} of the good ones, {path: reason} of the others)."""
    digests, problems = {}, {}
    every = [path for paths in files.values() for path in paths]
    for path in tqdm(every, desc="checking pictures", unit="picture", delay=1, disable=not progress):
        try:
            _check_name(f"{path.parent.name}/{path.name}")
            with open_regular(path) as file:  # once for both: of small pictures that is what costs
                digest = checksum(file)
                if digest not in known:
                    file.seek(0)
                    decode(file)
            digests[path] = digest
        except Exception as error:  # decoders fail in many ways on bad bytes; each is listed by path
            problems[path] = "an empty file" if _is_empty(path) else _reason(error, path)
    return digests, problems


def _reason(error, path):
    """What an error says, without the path that is listed before it."""
    return (getattr(error, "strerror", None) or str(error)).removeprefix(f"{path} is ") or type(error).__name__


def _is_empty(path):
    return path.is_file() and path.stat().st_size == 0


def _check_name(text):
    """Raise `ValueError` for a path that a manifest cannot hold for every machine."""
    try:
        safe_path(text)
    except ValueError as error:
        raise ValueError(f"{error}: rename it") from error
    if "\\" in text or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise ValueError("its name has a backslash, a control sign or is not UTF-8: rename it")


def _report(problems, images, on_error):
    lines = [f"  {repr(path.relative_to(images).as_posix())[1:-1]}: {reason}" for path, reason in problems.items()]
    if len(lines) > LISTED:
        lines[LISTED:] = [f"  ... and {len(lines) - LISTED} more"]
    listing = "\n".join(lines).encode("utf-8", "backslashreplace").decode()
    if on_error == "skip":
        warnings.warn(f"{len(problems)} unreadable pictures in {images} are left out:\n{listing}", stacklevel=3)
        return
    raise ValueError(f"{len(problems)} unreadable pictures in {images}:\n{listing}\n"
                     'Replace or remove them, or leave them out with on_error="skip" (--on-error skip).')


def _rows(label, paths, digests, test_share):
    for index, (path, name) in enumerate(zip(paths, _names([path.name for path in paths]), strict=True)):
        share = SHARES.get(index % EVERY, "train")
        if share == "test" and not test_share:
            share = "train"
        yield f"{path.parent.name}/{path.name}", label, share, digests[path], f"{label}/{name}"


def _names(files):
    """File names in NFC with underscores for spaces; of two that become equal, the later one gets -2, -3 ... at its
    end."""
    plain = [nfc(name).replace(" ", "_") for name in files]
    reserved, names = set(plain), {}
    for name in plain:
        free, number = name, 2
        while free in names or (free != name and free in reserved):
            free = f"{Path(name).stem}-{number}{Path(name).suffix}"
            number += 1
        names[free] = None
    return list(names)


def _row_problem(row, line, seen):
    """What is wrong with a line of a manifest, or None. `seen` collects the paths and names met so far."""
    if line == 1:
        return None if tuple(row) == COLUMNS else f"the columns must be {','.join(COLUMNS)}"
    if len(row) != len(COLUMNS):
        return f"{len(row)} fields in place of {len(COLUMNS)}"
    path, label, split, digest, name = row
    try:
        _check_name(path)
        _check_name(name)
    except ValueError as error:
        return str(error)
    if split not in SPLITS:
        return f"split {split!r} is none of {', '.join(SPLITS)}"
    if not re.fullmatch("[0-9a-f]{64}", digest):
        return f"{digest!r} is no SHA-256"
    *above, folder = PurePosixPath(nfc(path)).parts[:-1] or ("",)
    inside = folder == nfc(label) and (not above or (len(above) == 1 and share_of(above[0])))
    if not inside or PurePosixPath(nfc(name)).parts[:-1] != (nfc(label),):
        return f"path {path!r} and name {name!r} must be <class>/<file> of class {label!r}"
    if {("path", path), ("name", name)} & seen:
        return f"path {path!r} or name {name!r} occurs twice"
    seen |= {("path", path), ("name", name)}
    return None
