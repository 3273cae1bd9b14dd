"""The wheel alone, beside Paddle and the declared dependencies, in a folder that has nothing to do with the project.

`nox -s wheel` (`make wheel`) builds it, installs it into a bare environment and runs this file from another one: pytest
brings nothing along. Commands run as a user would type them, with a home of their own: all of them in an empty folder,
those that train, read a run or write in a foreign git repository too, with folders that are named like ours. Nothing
below either folder may be opened, listed, made or changed: Python's audit events tell what was.
"""
import json
import os
import re
import subprocess
import tarfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

PYTHON, DIST = os.environ.get("BARE_PYTHON"), Path(os.environ.get("BARE_DIST", ""))
if not PYTHON:
    pytest.skip("`make wheel` runs these in an environment of their own", allow_module_level=True)

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = str(Path(PYTHON).parent / "asymmlib")
# what a current folder may hold by chance; text that neither a table nor JSON nor a picture begins with
DECOYS = ("book/results.md", "book/asymmbook/plan.py", "results/trial/runs.csv", "data/sample/manifest.csv",
          "runs/first/run.json", "runs/first/best.safetensors", "weights/asymmnet_small.json", "export/export.json")
WATCH = """
import os, sys
below = os.path.join(os.getcwd(), "")
log = os.open(os.environ["WATCH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def watch(event, arguments):
    if event not in ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove"):
        return
    if not arguments or not isinstance(arguments[0], (str, bytes, os.PathLike)):
        return
    # relative to another folder: the last argument says so, but not for os.open, which has no mode
    elsewhere = event in ("os.mkdir", "os.rename", "os.remove") and arguments[-1] != -1
    path = os.path.abspath(os.fsdecode(arguments[0]))
    if event == "open" and arguments[1] is None:
        elsewhere = not os.path.lexists(path)
    if path.startswith(below) and not elsewhere:
        os.write(log, f"{event} {path}\\n".encode())

sys.addaudithook(watch)
"""


class Place:
    """A current folder, and a home (default: one of its own), for commands of the installed package."""

    def __init__(self, folder, home=None):
        self.work, self.home, self.log = folder / "work", home or folder / "home", folder / "watch.log"
        for path in (self.work, self.home, folder / "watch"):
            path.mkdir(parents=True, exist_ok=True)
        (folder / "watch" / "sitecustomize.py").write_text(WATCH)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": str(folder / "watch"), "WATCH_LOG": str(self.log)}

    def run(self, *command, code=0, **variables):
        """Run a command in the current folder; return (stdout, stderr) where it ends with `code` and no traceback."""
        done = subprocess.run(command, cwd=self.work, env=self.env | variables, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL)
        assert done.returncode == code and "Traceback" not in done.stderr, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout, done.stderr

    def asymmlib(self, *arguments, **options):
        return self.run(SCRIPT, *arguments, **options)

    def files(self):
        """{path: (bytes, time of change)} of all that is in the current folder."""
        return {path: path.is_file() and (path.read_bytes(), path.stat().st_mtime_ns) for path in self.work.rglob("*")}

    @contextmanager
    def untouched(self):
        """Check that the block's commands neither changed nor read what is in the current folder."""
        before = self.files()
        yield self
        assert self.files() == before
        assert not self.log.read_text(), f"below the current folder: {self.log.read_text()}"


def make_foreign(folder):
    """A git repository with one commit and the decoys; its README says whose it is."""
    for name in DECOYS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\0 not of asymmlib")
    identity = ("-c", "user.name=someone", "-c", "user.email=someone@else", "-c", "commit.gpgsign=false")
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "--message", "foreign"]):
        subprocess.run(["git", *command], cwd=folder, check=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An empty folder to be in, checked when all tests are done."""
    with Place(tmp_path_factory.mktemp("place")).untouched() as place:
        yield place


def train(place, name):
    return place.asymmlib("train", "--data", "sample", "--model", "asymmnet_small", "--name", name, "--epochs", "1",
                          "--image-size", "32", "--batch-size", "64")[0]


def commit(place, run):
    info, = place.home.rglob(f"{run}/run.json")
    return json.loads(info.read_text(encoding="utf-8"))["environment"]["commit"]


@pytest.fixture(scope="module")
def trained(place):
    """What `prepare` and `train` printed; the home has the run `first` from then on."""
    return place.asymmlib("prepare", "--data", "sample")[0], train(place, "first")


@pytest.fixture(scope="module")
def picture(place, trained):
    return str(min(place.home.rglob("sample/**/*.png"), default=None) or min(place.home.rglob("sample/**/*.jpg")))


def test_the_watch_sees(tmp_path):
    """The check of the current folder can fail."""
    place = Place(tmp_path)
    place.run(PYTHON, "-c", "open('here.txt', 'w').close()")
    assert place.log.read_text() == f"open {place.work / 'here.txt'}\n" and len(place.files()) == 1


def test_nothing_else_is_installed(place):
    names = "visualdl", "scipy", "statsmodels", "matplotlib", "seaborn", "onnx", "onnxruntime", "openvino", "pytest"
    out, _ = place.run(PYTHON, "-c", f"from importlib.util import find_spec; print(list(filter(find_spec, {names})))")
    assert out == "[]\n"


def test_import(place):
    out, _ = place.run(PYTHON, "-c", "import asymmlib; print(asymmlib.__file__)")
    assert "site-packages" in out and Path(PYTHON).parents[1] in Path(out).parents


def test_prepare_and_train(place, trained):
    drawn, told = trained
    assert re.search(r"^sample: \d+ pictures in \d+ classes", drawn, re.M)
    named = [line for line in told.splitlines() if "not installed" in line]
    assert named == ["nearly equal pictures are not looked for: the package imagehash is not installed; it is in the "
                     "extra `copies`: pip install 'asymmlib[copies]'",
                     "no curves for VisualDL: the package visualdl is not installed; it is in the extra `notebooks`: "
                     "pip install 'asymmlib[notebooks]'"]
    assert "eval top-1" in told
    assert commit(place, "first") is None


def test_foreign_files_and_commits_are_left_alone(place, trained, picture, tmp_path):
    foreign = Place(tmp_path, home=place.home)
    make_foreign(foreign.work)
    with foreign.untouched():
        train(foreign, "second")
        foreign.asymmlib("evaluate", "first", "--data", "sample")
        foreign.asymmlib("predict", picture)
        foreign.asymmlib("export", "second")
        foreign.run(PYTHON, "-m", "asymmbook", "results", code=2)
    assert commit(foreign, "second") is None


def test_evaluate(place, trained):
    assert "eval pictures of sample" in place.asymmlib("evaluate", "first", "--data", "sample")[0]


def test_predict_by_the_own_run(place, picture):
    out, error = place.asymmlib("predict", "--from", "first", picture)
    assert out.splitlines()[0] == picture and out.count("%") == 5 and not error
    assert place.run(PYTHON, "-m", "asymmlib", "predict", "--run", "first", picture)[0] == out
    said, _ = place.asymmlib("predict", "--from", "first", picture, "--json", "--top", "1")
    assert json.loads(said)["path"] == picture


@pytest.mark.parametrize("command", [(SCRIPT,), (PYTHON, "-m", "asymmlib")], ids=["script", "module"])
def test_the_script_and_the_module_say_how_they_are_called(place, command):
    out, _ = place.run(*command, "predict", "--help")
    assert out.startswith("usage: asymmlib predict" if len(command) == 1 else "usage: python -m asymmlib predict")


def test_predict_by_the_weights_of_the_wheel(place, picture):
    out, error = place.asymmlib("predict", picture)
    assert out.splitlines()[0] == picture and out.count("%") == 5
    line, = error.splitlines()
    assert line.startswith("asymmnet_small answers: the weights of asymmnet_large are not here")


def test_other_weights_are_refused_by_name(place, picture):
    out, error = place.asymmlib("predict", "--from", "asymmnet_large", picture, code=2)
    line, = error.splitlines()
    assert not out and line.startswith("error: no released weights of asymmnet_large") and "ASYMMLIB_WEIGHTS" in line


def test_other_weights_by_their_folder(place, picture):
    out, error = place.asymmlib("predict", "--from", "asymmnet_large", picture,
                                ASYMMLIB_WEIGHTS=str(CHECKOUT / "weights"))
    assert out.count("%") == 5 and not error


def test_export(place, trained):
    out, _ = place.asymmlib("export", "first")
    assert [line for line in out.splitlines() if "not installed" in line] == [
        "no ONNX files: the package onnx is not installed; it is in the extra `ship`: pip install 'asymmlib[ship]'"]
    info, = place.home.rglob("first/export/export.json")
    assert {"inference.json", "inference.pdiparams", "weights-float16.safetensors"} <= {
        path.name for path in info.parent.iterdir()}
    assert set(json.loads(info.read_text(encoding="utf-8"))["differences"]) == {
        "paddle", "paddle-onednn", "weights-float16"}


def test_models_and_engines(place):
    assert "asymmnet_large" in place.asymmlib("models")[0]
    out, _ = place.asymmlib("bench-infer", "--model", "asymmnet_small", "--size", "32", "--batch", "1", "--rounds", "1")
    left_out = [line for line in out.splitlines() if line.startswith("left out")]
    assert len(left_out) == 3 and all("the extra `ship`: pip install 'asymmlib[ship]'" in line for line in left_out)


@pytest.mark.parametrize("arguments", [("experiments", "status"), ("results",), ("draw",)], ids=" ".join)
def test_the_book_needs_its_checkout(place, arguments):
    out, error = place.run(PYTHON, "-m", "asymmbook", *arguments, code=2)
    line, = error.splitlines()
    assert not out and line.startswith("error: asymmbook makes the book out of a checkout")


@pytest.fixture(scope="module")
def wheel():
    path, = DIST.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_its_files_and_no_others(wheel):
    sources = {"asymmlib/fast/kernels.cc": "asymmlib/fast/kernels.cc",
               "asymmlib/pretrained/asymmnet_small.json": "weights/asymmnet_small.json",
               "asymmlib/pretrained/asymmnet_small.safetensors": "weights/asymmnet_small.safetensors"}
    for name, source in sources.items():
        assert wheel.get(name) == (CHECKOUT / source).read_bytes(), name
    assert {name.split("/")[0].split("-")[0] for name in wheel} == {"asymmlib", "asymmbook"}
    assert not [name for name in wheel if "/test" in name or name.endswith((".ipynb", ".pyc"))]


def test_the_build_used_the_pinned_setuptools(wheel):
    pin = re.search(r"^setuptools==(.+)$", (CHECKOUT / "constraints.txt").read_text(encoding="utf-8"), re.M)[1]
    tag, = (text.decode() for name, text in wheel.items() if name.endswith(".dist-info/WHEEL"))
    assert f"Generator: setuptools ({pin})\n" in tag


def test_the_wheel_was_built_from_the_sdist(wheel):
    """So the sdist is whole; it has no tests, which need the checkout."""
    path, = DIST.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "asymmlib/fast/kernels.cc",
            "weights/asymmnet_small.json"} <= names
    assert not [name for name in names if name.startswith(("tests/", "notebooks/"))]
