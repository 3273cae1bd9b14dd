"""What a notebook writes out is the reader's own code: it runs without the library, and the page compares the two."""
import json
import os
import re
import statistics
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from processes import run_python
from written import NOTEBOOKS, Cell, cells, comparisons, draws, names, needed, without_a_line, written

WRITING = tuple(path for path in NOTEBOOKS if written(path))
DEFINED = [(path, name) for path in WRITING for cell in written(path) for name in cell.defined]
CODE = "\n".join(cell.source for path in NOTEBOOKS for cell in cells(path))
MOST_COLUMNS = 79  # what a page shows at its usual width without cutting a line off
# Runs cells, given as JSON, in a process that has neither library
ALONE = """
import json, sys
class TakenAway:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("asymmlib", "asymmbook"):
            raise ModuleNotFoundError(f"{name} was taken away", name=name)
sys.meta_path.insert(0, TakenAway())
namespace = {"__name__": "page"}
for source in json.load(sys.stdin):
    exec(source, namespace)
"""


def pending(numbers, reason):
    """A mark for notebooks of these numbers that are being rewritten: take a number out once its notebook holds."""
    return lambda path: [pytest.mark.xfail(strict=True, reason=reason)] if path.stem[:2] in numbers.split() else []


def by_mutants(path):
    """A mark for the notebooks whose comparison trains: minutes for each name."""
    long = path.stem[:2] in ("03", "04", "09") and os.environ.get("ASYMMLIB_MUTANTS") != "all"
    return [pytest.mark.skip(reason="minutes for each name: `make mutants` takes these lines out")] if long else []


def each(paths, marks):
    return [pytest.param(path, id=path.stem, marks=marks(path)) for path in paths]


def each_defined(marks):
    return [pytest.param(path, name, id=f"{path.stem}: {name}", marks=marks(path)) for path, name in DEFINED]


def alone(sources, folder):
    environment = {**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    return run_python("-W", "ignore", "-c", ALONE, input=json.dumps(sources), cwd=folder, env=environment)


@pytest.mark.parametrize("path", NOTEBOOKS[:4], ids=lambda path: path.stem)
def test_the_first_notebooks_write_code_out(path):
    assert written(path)


@pytest.mark.slow
@pytest.mark.parametrize("path", WRITING, ids=lambda path: path.stem)
def test_written_cells_need_no_library(path, tmp_path):
    done = alone([cell.source for cell in written(path)], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(tmp_path.iterdir()), "a cell that defines leaves nothing behind"


def test_a_library_that_is_needed_is_noticed(tmp_path):
    done = alone(["import numpy", "from asymmlib.recipes import get_recipe"], tmp_path)
    assert done.returncode != 0 and "asymmlib was taken away" in done.stderr


@pytest.mark.parametrize(("path", "name"), each_defined(lambda path: []))
def test_a_page_compares_what_it_writes(path, name):
    assert comparisons(cells(path), name), f"no cell of {path.stem} asserts that {name} does what the library's does"


@pytest.fixture(scope="module")
def gone(sample, sample_home, common):
    """Function: notebook -> (names whose comparisons held, a row for each line that was taken out, stderr) of the one
    process that tries all names of a notebook."""
    @cache
    def gone(path):
        environment = {**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "ASYMMLIB_HOME": str(sample_home),
                       "ASYMMLIB_RUNS": str(common / "written"),  # the checkout's may be of other pictures
                       "ASYMMLIB_RECIPE": "quick"}
        environment.pop("ASYMMLIB_DATA", None)
        names = [name for where, name in DEFINED if where == path]
        done = run_python("-W", "ignore", Path(__file__).with_name("written.py"), path, *names, cwd=path.parent,
                          env=environment)
        well, rows = ([json.loads(line.removeprefix(word)) for line in done.stdout.splitlines()
                       if line.startswith(f"{word} ")] for word in ("well", "line"))
        return [name for names in well for name in names], rows, done.stderr
    return gone


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks are POSIX")
@pytest.mark.parametrize(("path", "name"), each_defined(by_mutants))
def test_comparison_notices_a_line_that_is_gone(path, name, gone):
    """The last statement of a function, or of every method of a class: without it, the page's own comparison fails, and
    with it holds."""
    well, rows, errors = gone(path)
    assert name in well, errors[-2000:]
    lines = [row for row in rows if row["of"] == name]
    assert lines and all(line["noticed"] for line in lines), [line for line in lines if not line["noticed"]]


def test_there_are_classes_enough():
    assert len(re.findall(r"^ *class \w+", CODE, re.M)) >= 8


@pytest.mark.parametrize("word", ["paddle.io.Dataset", "DataLoader", "transforms", "paddle.Model", ".prepare(", ".fit(",
                                  ".summary(", "Callback"])
def test_the_framework_is_used_in_the_page(word):
    assert word in CODE


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_draws_has_stored_a_picture(path):
    missing = [cell.source for cell, shows in draws(cells(path))
               if shows and not any(kind.startswith("image/") for kind in cell.kinds)]
    assert not missing, "\n---\n".join(missing)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_lines_fit_the_page(path):
    long = [line for cell in cells(path) for line in cell.source.splitlines() if len(line) > MOST_COLUMNS]
    assert not long, f"more than {MOST_COLUMNS} columns:\n" + "\n".join(long)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_have_one_idea(path):
    lines = [len(cell.source.splitlines()) for cell in cells(path) if "hide-cell" not in cell.tags]
    assert 6 <= statistics.median(lines) <= 8


@pytest.mark.slow
def test_means_of_photographs_in_notebook_2(caltech16):
    """The constants that exercise 2.2 prints are those of Caltech-16."""
    from asymmlib.dataset import Pictures
    printed = re.search(r"PHOTOGRAPHS = np\.array\((\[.*?\])\)", "\n".join(cell.source for cell in cells(NOTEBOOKS[1])))
    assert np.allclose(Pictures(caltech16, "train", 40).mean, json.loads(printed[1]), atol=5e-4, rtol=0)


PAGE = [Cell(source, tags, frozenset()) for source, tags in (
    ("from asymmlib import recipes", ()), ("import math\nunused = 1", ()),
    ("class Root:\n    def __init__(self):\n        super().__init__()\n        self.used = 1\n"
     "    def of(self, v):\n        print(v)\n        return math.sqrt(v)", ("written",)),
    ("root = Root()", ()), ("assert root.of(4) == recipes.two", ()), ("assert root.of(9) == 3", ()),
    ("def show():\n    plt.subplots()", ()), ("show()", ()), ("show()\nplt.close()", ()))]


def test_cells_are_read_as_python_reads_them():
    assert names("def f(a):\n    global g\n    g = a + b\nx, y = f(1), z") == ({"f", "x", "y", "g"}, {"f", "b", "z"})
    assert comparisons(PAGE, "Root") == [4], "the other cell compares with nothing of the library's"
    tagged = [cell._replace(tags=("compared",)) if place == 5 else cell for place, cell in enumerate(PAGE)]
    assert comparisons(tagged, "Root") == [5]
    assert needed(PAGE, [4]) == [0, 1, 2, 3, 4]
    gone = [(method, line) for method, line, _ in without_a_line(PAGE[2], "Root")]
    assert gone == [("__init__", "self.used = 1"), ("of", "return math.sqrt(v)")]
    assert all("pass" in code for *_, code in without_a_line(PAGE[2], "Root"))
    assert [shows for _, shows in draws(PAGE)] == [False] * 7 + [True, False]
