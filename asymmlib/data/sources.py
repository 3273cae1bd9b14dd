"""Where pictures come from: drawn by this project, Caltech-101, or a reader's own folder or archive.

`prepare` is the one way in. What it fetches or unpacks lies below `home()`; a reader's folder is used where it is and
never changed. Everything it makes can be deleted and made again.
"""
import hashlib
import os
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from asymmlib.base.files import (
    READ_ONLY,
    atomic_write,
    checksum,
    has_file,
    locked,
    make_folder,
    open_regular,
    sweep,
    temporary_name,
)
from asymmlib.base.folders import checkout, data_choice, expanded, home
from asymmlib.data.archive import members, stem, unpack
from asymmlib.data.copies import report_copies
from asymmlib.data.download import download
from asymmlib.data.layout import class_entries, is_picture, visible_entries
from asymmlib.data.manifest import Prepared, make_manifest, read_manifest, write_manifest

__all__ = ["CALTECH16", "CALTECH_MD5", "CALTECH_URL", "MANIFESTS", "Prepared", "find_images", "keep_classes",
           "largest_classes", "prepare"]

# Caltech-101: Li, Andreeto, Ranzato, Perona, doi 10.22002/D1.20086, CC BY 4.0
CALTECH_URL = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip"
CALTECH_MD5 = "3138e1922a9193bfa496528edbbc45d0"
CALTECH_INNER = "101_ObjectCategories.tar.gz"  # the pictures lie in an archive inside the archive
CALTECH_BACKGROUND = "BACKGROUND_Google"  # no object category
CALTECH_CLASSES, CALTECH_BELOW = 16, 400  # the rule: so many of the largest categories with fewer pictures than that
CALTECH16 = ("Leopards", "bonsai", "brain", "buddha", "butterfly", "car_side", "chandelier", "grand_piano", "hawksbill",
             "helicopter", "kangaroo", "ketch", "menorah", "starfish", "trilobite", "watch")
MANIFESTS = {False: "manifest.csv", True: "manifest-test.csv"}  # without and with a test share
# Beside the manifest: the path of a reader's own folder or archive, and the encoding that was named for its names
SOURCE, ENCODING = "source.txt", "encoding.txt"
CALTECHS = ("caltech16", "caltech101")  # the sixteen, or all 101 object categories
ACCEPTED = ("accepted are 'sample', 'caltech16', 'caltech101', or the path of a folder of class folders, or of a zip "
            "or tar of one (--data, data=, or ASYMMLIB_DATA)")
PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".rar", ".7z")


def prepare(data: Path | str | None = None, *, archive: Path | str | None = None, test_share: bool = False,
            on_error: str = "error", progress: bool = True, names_encoding: str | None = None) -> Prepared:
    """Fetch, unpack or draw the pictures if that is not done yet, check every one, write the manifest.

    data: "sample", "caltech16", "caltech101" (all object categories), or the path of a folder of class folders, or of a
    zip or tar of one, whatever its top folder is called, or the name of earlier `Prepared` data; None for
    `ASYMMLIB_DATA`, else "sample".
    archive: with either Caltech, a local copy of the archive; any packing will do. test_share, on_error: see
    `asymmlib.data.manifest.make_manifest`. progress: show bars. names_encoding: of the names in an archive that do not
    say their own, such as "cp932"; None to choose one, which is said.
    Pictures whose checksum is in an earlier manifest are not decoded again. Where the folder of prepared data may only
    be read, it is read. Copies of a picture in different splits or classes are told in a printed line.
    Returns a `Prepared`. Raises `ValueError`, `FileNotFoundError`, `ConnectionError` or another `OSError`, each saying
    what to do.
    """
    choice = data_choice() if data is None else data
    if archive is not None and choice not in CALTECHS:
        raise ValueError(f"an archive goes with the data {' or '.join(CALTECHS)}, not with {str(choice)!r}; to use an "
                         "archive of your own, give its path as the data")
    if archive is not None and not expanded(archive).exists():
        raise FileNotFoundError(f"no archive {archive}: give the path of a local copy of caltech-101.zip")
    name, fetch, beside = _resolve(choice, archive, progress, names_encoding)
    folder = home() / name
    with _held(folder):
        images = fetch(folder)
        frame = make_manifest(images, test_share, on_error, _known(folder), progress)
        for file_name, content in beside.items():  # so that the name alone finds the data again
            if _content(folder / file_name) != content:
                with atomic_write(folder / file_name) as file:
                    file.write(content)
        if not _is_written(frame, folder / MANIFESTS[bool(test_share)]):
            write_manifest(frame, folder / MANIFESTS[bool(test_share)])
    report_copies(frame)
    return Prepared(name, images, folder, frame)


@contextmanager
def _held(folder):
    """The folder of some data, made, locked, and without what a killed run left; one with a manifest that may only be
    read, as on a read-only mount, is used as it is."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
            sweep(make_folder(folder))
        except OSError as error:
            if error.errno not in READ_ONLY or not any((folder / name).is_file() for name in MANIFESTS.values()):
                raise
        yield


def find_images(folder: Path | str) -> Path:
    """The folder that holds the class folders: `folder`, or the only folder in it, and so on down.

    Raises `ValueError` where there is an archive in place of class folders.
    """
    folder = Path(folder)
    while True:
        entries = class_entries(folder)
        inside = [path for path in entries if path.is_dir()]
        if len(inside) != 1 or any(is_picture(path) for path in entries) or not _has_folders(inside[0]):
            break
        folder = inside[0]
    archives = [path for path in entries if path.name.lower().endswith(PACKED)]
    if archives and not inside:
        raise ValueError(f"{folder} holds no class folders but {archives[0].name}: give the path {archives[0]}")
    return folder


def largest_classes(counts: Mapping[str, int], skip: int = 0) -> tuple[str, ...]:
    """Caltech-16 by its rule: the 16 largest categories under 400 pictures, the background left out, ties by name.

    counts: `{category: pictures}`. skip: how many of the largest to pass over; with 16, the sixteen next ones. Returns
    their names, sorted.
    """
    eligible = [name for name, count in counts.items() if count < CALTECH_BELOW and name != CALTECH_BACKGROUND]
    return tuple(sorted(sorted(eligible, key=lambda name: (-counts[name], name))[skip:skip + CALTECH_CLASSES]))


def keep_classes(prepared: Prepared, classes: Iterable[str], name: str | None = None) -> Prepared:
    """`Prepared` data with some of its classes only, in the manifest's order; shares and pictures stay as they are.

    name: of the new data (default: the old name and the number of classes). Caches lie in the old folder, keyed by
    content. Raises `ValueError` for fewer than two classes and for one that the data has not got.
    """
    classes, known = list(classes), prepared.class_names
    unknown = [label for label in classes if label not in known]
    if unknown or len(set(classes)) < 2:
        raise ValueError(f"{prepared.name} cannot be reduced to {len(set(classes))} classes"
                         + (f": it has no {', '.join(map(repr, unknown))}; it has {', '.join(known)}" if unknown else
                            ": a classifier needs two or more"))
    manifest = prepared.manifest[prepared.manifest["class"].isin(classes)].reset_index(drop=True)
    return replace(prepared, name=name or f"{prepared.name}-{len(set(classes))}", manifest=manifest)


def _resolve(choice, archive, progress, names_encoding):
    """(name, fetch, beside) of a choice of data: `fetch(folder)` returns the folder of class folders, making what is
    missing in `folder`; `beside` is what stands beside the manifest of a reader's own data, {file: content}."""
    if names_encoding is not None and choice in ("sample", *CALTECHS):
        raise ValueError(f"names_encoding (--names-encoding) goes with an archive of your own, not with {choice!r}")
    if choice == "sample":
        return choice, _draw, {}
    if choice in CALTECHS:
        return choice, lambda folder: _fetch_caltech(choice, folder, archive, progress), {}
    if not str(choice).strip():  # would be the current folder
        raise ValueError(f"unknown data {choice!r}; {ACCEPTED}")
    path = _own_path(choice)
    if path.is_dir():
        if names_encoding is not None:
            raise ValueError(f"{path} is a folder: names_encoding (--names-encoding) goes with an archive")
        name = _file_name(path.name, hashlib.sha256(os.fsencode(path)).hexdigest())
        return name, lambda folder: find_images(path), {SOURCE: os.fsencode(path)}
    if path.exists():
        open_regular(path).close()  # a pipe or a device ends here
        return _resolve_archive(path, names_encoding)
    if isinstance(choice, Path) or re.search(r"[/\\~]|\.\w+$", choice):
        where = "" if Path(choice).is_absolute() else f" below {Path.cwd()}"
        raise FileNotFoundError(f"no data at {choice}: there is no such file or folder{where}; {ACCEPTED}")
    recorded = home() / choice  # the name of earlier `Prepared` data?
    if has_file(recorded / SOURCE):
        encoding = _content(recorded / ENCODING)
        source = Path(os.fsdecode(_content(recorded / SOURCE)))
        return _resolve(source, archive, progress, encoding.decode("ascii", "replace") if encoding else names_encoding)
    raise ValueError(f"unknown data {choice!r}; {ACCEPTED}")


def _resolve_archive(path, names_encoding):
    name, beside = _file_name(stem(path), checksum(path)), {SOURCE: os.fsencode(path)}
    if names_encoding is not None:  # beside what another encoding makes of it
        name, beside[ENCODING] = f"{name}-{_file_name(names_encoding, '')[:-1]}", names_encoding.encode()
    return name, lambda folder: find_images(unpack(path, folder / "Images", names_encoding=names_encoding)), beside


def _own_path(choice):
    """The path of a reader's data; a relative one counts from the current folder, else from the checkout."""
    path = expanded(choice)
    if not path.exists() and checkout() and (checkout() / path).exists():
        path = checkout() / path
    return path.resolve()


def _file_name(base, digest):
    """A name for the folder in `home()`: letters, digits, dots and dashes of `base`, and eight digits of a digest."""
    safe = re.sub(r"[^\w.-]+", "_", base).strip("._")[:60]
    return f"{safe or 'data'}-{digest[:8]}"


def _draw(folder):
    from asymmlib.data.sample import draw_sample
    return draw_sample(folder)


def _fetch_caltech(choice, folder, archive, progress):
    images = folder / "Images"
    if not images.is_dir():
        packed = _caltech_archive(archive, progress)
        inner = [member.path for member in members(packed) if member.path.name == CALTECH_INNER]
        if not inner:
            return _unpack_caltech(choice, packed, images)
        outer = unpack(packed, temporary_name(folder / "outer"), keep=lambda _: inner)
        try:
            return _unpack_caltech(choice, outer / inner[0], images)
        finally:
            shutil.rmtree(outer, ignore_errors=True)
    return find_images(images)


def _caltech_archive(archive, progress):
    """The local copy that was named, else the one in `downloads/`, else a download."""
    path = home() / "downloads" / "caltech-101.zip" if archive is None else expanded(archive)
    if not path.exists():
        try:
            return download(CALTECH_URL, path, CALTECH_MD5, progress)
        except ConnectionError as error:
            raise ConnectionError(f"{error} Or name the file: --archive FILE (archive=FILE in Python).") from error
    found = checksum(path, "md5")
    if found != CALTECH_MD5:
        print(f"{path.name} is not the official archive byte for byte (its MD5 is {found}, the official one's "
              f"{CALTECH_MD5}): its pictures are checked one by one.")
    return path


def _unpack_caltech(choice, packed, images):
    return find_images(unpack(packed, images, keep=lambda paths: _caltech_pictures(choice, packed, paths)))


def _caltech_pictures(choice, packed, paths):
    """The members of the classes of a choice, after making sure that the rule chooses the sixteen in this archive too.
    """
    pictures = Counter(path.parent.name for path in paths if path.suffix == ".jpg")
    found = largest_classes(pictures)
    if found != CALTECH16:
        raise ValueError(f"{packed} is not Caltech-101: its {CALTECH_CLASSES} largest categories below {CALTECH_BELOW} "
                         f"pictures are {', '.join(found) or 'none'}; they should be {', '.join(CALTECH16)}")
    wanted = CALTECH16 if choice == "caltech16" else set(pictures) - {CALTECH_BACKGROUND}
    return {path for path in paths if path.parent.name in wanted}


def _has_folders(folder):
    return any(path.is_dir() for path in visible_entries(folder))


def _content(path):
    return path.read_bytes() if has_file(path) else None


def _is_written(frame, path):
    """Whether a manifest is on disk already, so that it need not be written again."""
    try:
        return read_manifest(path).equals(frame)
    except (FileNotFoundError, ValueError):
        return False


def _known(folder):
    """Checksums of the pictures that an earlier run decoded."""
    digests = set()
    for name in MANIFESTS.values():
        try:
            digests.update(read_manifest(folder / name)["sha256"])
        except FileNotFoundError:
            continue
        except ValueError as error:
            warnings.warn(f"{error}: all pictures are decoded again and it is replaced", stacklevel=3)
    return digests
