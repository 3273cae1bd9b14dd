"""Damage and signals: one flipped bit, one number that is not finite, one Ctrl-C at the worst moment."""
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import paddle
import pytest
from processes import run_python
from safetensors.numpy import load_file, save_file

from asymmlib.base import files, interrupts
from asymmlib.callbacks import Finite
from asymmlib.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint
from asymmlib.evaluation import Evaluation, check_finite
from asymmlib.network import asymmnet_small
from asymmlib.weights.own import load_weights, read_safetensors, save_weights

# --- checkpoints and weights

def network_and_optimizer(seed=0):
    paddle.seed(seed)
    network = asymmnet_small(width=0.35, num_classes=4)
    optimizer = paddle.optimizer.Momentum(0.1, 0.9, parameters=network.parameters())
    network(paddle.zeros([2, 3, 32, 32])).sum().backward()
    optimizer.step()
    return network, optimizer


@pytest.mark.slow
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


def test_copies_under_other_names_are_neither_read_nor_removed(tmp_path):
    network, optimizer = network_and_optimizer()
    save_checkpoint(tmp_path, network, optimizer, [{"epoch": 1}])
    for name in ("epoch-best", "epoch-0009-copy"):
        (tmp_path / f"{name}.safetensors").write_bytes((tmp_path / "epoch-0001.safetensors").read_bytes())
    (tmp_path / "epoch-0001.safetensors").rename(tmp_path / "epoch-9999.safetensors")
    for epochs in (10_000, 10_001):  # five digits come after four
        save_checkpoint(tmp_path, network, optimizer, [{"epoch": 1}] * epochs)
        assert len(load_checkpoint(tmp_path, network, optimizer)) == epochs
    assert sorted(path.stem for path in tmp_path.iterdir()) == [
        "epoch-0009-copy", "epoch-10000", "epoch-10001", "epoch-best"]


def test_the_state_of_mixed_precision_goes_on(tmp_path):
    class Scaler:  # a CPU has none that is on
        def __init__(self):
            self.state = {"scale": np.array([512.0], np.float32), "incr_count": 7}

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
    with pytest.raises(ValueError, match="w.safetensors: its content is not what was written .*SHA-256"):
        load_weights(network, tmp_path / "w.safetensors")


def raw_safetensors(path, kind, data, shape):
    header = json.dumps({"a": {"dtype": kind, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def test_numbers_that_numpy_does_not_have(tmp_path):
    values = np.array([1.0, -2.5, 3.140625], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    found, _ = read_safetensors(raw_safetensors(tmp_path / "b.safetensors", "BF16", halves, [3]))
    assert found["a"].dtype == np.float32 and (found["a"] == values).all()
    with pytest.raises(ValueError, match="8.safetensors: it holds numbers that are not read .F8_E4M3.: save them"):
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


# --- signals and locks

@pytest.fixture
def heard():
    """The handlers of a program in a shell's foreground: in the background, and under nohup, some are ignored."""
    wanted = {signal.SIGINT: signal.default_int_handler} | (
        {} if sys.platform == "win32" else {signal.SIGHUP: signal.SIG_DFL})
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
def test_a_signal_is_obeyed_at_the_next_check():
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
from asymmlib.base.commands import run_command
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("how", ["plain", "lost", "turned", "twice"])
@pytest.mark.usefixtures("heard")
def test_a_signal_ends_a_command_with_its_promise(name, status, how):
    done = run_python("-W", "ignore", "-c", COMMAND, name, how)
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


@pytest.mark.parametrize(("content", "reason"), [
    (b"run,epoch\nfirst,1\nfirst", "cut off"), (b"name,epoch\nfirst,1\n", "no column run"), (b"", "cut off"),
    (b"run,epoch\nfirst,1\nfirst,2,3,4\n", "damaged"), (b"run,epoch\n,1\n", "rows without a value of run"),
    (b"run,epoch\n\xff\xfe,1\n", "damaged")])
def test_a_recorded_table_that_is_damaged_is_told_with_its_path(tmp_path, content, reason):
    from asymmbook.evidence.results import read_results
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "curves.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"curves.csv is damaged or another table .*{reason}|curves.csv is {reason}"):
        read_results(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
@pytest.mark.parametrize("name", ["runs.csv", "curves.csv", "pictures.csv", "predictions/r.npz"])
def test_a_pipe_in_a_recorded_file_s_place_is_no_absent_file(tmp_path, name):
    from asymmbook.evidence.results import read_pictures, read_predictions, read_results
    assert all(table.empty for table in read_results(tmp_path).values()) and read_pictures(folder=tmp_path).empty
    (tmp_path / "archive" / name).parent.mkdir(parents=True)
    os.mkfifo(tmp_path / "archive" / name)
    read = {"pictures.csv": lambda: read_pictures(folder=tmp_path),
            "predictions/r.npz": lambda: read_predictions("r", folder=tmp_path)}
    with pytest.raises(ValueError, match=f"{name} is a named pipe, not a file"):
        read.get(name, lambda: read_results(tmp_path))()


@pytest.mark.skipif(sys.platform == "win32", reason="devices of POSIX")
def test_nothing_takes_the_place_of_a_device_or_a_folder(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")
    (tmp_path / "folder").mkdir()
    for name, kind in (("link", "a device"), ("folder", "a folder")):
        with pytest.raises(ValueError, match=f"{name} is {kind}"), files.atomic_write(tmp_path / name):
            raise AssertionError("it was opened")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link"]


@pytest.mark.parametrize("change", [{"classes": []}, {"std": [0, 1, 1]}, {"image_size": True}, {"mean": "abc"}, None])
def test_a_card_that_no_network_can_be_used_by(tmp_path, change):
    from asymmlib.base.folders import weights_dir
    from asymmlib.weights.released import find_released
    card = json.loads((weights_dir() / "asymmnet_small.json").read_text())
    (tmp_path / "asymmnet_small.json").write_text(json.dumps([] if change is None else card | change))
    (tmp_path / "asymmnet_small.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="asymmnet_small.json is damaged"):
        find_released("asymmnet_small", tmp_path)
