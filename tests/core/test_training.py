"""Training end to end on thirty pictures: records, schedule, resuming, fairness."""
import json
import shutil
import signal
import sys

import numpy as np
import paddle
import pandas as pd
import pytest
from processes import run_python
from safetensors.numpy import load_file

from asymmlib.base import parallel
from asymmlib.base.files import checksum
from asymmlib.callbacks import out_of_patience
from asymmlib.data.sources import prepare
from asymmlib.dataset import ARTICLE_MEAN, ARTICLE_STD, make_loader
from asymmlib.evaluation import Evaluation, evaluate, softmax
from asymmlib.models import create_model
from asymmlib.network import asymmnet_small
from asymmlib.recipes import RECIPES, Recipe
from asymmlib.runs import Run, find_run, list_runs
from asymmlib.training import (
    _build,
    _fit,
    _observers,
    _record,
    _result,
    make_optimizer,
    make_pictures,
    make_schedule,
    run_name,
    train,
    zero_last_gamma,
)
from asymmlib.weights.own import save_weights

TINY = Recipe("tiny", image_size=32, epochs=3, batch_size=8, base_lr=0.05)


@pytest.fixture
def prepared(home, picture_folder):
    return prepare(str(picture_folder))


@pytest.mark.slow
def test_a_run_learns_and_records_itself(prepared, capsys):
    run = train("asymmnet_small", TINY.replace(epochs=6), prepared=prepared)
    history = run.history
    assert list(history["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert {path.name for path in run.folder.iterdir()} >= {
        "run.json", "history.csv", "best.safetensors", "last.safetensors", "visualdl", "checkpoints"}
    info = json.loads((run.folder / "run.json").read_text())
    assert info["recipe"]["seed"] == 0 and info["classes"] == ["blue", "green", "red"]
    assert info["environment"]["packages"]["numpy"] == np.__version__ and info["environment"]["device"]
    assert info["result"]["best_eval_top1"] == pytest.approx(history["eval_top1"].max())
    assert capsys.readouterr().out.count("epoch ") == 6
    _, eval_set = make_pictures(prepared, TINY)
    assert evaluate(run.network("last"), eval_set).top1 == pytest.approx(history["eval_top1"].iloc[-1])
    assert evaluate(run.network("best"), eval_set).top1 == pytest.approx(history["eval_top1"].max())


@pytest.mark.slow
def test_history_holds_means_over_all_pictures(prepared):
    run = train("asymmnet_small", TINY.replace(epochs=1, base_lr=1e-8, augmentation="none", dropout=0.0,
                                               batch_size=24), prepared=prepared)
    train_set, _ = make_pictures(prepared, TINY.replace(augmentation="none"))
    network = create_model("asymmnet_small", 3, dropout=0.0)
    network.set_state_dict({key: paddle.to_tensor(value) for key, value in
                            load_file(run.folder / "last.safetensors").items()})
    network.train()                                    # one batch, and a learning rate that changes nothing
    logits = network(paddle.to_tensor(np.stack([item[0] for item in train_set]))).numpy()
    expected = Evaluation(logits, train_set.labels)
    assert run.history["train_loss"][0] == pytest.approx(expected.loss, rel=1e-3)
    assert run.history["train_top1"][0] == pytest.approx(expected.top1, abs=1 / 24)


@pytest.mark.slow
def test_finished_run_is_opened_and_fresh_trains_again(prepared, capsys):
    first = train("asymmnet_small", TINY, prepared=prepared)
    again = train("asymmnet_small", TINY, prepared=prepared)
    assert "is finished: loaded, not trained" in capsys.readouterr().out
    assert again.info == first.info
    anew = train("asymmnet_small", TINY, prepared=prepared, fresh=True)
    columns = ["train_loss", "eval_loss", "eval_top1"]
    pd.testing.assert_frame_equal(anew.history[columns], first.history[columns])


@pytest.mark.slow
def test_runs_never_overwrite_each_other(prepared):
    train("asymmnet_small", TINY.replace(epochs=1), prepared=prepared, name="mine")
    with pytest.raises(ValueError, match="mine holds a run with another recipe"):
        train("asymmnet_small", TINY.replace(epochs=2), prepared=prepared, name="mine")
    with pytest.raises(ValueError, match="another model"):
        train("asymmnet_large", TINY.replace(epochs=1), prepared=prepared, name="mine")
    for seed in (0, 1):
        train("asymmnet_small", TINY.replace(epochs=1, seed=seed), prepared=prepared)
    assert len(list_runs()) == 3


# Trains in a process that ends itself by kill -9, so many seconds after an epoch, wherever it is then
KILLED = """
import os, signal, sys, threading, time
import asymmlib.training as training
from asymmlib.recipes import Recipe
from asymmlib.data.sources import prepare

data, name, epoch, seconds = sys.argv[1:]
fit = training._fit

def die(folder):
    while int(epoch) and not (folder / f"checkpoints/epoch-{int(epoch):04d}.safetensors").exists():
        time.sleep(0.001)
    time.sleep(float(seconds))
    os.kill(os.getpid(), signal.SIGKILL)

def fit_and_die(run, *arguments):
    threading.Thread(target=die, args=(run.folder,), daemon=True).start()
    return fit(run, *arguments)

training._fit = fit_and_die
training.train("asymmnet_small", Recipe("tiny", image_size=32, epochs=3, batch_size=8, base_lr=0.05),
               prepared=prepare(data), name=name)
"""


def _process(folder, data, epoch=10**6, seconds=0):
    """Train in a process of its own, whole unless `epoch` comes."""
    return run_python("-c", KILLED, data, folder.name, epoch, seconds)


def _kill(folder, data, epoch, seconds):
    """Have a training killed `seconds` after an epoch (0: its start), or earlier where it would be over by then."""
    while True:
        process = _process(folder, data, epoch, seconds)
        if process.returncode == -signal.SIGKILL and not find_run(folder).finished:
            return
        assert process.returncode in (0, -signal.SIGKILL), process.stderr
        shutil.rmtree(folder)
        seconds /= 2


def _assert_same_run(expected, actual):
    for which in ("last", "best"):
        one, two = (load_file(run.folder / f"{which}.safetensors") for run in (expected, actual))
        assert one.keys() == two.keys() and all(one[key].tobytes() == two[key].tobytes() for key in one)
    newest = sorted((expected.folder / "checkpoints").iterdir())[-1].name
    one, two = (load_file(run.folder / "checkpoints" / newest) for run in (expected, actual))
    assert all(one[key].tobytes() == two[key].tobytes() for key in one), "the optimiser's state differs"
    columns = ["epoch", "train_loss", "train_top1", "eval_loss", "eval_top1", "lr"]
    pd.testing.assert_frame_equal(expected.history[columns], actual.history[columns], check_exact=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_runs_killed_at_random_moments_go_on_and_end_bit_for_bit_the_same(home, picture_folder):
    """One moment in each epoch; where in it, a seed decides. All in processes of their own: what other tests have
    loaded into this one may round differently."""
    folder = home / "runs" / "whole"
    done = _process(folder, picture_folder)
    assert done.returncode == 0, done.stderr
    whole = find_run(folder)
    seconds = whole.info["result"]["session_seconds"] / TINY.epochs
    for epoch, share in enumerate(np.random.default_rng(5).uniform(0, 1, TINY.epochs)):
        killed = folder.with_name(f"killed{epoch}")
        _kill(killed, picture_folder, epoch, share * seconds)
        resumed = _process(killed, picture_folder)
        assert resumed.returncode == 0, resumed.stderr
        _assert_same_run(whole, find_run(killed))
        assert not epoch or f"killed{epoch} goes on after epoch" in resumed.stdout


@pytest.mark.slow
def test_torn_checkpoint_falls_back_to_the_one_before(prepared, capsys):
    run = train("asymmnet_small", TINY, prepared=prepared, name="torn")
    expected = load_file(run.folder / "last.safetensors")
    newest = sorted((run.folder / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-1000])
    (run.folder / "run.json").write_text(json.dumps({k: v for k, v in run.info.items() if k != "result"}))
    again = train("asymmnet_small", TINY, prepared=prepared, name="torn")
    output = capsys.readouterr().out
    assert "epoch-0003.safetensors is damaged" in output and "goes on after epoch 2 of 3" in output
    actual = load_file(again.folder / "last.safetensors")
    assert all((expected[key] == actual[key]).all() for key in expected)


def _rates(recipe, epochs, steps):
    schedule, by_epoch = make_schedule(recipe, steps)
    rates = []
    for _ in range(epochs):
        for _ in range(steps):
            rates.append(schedule())
            if not by_epoch:
                schedule.step()
        if by_epoch:
            schedule.step()
    return np.array(rates)


def test_schedule_follows_epochs_and_the_article_s_does_not():
    mended = _rates(RECIPES["article-fixed"], 100, 45)
    cosine = 0.01 * (1 + np.cos(np.pi * np.repeat(np.arange(100), 45) / 100)) / 2
    np.testing.assert_allclose(mended, cosine, rtol=1e-6, atol=1e-12)
    published = _rates(RECIPES["article"], 100, 45)
    assert published[100] < 1e-9 and published[200] == pytest.approx(0.01)  # back at the top after 200 batches


@pytest.mark.slow
def test_fit_steps_the_schedule_once_an_epoch(prepared):
    run = train("asymmnet_small", TINY, prepared=prepared)
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(3) / 3)) / 2
    np.testing.assert_allclose(run.history["lr"], expected, rtol=1e-6)


def test_warm_up_then_cosine_per_batch():
    recipe = Recipe("warm", image_size=32, epochs=4, base_lr=1.0, schedule="warmup-cosine", warmup_epochs=1)
    rates = _rates(recipe, 4, 10)
    np.testing.assert_allclose(rates[:11], np.arange(11) / 10, atol=1e-9)
    assert (np.diff(rates[10:]) < 0).all() and rates[25] == pytest.approx(0.5)


def _shrink(network, recipe):
    """What one step at rate 1 without a gradient leaves of the weights: 1 - weight decay, by parameter name."""
    before = {name: value.numpy().copy() for name, value in network.named_parameters() if not value.stop_gradient}
    (sum(value.sum() for value in network.parameters() if not value.stop_gradient) * 0.0).backward()
    make_optimizer(network, recipe, 1.0).step()
    return {name: float(value.numpy().flat[0] / before[name].flat[0]) for name, value in network.named_parameters()
            if name in before and before[name].flat[0] != 0}


def test_weight_decay_of_the_article_favours_one_side():
    for recipe, expected in (("article", (2e-4, 1e-4)), ("article-fixed", (1e-4, 1e-4))):
        for model, decay in zip(("asymmnet_small", "mobilenet_v2"), expected, strict=True):
            kept = _shrink(create_model(model, 3), RECIPES[recipe])
            np.testing.assert_allclose(list(kept.values()), 1 - decay, atol=2e-6)


def test_no_decay_on_biases_and_batch_norm():
    network = asymmnet_small(num_classes=3)
    shapes = {name: value.ndim for name, value in network.named_parameters()}
    for name, kept in _shrink(network, TINY.replace(weight_decay=0.25, decay_bias_and_norm=False)).items():
        assert kept == pytest.approx(0.75 if shapes[name] > 1 else 1.0, rel=1e-5), name


def test_zero_last_gamma_makes_shortcut_blocks_the_identity():
    network = asymmnet_small(num_classes=3)
    zero_last_gamma(network)
    for block in network.blocks:
        assert bool((block.project.bn.weight == 0).all()) == block.plan.shortcut
    with pytest.raises(ValueError, match="needs a network of asymmetrical bottlenecks"):
        zero_last_gamma(paddle.nn.Linear(2, 2))


def test_exploding_loss_ends_in_plain_words(prepared, monkeypatch):
    class Exploding(paddle.nn.CrossEntropyLoss):
        def forward(self, *arguments):
            return super().forward(*arguments) * float("inf")
    monkeypatch.setattr(paddle.nn, "CrossEntropyLoss", Exploding)
    with pytest.raises(FloatingPointError, match="the loss became inf in epoch 1, batch 1, .* lower base_lr"):
        train("asymmnet_small", TINY, prepared=prepared)


def test_unknown_model_lists_the_known_ones(prepared):
    with pytest.raises(ValueError, match="unknown model 'vgg'; known: asymmnet_large, asymmnet_small, resnet50"):
        train("vgg", TINY, prepared=prepared)
    with pytest.raises(ValueError, match="model 'resnet50' has no setting width"):
        train("resnet50", TINY, width=0.5, prepared=prepared)


def test_evaluation_counts_and_means():
    logits = np.log(np.array([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1]]))
    result = Evaluation(logits, np.array([0, 1, 1]))
    assert result.top1 == pytest.approx(2 / 3)
    assert result.loss == pytest.approx(-np.log([0.7, 0.6, 0.1]).mean())
    assert result.confusion().tolist() == [[1, 0], [1, 1]]
    np.testing.assert_allclose(softmax([[1000.0, 1000.0]]), [[0.5, 0.5]])


def test_find_run_lists_known_runs(home):
    with pytest.raises(FileNotFoundError, match="no run 'x'; known: none yet"):
        find_run("x")


@pytest.mark.parametrize(("tops", "patience", "over"), [
    ([0.1, 0.2, 0.2, 0.1], 2, True), ([0.1, 0.2, 0.2, 0.1], 3, False), ([0.2, 0.2], 1, True), ([0.2], 1, False),
    ([], 1, False), ([0.2] * 50, None, False)])
def test_patience_counts_epochs_without_a_better_top1(tops, patience, over):
    assert out_of_patience([{"eval_top1": top} for top in tops], patience) == over


@pytest.mark.slow
def test_a_run_out_of_patience_ends_and_is_finished(prepared, capsys):
    recipe = TINY.replace(epochs=9, base_lr=1e-8, patience=2)  # a rate at which nothing changes
    run = train("asymmnet_small", recipe, prepared=prepared)
    assert run.finished and len(run.history) < 9 and "stopped: 2 epochs without" in capsys.readouterr().out
    (run.folder / "run.json").write_text(json.dumps({k: v for k, v in run.info.items() if k != "result"}))
    again = train("asymmnet_small", recipe, prepared=prepared)  # killed after its last epoch: no further epoch
    assert len(again.history) == len(run.history)


def test_a_result_is_that_of_the_last_and_of_the_first_best_epoch():
    rows = [{"epoch": number + 1, "eval_top1": top, "eval_loss": 3.0 - number, "seconds": 2.0**number}
            for number, top in enumerate((0.25, 0.5, 0.5, 0.125))]
    assert _result(rows, 99.0) == {
        "last_eval_top1": 0.125, "last_eval_loss": 0.0, "best_eval_top1": 0.5, "best_epoch": 2, "train_seconds": 15.0,
        "session_seconds": 99.0}


def test_a_run_is_named_by_what_makes_it_another():
    recipe = TINY.replace(data="sample", seed=4)
    assert run_name("resnet50", recipe, {}) == "resnet50-tiny-sample-seed4"
    assert run_name("asymmnet_small", recipe, {"width": 0.5, "asymmrate": 2}) == (
        "asymmnet_small-width0.5-asymmrate2-tiny-sample-seed4")


def test_pictures_follow_the_recipe(prepared):
    recipe = TINY.replace(augmentation="rotate-nearest", rotation=30.0, seed=5, train_per_class=2)
    train_set, eval_set = make_pictures(prepared, recipe)
    assert (len(train_set), len(eval_set)) == (6, 6) and (train_set.split, eval_set.split) == ("train", "eval")
    assert (train_set.augmentation, train_set.rotation, train_set.seed) == ("rotate-nearest", 30.0, 5)
    assert eval_set.augmentation == "none" and (train_set.size, eval_set.size) == (32, 32)
    assert (eval_set.mean, eval_set.std) == (train_set.mean, train_set.std) and train_set.mean != ARTICLE_MEAN
    for pictures in make_pictures(prepared, recipe.replace(normalisation="article")):
        assert (pictures.mean, pictures.std) == (ARTICLE_MEAN, ARTICLE_STD)


@pytest.mark.parametrize(("optimizer", "expected"), [
    ("momentum", [1 - 0.5 * 2, 1 - 0.5 * 2 - 0.5 * (0.75 * 2 + 2)]),
    ("nesterov", [1 - 0.5 * (2 + 0.75 * 2), 1 - 0.5 * (2 + 0.75 * 2) - 0.5 * (2 + 0.75 * (0.75 * 2 + 2))])])
def test_two_steps_of_momentum_by_hand(optimizer, expected):
    network, found = paddle.nn.Linear(1, 1, bias_attr=False), []
    paddle.assign(paddle.ones([1, 1]), network.weight)
    stepper = make_optimizer(network, TINY.replace(optimizer=optimizer, momentum=0.75, weight_decay=0.0), 0.5)
    for _ in range(2):
        (2 * network.weight).sum().backward()
        stepper.step()
        stepper.clear_grad()
        found.append(network.weight.item())
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(("rank", "names"), [
    (0, ["Reproducible", "Finite", "EpochLog", "BestModel", "VisualDLLog", "Progress", "LRScheduler", "EarlyStop",
         "Checkpoint"]),
    (1, ["Reproducible", "Finite", "EpochLog", "LRScheduler", "EarlyStop"])])
def test_callbacks_stand_in_their_order_and_only_rank_0_writes(prepared, monkeypatch, rank, names):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
    train_set, eval_set = make_pictures(prepared, TINY)
    run = Run(prepared.folder / "run", {"model": "x"})
    observers, log = _observers(run, TINY, make_loader(train_set, 8), eval_set, [], True)
    assert [type(observer).__name__ for observer in observers] == names and observers[2] is log
    assert _record(run, extra=1).info == {"model": "x", "extra": 1}
    assert (run.folder / "run.json").exists() == (rank == 0)


@pytest.mark.parametrize("wanted", [False, True])
def test_last_gammas_are_zero_only_where_the_recipe_says_so(wanted):
    recipe = TINY.replace(zero_last_gamma=wanted, dropout=0.5)
    network = _build("asymmnet_small", ("a", "b", "c"), {"width": 0.5}, recipe, None, False)
    found = {bool((block.project.bn.weight == 0).all()) for block in network.blocks if block.plan.shortcut}
    assert found == {wanted} and (network.width, network.dropout.p) == (0.5, 0.5)


RESULT = {"last_eval_top1": 0.5, "best_eval_top1": 0.75}


@pytest.mark.slow
def test_a_run_from_other_weights_is_another_run(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("asymmlib.training._fit", lambda run, *others: run.write(result=RESULT))
    starts = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for number, path in enumerate(starts):
        paddle.seed(number)
        save_weights(asymmnet_small(num_classes=3), path)

    def run(start, **others):
        return train("asymmnet_small", TINY, prepared=prepared, name="mine", start=start, **others)

    assert run(starts[0]).info["start"] == {"sha256": checksum(starts[0]), "new_head": False}
    assert run(starts[0]).finished
    for start, others in ((starts[1], {}), (starts[0], {"new_head": True}), (None, {})):
        with pytest.raises(ValueError, match="mine holds a run with another start .*: give this run another name"):
            run(start, **others)
    assert run(starts[1], fresh=True).info["start"]["sha256"] == checksum(starts[1])
    with pytest.raises(ValueError, match="new_head .--new-head. needs start"):
        run(None, new_head=True)


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_loads_its_share_of_the_same_shuffled_batches(prepared, monkeypatch, rank):
    class LoadedError(Exception):
        pass

    def load(*arguments, **settings):
        raise LoadedError(make_loader(*arguments, **settings).batch_sampler)

    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
    monkeypatch.setattr(parallel, "_barrier", lambda: None)
    monkeypatch.setattr("asymmlib.training.make_loader", load)
    with pytest.raises(LoadedError) as caught:
        _fit(Run(prepared.folder / "run", {}), TINY.replace(seed=6), prepared, lambda: None)
    (sampler,) = caught.value.args
    assert (sampler.rank, sampler.ranks, sampler.batch_size, sampler.seed) == (rank, 2, 8, 6) and sampler.shuffled


def test_data_that_nobody_prepared_is_that_of_the_recipe(home, monkeypatch):
    asked = []

    def prepare_data(*arguments, **settings):
        asked.append((arguments, settings))
        raise LookupError

    monkeypatch.setattr("asymmlib.training.prepare", prepare_data)
    with pytest.raises(LookupError):
        train("asymmnet_small", TINY.replace(data="mine", test_share=True))
    assert asked == [(("mine",), {"test_share": True})]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_fast_kernels_are_asked_for_where_the_recipe_wants_them(prepared, monkeypatch, wanted):
    asked = []
    monkeypatch.setattr("asymmlib.training.accelerate", lambda network, optimizer: asked.append(network))
    monkeypatch.setattr("asymmlib.training.load_checkpoint", lambda *others: 1 / 0)  # far enough
    monkeypatch.setattr(paddle.device, "get_device", lambda: "cpu")
    with pytest.raises(ZeroDivisionError):
        _fit(Run(prepared.folder / "run", {}), TINY.replace(accelerate=wanted), prepared,
             lambda: paddle.nn.Linear(2, 2))
    assert len(asked) == wanted
