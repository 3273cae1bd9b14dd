"""The folder of a training run: what it holds, how to open it, and where its numbers come from.

`runs/<name>/` holds run.json (model, recipe, data, environment, result), history.csv (one row per epoch),
best.safetensors and last.safetensors (weights), checkpoints/ and visualdl/. One run never writes into another's folder.
"""
import json
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from asymmlib.paths import atomic_write, project_root, runs_dir

__all__ = ["Run", "environment", "find_run", "list_runs", "package_versions"]

KINDS = {"model": str, "settings": dict, "recipe": dict}  # what every run.json has
PACKAGES = ("asymmlib", "paddlepaddle", "paddlepaddle-gpu", "numpy", "pillow")


@dataclass(frozen=True)
class Run:
    """A run on disk; `info` is the content of its run.json."""

    folder: Path
    info: dict

    @property
    def name(self):
        """The folder's name."""
        return self.folder.name

    @property
    def finished(self):
        """Whether the last epoch was reached."""
        return "result" in self.info

    @property
    def history(self):
        """DataFrame with one row per epoch; columns in `asymmlib.callbacks.EpochLog`."""
        return pd.read_csv(self.folder / "history.csv")

    def network(self, which="last"):
        """Build the run's network and load its weights: "last" epoch or "best" on the eval split."""
        from asymmlib.baselines import create_model
        from asymmlib.weights import load_weights
        if which not in ("last", "best"):
            raise ValueError(f"unknown weights {which!r}; known: last, best")
        network = create_model(self.info["model"], len(self.info["classes"]), **self.info["settings"])
        load_weights(network, self.folder / f"{which}.safetensors")
        network.eval()
        return network

    def write(self, **changes):
        """Return the run with changed info, after storing it."""
        run = Run(self.folder, {**self.info, **changes})
        with atomic_write(self.folder / "run.json") as file:
            file.write((json.dumps(run.info, indent=1, ensure_ascii=False) + "\n").encode())
        return run


def find_run(name):
    """Open a run by its name in the runs' folder, or by its path; `FileNotFoundError` lists the known ones.

    Raises `ValueError` where its run.json is damaged or not of a run.
    """
    for folder in (runs_dir() / str(name), Path(name)):
        if (folder / "run.json").is_file():
            return Run(folder, _read_info(folder / "run.json"))
    known = ", ".join(sorted(path.parent.name for path in runs_dir().glob("*/run.json")))
    raise FileNotFoundError(f"no run {str(name)!r}; known: {known or 'none yet; python -m asymmlib train makes one'}")


def _read_info(path):
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        wrong = [key for key, kind in KINDS.items() if not isinstance(info[key], kind)]
    except (ValueError, LookupError, TypeError, RecursionError) as error:  # no JSON, no object, a missing key
        raise ValueError(f"{path} is damaged or not of a run ({type(error).__name__}: {error}); train the run anew or "
                         "remove its folder") from error
    if wrong:
        raise ValueError(f"{path} is not of a run: its {', '.join(wrong)} is of another kind")
    return info


def list_runs():
    """All runs in the runs' folder, by name."""
    return [find_run(path.parent) for path in sorted(runs_dir().glob("*/run.json"))]


def environment():
    """What a result depends on besides its recipe: versions, device, processor, threads and commit, as a dictionary."""
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


def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit():
    """The checkout's commit, with a mark when files differ from it; None outside a checkout or without git."""
    try:
        result = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=project_root(),
                                capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
