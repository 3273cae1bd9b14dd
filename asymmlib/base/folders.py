"""Where data, runs and compiled kernels live: in the project's checkout, else in the user's own folders.

Settings move them: `ASYMMLIB_HOME` (data), `ASYMMLIB_RUNS` (runs), `ASYMMLIB_CACHE` (compiled kernels),
`ASYMMLIB_WEIGHTS` (released weights, which are only read). Nothing is created at import; a folder appears when the
first file goes into it. The current folder never counts.
"""
import os
import stat
import tempfile
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

__all__ = ["cache_dir", "checkout", "data_choice", "expanded", "home", "runs_dir", "weights_dir"]

PACKAGE = Path(__file__).resolve().parents[1]


def checkout() -> Path | None:
    """The folder of the checkout that asymmlib runs from (it holds `pyproject.toml`); None for an installed package."""
    project = PACKAGE.parent / "pyproject.toml"
    named = project.is_file() and 'name = "asymmlib"' in project.read_text(encoding="utf-8")
    return PACKAGE.parent if named else None


def home() -> Path:
    """The folder of all data: `ASYMMLIB_HOME`, else `data/` in the checkout or among the user's data."""
    return _folder("ASYMMLIB_HOME", "data")


def runs_dir() -> Path:
    """The folder of training runs: `ASYMMLIB_RUNS`, else `runs/` in the checkout or among the user's data."""
    return _folder("ASYMMLIB_RUNS", "runs")


def cache_dir() -> Path:
    """The folder of compiled kernels: `ASYMMLIB_CACHE`, else the user's cache; without a home, a temporary folder.

    Raises `ValueError` where that one is not this user's alone: what lies in it is loaded as code.
    """
    return _from_environment("ASYMMLIB_CACHE") or _of_user(user_cache_path) or _temporary()


def weights_dir() -> Path:
    """The folder of released weights: `ASYMMLIB_WEIGHTS`, else `weights/` in the checkout, else that of the wheel."""
    own = checkout()
    return _from_environment("ASYMMLIB_WEIGHTS") or (own / "weights" if own else PACKAGE / "pretrained")


def data_choice() -> str:
    """The data to use where none is named: `ASYMMLIB_DATA` (see `asymmlib.data.sources.prepare`), else `sample`."""
    return os.environ.get("ASYMMLIB_DATA", "").strip() or "sample"


def expanded(path: Path | str) -> Path:
    """A path with `~` replaced by the user's home. Raises `ValueError` that names it for a user without one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: there is no home folder for ~ (HOME is not set); give the whole path") from None


def _folder(variable, name):
    named = _from_environment(variable)
    base = named or checkout() or _of_user(user_data_path)
    if base is None:
        raise ValueError(f"this user has no home folder (HOME is not set): name the folder with {variable}")
    return named or base / name


def _of_user(place):
    """A folder of this user's, None where there is no home: `place` raises then, or leaves "~" as it is."""
    try:
        path = place("asymmlib", appauthor=False)
    except RuntimeError:
        return None
    return path if path.is_absolute() else None


def _temporary():
    folder = Path(tempfile.gettempdir()) / "asymmlib"
    if hasattr(os, "getuid"):  # elsewhere temporary folders are each user's own
        folder = folder.with_name(f"asymmlib-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise ValueError(f"{folder} is not this user's alone: name a folder for compiled kernels with "
                             "ASYMMLIB_CACHE")
    return folder


def _from_environment(variable):
    value = os.environ.get(variable, "").strip()
    return expanded(value).resolve() if value else None
