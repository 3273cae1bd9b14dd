"""Folders come from the environment; a file appears whole or not at all."""
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from asymmbook.checkout import project_root, results_dir
from asymmlib.base import files, folders


@pytest.fixture
def clean_environment(monkeypatch):
    for variable in ("ASYMMLIB_HOME", "ASYMMLIB_RUNS", "ASYMMLIB_DATA", "ASYMMLIB_WEIGHTS", "ASYMMLIB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


def test_an_installed_package_uses_the_user_s_folders_and_never_the_current_one(clean_environment, tmp_path):
    clean_environment.setattr(folders, "PACKAGE", tmp_path / "site-packages" / "asymmlib")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "asymmlib"\n')  # somebody's checkout around it
    clean_environment.chdir(tmp_path)
    assert folders.checkout() is None
    for variable, kind in (("XDG_DATA_HOME", "data"), ("XDG_CACHE_HOME", "cache")):
        clean_environment.setenv(variable, str(tmp_path / "user" / kind))
    for folder, name in ((folders.home(), "data"), (folders.runs_dir(), "runs")):
        assert folder.name == name and folder.parent.name == "asymmlib" and tmp_path not in (folder.parent, folder)
    assert folders.weights_dir() == folders.PACKAGE / "pretrained"
    assert folders.cache_dir().name == "asymmlib" and not list(tmp_path.glob("*/data"))


def test_a_project_of_another_name_around_the_package_is_not_its_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(folders, "PACKAGE", tmp_path / "asymmlib")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "somebody-else"\n')
    assert folders.checkout() is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "asymmlib"\n')
    assert folders.checkout() == tmp_path


def test_a_user_without_a_home_is_asked_for_a_folder(clean_environment, tmp_path):
    def without(*arguments, **keywords):
        raise RuntimeError("could not determine the home directory")
    clean_environment.setattr(folders, "PACKAGE", tmp_path / "site-packages" / "asymmlib")
    for name in ("user_data_path", "user_cache_path"):
        clean_environment.setattr(folders, name, without)
    for folder, variable in ((folders.home, "HOME"), (folders.runs_dir, "RUNS")):
        with pytest.raises(ValueError, match=f"HOME is not set.: name the folder with ASYMMLIB_{variable}"):
            folder()
        clean_environment.setenv(f"ASYMMLIB_{variable}", str(tmp_path))
        assert folder() == tmp_path


def test_folders_default_into_the_project(clean_environment):
    root = project_root()
    assert folders.home() == root / "data"
    assert folders.runs_dir() == root / "runs"
    assert results_dir() == root / "results"
    assert folders.data_choice() == "sample"


def test_folders_follow_the_environment(clean_environment, tmp_path):
    clean_environment.chdir(tmp_path)
    clean_environment.setenv("ASYMMLIB_HOME", "~/pictures")
    clean_environment.setenv("ASYMMLIB_RUNS", "relative")
    clean_environment.setenv("ASYMMLIB_DATA", " caltech16 ")
    assert folders.home() == (Path.home() / "pictures").resolve()
    assert folders.runs_dir() == tmp_path.resolve() / "relative"
    assert folders.data_choice() == "caltech16"


def test_an_empty_variable_counts_as_unset(clean_environment):
    for variable in ("ASYMMLIB_HOME", "ASYMMLIB_RUNS", "ASYMMLIB_DATA"):
        clean_environment.setenv(variable, " ")
    assert folders.home() == project_root() / "data"
    assert folders.runs_dir() == project_root() / "runs"
    assert folders.data_choice() == "sample"


@pytest.mark.parametrize("mode, content", [("wb", b"\x00\xff"), ("w", "α\nβ\n")])
def test_atomic_write_creates_folder_and_file(tmp_path, mode, content):
    target = tmp_path / "new" / "deep" / "file"
    with files.atomic_write(target, mode) as file:
        file.write(content)
        assert not target.exists()  # nothing under the name yet
    assert target.read_bytes() == (content if mode == "wb" else content.encode())
    assert os.listdir(target.parent) == ["file"]


@pytest.mark.parametrize("failure", [RuntimeError("no"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_file_and_leaves_no_litter(tmp_path, failure):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(type(failure)), files.atomic_write(target) as file:
        file.write(b"half")
        raise failure
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_new_file_has_the_usual_rights(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with files.atomic_write(tmp_path / "atomic"):
        pass
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match="mode is 'a'; atomic_write accepts 'wb' and 'w'"), \
            files.atomic_write(tmp_path / "file", "a"):
        pass


# Tests may run as root, whom no permission bit stops: a missing right is simulated at the call that would meet it.
@pytest.mark.parametrize("owner, call", [(files.Path, "mkdir"), (files.os, "replace"), (files, "open")])
def test_a_missing_right_names_the_folder_and_the_way_out(tmp_path, monkeypatch, owner, call):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", "x")

    monkeypatch.setattr(owner, call, refuse, raising=False)
    with pytest.raises(PermissionError) as caught, files.atomic_write(tmp_path / "file") as file:
        file.write(b"1")
    assert str(tmp_path) in str(caught.value)
    assert "Permission denied" in str(caught.value)
    assert "ASYMMLIB_HOME" in str(caught.value)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /sys, where even root makes no folder")
def test_a_folder_that_nobody_may_write_in():
    with pytest.raises(PermissionError, match="cannot write in /sys/asymmlib .*ASYMMLIB_HOME"):
        files.make_folder("/sys/asymmlib")


def test_a_full_disk_names_the_folder(tmp_path):
    with pytest.raises(OSError, match="No space left.*ASYMMLIB_HOME") as caught, files.atomic_write(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC and str(tmp_path) in str(caught.value)


def test_an_error_of_the_block_is_not_blamed_on_the_target(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, files.atomic_write(tmp_path / "file"):
        (tmp_path / "other").read_bytes()
    assert "ASYMMLIB_HOME" not in str(caught.value)


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write in .*file.sub .*ASYMMLIB_HOME"):
        files.make_folder(tmp_path / "file" / "sub")


def test_an_error_of_a_library_keeps_its_number(tmp_path):
    class Odd(OSError):
        def __init__(self, only):
            super().__init__(errno.EROFS, only)

    with pytest.raises(OSError, match="cannot write in here .read-only") as caught, files.writing_in("here"):
        raise Odd("read-only")
    assert caught.value.errno == errno.EROFS


HOLD = """
import sys
from asymmlib.base.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_waits_and_a_killed_one_frees_the_lock(tmp_path, capsys):
    root = str(Path(files.__file__).parents[2])
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "new" / "thing"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root})
    assert holder.stdout.readline().strip() == b"held"
    threading.Timer(0.3, holder.kill).start()
    with files.locked(tmp_path / "new" / "thing"):
        assert holder.wait(10) != 0  # we are in only after the holder was killed
    assert "waiting for another process that works on" in capsys.readouterr().out
    holder.stdin.close()
    holder.stdout.close()
