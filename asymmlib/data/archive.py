"""Unpack an archive that a stranger made, without ever leaving the target folder.

Every member is checked before the first byte is written, sizes have limits, links and devices are refused. The
extraction methods of `zipfile` and `tarfile` are not used, as they differ between Python versions: members are read
as streams (`asymmlib.data.packing`) and written by the few lines below. In which encoding their names are is for
`asymmlib.data.names` to say. Downloading is `asymmlib.data.download`'s work.
"""
import errno
import re
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from asymmlib.base.files import CHUNK_BYTES, atomic_folder, writing_in
from asymmlib.data.kinds import UNPACK
from asymmlib.data.names import decode_all
from asymmlib.data.packing import LIMITS, opened

__all__ = ["LIMITS", "Member", "is_litter", "members", "safe_path", "stem", "unpack"]

LITTER = {"__macosx", "thumbs.db", "desktop.ini", "icon\r"}


class Member(NamedTuple):
    """A file in an archive: its path inside the target, its declared size in bytes, the library's own entry."""

    path: PurePosixPath
    size: int
    entry: Any


def safe_path(name: str) -> PurePosixPath:
    """Return a member's name as a relative `PurePosixPath`; backslashes count as separators.

    Raises `ValueError` for a name that could lead out of the target: absolute, with `..`, with a drive letter.
    """
    text = name.replace("\\", "/")
    path = PurePosixPath(text)
    if text.startswith("/"):
        raise ValueError(f"{name!r} is an absolute name")
    if ".." in path.parts:
        raise ValueError(f"{name!r} leads out of the target folder")
    if any(re.match("[A-Za-z]:", part) for part in path.parts):
        raise ValueError(f"{name!r} holds a drive letter")
    if "\0" in text:
        raise ValueError(f"{name!r} holds a zero byte")
    return path


def is_litter(path: PurePosixPath | str) -> bool:
    """True for what operating systems and tools leave behind: hidden names, `__MACOSX`, `Thumbs.db` and the like."""
    return any(part.startswith(".") or part.lower() in LITTER for part in PurePosixPath(path).parts)


def stem(archive: Path | str) -> str:
    """An archive's name without `.zip`, `.tar`, `.tar.gz`, `.tgz` and the like."""
    return re.sub(r"(\.tar)?\.[^.]+$", "", Path(archive).name) or Path(archive).name


def members(archive: Path | str, names_encoding: str | None = None) -> list[Member]:
    """List the files of a zip or a tar (plain, gz, bz2, xz), litter left out; nothing is written.

    names_encoding: of names that do not say their own; None to choose one for all, which is said in a printed line.
    Returns a list of `Member`. Raises `FileNotFoundError`; `ValueError` where the file is no such archive, is damaged
    or encrypted, holds a name that leads out of the target, a link or device, or exceeds `LIMITS`.
    """
    with opened(archive) as source:
        return _checked(source, names_encoding)


def unpack(archive: Path | str, target: Path | str,
           keep: Callable[[list[PurePosixPath]], Collection[PurePosixPath]] | None = None,
           names_encoding: str | None = None) -> Path:
    """Unpack a zip or a tar into the folder `target`, which appears only when it is complete.

    A target that exists is therefore complete: it is left as it is. Two processes may unpack at once; the second one
    to finish discards its copy. Litter is skipped.
    keep: function of the paths of all members that returns those to unpack, and may raise; default all. A packed tar
    is read twice as it is, to list it and to unpack it.
    Returns the target. Raises what `members` raises, and `OSError` where the target cannot be written.
    """
    target = Path(target)
    if target.exists():
        return target
    with opened(archive) as source:
        found = _checked(source, names_encoding)
        wanted = None if keep is None else keep([member.path for member in found])
        with atomic_folder(target) as temporary:
            for member in found:
                if wanted is None or member.path in wanted:
                    _extract(source, member, temporary)
    return target


def _extract(source, member, folder):
    with writing_in(folder), _create(source, member, folder) as file:  # closing writes as well
        with source.reading():
            stream = source.open(member.entry)
        with stream:
            _copy(source, stream, file, member)


def _create(source, member, folder):
    path = folder / member.path
    try:
        with writing_in(folder):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                return open(path, "xb")  # "x": a second member of this name must not replace the first
            except (FileExistsError, NotADirectoryError) as error:
                raise ValueError(f"{source.archive}: two members are called {str(member.path)!r}, or differ in upper "
                                 "and lower case only; rename one and pack again") from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        longest = max(len(part.encode("utf-8", "surrogateescape")) for part in member.path.parts)
        raise ValueError(f"{source.archive} is not unpacked: a name in its member {str(member.path)!r} has {longest} "
                         "bytes, more than this file system takes (most take 255, which are 85 Chinese characters); "
                         f"shorten it and pack again, or {UNPACK}") from error


def _copy(source, stream, file, member):
    left = member.size
    while True:
        with source.reading():
            chunk = stream.read(CHUNK_BYTES)
        if not chunk:
            break
        left -= len(chunk)
        if left < 0:  # the real size has the declared one as its limit
            raise ValueError(f"{source.archive}: {str(member.path)!r} is larger than it declares")
        with writing_in(Path(file.name).parent):
            file.write(chunk)
    if left:
        raise ValueError(f"{source.archive}: {str(member.path)!r} is shorter than it declares; the archive is damaged")


def _checked(source, names_encoding):
    """All files of an archive, in its order. Stops at the first size beyond a limit, so that a bomb costs little."""
    entries, total = [], 0
    for count, (name, size, kind, entry) in enumerate(source.entries(), start=1):
        total += size
        _check_limits(source, name, count, size, total)
        entries.append((name, size, kind, entry))
    names = decode_all(source.archive, [name for name, *_ in entries], names_encoding)
    members = (_member(source, name, *entry[1:]) for name, entry in zip(names, entries, strict=True))
    return [member for member in members if member]


def _member(source, name, size, kind, entry):
    """The `Member` of one entry, None for a folder and for litter."""
    try:
        path = safe_path(name)
    except ValueError as error:
        raise ValueError(f"{source.archive} is not unpacked: its member {error}") from error
    if kind == "special":
        raise ValueError(f"{source.archive} is not unpacked: its member {name!r} is a link or a device; {UNPACK}")
    is_file = kind == "file" and not name.endswith("\\")  # so some tools of Windows mark folders
    return Member(path, size, entry) if is_file and not is_litter(path) else None


def _check_limits(source, name, count, size, total):
    exceeded = [what for what, value, limit in (
        ("members", count, LIMITS["members"]),
        ("member bytes", size, LIMITS["member bytes"]),
        ("total bytes", total, LIMITS["total bytes"]),
        ("ratio", total, max(LIMITS["ratio from"], LIMITS["ratio"] * source.packed_bytes)),
    ) if value > limit]
    if exceeded or size < 0:
        name = name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")
        raise ValueError(f"{source.archive} is not unpacked: its member {name!r} ({size:,} bytes, {total:,} in all so "
                         f"far) exceeds a limit on size ({', '.join(exceeded) or 'negative'}); if you trust the "
                         "archive, unpack it by hand and give the folder")
