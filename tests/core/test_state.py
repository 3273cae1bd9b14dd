"""What a run leaves on the disk: found damaged, foreign or of another run it is refused or replaced, never used."""
import json
import shutil
import subprocess

import pytest

from asymmlib.base import environment
from asymmlib.data.changes import changes, trained_on
from asymmlib.data.sources import prepare
from asymmlib.recipes import Recipe
from asymmlib.records.opening import MADE, open_run, run_folder
from asymmlib.runs import Run, find_run
from asymmlib.training import train

TINY = Recipe("tiny", image_size=32, epochs=2, batch_size=8, base_lr=0.05)


@pytest.fixture
def prepared(home, picture_folder):
    return prepare(str(picture_folder), progress=False)


@pytest.fixture
def run(prepared):
    return train("asymmnet_small", TINY, prepared=prepared, name="r")


def wanted(prepared, **changed):
    from asymmlib.data.manifest import manifest_hash
    return {"model": "asymmnet_small", "settings": {}, "recipe": TINY.replace(data=prepared.name).as_dict(),
            "manifest_sha256": manifest_hash(prepared.manifest), **changed}


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- whose folder it is

@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "", ".", "..", "C:\\out", "~", ".hidden",
                                  "a\nb"])
def test_a_name_that_leads_out_of_the_runs_folder(home, name):
    with pytest.raises(ValueError, match="is no name for a run"):
        run_folder(name)


def test_a_link_that_leads_out_of_the_runs_folder(home, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs" / "r").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link to .*elsewhere"):
        run_folder("r")


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("inside", ["checkpoints/model.pt", "checkpoints/epoch-0001.safetensors", "notes.txt",
                                    "run.json"])
def test_another_program_s_folder_is_refused_and_stays(prepared, inside, fresh):
    folder = run_folder("theirs")
    (folder / inside).parent.mkdir(parents=True)
    (folder / inside).write_bytes(b"theirs")
    before = content(folder)
    with pytest.raises(ValueError, match="Nothing was changed"):
        train("asymmnet_small", TINY, prepared=prepared, name="theirs", fresh=fresh)
    assert content(folder) == before


@pytest.mark.slow
def test_a_run_without_its_record_keeps_its_checkpoints_until_a_fresh_start(prepared, run):
    (run.folder / "run.json").unlink()
    (run.folder / "notes.txt").write_text("mine")
    before = content(run.folder)
    with pytest.raises(ValueError, match="its run.json is lost: put it back, or start over with fresh=True"):
        train("asymmnet_small", TINY, prepared=prepared, name="r")
    assert content(run.folder) == before
    assert train("asymmnet_small", TINY.replace(epochs=1), prepared=prepared, name="r", fresh=True).finished
    assert (run.folder / "notes.txt").read_text() == "mine"
    assert not (run.folder / "checkpoints" / "epoch-0002.safetensors").exists()


@pytest.mark.slow
def test_a_fresh_start_that_ends_early_shows_no_old_weights(prepared, run, monkeypatch):
    """Ended after the record was replaced, at each step of the clearing, and even where nothing was cleared."""
    from asymmlib.records import opening

    def die(folder):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(opening, "_clear", die)
        with pytest.raises(KeyboardInterrupt):
            open_run(run.folder, wanted(prepared), prepared.manifest, fresh=True)
    begun = find_run("r")
    assert not begun.finished and begun.info["id"] != run.info["id"] and (run.folder / "best.safetensors").exists()
    with pytest.raises(FileNotFoundError, match="run r has no best weights yet"):
        begun.classifier("best")
    opened = open_run(run.folder, wanted(prepared), prepared.manifest, fresh=False)
    assert opened.info["id"] == begun.info["id"] and "beginning" not in opened.info
    assert not [path for pattern in MADE for path in run.folder.glob(pattern) if path.name != "manifest.csv"]


@pytest.mark.slow
def test_a_fresh_start_that_ends_before_the_record_leaves_the_old_run(prepared, run, monkeypatch):
    def die(self, **changes):
        raise KeyboardInterrupt
    before = content(run.folder)
    monkeypatch.setattr(Run, "write", die)
    with pytest.raises(KeyboardInterrupt):
        open_run(run.folder, wanted(prepared), prepared.manifest, fresh=True)
    assert content(run.folder) == before


# --- whether it is the run that is asked for

@pytest.mark.slow
def test_each_difference_is_told_with_its_old_and_new_value(prepared, run, picture_folder):
    with pytest.raises(ValueError, match=r"another recipe \(base_lr: 0.05, asked 0.1; epochs: 2, asked 3\)"):
        train("asymmnet_small", TINY.replace(epochs=3, base_lr=0.1), prepared=prepared, name="r")
    with pytest.raises(ValueError, match=r"another settings \(width: default, asked 0.5\)"):
        train("asymmnet_small", TINY, width=0.5, prepared=prepared, name="r")
    shutil.copy(picture_folder / "red" / "00.png", picture_folder / "red" / "99.png")
    with pytest.raises(ValueError, match=r"another set of pictures \(the pictures have changed: 1 added"):
        train("asymmnet_small", TINY, prepared=prepare(str(picture_folder), progress=False), name="r")


@pytest.mark.slow
def test_the_same_pictures_elsewhere_or_packed_are_the_same_data(prepared, run, picture_folder, tmp_path):
    moved = shutil.copytree(picture_folder, tmp_path / "moved" / "pictures")
    packed = shutil.make_archive(tmp_path / "packed", "zip", picture_folder)
    for data in (moved, packed):
        again = prepare(str(data), progress=False)
        opened = train("asymmnet_small", TINY, prepared=again, name="r")
        assert opened.finished and opened.info["result"] == run.info["result"]
        assert opened.info["recipe"]["data"] == again.name


# --- what is evaluated

@pytest.mark.slow
def test_a_test_of_pictures_that_were_trained_on_is_refused(run, picture_folder):
    tested = prepare(str(picture_folder), test_share=True, progress=False)
    with pytest.raises(ValueError, match="without a test share: 6 of the 6 test pictures are ones that it was trained"):
        run.classifier().evaluate(tested, "test")
    (run.folder / "manifest.csv").unlink()  # a run from before it kept one
    with pytest.raises(ValueError, match="without a test share"):
        run.classifier().evaluate(tested, "test")


@pytest.mark.slow
def test_pictures_changed_since_training_are_told(run, prepared, picture_folder, capsys):
    run.classifier().evaluate(prepared)
    assert capsys.readouterr().out == ""
    shutil.copy(picture_folder / "blue" / "00.png", picture_folder / "red" / "+.png")
    (picture_folder / "green" / "03.png").unlink()
    run.classifier().evaluate(prepare(str(picture_folder), progress=False))
    told = capsys.readouterr().out
    assert "1 added, 1 removed" in told and "of the 7 eval pictures were among those that it was trained on" in told


def test_counting_what_changed(prepared):
    old, new = prepared.manifest, prepared.manifest.copy()
    assert changes(old, new) == "" and trained_on(old, new, "eval") == 0 and trained_on(old, new, "train") == 24
    assert trained_on(old, new, "train", per_class=2) == 6
    new.loc[1, "sha256"] = "0" * 64
    new.loc[2, "split"] = "eval"
    assert changes(old, new) == "1 changed, 1 in another split or class" and trained_on(old, new, "eval") == 1


# --- records

@pytest.mark.parametrize("change", [
    {"classes": [1, 2, 3]}, {"classes": ["a"]}, {"mean": [float("nan")] * 3}, {"std": [0, 1, 1]}, {"mean": "abc"},
    {"recipe": {"name": "x", "image_size": 10**9, "epochs": 1}}, {"recipe": {"name": "x"}}, {"settings": []},
    {"settings": {"width": 1e6}}, {"settings": {"width": "x"}},
    {"result": {"best_eval_top1": 7, "last_eval_top1": 0.5}}, {"result": {}}, {"sessions": 3}])
def test_absurd_values_of_a_record_are_told_with_its_path(home, change):
    folder = home / "runs" / "r"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"model": "asymmnet_small", "settings": {}, "recipe": TINY.as_dict(),
                                                 **change}))
    with pytest.raises(ValueError, match="run.json"):
        find_run("r")


def test_no_record_holds_what_json_cannot(home):
    with pytest.raises(ValueError, match="JSON"):
        Run(home / "runs" / "r", {"result": float("nan")}).write()
    assert not (home / "runs" / "r" / "run.json").exists()


@pytest.mark.slow
def test_the_record_tells_sessions_apart(prepared, run, monkeypatch):
    from asymmlib import training
    (run.folder / "run.json").write_text(json.dumps({k: v for k, v in run.info.items() if k != "result"}))
    for path in run.folder.glob("checkpoints/epoch-0002*"):
        path.unlink()
    monkeypatch.setattr(training, "environment", lambda: {"threads": "77"})
    again = train("asymmnet_small", TINY, prepared=prepared, name="r")
    first, second = again.info["sessions"]
    assert first["first_epoch"] == 1 and second["first_epoch"] == 2 and second["environment"] == {"threads": "77"}
    assert again.info["environment"] == run.info["environment"] == first["environment"]


def test_the_commit_is_that_of_the_checkout(monkeypatch, tmp_path):
    own = environment._commit()
    subprocess.run(["git", "init", "-q", tmp_path / "theirs"], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs" / ".git"))
    monkeypatch.chdir(tmp_path / "theirs")
    assert environment._commit() == own
