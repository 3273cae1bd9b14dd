"""How pictures lie in folders: one folder a class, or a tree that is split into train, val and test already.

Nothing that looks like a picture is passed over in silence: what is left out is counted and named.
"""
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from asymmlib.base.folders import home, runs_dir
from asymmlib.data.archive import is_litter
from asymmlib.data.kinds import CONVERT, PICTURE, kind_of_file

__all__ = ["MINIMUM", "PICTURES", "check_classes", "check_given", "class_entries", "given_split", "is_picture",
           "list_pictures", "nfc", "picture_files", "share_of", "shown", "visible_entries"]

PICTURES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif")
# Folders of a tree that is split already, as ImageNet's is, in any case: the split that their pictures belong to
SHARE_OF = {"train": "train", "training": "train", "val": "eval", "valid": "eval", "validation": "eval",
            "eval": "eval", "evaluation": "eval", "dev": "eval", "test": "test", "testing": "test"}
# The same with more words behind: training_set, test1, val_images
SPLIT_NAME = re.compile(rf"({'|'.join(SHARE_OF)})([ _-]?(set|data|images?|imgs?|pictures?|pics?|jpe?g|\d+))*", re.I)
MINIMUM = 5  # pictures in a class: with fewer the rule of every fifth has no full round
LISTED = 20  # names in a message
NAMED = 5  # examples in a remark
LOOKED_AT = 10_000  # files below a folder that is left out, and files whose first bytes are read


def nfc(text: str) -> str:
    """The composed form of a name: some systems store "é" as one sign, some as two."""
    return unicodedata.normalize("NFC", text)


def shown(names: Sequence[str]) -> str:
    """Names for a message, the first ones of many."""
    return ", ".join(repr(name) for name in names[:LISTED]) + (" ..." if len(names) > LISTED else "")


def share_of(folder: str) -> str:
    """The split that the folder of this name is for in a tree that is split already; "" for any other name."""
    name = SPLIT_NAME.fullmatch(folder)
    return SHARE_OF[name[1].lower()] if name else ""


def visible_entries(folder: Path | str) -> list[Path]:
    """Files and folders in `folder` that are not litter, sorted by the NFC form of their names."""
    return sorted((path for path in Path(folder).iterdir() if not is_litter(path.name)),
                  key=lambda path: (nfc(path.name), path.name))


def class_entries(folder: Path | str) -> list[Path]:
    """`visible_entries` without the folders of this project's own data and runs, where they lie in between."""
    return [path for path in visible_entries(folder) if not _is_own(path)]


def is_picture(path: Path) -> bool:
    """True for anything but a folder whose suffix, in any case, is one of `PICTURES`."""
    return path.suffix.lower() in PICTURES and not path.is_dir()


def picture_files(folder: Path | str) -> list[Path]:
    """The pictures in a folder and in those below it, in the order of their names; the folder itself without any.

    Links to folders are not followed, litter and hidden folders are left out.
    """
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted((name for name in folders if not is_litter(name)), key=nfc)
        paths = (Path(parent, name) for name in sorted(names, key=nfc) if not is_litter(name))
        files += [path for path in paths if is_picture(path)]
    return files or [Path(folder)]


def list_pictures(images: Path | str) -> dict[str, list[Path]]:
    """Picture files by class, `{class: [path, ...]}`, classes and files sorted by the NFC form of their names.

    A class is called by that form: two folders that differ in it alone are one class. Prints what is left out: files
    that are no pictures, anything beside the class folders or in folders below them.
    Raises `FileNotFoundError` where there is no such folder.
    """
    images = Path(images)
    if not images.is_dir():
        raise FileNotFoundError(f"no folder {images}: give a folder that holds one folder of pictures per class")
    entries = class_entries(images)
    files: dict[str, list[Path]] = {}
    left_out = [path for path in entries if not path.is_dir()]
    for folder in entries:
        if folder.is_dir():
            inside = visible_entries(folder)
            files.setdefault(nfc(folder.name), []).extend(path for path in inside if is_picture(path))
            left_out += [path for path in inside if not is_picture(path)]
    if left_out:
        _tell(images, left_out)
    _tell_alike(images, files)
    return {label: sorted(paths, key=lambda path: (nfc(path.name), path)) for label, paths in files.items()}


def given_split(images: Path) -> dict[str, Path]:
    """`{split: folder}` of a tree that is split already; empty for any other folder.

    Such a tree has `train` and another folder that `share_of` knows, each with folders and no pictures. Where only
    `test` goes with `train`, it is the one to evaluate on, which is said. `ValueError` for two folders of one split.
    """
    found: dict[str, Path] = {}
    for folder in class_entries(images) if images.is_dir() else ():
        share = share_of(folder.name)
        inside = visible_entries(folder) if share and folder.is_dir() else []
        if any(path.is_dir() for path in inside) and not any(map(is_picture, inside)):
            if share in found:
                raise ValueError(f"{images}: {found[share].name!r} and {folder.name!r} are both for {share}; put their "
                                 "pictures into one of them, or remove one")
            found[share] = folder
    if "train" not in found or len(found) == 1:
        return {}
    if "eval" not in found:
        print(f"{images}: there is no folder for validation, so {found['test'].name!r} is used to evaluate (eval)")
        found["eval"] = found.pop("test")
    return {share: found[share] for share in ("train", "eval", "test") if share in found}


def check_classes(files: Mapping[str, list[Path]], images: Path) -> None:
    """Raise `ValueError` unless there are two classes or more, none of them a split by its name, with pictures enough
    for the rule of every fifth; all that are too small are named at once."""
    if not files:
        raise ValueError(f"{images} holds no class folders: give a folder that holds one folder of pictures per class")
    if len(files) > 1 and all(map(SPLIT_NAME.fullmatch, files)):
        full = [label for label, paths in files.items() if not paths]
        if len(full) == len(files):
            raise ValueError(f"{images}: {shown(full)} are folders of a split, and none with class folders in it is "
                             f"for training; call one 'train', or give the folder {images / full[0]} alone, if it "
                             "holds the class folders")
        remedy = (f"give the folder {images / full[0]}, if it holds the class folders" if full
                  else "put the pictures of each class into a folder of its own")
        raise ValueError(f"{images}: {shown([label for label in files if label not in full])} hold pictures, not class "
                         f"folders, and would become classes themselves; {remedy}")
    if len(files) == 1:
        raise ValueError(f"{images} holds one class only, {next(iter(files))!r}; a classifier needs two or more")
    empty = [label for label, paths in files.items() if not paths]
    few = [f"{label!r} has {len(paths)}" + " pictures" * (not number) for number, (label, paths)
           in enumerate((label, paths) for label, paths in files.items() if 0 < len(paths) < MINIMUM)]
    problems = []
    if empty:
        problems.append(f"class {shown(empty)} has no pictures ({', '.join(PICTURES)}); fill or remove the "
                        "folder, and give the folder that holds the class folders themselves")
    if few:
        problems.append(f"class {', '.join(few)}; the split needs {MINIMUM} or more in each, as every fifth is set "
                        "apart. Add pictures or remove the folders")
    if problems:
        raise ValueError(f"{images}: {'. Also: '.join(problems)}")


def check_given(files: Mapping[tuple[str, str], list[Path]], images: Path, folders: Mapping[str, Path]) -> None:
    """Raise `ValueError` unless every class has pictures in each folder; files: `{(class, split): paths}`."""
    labels = {label for label, _ in files}
    empty = [f"{folder.name}/{label}" for share, folder in folders.items() for label in sorted(labels)
             if not files.get((label, share))]
    if empty:
        raise ValueError(f"{images}: no pictures in {shown(empty)}; every class needs some in each of "
                         f"{' and '.join(folder.name for folder in folders.values())}, in folders of the same names")
    if len(labels) < 2:
        raise ValueError(f"{images} holds one class only, {min(labels)!r}; a classifier needs two or more")


def _is_own(path):
    """Whether a folder is, holds or lies in this project's home or the folder of its runs, and has no pictures."""
    places = []
    for place in (home, runs_dir):
        with suppress(ValueError):  # no home folder at all
            places.append(place().resolve())
    real = path.resolve()
    own = any(real == place or real in place.parents or real.parent == place for place in places)
    return own and path.is_dir() and not any(map(is_picture, visible_entries(path)))


def _tell(images, left_out):
    """Print what is left out of a folder: kinds, names, and where pictures are among it."""
    kinds = Counter("folder" if path.is_dir() else path.suffix.lower() or "no suffix" for path in left_out)
    print(f"{images}: {len(left_out)} entries are no pictures of a class and are left out "
          f"({', '.join(f'{kind}: {count}' for kind, count in sorted(kinds.items()))}): {_examples(images, left_out)}")
    astray = [path for path in left_out if is_picture(path)]
    astray += [path for folder in left_out if folder.is_dir() for path in _pictures_below(folder)]
    if astray:
        print(f"{images}: pictures among them: {len(astray)} outside a class folder or in a folder below one "
              f"({_examples(images, astray)}); each must lie in the folder of its class to be used")
    other = [path for path in left_out if path.is_file() and not is_picture(path)][:LOOKED_AT]
    pictures = [path for path in other if _is_picture_by_its_bytes(path)]
    if pictures:
        print(f"{images}: pictures among them: {len(pictures)} with other endings ({_examples(images, pictures)}); "
              f"used are {', '.join(PICTURES)}: rename what is of such a kind, convert the others")


def _tell_alike(images, labels):
    """Print which classes differ in case, or in spaces at their ends, alone: often one class by two names."""
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(label.strip().casefold(), []).append(label)
    pairs = [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
    if pairs:
        print(f"{images}: warning: classes that differ in case or spaces alone: {'; '.join(pairs[:NAMED])}. They stay "
              "apart; put the pictures into one folder if they are of one class")


def _examples(images, paths):
    names = [path.relative_to(images).as_posix() for path in paths[:NAMED]]
    text = ", ".join(map(repr, names)) + (", ..." if len(paths) > NAMED else "")
    return text.encode("utf-8", "backslashreplace").decode()


def _pictures_below(folder):
    found, looked_at = [], 0
    for parent, _, names in os.walk(folder) if not folder.is_symlink() else ():
        found += [path for path in (Path(parent, name) for name in names) if is_picture(path)]
        looked_at += len(names)
        if looked_at > LOOKED_AT:
            break
    return found


def _is_picture_by_its_bytes(path):
    try:
        kind = kind_of_file(path)
    except (OSError, ValueError):
        return False
    return kind is not None and (kind.remedy == PICTURE or kind.remedy.startswith(CONVERT))
