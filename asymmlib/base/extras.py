"""Packages that asymmlib does without: is one here, and if not, which extra brings it. Nothing is ever fetched.

The owner of the list is `pyproject.toml`; it is read from the metadata that the installation made of it.
"""
import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from types import ModuleType

from asymmlib.base.folders import checkout

__all__ = ["extra_of", "load_package", "missing_package", "unmet"]

PACKAGE_OF = {"paddle": "paddlepaddle", "cv2": "opencv-python-headless"}  # where the import's name is not the package's


def missing_package(name: str) -> str:
    """Why a package cannot be imported, in one line with the extra that brings it; an empty text where it is here."""
    if find_spec(name):
        return ""
    reason, extra = f"the package {name} is not installed", extra_of(name)
    return f"{reason}; it is in the extra `{extra}`: {_command(extra)}" if extra else reason


def load_package(name: str) -> ModuleType:
    """Import a package; `RuntimeError` with the command to install it where it is missing."""
    if reason := missing_package(name):
        raise RuntimeError(reason)
    return import_module(name)


def unmet(error: ModuleNotFoundError) -> str:
    """The line for a `ModuleNotFoundError` that an extra of asymmlib would mend; an empty text for any other one."""
    name = (error.name or "").partition(".")[0]
    return missing_package(name) if extra_of(name) else ""


def extra_of(name: str) -> str | None:
    """The first extra of asymmlib that brings the package imported as `name`; None where there is none."""
    try:
        lines = requires("asymmlib") or []
    except PackageNotFoundError:  # a checkout that is only on Python's path
        lines = []
    wanted = PACKAGE_OF.get(name, name)
    pairs = (re.match(r"([\w.-]+).*\bextra == ['\"](\w+)['\"]", line) for line in lines)
    return next((pair[2] for pair in pairs if pair and pair[1] == wanted), None)


def _command(extra):
    """What installs an extra: from the checkout at the pinned versions, else by name."""
    where = "-c constraints.txt -e '.[{}]' in the checkout" if checkout() else "'asymmlib[{}]'"
    return "pip install " + where.format(extra)
