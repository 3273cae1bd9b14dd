"""The command line: the same work as the functions, and mistakes answered in one line."""
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from asymmlib.__main__ import COMMANDS, PROMISES, console, main
from asymmlib.base.commands import make_parser
from asymmlib.recipes import RECIPES, Recipe


@pytest.mark.slow
def test_prepare_train_evaluate_predict(home, picture_folder, capsys):
    data = str(picture_folder)
    assert main(["prepare", "--data", data]) == 0
    assert "30 pictures in 3 classes" in capsys.readouterr().out
    small = ["--epochs", "2", "--image-size", "32", "--batch-size", "8"]
    assert main(["train", "--data", data, "--model", "asymmnet_small", "--name", "first", *small]) == 0
    assert "eval top-1" in capsys.readouterr().out
    assert main(["evaluate", "first", "--data", data]) == 0
    assert "on 6 eval pictures" in capsys.readouterr().out
    picture = next((picture_folder / "red").iterdir())
    assert main(["predict", "--run", "first", str(picture), "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(picture) and len(lines) == 3 and all("%" in line for line in lines[1:])


def test_evaluate_refuses_other_classes(home, picture_folder, capsys):
    main(["train", "--data", str(picture_folder), "--model", "asymmnet_small", "--name", "first", "--epochs", "1",
          "--image-size", "32"])
    (picture_folder / "red").rename(picture_folder / "rose")
    assert main(["evaluate", "first", "--data", str(picture_folder)]) == 2
    assert "knows other classes" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    (["train", "--recipe", "fast"], "unknown recipe 'fast'; known: quick"),
    (["train", "--model", "alexnet", "--data", "{data}"], "unknown model 'alexnet'; known: asymmnet_large"),
    (["prepare", "--data", "{data}/nowhere"], "nowhere"),
    (["evaluate", "nothing"], "nothing: no run, no released network and no file of weights is called so"),
    (["evaluate"], "say which network to measure, with --from"),
    (["predict", "--run", "nothing", "x.jpg"], "nothing: no run, no released network"),
    (["predict", "--from", "asymmnet_small", "--weights", "best", "x.jpg"], "asymmnet_small is no run"),
    (["export", "--from", "asymmnet_small"], "say where to write, with --to FOLDER"),
    (["bench-infer", "--weights", "best"], "name the run with --from"),
    (["train", "--data", "{data}", "--epochs", "0"], "epochs is 0"),
])
def test_mistakes_end_in_one_line(home, picture_folder, capsys, arguments, message):
    assert main([argument.format(data=picture_folder) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error


@pytest.mark.slow
def test_predict_names_a_file_that_is_no_picture(home, picture_folder, capsys, tmp_path):
    main(["train", "--data", str(picture_folder), "--model", "asymmnet_small", "--name", "first", "--epochs", "1",
          "--image-size", "32"])
    (tmp_path / "text.jpg").write_text("no picture")
    assert main(["predict", "--run", "first", str(tmp_path / "text.jpg")]) == 2
    assert "text.jpg is not a readable picture" in capsys.readouterr().err


@pytest.mark.slow
def test_models_lists_counts(capsys):
    assert main(["models", "--classes", "1000"]) == 0
    output = capsys.readouterr().out
    assert "6,076,608" in output and "MobileNetV3-Large" in output


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains(command):
    result = subprocess.run([sys.executable, "-m", "asymmlib", command, "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and len(result.stdout) > 200


@pytest.mark.slow
def test_help_tells_the_true_defaults():
    """Where help says "(default 16)", 16 it is; None is left to the function that a command calls."""
    (commands,) = (action for action in make_parser(COMMANDS, "x", "y")._actions if action.choices)
    told = {}
    for command, parser in commands.choices.items():
        for action in parser._actions:
            for said in re.findall(r"\(default (.+?)\)", action.help or ""):
                default = action.default if isinstance(action.default, list) else [action.default]
                told[command, action.dest] = said == " ".join(map(str, default)) or action.default is None
    assert all(told.values()) and {("models", "classes"), ("models", "size"), ("bench-infer", "model"),
                                   ("bench-infer", "batch"), ("train", "model")} <= set(told)


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """What a command asks for: the arguments of `prepare`, `train`, `open_classifier`, none of which does anything."""
    made = {}

    def note(name, result):
        def noted(*arguments, **settings):
            made[name] = (arguments, settings)
            return result
        return noted

    result = {"last_eval_top1": 0.25, "best_eval_top1": 0.5, "best_epoch": 2}
    evaluation = SimpleNamespace(labels=[0, 0], loss=1.25, top1=0.5)
    classifier = SimpleNamespace(evaluate=note("evaluate", evaluation), classes=("ant", "bee", "cat"), name="r",
                                 image_size=64, network="the network", batch=2, none_below=None,
                                 provenance={"weights": "last"}, folder=tmp_path,
                                 probabilities=lambda pixels: np.array([[0.2, 0.7, 0.1]] * len(pixels)))
    run = SimpleNamespace(info={"result": result}, folder=Path("runs/r"), name="r")
    monkeypatch.setattr("asymmlib.data.sources.prepare", note("prepare", SimpleNamespace(name="data")))
    monkeypatch.setattr("asymmlib.training.train", note("train", run))
    monkeypatch.setattr("asymmlib.records.classifiers.open_classifier", note("open", classifier))
    monkeypatch.delenv("ASYMMLIB_RECIPE", raising=False)
    return made


def test_train_passes_everything_on(calls, capsys):
    data = ["--data", "d", "--archive", "a", "--test-share", "--on-error", "skip", "--names-encoding",
            "cp932"]
    changes = ["--epochs", "40", "--warmup-epochs", "4", "--seed", "7", "--batch-size", "8", "--image-size", "64",
               "--base-lr", "0.5", "--amp", "--frozen-epochs", "3", "--backbone-rate", "0.1"]
    assert main(["train", *data, *changes, "--recipe", "laptop", "--model", "m", "--width", "0.5", "--asymmrate", "2",
                 "--name", "n", "--start", "s", "--new-head", "--fresh"]) == 0
    assert calls["prepare"] == (("d",), {"archive": "a", "on_error": "skip", "test_share": True,
                                          "names_encoding": "cp932"})
    (model, recipe), settings = calls["train"]
    assert model == "m" and recipe == RECIPES["laptop"].replace(
        epochs=40, warmup_epochs=4, seed=7, batch_size=8, image_size=64, base_lr=0.5, amp=True,
        frozen_epochs=3, backbone_rate=0.1)
    assert settings.pop("prepared").name == "data" and settings == {
        "width": 0.5, "asymmrate": 2, "name": "n", "fresh": True, "start": "s", "new_head": True}
    assert capsys.readouterr().out == ("runs/r: eval top-1 25.0% after the last epoch, best 50.0% in epoch 2\n")


def test_train_leaves_the_recipe_as_it_is(calls, monkeypatch):
    recipe = Recipe("mixed", image_size=32, epochs=2, amp=True, test_share=True, data="own")
    monkeypatch.setitem(RECIPES, "mixed", recipe)
    assert main(["train", "--recipe", "mixed"]) == 0
    assert calls["train"][0] == ("asymmnet_large", recipe)
    assert calls["prepare"] == (("own",), {"archive": None, "on_error": "error", "test_share": True,
                                            "names_encoding": None})
    assert main(["train"]) == 0 and calls["train"][0][1] == RECIPES["quick"]
    assert calls["prepare"][1]["test_share"] is False and not calls["train"][1]["fresh"]


@pytest.mark.parametrize(("arguments", "which", "split", "share"), [
    (["r"], None, "eval", False), (["--from", "r", "--split", "test"], None, "test", True),
    (["r", "--weights", "best", "--split", "train", "--test-share"], "best", "train", True)])
def test_evaluate_asks_for_the_split(calls, capsys, arguments, which, split, share):
    assert main(["evaluate", "--data", "d", *arguments]) == 0
    assert calls["prepare"] == (("d",), {"archive": None, "on_error": "error", "test_share": share,
                                          "names_encoding": None})
    assert calls["open"][0] == ("r", which) and calls["evaluate"][0][1] == split
    assert capsys.readouterr().out == f"r (last) on 2 {split} pictures of data: loss 1.2500, top-1 50.00%\n"


def test_predict_prints_the_most_probable_first(calls, capsys, tmp_path):
    picture = str(tmp_path / "p.png")
    Image.new("RGB", (8, 8)).save(picture)
    assert main(["predict", picture, "--top", "2"]) == 0
    assert calls["open"][0] == (None, None)
    assert capsys.readouterr().out == f"{picture}\n   70.0%  bee\n   20.0%  ant\n"
    for name in ("--from", "--run", "--model"):  # the last two are of earlier versions
        assert main(["predict", picture, name, "r", "--weights", "best"]) == 0
        assert calls["open"][0] == ("r", "best") and len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize(("arguments", "message"), [
    (["predict", "p.jpg", "--top", "0"], "'0' is no integer of at least 1"),
    (["predict", "p.jpg", "--top", "some"], "'some' is no integer of at least 1"),
    (["predict", "p.jpg", "--run", "a", "--model", "b"], "'a' and 'b' are two answers to one question"),
    (["predict", "p.jpg", "--json", "--csv"], "not allowed with"),
    (["evaluate", "a", "--from", "b"], "'a' and 'b' are two answers to one question"),
    (["export", "--from", "b", "a"], "two answers to one question"),
    (["bench-infer", "--from", "a", "--model", "b"], "not allowed with"),
    (["predict", "p.jpg", "--weights", "middle"], "choose from")])
def test_options_that_exclude_each_other(calls, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and message in capsys.readouterr().err and not calls


def test_export_lists_what_it_wrote(calls, capsys, monkeypatch, tmp_path):
    def export(classifier, folder, uint8, free_size):
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_bytes(bytes(2_500_000))
        asked.append((uint8, free_size))
        return {"onnx": 2e-5}

    asked = []
    monkeypatch.setattr("asymmlib.deploy.export.export_classifier", export)
    assert main(["export", "r", "--weights", "best", "--to", str(tmp_path / "to")]) == 0
    assert calls["open"][0] == ("r", "best")
    assert capsys.readouterr().out == (f"    2.50 MB  {tmp_path}/to/weights\n"
                                       "onnx             differs from the eager logits by 2.0e-05\n")
    assert main(["export", "--from", "r", "--uint8", "--free-size"]) == 0
    assert f"{tmp_path}/export/weights" in capsys.readouterr().out and asked == [(False, False), (True, True)]


def test_bench_infer_prints_its_table(calls, capsys, monkeypatch, tmp_path):
    from asymmlib.deploy import timing
    asked, columns = [], ["engine", "batch", "p50_ms", "p90_ms", "p99_ms", "images_per_s", "ratio", "ratio_low",
                          "ratio_high", "difference"]
    table = pd.DataFrame([["eager", 1, 12.3456, 20.0, 30.0, 81.0, 1.0, 0.9, 1.1, 0.0, "cpu"]], columns=[*columns, "z"])
    monkeypatch.setattr(timing, "measure", lambda *what, **how: asked.append((what, how)) or table)
    monkeypatch.setattr(timing, "available", lambda: (["eager"], {"onnx": "not installed"}))
    monkeypatch.setattr(timing, "write", lambda table, path: f"written to {path}")
    assert main(["bench-infer", "--to", "t.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert asked == [(("asymmnet_large", 224, [1, 32], 10), {"names": None, "network": None})]
    assert lines[0] == "left out: onnx: not installed" and lines[1].split() == columns
    assert lines[2].split()[:4] == ["eager", "1", "12.3", "20"] and lines[3:] == ["written to t.csv"]
    main(["bench-infer", "--model", "m", "--size", "64", "--batch", "2", "--rounds", "3", "--engines", "eager"])
    assert asked[1] == (("m", 64, [2], 3), {"names": ["eager"], "network": None})
    assert "left out" not in capsys.readouterr().out
    assert main(["bench-infer", "--from", "r"]) == 0 and calls["open"][0] == ("r", None)
    assert asked[2] == (("r", 64, [1, 32], 10), {"names": None, "network": "the network"})


def test_the_script_ends_with_the_status_of_its_command(monkeypatch):
    monkeypatch.setattr("asymmlib.__main__.main", lambda: 3)
    monkeypatch.setattr("asymmlib.base.interrupts.ignore", lambda: None)
    with pytest.raises(SystemExit) as ended:
        console()
    assert ended.value.code == 3


def test_what_is_promised_is_promised_of_commands():
    assert set(PROMISES) <= set(COMMANDS)
