"""Released weights: the best run by eval, no accuracy lost, and what they claim is what they do."""
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from asymmlib import evidence, experiments, release
from asymmlib.__main__ import main
from asymmlib.dataset import load_picture, normalise
from asymmlib.experiments import Planned, collect_experiments
from asymmlib.paths import project_root
from asymmlib.recipes import Recipe
from asymmlib.results import read_pictures, read_predictions, read_results
from asymmlib.sources import prepare

MAX_BYTES = 25_000_000  # of all released files together


@pytest.fixture
def recorded(home, picture_folder, monkeypatch):
    """Two seeds of the small network and one of the others, trained for an epoch and recorded."""
    recipe = Recipe("tiny", image_size=32, epochs=1, batch_size=8, data=str(picture_folder), test_share=True)
    plan = [Planned("compare", model, recipe.replace(seed=seed), release.RELEASED[model]) for model, seed in (
        ("asymmnet_small", 0), ("asymmnet_small", 1), ("asymmnet_large", 0), ("mobilenet_v2", 0))]
    for module in (experiments, evidence):
        monkeypatch.setattr(module, "PLAN", plan)
    for module in ("experiments", "results"):
        monkeypatch.setattr(f"asymmlib.{module}.results_dir", lambda: home / "results")
    monkeypatch.setattr(release, "weights_dir", lambda: home / "weights")
    for planned in plan:
        experiments._train_and_measure(planned)
    collect_experiments()
    return home


def test_the_best_run_by_eval_is_written_and_predict_uses_it(recorded, picture_folder, capsys):
    table = read_results()["runs"].set_index("run")
    infos = release.release()
    for model, info in infos.items():
        same = table[table["model"] == model]
        assert info["run"] == same["best_eval_top1"].idxmax() and info["candidates"] == len(same)
        assert info["accuracy"]["test"]["top1"] == pytest.approx(same["best_test_top1"][info["run"]])
        network, stored = release.load_released(model)
        assert stored == info and not network.training
    card = (recorded / "weights" / "README.md").read_text(encoding="utf-8")
    assert card == release.model_card(infos) and infos["asymmnet_small"]["run"] in card
    picture = next((picture_folder / "red").iterdir())
    capsys.readouterr()
    assert main(["predict", "--model", "asymmnet_small", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(picture) and {line.split()[1] for line in lines[1:]} == {"blue", "green", "red"}


def test_float16_only_where_no_accuracy_changes(recorded, monkeypatch):
    measure = release._measure

    def worse(run, tensors, prepared):
        measured = measure(run, tensors, prepared)
        if any(value.dtype == np.float16 for value in tensors.values()):
            measured["test"]["right"] -= 1
        return measured
    for answer, dtype in ((measure, "float16"), (worse, "float32")):
        monkeypatch.setattr(release, "_measure", answer)
        info = release.release()["asymmnet_small"]
        stored = load_file(recorded / "weights" / "asymmnet_small.safetensors")
        assert info["dtype"] == dtype == str(stored["classifier.weight"].dtype)
        assert all(value.dtype == np.float32 for value in stored.values() if value.ndim == 1)


def test_what_is_missing_is_said(recorded, capsys):
    with pytest.raises(FileNotFoundError, match="no released weights at .*--run names a run of your own"):
        release.load_released("asymmnet_large")
    with pytest.raises(ValueError, match="no released weights of 'vgg19'; there are: asymmnet_large"):
        release.load_released("vgg19")
    shutil.rmtree(recorded / "results")
    assert main(["release"]) == 2
    assert "no run of asymmnet_large is recorded" in capsys.readouterr().err


@pytest.mark.parametrize("model", release.RELEASED)
def test_the_weights_of_the_book_are_those_that_are_recorded(model):
    _, info = release.load_released(model)
    row = read_results()["runs"].set_index("run").loc[info["run"]]
    runs = evidence.recorded("compare")
    rivals = runs[(runs["model"] == model) & (runs["settings"] == json.dumps(release.RELEASED[model]))]
    assert info["run"] == rivals.loc[rivals["best_eval_top1"].idxmax(), "run"] and info["candidates"] == len(rivals)
    for split in ("eval", "test"):
        assert info["accuracy"][split]["top1"] == pytest.approx(row[f"best_{split}_top1"])
    assert info["manifest_sha256"] == row["manifest_sha256"]
    assert info["classes"] == list(dict.fromkeys(read_pictures("test")["class"]))


def test_the_files_are_small_and_the_card_is_fresh():
    folder = release.weights_dir()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MAX_BYTES
    infos = {model: release.load_released(model)[1] for model in release.RELEASED}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == release.model_card(infos), "stale: python -m asymmlib release writes it anew"
    assert {path.name for path in folder.iterdir()} == {
        "README.md", *(f"{model}.{suffix}" for model in infos for suffix in ("json", "safetensors"))}
    assert folder == project_root() / "weights"


@pytest.mark.parametrize("model", release.RELEASED)
def test_the_weights_reach_what_their_card_says(caltech16, model):
    """On the real test pictures, where they are at hand: the same answers as recorded."""
    import paddle
    network, info = release.load_released(model)
    pictures = read_pictures("test")
    files = caltech16.manifest.set_index("name")["path"]
    pixels = np.stack([load_picture(caltech16.images / files[name], info["image_size"]) for name in pictures["name"]])
    with paddle.no_grad():
        predicted = network(paddle.to_tensor(normalise(pixels, info["mean"], info["std"]))).numpy().argmax(axis=1)
    labels = pictures["class"].map(info["classes"].index).to_numpy()
    assert (predicted == labels).sum() == info["accuracy"]["test"]["right"]
    assert (predicted == read_predictions(info["run"])["predicted"]).mean() > 0.98


def test_the_recorded_manifest_is_the_one_that_the_rule_gives(caltech16, monkeypatch):
    from asymmlib.split import manifest_hash
    monkeypatch.setenv("ASYMMLIB_HOME", str(caltech16.folder.parent))
    manifest = prepare("caltech16", test_share=True, progress=False).manifest
    claimed = {release.load_released(model)[1]["manifest_sha256"] for model in release.RELEASED}
    assert {manifest_hash(manifest)} == claimed
    held_out = manifest[manifest["split"] == "test"]
    assert list(held_out["name"]) == list(read_pictures("test")["name"])
