"""Where files live, and how one is written so that nobody ever sees half of it.

Three folders: data (`ASYMMLIB_HOME`), runs (`ASYMMLIB_RUNS`), recorded results (in the project). Nothing is created
at import; a folder appears when the first file goes into it.
"""
import errno
import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["atomic_folder", "atomic_write", "data_choice", "home", "locked", "make_folder", "project_root",
           "results_dir", "runs_dir", "sweep", "temporary_name", "writing_in"]

ADVICE = ("Free some space or choose a folder that you may write to: "
          "ASYMMLIB_HOME sets the one for data, ASYMMLIB_RUNS the one for runs.")
# What a full or failing disk answers to a write; other errors inside a block are the caller's own.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def project_root():
    """The checkout that this package runs from (the folder with `pyproject.toml`), else the current folder."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def home():
    """The folder of all data: `ASYMMLIB_HOME`, else `data/` in the project."""
    return _from_environment("ASYMMLIB_HOME", "data")


def runs_dir():
    """The folder of training runs: `ASYMMLIB_RUNS`, else `runs/` in the project."""
    return _from_environment("ASYMMLIB_RUNS", "runs")


def results_dir():
    """The folder of recorded results, `results/` in the project."""
    return project_root() / "results"


def data_choice():
    """The data to use where none is named: `ASYMMLIB_DATA` (`sample`, `caltech16` or a path), else `sample`."""
    return os.environ.get("ASYMMLIB_DATA", "").strip() or "sample"


@contextmanager
def writing_in(folder):
    """Re-raise an `OSError` of the block as the same kind, with a message that names `folder` and what to do."""
    try:
        yield
    except OSError as error:
        if ADVICE in str(error):  # told already, further in
            raise
        reason = error.strerror or str(error) or type(error).__name__
        kind = type(error) if type(error).__module__ == "builtins" else OSError  # others take other arguments
        raise kind(error.errno or errno.EACCES, f"cannot write in {folder} ({reason}). {ADVICE}") from error


def make_folder(path):
    """Create a folder with its parents and return it as a `Path`. Raises `OSError` that names it."""
    folder = Path(path)
    with writing_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def temporary_name(path):
    """A free, hidden name beside `path`: `.<name>.<random>.tmp`. Data scans skip hidden names."""
    path = Path(path)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def sweep(folder, name="*"):
    """Remove the temporary files and folders that killed processes left in a folder, for targets called `name`.

    Call it under the lock that every writer of these targets holds.
    """
    for path in Path(folder).glob(f".{name}.*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def atomic_write(path, mode="wb"):
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
    text = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
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
def atomic_folder(path):
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
def locked(path):
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


def _from_environment(variable, default):
    value = os.environ.get(variable, "").strip()
    return Path(value).expanduser().resolve() if value else project_root() / default
