"""What a result depends on besides its recipe: versions, device, processor, threads, commit."""
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from asymmlib.base.folders import checkout

__all__ = ["PACKAGES", "environment", "package_versions"]

CODE = ("asymmlib", "book/asymmbook")  # what a run depends on; results that are recorded meanwhile do not count
PACKAGES = ("asymmlib", "paddlepaddle", "paddlepaddle-gpu", "numpy", "pillow")


def environment() -> dict[str, Any]:
    """Versions, device, processor, threads, asymmlib's own commit (None for an installed package): a dictionary."""
    import paddle
    return {"python": platform.python_version(), "packages": package_versions(), "platform": platform.platform(),
            "device": paddle.device.get_device(), "cpu": _cpu_name(), "cores": os.cpu_count(),
            "threads": os.environ.get("OMP_NUM_THREADS", "default"), "commit": _commit()}


def package_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """{package: version} of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit():
    """The checkout's commit, marked where the code of its packages differs from it; None outside one or without git.

    Asked only of the checkout itself: a repository that merely surrounds an installed package is not asymmlib's.
    """
    root = checkout()
    if root is None or not (root / ".git").exists():
        return None
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}  # set within a git hook
    try:
        result = subprocess.run(["git", "describe", "--always", "--abbrev=12"], cwd=root, env=own,
                                capture_output=True, text=True, timeout=10)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *CODE], cwd=root, env=own,
                                 timeout=10).returncode
    except (OSError, subprocess.TimeoutExpired):
        return None
    commit = result.stdout.strip()
    return commit + ("-dirty" if changed else "") if commit else None
