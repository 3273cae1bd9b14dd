"""The command line: the same work as the functions, and mistakes answered in one line."""
import subprocess
import sys

import pandas as pd
import pytest

from asymmbook.evidence.results import collect, read_results
from asymmlib.__main__ import COMMANDS, main


def test_prepare_train_evaluate_predict(home, picture_folder, capsys, tmp_path):
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
    table = collect(["first"], tmp_path / "results")
    assert list(table["run"]) == ["first"] and table["params"][0] > 1e6
    collect(["first"], tmp_path / "results")           # again: replaced, not doubled
    assert len(read_results(tmp_path / "results")["runs"]) == 1
    assert list(read_results(tmp_path / "results")["curves"]["epoch"]) == [1, 2]


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
    (["evaluate", "nothing"], "no run 'nothing'"),
    (["predict", "--run", "nothing", "x.jpg"], "no run 'nothing'"),
    (["train", "--data", "{data}", "--epochs", "0"], "epochs is 0"),
])
def test_mistakes_end_in_one_line(home, picture_folder, capsys, arguments, message):
    assert main([argument.format(data=picture_folder) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error


def test_predict_names_a_file_that_is_no_picture(home, picture_folder, capsys, tmp_path):
    main(["train", "--data", str(picture_folder), "--model", "asymmnet_small", "--name", "first", "--epochs", "1",
          "--image-size", "32"])
    (tmp_path / "text.jpg").write_text("no picture")
    assert main(["predict", "--run", "first", str(tmp_path / "text.jpg")]) == 2
    assert "text.jpg is not a readable picture" in capsys.readouterr().err


def test_models_lists_counts(capsys):
    assert main(["models", "--classes", "1000"]) == 0
    output = capsys.readouterr().out
    assert "6,076,608" in output and "MobileNetV3-Large" in output


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains(command):
    result = subprocess.run([sys.executable, "-m", "asymmlib", command, "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and len(result.stdout) > 200


def test_unfinished_runs_are_not_recorded(home, picture_folder, tmp_path):
    from asymmlib.runs import find_run
    main(["train", "--data", str(picture_folder), "--model", "asymmnet_small", "--name", "first", "--epochs", "1",
          "--image-size", "32"])
    run = find_run("first")
    run.info.pop("result")
    run.write()
    with pytest.raises(ValueError, match="not finished: first"):
        collect(["first"], tmp_path)
    assert isinstance(read_results(tmp_path)["runs"], pd.DataFrame)
