"""How a file or folder is written so that nobody ever sees half of it, and how its content is checked.

Where files live is `asymmlib.base.folders`' business.
"""
import errno
import hashlib
import lzma
import os
import shutil
import stat
import struct
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from filelock import FileLock, Timeout

__all__ = ["READ_ERRORS", "READ_ONLY", "atomic_folder", "atomic_write", "checksum", "locked", "make_folder",
           "open_regular", "sweep", "temporary_name", "writing_in"]

CHUNK_BYTES = 2**18
# What the standard library raises on damaged or encrypted archives
READ_ERRORS = (OSError, EOFError, RuntimeError, ValueError, OverflowError, IndexError, KeyError, TypeError,
               zlib.error, lzma.LZMAError, struct.error, zipfile.BadZipFile, tarfile.TarError)

OTHER_FOLDER = "ASYMMLIB_HOME sets the one for data, ASYMMLIB_RUNS the one for runs."
# What to do, by the cause
ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), f"Free some space or choose another folder: {OTHER_FOLDER}"),
    errno.ENAMETOOLONG: "Give a shorter name: most systems allow 255 bytes, which are 85 Chinese characters.",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "Too many files are open: close other programs, or raise the limit "
                    "(ulimit -n)."),
    errno.EIO: f"The disk reports an error: check it, or choose a folder on another one: {OTHER_FOLDER}",
    errno.EFBIG: f"This file system takes no file of that size: choose a folder on another one: {OTHER_FOLDER}",
}
OTHER_ADVICE = f"Choose a folder that you may write to: {OTHER_FOLDER}"
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)  # what a folder answers that may be read and not written
SPECIAL = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
           stat.S_IFDIR: "a folder"}
# What a full or failing disk answers to a write; other errors inside a block are the caller's own.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextmanager
def writing_in(folder: Path | str) -> Iterator[None]:
    """Re-raise an `OSError` of the block as the same kind, with a message that names `folder` and what to do."""
    try:
        yield
    except OSError as error:
        if "cannot write in" in str(error):  # told already, further in
            raise
        reason = error.strerror or str(error) or type(error).__name__
        kind = type(error) if type(error).__module__ == "builtins" else OSError  # others take other arguments
        advice = ADVICE.get(error.errno, OTHER_ADVICE)
        raise kind(error.errno or errno.EACCES, f"cannot write in {folder} ({reason}). {advice}") from error


def make_folder(path: Path | str) -> Path:
    """Create a folder with its parents and return it as a `Path`. Raises `OSError` that names it."""
    folder = Path(path)
    with writing_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def temporary_name(path: Path | str) -> Path:
    """A free, hidden name beside `path`: `.<name>.<random>.tmp`. Data scans skip hidden names."""
    path = Path(path)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def sweep(folder: Path | str, name: str = "*") -> None:
    """Remove the temporary files and folders that killed processes left in a folder, for targets called `name`.

    Call it under the lock that every writer of these targets holds.
    """
    for path in Path(folder).glob(f".{name}.*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path | str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file for writing that appears under its name only when it is complete.

    The bytes go to a hidden temporary name in the same folder, are flushed to disk, then renamed over `path`. If the
    block raises, or the process is killed, the old file is still whole. Text mode writes UTF-8 with LF line ends.

    path: file to write; its folder is created. mode: "wb" or "w".
    Raises: `PermissionError` or another `OSError`, naming the folder and the settings that move it; `ValueError` for
    another mode.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode is {mode!r}; atomic_write accepts 'wb' and 'w'")
    path = Path(path)
    folder, temporary = make_folder(path.parent), temporary_name(path)
    text: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
    try:
        with writing_in(folder):
            file = open(temporary, mode, **text)  # noqa: SIM115 - closed below, where the block's errors are its own
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with writing_in(folder):
            os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C leaves no litter either
        with suppress(OSError):
            temporary.unlink()
        if getattr(error, "errno", None) in DISK_ERRORS:
            with writing_in(folder):
                raise
        raise


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Give the block a temporary folder that becomes `path` at its end; after an error or a kill there is no `path`.

    Where another process has made `path` meanwhile, theirs stays and ours is discarded. Raises `OSError` as
    `atomic_write` does.
    """
    path = Path(path)
    temporary = make_folder(temporary_name(path))
    try:
        yield temporary
        with writing_in(path.parent):
            try:
                os.rename(temporary, path)
            except OSError:
                if not path.is_dir():
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Let one process at a time into the block: the others wait, and say so. The lock ends with its process.

    path: what the block makes; the lock is the file `.<name>.lock` beside it. Raises `OSError` as `make_folder` does.
    """
    path = Path(path)
    lock = FileLock(make_folder(path.parent) / f".{path.name}.lock")
    with writing_in(path.parent):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another process that works on {path}")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file for reading bytes, if it is one: a pipe would never end, a device may do anything when it is read.

    Raises `ValueError` that names what else it is; `FileNotFoundError` and other `OSError` as `open` does.
    """
    return open(path, "rb", opener=_open_regular)


def _open_regular(path, flags):
    _check_regular(path, os.stat(path))
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # it may have become a pipe meanwhile
    try:
        _check_regular(path, os.fstat(descriptor))
    except ValueError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(path, status):
    if not stat.S_ISREG(status.st_mode):
        kind = SPECIAL.get(stat.S_IFMT(status.st_mode), "something else")
        raise ValueError(f"{path} is {kind}, not a file: nothing is read from it")


def checksum(path: Path | str, algorithm: str = "sha256") -> str:
    """Hex digest of a file's content; `algorithm` is any name that `hashlib.new` knows. Raises as `open_regular`."""
    digest = hashlib.new(algorithm)
    with open_regular(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
