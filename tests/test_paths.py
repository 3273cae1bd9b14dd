"""Folders come from the environment; a file appears whole or not at all."""
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from asymmlib import paths


@pytest.fixture
def clean_environment(monkeypatch):
    for variable in ("ASYMMLIB_HOME", "ASYMMLIB_RUNS", "ASYMMLIB_DATA"):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


def test_project_root_is_the_checkout_or_the_current_folder(clean_environment, tmp_path):
    checkout = Path(paths.__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        assert paths.project_root() == checkout
    clean_environment.setattr(paths, "__file__", str(tmp_path / "site-packages" / "asymmlib" / "paths.py"))
    clean_environment.chdir(tmp_path)
    assert paths.project_root() == Path.cwd() == tmp_path


def test_folders_default_into_the_project(clean_environment):
    root = paths.project_root()
    assert paths.home() == root / "data"
    assert paths.runs_dir() == root / "runs"
    assert paths.results_dir() == root / "results"
    assert paths.data_choice() == "sample"


def test_folders_follow_the_environment(clean_environment, tmp_path):
    clean_environment.chdir(tmp_path)
    clean_environment.setenv("ASYMMLIB_HOME", "~/pictures")
    clean_environment.setenv("ASYMMLIB_RUNS", "relative")
    clean_environment.setenv("ASYMMLIB_DATA", " caltech16 ")
    assert paths.home() == (Path.home() / "pictures").resolve()
    assert paths.runs_dir() == tmp_path.resolve() / "relative"
    assert paths.data_choice() == "caltech16"


def test_an_empty_variable_counts_as_unset(clean_environment):
    for variable in ("ASYMMLIB_HOME", "ASYMMLIB_RUNS", "ASYMMLIB_DATA"):
        clean_environment.setenv(variable, " ")
    assert paths.home() == paths.project_root() / "data"
    assert paths.runs_dir() == paths.project_root() / "runs"
    assert paths.data_choice() == "sample"


@pytest.mark.parametrize("mode, content", [("wb", b"\x00\xff"), ("w", "α\nβ\n")])
def test_atomic_write_creates_folder_and_file(tmp_path, mode, content):
    target = tmp_path / "new" / "deep" / "file"
    with paths.atomic_write(target, mode) as file:
        file.write(content)
        assert not target.exists()  # nothing under the name yet
    assert target.read_bytes() == (content if mode == "wb" else content.encode())
    assert os.listdir(target.parent) == ["file"]


@pytest.mark.parametrize("failure", [RuntimeError("no"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_file_and_leaves_no_litter(tmp_path, failure):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(type(failure)), paths.atomic_write(target) as file:
        file.write(b"half")
        raise failure
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_new_file_has_the_usual_rights(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with paths.atomic_write(tmp_path / "atomic"):
        pass
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match="mode is 'a'; atomic_write accepts 'wb' and 'w'"), \
            paths.atomic_write(tmp_path / "file", "a"):
        pass


# Tests may run as root, whom no permission bit stops: a missing right is simulated at the call that would meet it.
@pytest.mark.parametrize("owner, call", [(paths.Path, "mkdir"), (paths.os, "replace"), (paths, "open")])
def test_a_missing_right_names_the_folder_and_the_way_out(tmp_path, monkeypatch, owner, call):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", "x")

    monkeypatch.setattr(owner, call, refuse, raising=False)
    with pytest.raises(PermissionError) as caught, paths.atomic_write(tmp_path / "file") as file:
        file.write(b"1")
    assert str(tmp_path) in str(caught.value)
    assert "Permission denied" in str(caught.value)
    assert "ASYMMLIB_HOME" in str(caught.value)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /sys, where even root makes no folder")
def test_a_folder_that_nobody_may_write_in():
    with pytest.raises(PermissionError, match="cannot write in /sys/asymmlib .*ASYMMLIB_HOME"):
        paths.make_folder("/sys/asymmlib")


def test_a_full_disk_names_the_folder(tmp_path):
    with pytest.raises(OSError, match="No space left.*ASYMMLIB_HOME") as caught, paths.atomic_write(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC and str(tmp_path) in str(caught.value)


def test_an_error_of_the_block_is_not_blamed_on_the_target(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, paths.atomic_write(tmp_path / "file"):
        (tmp_path / "other").read_bytes()
    assert "ASYMMLIB_HOME" not in str(caught.value)


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write in .*file.sub .*ASYMMLIB_HOME"):
        paths.make_folder(tmp_path / "file" / "sub")


def test_an_error_of_a_library_keeps_its_number(tmp_path):
    class Odd(OSError):
        def __init__(self, only):
            super().__init__(errno.EROFS, only)

    with pytest.raises(OSError, match="cannot write in here .read-only") as caught, paths.writing_in("here"):
        raise Odd("read-only")
    assert caught.value.errno == errno.EROFS


HOLD = """
import sys
from asymmlib.paths import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_waits_and_a_killed_one_frees_the_lock(tmp_path, capsys):
    root = str(Path(paths.__file__).parents[1])
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "new" / "thing"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root})
    assert holder.stdout.readline().strip() == b"held"
    threading.Timer(0.3, holder.kill).start()
    with paths.locked(tmp_path / "new" / "thing"):
        assert holder.wait(10) != 0  # we are in only after the holder was killed
    assert "waiting for another process that works on" in capsys.readouterr().out
    holder.stdin.close()
    holder.stdout.close()
