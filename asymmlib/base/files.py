"""How a file or folder is written so that nobody ever sees half of it, and how its content is checked.

What appears under its name is on the disk before: after a power cut there is the whole or nothing. Where files live is
`asymmlib.base.folders`' business.
"""
import ctypes
import errno
import hashlib
import json
import lzma
import os
import platform
import shutil
import stat
import struct
import tarfile
import tokenize
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from filelock import FileLock, Timeout

__all__ = [
    "READ_ERRORS",
    "READ_ONLY",
    "atomic_folder",
    "atomic_write",
    "checksum",
    "has_file",
    "locked",
    "make_folder",
    "open_regular",
    "publish",
    "sweep",
    "temporary_name",
    "writing_in",
]

CHUNK_BYTES = 2**18
# What the standard library and NumPy raise on damaged or encrypted archives and headers
READ_ERRORS = (OSError, EOFError, RuntimeError, ValueError, OverflowError, IndexError, KeyError, TypeError, SyntaxError,
               MemoryError, zlib.error, lzma.LZMAError, struct.error, zipfile.BadZipFile, tarfile.TarError,
               tokenize.TokenError)

PLACES = "ASYMMLIB_HOME sets the folder for data, ASYMMLIB_RUNS the one for runs."
# What to do, by what the system says; other errors inside a block are the caller's own.
FULL = f"Free some space, or choose a folder on another disk: {PLACES}"
NOT_ALLOWED = f"Choose a folder that you may write to: {PLACES}"
IN_THE_WAY = f"A file stands where a folder is needed: move it, or choose another folder: {PLACES}"
MANY_OPEN = "Too many files are open: close other programs, or raise the limit (ulimit -n)."
REMEDIES = {
    errno.ENOSPC: FULL, errno.EDQUOT: FULL,
    errno.EACCES: NOT_ALLOWED, errno.EPERM: NOT_ALLOWED, errno.EROFS: NOT_ALLOWED,
    errno.ENOTDIR: IN_THE_WAY, errno.EEXIST: IN_THE_WAY,
    errno.EISDIR: "A folder stands where a file is needed: move it, or choose another name.",
    errno.ENAMETOOLONG: "Choose shorter names, or a folder nearer to the root: most systems allow names of 255 bytes, "
                        "which are 85 Chinese characters.",
    errno.EINVAL: "The file system does not accept that name: choose another one.",
    errno.EMFILE: MANY_OPEN, errno.ENFILE: MANY_OPEN,
    errno.EIO: f"The disk fails: save what is on it, and choose a folder on another one: {PLACES}",
    errno.EFBIG: f"This file system takes no file of that size: choose a folder on another one: {PLACES}",
}
ELSEWHERE = f"Choose another folder: {PLACES}"
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)  # what a folder answers that may be read and not written
SPECIAL = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
           stat.S_IFDIR: "a folder"}
# What a full or failing disk answers to a write
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
        number = error.errno or errno.EACCES
        raise kind(number, f"cannot write in {folder} ({reason}). {REMEDIES.get(number, ELSEWHERE)}") from error


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
    block raises, the process is killed or the power fails, the old file is still whole. Text mode writes UTF-8 with LF
    line ends.

    path: file to write; its folder is created. mode: "wb" or "w".
    Raises: `PermissionError` or another `OSError`, naming the folder and the settings that move it; `ValueError` for
    another mode, and where something else than a file is called `path`, such as a device.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode is {mode!r}; atomic_write accepts 'wb' and 'w'")
    path = Path(path)
    folder, temporary = make_folder(path.parent), temporary_name(path)
    text: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
    try:
        with writing_in(folder):
            has_file(path)
            file = open(temporary, mode, **text)  # noqa: SIM115 - closed below, where the block's errors are its own
        with file:
            yield file
        publish(temporary, path)
    except BaseException as error:  # Ctrl-C leaves no litter either
        with suppress(OSError):
            temporary.unlink()
        if getattr(error, "errno", None) in DISK_ERRORS:
            with writing_in(folder):
                raise
        raise


def publish(temporary: Path, path: Path) -> None:
    """Give a complete file its name: its bytes are on the disk before, the name after. Raises `OSError`."""
    with writing_in(Path(path).parent):
        _flush(temporary)
        os.replace(temporary, path)
        _flush(Path(path).parent)


def _flush(path):
    """Wait until a file, or the names in a folder, are on the disk; Windows knows no such thing of a folder."""
    if os.name == "nt" and Path(path).is_dir():
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network file systems that cannot
            raise
    finally:
        os.close(handle)


def _flush_tree(folder):
    """Wait until all files below a folder are on the disk: in one call of Linux, else one by one."""
    if platform.system() == "Linux":
        handle = os.open(folder, os.O_RDONLY)
        try:
            if not ctypes.CDLL(None, use_errno=True).syncfs(handle):
                return
        except AttributeError:  # a C library without it
            pass
        finally:
            os.close(handle)
    for place, _, names in os.walk(folder):
        for path in (*(Path(place, name) for name in names), place):
            _flush(path)


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
            _flush_tree(temporary)
            try:
                os.rename(temporary, path)
            except OSError:
                if not path.is_dir():
                    raise
            _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path: Path | str, lock: Path | None = None) -> Iterator[None]:
    """Let one process at a time into the block: the others wait, and say for whom. The lock ends with its process.

    path: what the block makes. lock: the lock's file, by default `.<name>.lock` beside `path`; who holds it stands in
    the file with `.owner` at its end. Raises `OSError` as `make_folder` does.
    """
    path = Path(path)
    file = Path(lock or path.with_name(f".{path.name}.lock"))
    owner, handle = file.with_name(f"{file.name}.owner"), FileLock(make_folder(file.parent) / file.name)
    with writing_in(file.parent):
        try:
            handle.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another process that works on {path}{_told(owner)}", flush=True)
            handle.acquire()
    try:
        with suppress(OSError):  # only for who waits
            owner.unlink(missing_ok=True)  # what a killed process left, whatever it is now
            with open(owner, "x", encoding="utf-8") as note:
                json.dump({"pid": os.getpid(), "host": platform.node()}, note)
        yield
    finally:
        with suppress(OSError):
            owner.unlink()
        handle.release()


def _told(owner):
    try:
        with open_regular(owner) as file:
            holder = json.load(file)
        return f": process {holder['pid']} on {holder['host']}; Ctrl-C gives up"
    except (OSError, ValueError, KeyError, TypeError):
        return "; Ctrl-C gives up"


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file for reading bytes, if it is one: a pipe would never end, a device may do anything when it is read.

    Raises `ValueError` that names what else it is; `FileNotFoundError` and other `OSError` as `open` does.
    """
    return open(path, "rb", opener=_open_regular)


def has_file(path: Path | str) -> bool:
    """Whether a file is there, or nothing at all. Raises `ValueError` that names anything else, such as a pipe."""
    try:
        _check_regular(path, os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


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
        raise ValueError(f"{path} is {kind}, not a file: nothing is read from it, and nothing written there")


def checksum(source: Path | str | IO[bytes], algorithm: str = "sha256") -> str:
    """Hex digest of a file's content, of a path or of an open file from where it stands; `algorithm` is any name that
    `hashlib.new` knows. Raises as `open_regular`."""
    digest = hashlib.new(algorithm)
    with open_regular(source) if isinstance(source, str | Path) else nullcontext(source) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
