"""Packages that may be missing: one line names the extra that brings each, and nothing else needs them."""
import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from asymmlib.base import extras
from asymmlib.base.commands import run_command

BLOCKED = ("visualdl", "statsmodels", "scipy", "seaborn", "matplotlib", "onnx", "onnxruntime", "openvino", "jieba",
           "torch")


def block(*names):
    """The lines of a program that make these packages missing in it."""
    return f"import sys; sys.modules.update(dict.fromkeys({names!r}))\n"


@pytest.mark.parametrize(("name", "extra"), [
    ("paddle", "cpu"), ("visualdl", "notebooks"), ("statsmodels", "notebooks"), ("scipy", "notebooks"),
    ("seaborn", "notebooks"), ("matplotlib", "notebooks"), ("onnx", "ship"), ("onnxruntime", "ship"),
    ("openvino", "ship"), ("nncf", "quantise"), ("cv2", "runtimes"), ("tract", "runtimes"),
    ("jieba", "book"), ("numpy", None)])
def test_extra_of(name, extra):
    assert extras.extra_of(name) == extra


@pytest.mark.parametrize(("missing", "package", "arguments", "extra"), [
    ("paddle", "asymmlib", ["models"], "cpu"),
    ("statsmodels", "asymmbook", ["results"], "notebooks"),
    ("matplotlib", "asymmbook", ["draw"], "notebooks"),
])
@pytest.mark.slow
def test_a_command_that_cannot_do_its_job_says_so(missing, package, arguments, extra):
    program = f"{block(missing)}from {package}.__main__ import main\nsys.exit(main({arguments}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    line, = done.stderr.splitlines()
    assert line.startswith(f"error: the package {missing} is not installed; it is in the extra `{extra}`: pip install ")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.slow
def test_every_module_of_the_library_loads_without_extras():
    program = (f"{block(*BLOCKED)}import pkgutil, asymmlib\n"
               "for found in pkgutil.walk_packages(asymmlib.__path__, 'asymmlib.'):\n"
               "    found.name.endswith('__main__') or __import__(found.name)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("error", [ModuleNotFoundError("no asymmlib.gone", name="asymmlib.gone"),
                                   ModuleNotFoundError("no name"),
                                   ModuleNotFoundError("an old numpy", name="numpy.gone")])
def test_other_missing_modules_are_faults_of_ours(error):
    """They keep their traceback."""
    def run(options):
        """Fail."""
        raise error
    with pytest.raises(ModuleNotFoundError):
        run_command({"fail": (lambda command: None, run)}, "asymmlib", "", ["fail"])


def test_an_old_package_without_a_module_is_not_called_missing():
    assert extras.unmet(ModuleNotFoundError("no onnx.gone", name="onnx.gone")) == extras.missing_package("onnx")


def test_without_metadata_the_package_is_still_named(monkeypatch):
    def none(name):
        raise extras.PackageNotFoundError(name)
    monkeypatch.setattr(extras, "requires", none)
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert extras.missing_package("onnx") == "the package onnx is not installed"


def test_load_package(monkeypatch):
    import json
    assert extras.load_package("json") is json
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RuntimeError, match="the package onnx is not installed; it is in the extra `ship`"):
        extras.load_package("onnx")


def broken(name):
    """A package that is there, but lacks what one imports from it."""
    package = ModuleType(name)
    package.__spec__ = ModuleSpec(name, None)
    return package


@pytest.mark.parametrize(("package", "reason"), [
    (None, "the package visualdl is not installed; it is in the extra `notebooks`"),
    (broken("visualdl"), "cannot import name 'LogWriter'")], ids=["missing", "broken"])
def test_training_goes_on_without_curves(package, reason, monkeypatch, capsys, tmp_path):
    from asymmlib.callbacks import VisualDLLog
    monkeypatch.setitem(sys.modules, "visualdl", package)
    log = VisualDLLog(tmp_path / "visualdl")
    log.on_train_begin()
    log.on_epoch_end(0, {"row": {"epoch": 1, "train_loss": 1.0}})
    log.on_train_end()
    line, = capsys.readouterr().out.splitlines()
    assert line.startswith(f"no curves for VisualDL: {reason}") and not list(tmp_path.iterdir())
