"""What a run leaves on the disk: found damaged, foreign or of another run it is refused or replaced, never used."""
import json
import shutil
import subprocess
import sys

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from asymmlib.base import environment, files, interrupts
from asymmlib.callbacks import Finite
from asymmlib.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint
from asymmlib.data.changes import changes, trained_on
from asymmlib.data.sources import prepare
from asymmlib.evaluation import Evaluation, check_finite
from asymmlib.network import asymmnet_small
from asymmlib.opening import MADE, open_run, run_folder
from asymmlib.recipes import Recipe
from asymmlib.runs import Run, find_run
from asymmlib.training import train
from asymmlib.weights.own import load_weights, read_safetensors, save_weights

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


def test_a_fresh_start_that_ends_early_shows_no_old_weights(prepared, run, monkeypatch):
    """Ended after the record was replaced, at each step of the clearing, and even where nothing was cleared."""
    from asymmlib import opening

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


def test_a_fresh_start_that_ends_before_the_record_leaves_the_old_run(prepared, run, monkeypatch):
    def die(self, **changes):
        raise KeyboardInterrupt
    before = content(run.folder)
    monkeypatch.setattr(Run, "write", die)
    with pytest.raises(KeyboardInterrupt):
        open_run(run.folder, wanted(prepared), prepared.manifest, fresh=True)
    assert content(run.folder) == before


# --- whether it is the run that is asked for

def test_each_difference_is_told_with_its_old_and_new_value(prepared, run, picture_folder):
    with pytest.raises(ValueError, match=r"another recipe \(base_lr: 0.05, asked 0.1; epochs: 2, asked 3\)"):
        train("asymmnet_small", TINY.replace(epochs=3, base_lr=0.1), prepared=prepared, name="r")
    with pytest.raises(ValueError, match=r"another settings \(width: default, asked 0.5\)"):
        train("asymmnet_small", TINY, width=0.5, prepared=prepared, name="r")
    shutil.copy(picture_folder / "red" / "00.png", picture_folder / "red" / "99.png")
    with pytest.raises(ValueError, match=r"another set of pictures \(the pictures have changed: 1 added"):
        train("asymmnet_small", TINY, prepared=prepare(str(picture_folder), progress=False), name="r")


def test_the_same_pictures_elsewhere_or_packed_are_the_same_data(prepared, run, picture_folder, tmp_path):
    moved = shutil.copytree(picture_folder, tmp_path / "moved" / "pictures")
    packed = shutil.make_archive(tmp_path / "packed", "zip", picture_folder)
    for data in (moved, packed):
        again = prepare(str(data), progress=False)
        opened = train("asymmnet_small", TINY, prepared=again, name="r")
        assert opened.finished and opened.info["result"] == run.info["result"]
        assert opened.info["recipe"]["data"] == again.name


# --- what is evaluated

def test_a_test_of_pictures_that_were_trained_on_is_refused(run, picture_folder):
    tested = prepare(str(picture_folder), test_share=True, progress=False)
    with pytest.raises(ValueError, match="without a test share: 6 of the 6 test pictures are ones that it was trained"):
        run.classifier().evaluate(tested, "test")
    (run.folder / "manifest.csv").unlink()  # a run from before it kept one
    with pytest.raises(ValueError, match="without a test share"):
        run.classifier().evaluate(tested, "test")


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


# --- checkpoints and weights

def network_and_optimizer(seed=0):
    paddle.seed(seed)
    network = asymmnet_small(width=0.35, num_classes=4)
    optimizer = paddle.optimizer.Momentum(0.1, 0.9, parameters=network.parameters())
    network(paddle.zeros([2, 3, 32, 32])).sum().backward()
    optimizer.step()
    return network, optimizer


def test_one_flipped_bit_anywhere_is_seen(tmp_path, capsys):
    network, optimizer = network_and_optimizer()
    for rows in ([{"epoch": 1}], [{"epoch": 1}, {"epoch": 2}]):
        save_checkpoint(tmp_path, network, optimizer, rows)
    newest, rng = tmp_path / "epoch-0002.safetensors", np.random.default_rng(0)
    good = newest.read_bytes()
    for position in [*rng.integers(0, len(good), 12), 9, 200, len(good) - 1]:
        damaged = bytearray(good)
        damaged[position] ^= 1 << int(rng.integers(8))
        newest.write_bytes(damaged)
        assert load_checkpoint(tmp_path, network, optimizer) == [{"epoch": 1}]
        assert "epoch-0002.safetensors is damaged" in capsys.readouterr().out
    newest.write_bytes(good)
    assert len(load_checkpoint(tmp_path, network, optimizer)) == 2 and is_checkpoint(newest)


def test_checkpoints_of_which_none_is_good_are_kept_and_told(tmp_path):
    network, optimizer = network_and_optimizer()
    save_checkpoint(tmp_path, network, optimizer, [{"epoch": 1}], run="this")
    with pytest.raises(ValueError, match="none of the 1 checkpoints"):
        load_checkpoint(tmp_path, network, optimizer, run="another")
    other = asymmnet_small(width=0.35, num_classes=5)
    with pytest.raises(ValueError, match="none of the 1 checkpoints"):
        load_checkpoint(tmp_path, other, paddle.optimizer.Momentum(0.1, 0.9, parameters=other.parameters()))
    assert load_checkpoint(tmp_path, network, optimizer, run="this") == [{"epoch": 1}]


def test_the_state_of_mixed_precision_goes_on(tmp_path):
    class Scaler:  # a CPU has none that is on
        state = {"scale": np.array([512.0], np.float32), "incr_count": 7}

        def state_dict(self):
            return self.state

        def load_state_dict(self, state):
            self.state = state

    network, optimizer = network_and_optimizer()
    save_checkpoint(tmp_path, network, optimizer, [{"epoch": 1}], Scaler())
    fresh = Scaler()
    fresh.state = {}
    load_checkpoint(tmp_path, network, optimizer, fresh)
    assert fresh.state == {"scale": 512.0, "incr_count": 7}


def test_a_flipped_bit_in_weights_is_seen(tmp_path):
    network = asymmnet_small(width=0.35, num_classes=4)
    save_weights(network, tmp_path / "w.safetensors", {"run": "x"})
    load_weights(network, tmp_path / "w.safetensors")
    damaged = bytearray((tmp_path / "w.safetensors").read_bytes())
    damaged[-3] ^= 4
    (tmp_path / "w.safetensors").write_bytes(damaged)
    with pytest.raises(ValueError, match="w.safetensors is damaged: .*SHA-256"):
        load_weights(network, tmp_path / "w.safetensors")


def raw_safetensors(path, kind, data, shape):
    header = json.dumps({"a": {"dtype": kind, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def test_numbers_that_numpy_does_not_have(tmp_path):
    values = np.array([1.0, -2.5, 3.140625], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    found = read_safetensors(raw_safetensors(tmp_path / "b.safetensors", "BF16", halves, [3]))
    assert found["a"].dtype == np.float32 and (found["a"] == values).all()
    with pytest.raises(ValueError, match="8.safetensors holds numbers that are not read .F8_E4M3.: save them"):
        read_safetensors(raw_safetensors(tmp_path / "8.safetensors", "F8_E4M3", b"123", [3]))


def test_weights_that_are_not_finite_are_not_loaded(tmp_path):
    network = asymmnet_small(width=0.35, num_classes=4)
    save_weights(network, tmp_path / "w.safetensors")
    tensors = load_file(tmp_path / "w.safetensors")
    tensors["classifier.bias"][0] = np.nan
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="classifier.bias holds values that are not finite"):
        load_weights(network, tmp_path / "w.safetensors")


# --- numbers

def test_the_loss_is_exact_where_a_probability_underflows():
    assert Evaluation(np.array([[0.0, -2000.0]]), np.array([1])).loss == 2000.0
    with pytest.raises(FloatingPointError, match="not finite for 1 of 2 pictures"):
        check_finite(np.array([[1.0, 2.0], [np.nan, 0.0]]))


@pytest.mark.parametrize("name", ["classifier.weight", "stem.bn._variance"])
def test_weights_are_watched(name):
    watcher, network = Finite(), asymmnet_small(width=0.35, num_classes=4)
    model = paddle.Model(network)
    model._optimizer = paddle.optimizer.SGD(0.1, parameters=network.parameters())
    watcher.set_model(model)
    watcher.set_params({"steps": 3})
    watcher.on_epoch_begin(0)
    watcher.on_epoch_end(0)
    state = network.state_dict()
    key = next(key for key in state if key.endswith(name))
    state[key].set_value(paddle.full_like(state[key], float("nan")))
    with pytest.raises(FloatingPointError, match="has values that are not finite in epoch 1, batch 3"):
        watcher.on_epoch_end(0)
    with pytest.raises(FloatingPointError, match="lower base_lr"):
        for step in range(len(state)):
            watcher.on_train_batch_end(step, {"loss": [1.0]})


# --- records

@pytest.mark.parametrize("change", [
    {"classes": [1, 2, 3]}, {"classes": ["a"]}, {"mean": [float("nan")] * 3}, {"std": [0, 1, 1]}, {"mean": "abc"},
    {"recipe": {"name": "x", "image_size": 10**9, "epochs": 1}}, {"recipe": {"name": "x"}}, {"settings": []},
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


# --- signals and locks

def test_a_signal_is_obeyed_at_the_next_check(monkeypatch):
    import signal
    monkeypatch.setattr(signal, "getsignal", signal.getsignal)
    seen = []
    with pytest.raises(KeyboardInterrupt), interrupts.postponed():
        signal.raise_signal(signal.SIGINT)
        seen.append("after the signal")
        interrupts.check()
        seen.append("after the check")
    assert seen == ["after the signal"]
    with interrupts.postponed():
        interrupts.check()  # dealt with: nothing is left over


COMMAND = """
import signal, sys, time
from asymmlib.__main__ import run_command
from asymmlib.base import interrupts
def work(options):
    "Work."
    number = getattr(signal, sys.argv[1])
    if sys.argv[2] == "lost":
        class Odd:
            def __del__(self):
                signal.raise_signal(number)
        Odd()
    elif sys.argv[2] == "turned":
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            raise RuntimeError("(External) a C++ stack") from error
    elif sys.argv[2] == "twice":
        with interrupts.postponed():
            signal.raise_signal(number)
            signal.raise_signal(number)
    else:
        signal.raise_signal(number)
sys.exit(run_command({"x": (lambda command: None, work)}, "p", "d", ["x"], {"x": "all is well"}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("how", ["plain", "lost", "turned", "twice"])
def test_a_signal_ends_a_command_with_its_promise(name, status, how):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", COMMAND, name, how], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if line.startswith("interrupted")]
    assert done.returncode == status and len(said) == 1 and said[0].startswith("interrupted; all is well"), done.stderr
    assert "External" not in done.stderr


HOLD = """
import sys
from asymmlib.base.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_who_waits_is_told_for_whom(tmp_path, capsys):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "thing"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    holder.stdout.readline()
    import threading
    threading.Timer(0.3, holder.kill).start()
    with files.locked(tmp_path / "thing"):
        holder.wait(10)
    assert f"process {holder.pid} on " in capsys.readouterr().out
    holder.stdin.close()
    holder.stdout.close()


def test_the_remedy_follows_the_cause(tmp_path):
    with pytest.raises(OSError, match="shorter names") as caught, files.atomic_write(tmp_path / ("x" * 300)):
        pass
    assert "Free some space" not in str(caught.value)
