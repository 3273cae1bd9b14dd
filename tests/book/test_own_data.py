"""Notebooks on pictures of the reader's own, in the folders that people have: whatever `prepare` accepts, they run on.

The first two notebooks by every run of the tests; `make owndata` runs all ten, and on more folders.
"""
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from asymmbook.checkout import project_root

ROOT = project_root()
ALL = os.environ.get("ASYMMLIB_NOTEBOOKS") == "all"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))[:None if ALL else 2]


def draw(folder, counts, name="{:03}.jpg"):
    """Noise as pictures: folder/<class>/<name> so many times, {class: pictures}."""
    rng = np.random.default_rng(0)
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / name.format(number))
    return folder


def two_classes(place):
    """So few pictures that shares of two orders agree by more, or by less, than luck."""
    return draw(place / "two", {"cat": 45, "dog": 45})


def given_split(place):
    """A split that was made before."""
    draw(place / "given" / "train", {"cat": 40, "dog": 40})
    return draw(place / "given" / "val", {"cat": 12, "dog": 12}).parent


def odd_names(place):
    """Chinese names, of files with a space; a class of six; and a path that counts from the project."""
    folder = draw(place / "我的图片", {"猫": 40, "狗": 40, "狐狸": 6}, "照片 {:03}.jpg")
    return os.path.relpath(folder, ROOT)


FOLDERS = (given_split, odd_names, *([two_classes] if ALL else []))


def execute(data, place, home=None):
    pytest.importorskip("nbmake")
    environment = {**os.environ, "ASYMMLIB_DATA": str(data), "ASYMMLIB_RECIPE": "quick", "OMP_NUM_THREADS": "1",
                   "ASYMMLIB_HOME": str(home or place / "home"), "ASYMMLIB_RUNS": str(place / "runs")}
    environment.pop("ASYMMLIB_BASELINES", None)
    words = ["-q", "-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=900"]
    done = subprocess.run([sys.executable, "-m", "pytest", *words, *map(str, NOTEBOOKS)], cwd=ROOT, env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("make", FOLDERS, ids=lambda make: make.__name__)
def test_notebooks_run_on(make, tmp_path):
    execute(make(tmp_path), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not ALL, reason="minutes: `make owndata` does it")
def test_notebooks_run_on_caltech16(caltech16, tmp_path):
    execute("caltech16", tmp_path, caltech16.folder.parent)
