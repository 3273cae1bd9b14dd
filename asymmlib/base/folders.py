"""Where data, runs and compiled kernels live: in the project's checkout, else in the user's own folders.

Settings move them: `ASYMMLIB_HOME` (data), `ASYMMLIB_RUNS` (runs), `ASYMMLIB_CACHE` (compiled kernels),
`ASYMMLIB_WEIGHTS` (released weights, which are only read). Nothing is created at import; a folder appears when the
first file goes into it. The current folder never counts.
"""
import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

__all__ = ["cache_dir", "checkout", "data_choice", "home", "runs_dir", "weights_dir"]

PACKAGE = Path(__file__).resolve().parents[1]


def checkout():
    """The folder of the checkout that asymmlib runs from (it holds `pyproject.toml`); None for an installed package."""
    project = PACKAGE.parent / "pyproject.toml"
    named = project.is_file() and 'name = "asymmlib"' in project.read_text(encoding="utf-8")
    return PACKAGE.parent if named else None


def home():
    """The folder of all data: `ASYMMLIB_HOME`, else `data/` in the checkout or among the user's data."""
    return _folder("ASYMMLIB_HOME", "data")


def runs_dir():
    """The folder of training runs: `ASYMMLIB_RUNS`, else `runs/` in the checkout or among the user's data."""
    return _folder("ASYMMLIB_RUNS", "runs")


def cache_dir():
    """The folder of compiled kernels: `ASYMMLIB_CACHE`, else the user's cache."""
    return _from_environment("ASYMMLIB_CACHE") or _of_user("ASYMMLIB_CACHE", user_cache_path)


def weights_dir():
    """The folder of released weights: `ASYMMLIB_WEIGHTS`, else `weights/` in the checkout, else that of the wheel."""
    own = checkout()
    return _from_environment("ASYMMLIB_WEIGHTS") or (own / "weights" if own else PACKAGE / "pretrained")


def data_choice():
    """The data to use where none is named: `ASYMMLIB_DATA` (`sample`, `caltech16` or a path), else `sample`."""
    return os.environ.get("ASYMMLIB_DATA", "").strip() or "sample"


def _folder(variable, name):
    return _from_environment(variable) or (checkout() or _of_user(variable, user_data_path)) / name


def _of_user(variable, path):
    """A folder of the user's own; `FileNotFoundError` for a user without a home, as containers run some."""
    try:
        return path("asymmlib", appauthor=False)
    except RuntimeError as error:
        raise FileNotFoundError(f"no home folder is known for this user (HOME is not set): set {variable} to a folder "
                                "that you may write to") from error


def _from_environment(variable):
    value = os.environ.get(variable, "").strip()
    try:
        return Path(value).expanduser().resolve() if value else None
    except RuntimeError as error:
        raise FileNotFoundError(f"{variable} is {value!r}, and no home folder is known for this user (HOME is not "
                                "set): give it as an absolute path") from error
