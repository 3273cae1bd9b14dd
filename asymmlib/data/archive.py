"""Unpack an archive that a stranger made, without ever leaving the target folder.

Every member is checked before the first byte is written, sizes have limits, links and devices are refused. The
extraction methods of `zipfile` and `tarfile` are not used, as they differ between Python versions: members are read
as streams and written by the few lines below. Downloading is `asymmlib.data.download`'s work.
"""
import gzip
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from asymmlib.base.files import CHUNK_BYTES, READ_ERRORS, atomic_folder, writing_in

__all__ = ["LIMITS", "Member", "is_litter", "members", "safe_path", "stem", "unpack"]

# An archive beyond one of these is refused. The ratio (unpacked to packed size) counts from "ratio from" bytes on:
# pictures hardly shrink, a zip bomb shrinks a thousandfold.
LIMITS = {
    "members": 500_000,
    "member bytes": 2 * 2**30,
    "total bytes": 16 * 2**30,
    "ratio": 100,
    "ratio from": 64 * 2**20,
    "header bytes": 2**20,  # tarfile reads an extended header in one piece
    "padding bytes": 16 * 2**20,  # zeros at the end of a tar
}
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
    """An archive's name without `.zip`, `.tar`, `.tar.gz` or `.tgz`."""
    return re.sub(r"(\.tar)?\.[^.]+$", "", Path(archive).name) or Path(archive).name


def members(archive: Path | str) -> list[Member]:
    """List the files of a zip, tar or tar.gz, litter left out; nothing is written.

    Returns a list of `Member`. Raises `FileNotFoundError`; `ValueError` where the file is no such archive, is damaged,
    holds a name that leads out of the target, a link or device, or exceeds `LIMITS`.
    """
    with _opened(archive) as source:
        return _checked(source)


def unpack(archive: Path | str, target: Path | str, keep: Callable[[PurePosixPath], bool] | None = None) -> Path:
    """Unpack a zip, tar or tar.gz into the folder `target`, which appears only when it is complete.

    A target that exists is therefore complete: it is left as it is. Two processes may unpack at once; the second one
    to finish discards its copy. Litter is skipped.
    keep: function of a member's path (`PurePosixPath`) that says whether to unpack it; default all.
    Returns the target. Raises what `members` raises, and `OSError` where the target cannot be written.
    """
    target = Path(target)
    if target.exists():
        return target
    with _opened(archive) as source:
        wanted = [member for member in _checked(source) if keep is None or keep(member.path)]
        with atomic_folder(target) as temporary:
            for member in wanted:
                _extract(source, member, temporary)
    return target


def _extract(source, member, folder):
    path = folder / member.path
    with writing_in(folder):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "xb")  # noqa: SIM115 - "x": a second member of this name must not replace the first
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"{source.archive}: two members are called {str(member.path)!r}, or differ in upper and "
                             "lower case only; rename one and pack again") from error
    with writing_in(folder), file:  # closing writes as well
        with source.reading():
            stream = source.open(member.entry)
        with stream:
            _copy(source, stream, file, member)


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


def _checked(source):
    """All files of an archive, in its order. Stops at the first fault, so that a bomb costs little."""
    found, total = [], 0
    for count, (name, size, kind, entry) in enumerate(source.entries(), start=1):
        try:
            path = safe_path(name)
        except ValueError as error:
            raise ValueError(f"{source.archive} is not unpacked: its member {error}") from error
        if kind == "special":
            raise ValueError(f"{source.archive} is not unpacked: its member {name!r} is a link or a device")
        total += size
        _check_limits(source, name, count, size, total)
        if kind == "file" and not is_litter(path):
            found.append(Member(path, size, entry))
    return found


def _check_limits(source, name, count, size, total):
    exceeded = [what for what, value, limit in (
        ("members", count, LIMITS["members"]),
        ("member bytes", size, LIMITS["member bytes"]),
        ("total bytes", total, LIMITS["total bytes"]),
        ("ratio", total, max(LIMITS["ratio from"], LIMITS["ratio"] * source.packed_bytes)),
    ) if value > limit]
    if exceeded or size < 0:
        raise ValueError(f"{source.archive} is not unpacked: its member {name!r} ({size:,} bytes, {total:,} in all so "
                         f"far) exceeds a limit on size ({', '.join(exceeded) or 'negative'}); if you trust the "
                         "archive, unpack it by hand and give the folder")


@contextmanager
def _opened(archive):
    archive = Path(archive)
    if not archive.is_file():
        raise FileNotFoundError(f"no archive {archive}: give the path of a zip, tar or tar.gz file")
    with open(archive, "rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        if magic.startswith(b"PK"):
            yield _Zip(archive, raw)
        else:
            yield _Tar(archive, gzip.GzipFile(fileobj=raw) if magic.startswith(b"\x1f\x8b") else raw)


class _Source:
    """What a zip and a tar have in common: `entries()` gives (name, size, kind, entry), `open(entry)` a stream."""

    def __init__(self, archive: Path) -> None:
        self.archive, self.packed_bytes = archive, archive.stat().st_size

    @contextmanager
    def reading(self):
        """Turn what the standard library raises on bad bytes into one `ValueError` that names the archive."""
        try:
            yield
        except READ_ERRORS as error:
            raise ValueError(f"{self.archive} is not a zip or tar archive, or is damaged ({error}); "
                             "check the file or fetch it again") from error


class _Zip(_Source):
    def __init__(self, archive: Path, raw: IO[bytes]) -> None:
        super().__init__(archive)
        with self.reading():
            self.zip = zipfile.ZipFile(raw)

    def entries(self):
        for info in self.zip.infolist():
            name = info.orig_filename
            if not info.flag_bits & 0x800:  # not marked as UTF-8: zipfile decoded it as cp437
                name = _decoded(name.encode("cp437"), "cp437")
            file_type = stat.S_IFMT(info.external_attr >> 16)
            folder = name.endswith(("/", "\\"))
            kind = "folder" if folder else "file" if file_type in (0, stat.S_IFREG) else "special"
            yield name, info.file_size, kind, info

    def open(self, entry):
        return self.zip.open(entry)


class _Tar(_Source):
    def __init__(self, archive: Path, stream: IO[bytes]) -> None:
        super().__init__(archive)
        self.stream = _Guarded(stream)
        with self.reading():
            self.tar = tarfile.TarFile(fileobj=cast(IO[bytes], self.stream), encoding="utf-8", errors="surrogateescape")

    def entries(self):
        while True:
            with self.reading():
                info = self.tar.next()
            if info is None:
                break
            name = _decoded(info.name.encode("utf-8", "surrogateescape"), "latin-1")
            plain = info.isreg() and not info.issparse()
            yield name, info.size, "folder" if info.isdir() else "file" if plain else "special", info
        with self.reading():
            self._check_end()

    def _check_end(self):
        """tarfile stops in silence at a broken header: after the last member only zeros may follow."""
        self.stream.seek(self.tar.offset)
        padding = 0
        while chunk := self.stream.read(CHUNK_BYTES):
            padding += len(chunk)
            if any(chunk) or padding > LIMITS["padding bytes"]:
                raise tarfile.ReadError("something other than zeros follows the last member")

    def open(self, entry):
        return self.tar.extractfile(entry)


class _Guarded:
    """A stream for `tarfile` that refuses to read a whole huge header into memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.seek, self.tell, self.stream = stream.seek, stream.tell, stream

    def read(self, count):
        if not 0 <= count <= LIMITS["header bytes"]:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self.stream.read(count)


def _decoded(raw, fallback):
    """A member's name from its bytes: UTF-8, else GBK (zips made on Chinese Windows), else the fallback."""
    for encoding in ("utf-8", "gbk"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            pass
    return raw.decode(fallback)
