"""Two processes do what one does: the same weights, the same evaluation, one writer, and a way back from a loss."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import paddle
import pandas as pd
import pytest
from safetensors.numpy import load_file

from asymmlib.base import parallel
from asymmlib.data.sources import prepare
from asymmlib.dataset import EpochSampler
from asymmlib.recipes import Recipe
from asymmlib.training import train

ROOT = Path(parallel.__file__).parents[2]
JOB = Path(__file__).with_name("parallel_job.py")


@pytest.fixture(autouse=True)
def sigterm():
    """The handler of before: what tells a loss leaves SIGTERM ignored, in a process that is about to end."""
    before = signal.getsignal(signal.SIGTERM)
    yield before
    signal.signal(signal.SIGTERM, before)


def alone(function):
    """Leave the exchange between processes out of a function of `parallel`: the sum over one process."""
    def wrapped(monkeypatch):
        monkeypatch.setattr(parallel, "_sum", lambda tensor: tensor.clone())
        function()

    wrapped.__name__ = function.__name__
    return wrapped


@alone
def test_a_shared_norm_of_one_process_is_batch_norm():
    paddle.seed(0)
    plain, shared = paddle.nn.BatchNorm2D(3), paddle.nn.Sequential(paddle.nn.BatchNorm2D(3))
    parallel.share_norms(shared)
    assert type(shared[0]) is parallel.SharedNorm
    pictures, weights = paddle.randn([4, 3, 5, 6]) * 3 + 2, paddle.randn([4, 3, 5, 6])
    found = []
    for layer, norm in ((plain, plain), (shared, shared[0])):
        x = pictures.clone().detach()
        x.stop_gradient = False
        y = layer(x)
        (y * weights).sum().backward()
        found.append([y, x.grad, norm.weight.grad, norm.bias.grad, norm._mean, norm._variance])
        layer.eval()
        found[-1].append(layer(pictures))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ranks", [2, 3])
def test_shares_of_a_batch_make_up_the_batch(ranks):
    pictures = list(range(24))
    whole = list(EpochSampler(pictures, 9, shuffle=True, seed=4))
    parts = [list(EpochSampler(pictures, 9, True, 4, rank, ranks)) for rank in range(ranks)]
    assert [list(chain(*shares)) for shares in zip(*parts, strict=True)] == whole
    assert max(len(a) - len(b) for shares in zip(*parts, strict=True) for a in shares for b in shares) <= 1


def test_a_last_batch_smaller_than_the_processes():
    with pytest.raises(ValueError, match="25 pictures in batches of 8 leave 1 for the last batch, fewer than the 2"):
        EpochSampler(range(25), 8, ranks=2)


@pytest.mark.parametrize("ranks", [1, 2, 4, 5])
def test_each_picture_is_evaluated_once(monkeypatch, ranks):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", str(ranks))
    pictures, parts = [(np.float32(number),) for number in range(9)], []
    for rank in range(ranks):
        monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
        parts.append(np.stack([item[0] for item in parallel.share(pictures)]))
    assert len({len(part) for part in parts}) == 1

    def all_gather(found, tensor):
        found.extend(paddle.to_tensor(part) for part in parts)

    monkeypatch.setattr(parallel.distributed, "all_gather", all_gather)
    monkeypatch.setattr(parallel, "_start", lambda: None)
    assert parallel.gather(parts[0], 9).tolist() == list(range(9))


def test_one_process_exchanges_nothing(monkeypatch):
    monkeypatch.delenv("PADDLE_TRAINERS_NUM", raising=False)
    monkeypatch.setattr(parallel, "_start", lambda: pytest.fail("a process group for one process"))
    rows, values = np.ones(3), [1.5, 2.5]
    assert parallel.share(rows) is rows and parallel.gather(rows, 3) is rows and parallel.mean(values, 7) is values
    with parallel.in_turn(parallel.rank()), parallel.lost_rank_told():
        pass


def test_only_the_loss_of_a_connection_is_called_that(monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with pytest.raises(RuntimeError, match="process 0 of 2 lost another one.*the same command goes on from the last"), \
            parallel.lost_rank_told():
        raise RuntimeError("gloo/transport/tcp/pair.cc:584 TIMEOUT")
    with pytest.raises(RuntimeError, match="^shapes differ$"), parallel.lost_rank_told():
        raise RuntimeError("shapes differ")


def test_processes_that_differ_are_told_which_fact(monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setattr(parallel, "_exchange", lambda facts: [facts, {**facts, "recipe": {"epochs": 3}}])
    with pytest.raises(ValueError, match="recipe is {'epochs': 2} in process 0 and {'epochs': 3} in process 1.*same"):
        parallel.agree({"model": "x", "recipe": {"epochs": 2}})
    monkeypatch.setattr(parallel, "_exchange", lambda facts: [facts, facts])
    parallel.agree({"model": "x"})


def test_what_rank_0_finds_wrong_ends_all(monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    monkeypatch.setattr(parallel, "_exchange", lambda answer: [{"error": "not this folder"}, answer])
    with pytest.raises(ValueError, match="not this folder"):
        parallel.from_first(lambda: pytest.fail("asked of another process than the first"))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM is POSIX")
def test_a_launcher_that_is_first_to_see_the_loss_is_understood(monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with pytest.raises(RuntimeError, match="process 0 of 2 lost another one.*SIGTERM"), parallel.lost_rank_told():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    os.kill(os.getpid(), signal.SIGTERM)  # the launcher's second: it may not cut off the message


def test_a_loss_that_the_network_tells_is_not_cut_off_either(monkeypatch, sigterm):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with parallel.lost_rank_told():
        pass
    assert signal.getsignal(signal.SIGTERM) == sigterm
    with pytest.raises(RuntimeError, match="process 0 of 2 lost another one"), parallel.lost_rank_told():
        raise RuntimeError("gloo: connection reset")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


@pytest.mark.slow
def test_mixed_precision_on_a_cpu_is_off_and_said(home, picture_folder, capsys):
    if paddle.device.get_device() != "cpu":
        pytest.skip("this device has float16")
    recipe = Recipe("mixed", image_size=32, epochs=1, batch_size=12, amp=True)
    run = train("asymmnet_small", recipe, prepared=prepare(str(picture_folder)))
    assert "amp: cpu has no float16" in capsys.readouterr().out and run.finished


def test_a_run_from_before_a_field_existed_is_still_known(home, picture_folder):
    prepared, recipe = prepare(str(picture_folder)), Recipe("old", image_size=32, epochs=1, batch_size=12)
    run = train("asymmnet_small", recipe, prepared=prepared)
    stored = json.loads((run.folder / "run.json").read_text())
    del stored["recipe"]["amp"]
    (run.folder / "run.json").write_text(json.dumps(stored))
    assert train("asymmnet_small", recipe, prepared=prepared).finished
    with pytest.raises(ValueError, match="holds a run with another recipe"):
        train("asymmnet_small", recipe.replace(amp=True), prepared=prepared)


# --- with Paddle's launcher

@pytest.fixture(scope="module")
def place(tmp_path_factory, write_colours):
    """Eleven pictures a class: 24 to train, 9 to evaluate, which two processes cannot halve."""
    root = tmp_path_factory.mktemp("parallel")
    write_colours(root / "pictures", 11)
    return root


def run_job(place, name, *options, processes=2):
    """The job's exit status, what it printed, what its second process printed, and the folder of its run."""
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes), "--log_dir", place / name]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PADDLE_")}
    environment |= {"ASYMMLIB_HOME": str(place / "data"), "ASYMMLIB_RUNS": str(place / "runs"),
                    "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *(launch if processes > 1 else []), JOB, place / "pictures", name,
                           *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500)
    # the launcher passes on what the first process says, but not what it says last: its own log has all
    logs = [place / name / f"workerlog.{number}" for number in range(2)]
    first, second = (log.read_text() if log.is_file() else "" for log in logs)
    return done.returncode, done.stdout.decode() + first, second, place / "runs" / name


def printed(text, key):
    return json.loads(next(line for line in text.splitlines() if line.startswith(key)).removeprefix(key))


def job(place, name, *options, processes=2):
    """What `run_job` says of a job that has to end well: what both processes printed, and the folder."""
    status, *found = run_job(place, name, *options, processes=processes)
    assert status == 0, found[0]
    return found


@pytest.fixture(scope="module")
def two(place):
    return job(place, "two")


@pytest.fixture(scope="module")
def single(place):
    """Folders of one process's runs: in float64, and in float32 with each picture of a batch as its first."""
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(job, place, name, *options, processes=1) for name, *options in
                (("exact", "--float64"), ("one", "--shifts", *map(str, range(9))))]
    exact, one = (job.result()[-1] for job in jobs)
    return exact, [one.with_name(f"one-{shift}") for shift in range(9)]


def differences(one, other):
    """Largest difference of trained weights, of batch norm's running averages, and of the losses of all epochs."""
    a, b = (load_file(folder / "last.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    running = [name for name in a if name.endswith(("_mean", "_variance"))]
    losses = [pd.read_csv(folder / "history.csv")[["train_loss", "eval_loss"]].to_numpy() for folder in (one, other)]
    return np.array([*(max(np.abs(a[name].astype("float64") - b[name]).max() for name in names)
                       for names in (a.keys() - set(running), running)), np.abs(losses[0] - losses[1]).max()])


@pytest.mark.serial
def test_two_processes_give_the_weights_and_the_evaluation_of_one(place, single):
    """In float64, where rounding is far below anything that a mistake in the exchange does."""
    exact, _ = single
    *_, folder = job(place, "exact-two", "--float64")
    assert differences(exact, folder).max() <= 1e-10
    columns = ["epoch", "train_top1", "eval_top1", "lr"]
    histories = [pd.read_csv(path / "history.csv")[columns] for path in (exact, folder)]
    pd.testing.assert_frame_equal(*histories)
    right = histories[1]["eval_top1"] * 9
    assert (right - right.round()).abs().max() < 1e-5, "not counts of nine pictures"


@pytest.mark.serial
def test_two_processes_in_float32_round_as_one_does(two, single):
    """A value that rounding moves over ReLU's kink is found in all weights: the yardstick is what the order does."""
    exact, orders = single
    spread = np.max([differences(folder, exact) for folder in orders], axis=0)
    first, second, folder = two
    assert (differences(folder, exact) <= 3 * spread).all()
    results = [printed(output, "RESULT ") for output in (first, second)]
    timeless = [{key: value for key, value in result.items() if "seconds" not in key} for result in results]
    assert timeless[0] == timeless[1], "both processes know the result"


@pytest.mark.serial
def test_only_rank_0_writes(two):
    first, second, folder = two
    assert any("last.safetensors" in path for path in printed(first, "WROTE "))
    assert printed(second, "WROTE ") == []
    assert json.loads((folder / "run.json").read_text())["processes"] == 2


@pytest.mark.serial
def test_a_lost_process_ends_the_job_with_a_message_and_it_goes_on(place, two):
    status, first, _, folder = run_job(place, "lost", "--death", "1")
    assert status != 0
    assert "process 0 of 2 lost another one" in first and "the same command goes on from the last finished" in first
    assert [path.name for path in sorted(folder.glob("checkpoints/*"))] == ["epoch-0001.safetensors"]
    assert "result" not in json.loads((folder / "run.json").read_text())
    status, first, _, folder = run_job(place, "lost")
    assert status == 0 and "goes on after epoch 1 of 2" in first, first
    assert differences(folder, two[2]).max() == 0


@pytest.mark.serial
def test_machines_that_do_not_share_the_runs_folder_end_with_one_message(place, two):
    folder = two[2].with_name("apart")
    shutil.copytree(two[2], folder)
    (folder / "checkpoints" / "epoch-0002.safetensors").unlink()
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({key: value for key, value in info.items() if key != "result"}))
    status, first, second, _ = run_job(place, "apart", "--apart")
    message = "the last finished epoch is 1 in process 0 and 0 in process 1. All have to see the same runs' folder"
    assert status != 0 and message in first and (message in second or "lost another one" in second)
    assert not (place / "runs-of-1").exists() and "result" not in json.loads((folder / "run.json").read_text())
