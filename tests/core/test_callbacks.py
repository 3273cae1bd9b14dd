"""Callbacks one by one, without a training: which weights are kept, what a row holds, what a line says."""
import sys
import threading
from types import SimpleNamespace

import numpy as np
import paddle
import pandas as pd
import pytest
from safetensors.numpy import load_file

from asymmlib.callbacks import BestModel, EarlyStop, EpochLog, Finite, Progress, Reproducible, VisualDLLog


def epochs(callback, tops, network):
    """Let a callback see epochs with these eval top-1, at the end of which the network's bias is the epoch's number."""
    callback.set_model(SimpleNamespace(network=network))
    for number, top in enumerate(tops, start=1):
        paddle.assign(paddle.full_like(network.bias, number), network.bias)
        callback.on_epoch_end(number - 1, {"row": {"eval_top1": top}})


@pytest.mark.parametrize(("before", "tops", "kept"), [
    ([], [0.5, 0.5, 0.4], 1),                          # the first among equals
    ([], [0.0, 0.0], 1),                               # nothing right is still an epoch
    ([], [0.4, 0.5, 0.6], 3), ([0.2, 0.5, 0.3], [0.4, 0.6], 2)])
def test_the_weights_of_the_first_best_epoch_are_kept(tmp_path, before, tops, kept):
    callback = BestModel(tmp_path / "best.safetensors", [{"eval_top1": top} for top in before])
    epochs(callback, tops, paddle.nn.Linear(2, 1))
    assert load_file(tmp_path / "best.safetensors")["bias"].tolist() == [kept]


def test_a_run_that_goes_on_keeps_its_best_weights_until_they_are_beaten(tmp_path):
    epochs(BestModel(tmp_path / "best.safetensors", [{"eval_top1": 0.5}]), [0.5, 0.2], paddle.nn.Linear(2, 1))
    assert not (tmp_path / "best.safetensors").exists()


def test_every_seed_epoch_and_process_has_a_dropout_of_its_own(monkeypatch):
    drawn, told = [], []
    monkeypatch.setattr(paddle, "seed", drawn.append)
    loader = SimpleNamespace(batch_sampler=SimpleNamespace(set_epoch=told.append),
                             dataset=SimpleNamespace(set_epoch=told.append))
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "3")
    for rank in range(3):
        monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
        for seed in (0, 1, 2):
            for epoch in (0, 1, 9_999):                # a recipe has at most 10,000 epochs
                Reproducible(loader, seed).on_epoch_begin(epoch)
    assert len(set(drawn)) == 27 and all(type(seed) is int and 0 <= seed < 2**63 for seed in drawn)
    told.clear()
    Reproducible(loader, 2, first_epoch=5).on_epoch_begin(1)
    assert told == [6, 6] and drawn[-1] - (2 << 40) == 2 * 100_003 + 6  # as in every run that is on record


class Points(paddle.io.Dataset):
    """Six points on three axes; the label is the axis."""

    labels = np.array([0, 1, 2, 0, 1, 2])

    def __getitem__(self, index):
        return np.eye(3, dtype=np.float32)[self.labels[index]], self.labels[index:index + 1]

    def __len__(self):
        return len(self.labels)


def log_of(tmp_path, rows=()):
    network = paddle.nn.Linear(3, 3)
    paddle.assign(paddle.eye(3) * 4, network.weight)
    log = EpochLog(Points(), tmp_path / "history.csv", rows)
    optimizer = paddle.optimizer.Momentum(0.25, parameters=network.parameters())
    log.set_model(SimpleNamespace(network=network, _optimizer=optimizer))
    return log, optimizer


def test_a_row_weighs_batches_by_their_pictures_and_is_written(tmp_path):
    log, optimizer = log_of(tmp_path, [{"epoch": 1, "train_loss": 9.0}])
    log.on_epoch_begin(0)
    optimizer.set_lr(0.125)                            # the epoch's first rate is told, not its last
    log.on_train_batch_end(0, {"loss": [2.0], "batch_size": 8})
    log.on_train_batch_end(1, {"loss": [5.0], "batch_size": 4})
    logs = {"acc": 0.75}
    log.on_epoch_end(0, logs)
    row = log.rows[1]
    assert logs["row"] is row and row["seconds"] > 0
    assert row["images_per_s"] * row["seconds"] == pytest.approx(12)
    expected = {"epoch": 2, "train_loss": 3.0, "train_top1": 0.75, "eval_loss": np.log(1 + 2 * np.exp(-4)),
                "eval_top1": 1.0, "lr": 0.25}
    assert {key: row[key] for key in expected} == pytest.approx(expected, rel=1e-6)
    table = pd.read_csv(tmp_path / "history.csv")
    assert list(table) == [*expected, "images_per_s", "seconds"]
    assert table.iloc[1].to_dict() == pytest.approx(row, rel=1e-7) and table["train_loss"][0] == 9


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_and_says_where(tmp_path, loss):
    log, _ = log_of(tmp_path, [{"epoch": 1}])
    finite = Finite(1)
    finite.set_model(log.model)
    finite.on_epoch_begin(0)
    with pytest.raises(FloatingPointError, match=f"became {loss} in epoch 2, batch 4, at learning rate 0.25: lower"):
        finite.on_train_batch_end(3, {"loss": [loss], "batch_size": 4})


def test_progress_counts_from_where_the_run_goes_on(monkeypatch, capsys):
    made, row = [], {"epoch": 3, "train_loss": 1.25, "eval_loss": 1.5, "train_top1": 0.5, "eval_top1": 0.25, "lr": 0.05,
                     "images_per_s": 100.4, "seconds": 90.2}

    class Bar:
        def __init__(self, **settings):
            made.append(settings | {"updates": 0, "closed": False})

        def update(self):
            made[-1]["updates"] += 1

        def close(self):
            made[-1]["closed"] = True

    monkeypatch.setattr("asymmlib.callbacks.tqdm", Bar)
    progress = Progress(4, first_epoch=2)
    progress.set_params({"steps": 7})
    for number in range(2):
        progress.on_epoch_begin(number)
        progress.on_train_batch_end(0)
        progress.on_epoch_end(number, {"row": row | {"epoch": 3 + number}})
    assert [(bar["desc"], bar["total"], bar["updates"], bar["closed"]) for bar in made] == [
        ("epoch 3/4", 7, 1, True), ("epoch 4/4", 7, 1, True)]
    first, last = capsys.readouterr().out.splitlines()
    assert first == ("epoch   3/4  loss 1.250 (eval 1.500)  top-1  50.0% (eval  25.0%)  lr 0.0500  100 images/s  "
                     "0:01:30 left")
    assert last.endswith("100 images/s")


def test_early_stop_stops_the_model_and_says_so(capsys):
    for tops, stops in (([0.5, 0.5, 0.4], True), ([0.5, 0.5, 0.6], False)):
        callback = EarlyStop([{"eval_top1": top} for top in tops], 2)
        callback.set_model(SimpleNamespace(stop_training=False))
        callback.on_epoch_end(2)
        assert callback.model.stop_training == stops
        assert ("stopped: 2 epochs without a better eval top-1" in capsys.readouterr().out) == stops


def test_visualdl_gets_every_column_at_its_epoch(tmp_path):
    visualdl = pytest.importorskip("visualdl")
    others = threading.enumerate()  # such as those of trainings that a test before cut off
    log = VisualDLLog(tmp_path / "curves")
    log.on_train_begin()
    for epoch, lr in ((4, 0.5), (5, 0.25)):
        log.on_epoch_end(0, {"row": {"epoch": epoch, "train_loss": 2.0, "lr": lr}})
    log.on_train_end()
    waiting = [thread for thread in threading.enumerate()
               if type(thread).__module__.startswith("visualdl") and thread not in others]
    assert not waiting, "what a thread of VisualDL holds when the process ends is lost"
    (file,) = (tmp_path / "curves").iterdir()
    reader = visualdl.LogReader(file_path=str(file))
    assert [(point.id, point.value) for point in reader.get_data("scalar", "lr")] == [(4, 0.5), (5, 0.25)]
    assert [point.value for point in reader.get_data("scalar", "train/loss")] == [2.0, 2.0]


def test_without_visualdl_one_line_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "visualdl", None)
    log = VisualDLLog(tmp_path / "curves")
    log.on_train_begin()
    log.on_epoch_end(0, {"row": {"epoch": 1, "lr": 0.5}})
    log.on_train_end()
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "no curves for VisualDL" in printed and "extra `notebooks`" in printed
    assert not (tmp_path / "curves").exists()


def test_without_a_home_one_line_says_what_to_set(tmp_path, monkeypatch, capsys):
    """VisualDL would make a folder called ~ wherever the process is."""
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    log = VisualDLLog(tmp_path / "curves")
    log.on_train_begin()
    log.on_epoch_end(0, {"row": {"epoch": 1, "lr": 0.5}})
    assert "no home folder is known for this user; set HOME to a folder" in capsys.readouterr().out
    assert not (tmp_path / "curves").exists()
