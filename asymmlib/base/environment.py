"""What a result depends on besides its recipe: versions, device, processor, threads, commit."""
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from asymmlib.base.folders import checkout

__all__ = ["PACKAGES", "environment", "extra", "package_versions"]

PACKAGES = ("asymmlib", "paddlepaddle", "paddlepaddle-gpu", "numpy", "pillow")


def environment():
    """Versions, device, processor, threads, asymmlib's own commit (None for an installed package): a dictionary."""
    import paddle
    return {"python": platform.python_version(), "packages": package_versions(), "platform": platform.platform(),
            "device": paddle.device.get_device(), "cpu": _cpu_name(), "cores": os.cpu_count(),
            "threads": os.environ.get("OMP_NUM_THREADS", "default"), "commit": _commit()}


def package_versions(packages=PACKAGES):
    """{package: version} of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def extra(name):
    """The sentence that says how to install an extra: from the checkout at the pinned versions, else from the index."""
    where = "-c constraints.txt -e '.[{}]' in the checkout" if checkout() else "'asymmlib[{}]'"
    return f"it is in the extra `{name}`: pip install {where.format(name)}"


def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit():
    """The checkout's commit, with a mark when files differ from it; None outside a checkout or without git.

    Asked only of the checkout itself: a repository that merely surrounds an installed package is not asymmlib's.
    """
    root = checkout()
    if root is None or not (root / ".git").exists():
        return None
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}  # set within a git hook
    try:
        result = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=root, env=own,
                                capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
