"""The kinds of archives that are read, a zip and a tar, as streams: what Python's standard library raises on bad bytes
becomes one `ValueError` that names the archive, and what it cannot read is named as what it is.
"""
import bz2
import gzip
import lzma
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from asymmlib.base.files import CHUNK_BYTES, READ_ERRORS, open_regular
from asymmlib.data.kinds import HEAD_BYTES, PICTURE, UNPACK, kind_of
from asymmlib.data.names import unicode_path

__all__ = ["LIMITS", "Tar", "Zip", "opened"]

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
TAR_MARK = slice(257, 262), b"ustar"
PACKED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw), b"BZh": bz2.BZ2File, b"\xfd7zXZ\x00": lzma.LZMAFile}
OWN = ("a zip archive", "a tar archive", "a gzip archive", "a bzip2 archive", "an xz archive")
READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
# Methods of compression in zips that Python cannot undo, by their number
METHODS = {9: "Deflate64 (of Windows Explorer, for large files)", 93: "Zstandard", 95: "xz", 96: "JPEG", 97: "WavPack",
           98: "PPMd", 99: "AES encryption"}
Entry = tuple[str | bytes, int, str, Any]  # name, size, "file", "folder" or "special", and what opens it
ENCRYPTED = 0x1 | 0x40 | 0x2000  # flags of a zip's entry: encrypted, strongly, with its names


@contextmanager
def opened(archive: Path | str) -> Iterator["Source"]:
    """Open an archive by its first bytes, whatever its suffix says: a `Zip` or a `Tar`.

    Raises `FileNotFoundError`; `ValueError` for a pipe or a device, and for any other file, named as what it is.
    """
    archive = Path(archive)
    if not archive.exists():
        raise FileNotFoundError(f"no archive {archive}: give the path of a zip, tar, tar.gz, tar.bz2 or tar.xz file")
    with open_regular(archive) as raw:
        head = raw.read(HEAD_BYTES)
        raw.seek(0)
        marked = head[TAR_MARK[0]] == TAR_MARK[1]  # its first bytes are the name of a member, whatever they look like
        try:
            if head.startswith(b"PK") and not marked:
                source: Source = Zip(archive, raw)
            else:
                unpacked = [reader(raw) for magic, reader in PACKED.items() if head.startswith(magic) and not marked]
                source = Tar(archive, *(unpacked or [raw]))
        except ValueError as error:
            _name_other(archive, head, error)
            raise
        yield source


def _name_other(archive, head, error):
    """Raise `ValueError` for a file that is known to be something else than what is read here."""
    kind = kind_of(head)
    if kind and kind.what not in OWN:
        remedy = "give the folder of class folders that it lies in" if kind.remedy == PICTURE else kind.remedy
        raise ValueError(f"{archive} is not a zip or tar archive but {kind.what}: {remedy}") from error


class Source:
    """What a zip and a tar have in common: `entries()` gives (name, size, kind, entry), `open(entry)` a stream.

    A name is a `str`, or bytes where the archive does not say in which encoding they are.
    """

    def __init__(self, archive: Path) -> None:
        self.archive, self.packed_bytes = archive, archive.stat().st_size

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn what the standard library raises on bad bytes into one `ValueError` that names the archive."""
        try:
            yield
        except (*READ_ERRORS, MemoryError) as error:
            raise ValueError(f"{self.archive} is not a zip or tar archive, or is damaged ({error or 'no memory'}); "
                             "check the file or fetch it again") from error


class Zip(Source):
    """A zip; names by the UTF-8 flag or by the extra field 0x7075, else bytes."""

    def __init__(self, archive: Path, raw: IO[bytes]) -> None:
        super().__init__(archive)
        with self.reading(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of newer Pythons: they name no file
            self.zip = zipfile.ZipFile(raw)

    def entries(self) -> Iterator[Entry]:
        for info in self.zip.infolist():
            name: str | bytes = info.orig_filename
            if not info.flag_bits & 0x800:  # not marked as UTF-8: zipfile decoded it as cp437
                raw = info.orig_filename.encode("cp437")
                name = unicode_path(raw, info.extra) or raw
            file_type = stat.S_IFMT(info.external_attr >> 16)
            folder = info.orig_filename.endswith("/")
            if not folder:
                self._check(info)
            kind = "folder" if folder else "file" if file_type in (0, stat.S_IFREG) else "special"
            yield name, info.file_size, kind, info

    def _check(self, info):
        if info.flag_bits & ENCRYPTED:
            raise ValueError(f"{self.archive} is encrypted: unpack it yourself with its password and give the folder")
        if info.compress_type not in READABLE:
            method = METHODS.get(info.compress_type, f"method {info.compress_type}")
            raise ValueError(f"{self.archive} is compressed by {method}, which Python cannot undo: {UNPACK}, or pack "
                             "it again as an ordinary zip")

    def open(self, entry: zipfile.ZipInfo) -> IO[bytes]:
        return self.zip.open(entry)


class Tar(Source):
    """A tar; names are bytes but for those of extended (pax) headers, which are UTF-8."""

    def __init__(self, archive: Path, stream: IO[bytes]) -> None:
        super().__init__(archive)
        self.stream = _Guarded(stream)
        with self.reading():
            self.tar = tarfile.TarFile(fileobj=cast(IO[bytes], self.stream), encoding="utf-8", errors="surrogateescape")

    def entries(self) -> Iterator[Entry]:
        while True:
            with self.reading():
                info = self.tar.next()
            if info is None:
                break
            name: str | bytes = info.name.encode("utf-8", "surrogateescape")
            if "path" in info.pax_headers and name == info.name.encode("utf-8", "replace"):
                name = info.name
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

    def open(self, entry: tarfile.TarInfo) -> IO[bytes] | None:
        return self.tar.extractfile(entry)


class _Guarded:
    """A stream for `tarfile` that refuses to read a whole huge header into memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.seek, self.tell, self.stream = stream.seek, stream.tell, stream

    def read(self, count):
        if not 0 <= count <= LIMITS["header bytes"]:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self.stream.read(count)
