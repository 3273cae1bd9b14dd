"""Released weights: the best run by eval, no accuracy lost, and what they claim is what they do."""
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from asymmbook.__main__ import main as book
from asymmbook.checkout import project_root
from asymmbook.evidence import findings, release, results, runner
from asymmbook.evidence.plan import Planned
from asymmbook.evidence.results import read_pictures, read_predictions, read_results
from asymmbook.evidence.runner import collect_experiments
from asymmlib.__main__ import main
from asymmlib.base.files import checksum
from asymmlib.base.folders import weights_dir
from asymmlib.data.sources import prepare
from asymmlib.recipes import Recipe
from asymmlib.runs import load_pretrained
from asymmlib.weights.own import read_safetensors
from asymmlib.weights.released import RELEASED

MAX_BYTES = 25_000_000  # of all released files together


def settle(patch, root):
    """Have a plan of two seeds of the small network and one of the others, all of whose files lie below `root`."""
    recipe = Recipe("tiny", image_size=32, epochs=1, batch_size=8, data=str(root / "pictures"), test_share=True)
    plan = [Planned("compare", model, recipe.replace(seed=seed), RELEASED[model]) for model, seed in (
        ("asymmnet_small", 0), ("asymmnet_small", 1), ("asymmnet_large", 0), ("mobilenet_v2", 0))]
    for module in (runner, findings):
        patch.setattr(module, "PLAN", plan)
    for module in (runner, results):
        patch.setattr(module, "results_dir", lambda: root / "results")
    for name, folder in (("HOME", "data"), ("RUNS", "runs"), ("WEIGHTS", "weights")):
        patch.setenv(f"ASYMMLIB_{name}", str(root / folder))
    return plan


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_colours):
    """The plan's runs, trained for an epoch and recorded, in the folder of `settle`."""
    root = tmp_path_factory.mktemp("released")
    write_colours(root / "pictures", 10)
    with pytest.MonkeyPatch.context() as patch:
        for planned in settle(patch, root):
            runner._train_and_measure(planned)
        collect_experiments()
    return root


@pytest.fixture
def recorded(trained, monkeypatch):
    """That folder for one test: what it writes and removes, weights and results, is as before for the next."""
    before = trained.with_name("before")
    shutil.copytree(trained / "results", before)
    settle(monkeypatch, trained)
    yield trained
    for folder in ("results", "weights"):
        shutil.rmtree(trained / folder, ignore_errors=True)
    before.rename(trained / "results")


@pytest.mark.slow
def test_the_best_run_by_eval_is_written_and_predict_uses_it(recorded, capsys):
    table = read_results()["runs"].set_index("run")
    released = release.release()
    for model, classifier in released.items():
        info, same = classifier.provenance, table[table["model"] == model]
        assert info["run"] == same["best_eval_top1"].idxmax() and info["candidates"] == len(same)
        assert info["accuracy"]["test"]["top1"] == pytest.approx(same["best_test_top1"][info["run"]])
        again = load_pretrained(model)
        assert again.provenance == info and not again.network.training and again.model == model
        assert info["sha256"] == checksum(recorded / "weights" / f"{model}.safetensors")
    card = (recorded / "weights" / "README.md").read_text(encoding="utf-8")
    assert card == release.model_card(released) and released["asymmnet_small"].provenance["run"] in card
    picture = next((recorded / "pictures" / "red").iterdir())
    capsys.readouterr()
    assert main(["predict", "--model", "asymmnet_small", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(picture) and {line.split()[1] for line in lines[1:]} == {"blue", "green", "red"}


@pytest.mark.slow
def test_float16_only_where_no_accuracy_changes(recorded, monkeypatch):
    measure = release._measure

    def worse(run, tensors, prepared):
        measured = measure(run, tensors, prepared)
        if any(value.dtype == np.float16 for value in tensors.values()):
            measured["test"]["right"] -= 1
        return measured
    for answer, dtype in ((measure, "float16"), (worse, "float32")):
        monkeypatch.setattr(release, "_measure", answer)
        info = release.release()["asymmnet_small"].provenance
        stored = load_file(recorded / "weights" / "asymmnet_small.safetensors")
        assert info["dtype"] == dtype == str(stored["classifier.weight"].dtype)
        assert all(value.dtype == np.float32 for value in stored.values() if value.ndim == 1)


@pytest.mark.slow
def test_what_is_missing_is_said(recorded, capsys):
    with pytest.raises(FileNotFoundError, match="weights of asymmnet_large in .*there: none.*ASYMMLIB_WEIGHTS"):
        load_pretrained("asymmnet_large")
    with pytest.raises(ValueError, match="no released weights of 'vgg19'; there are: asymmnet_large"):
        load_pretrained("vgg19")
    shutil.rmtree(recorded / "results")
    assert book(["release"]) == 2
    assert "no run of asymmnet_large is recorded" in capsys.readouterr().err


@pytest.mark.parametrize("model", RELEASED)
def test_the_weights_of_the_book_are_those_that_are_recorded(model):
    classifier = load_pretrained(model)
    info = classifier.provenance
    row = read_results()["runs"].set_index("run").loc[info["run"]]
    runs = findings.recorded("compare")
    rivals = runs[(runs["model"] == model) & (runs["settings"] == json.dumps(RELEASED[model]))]
    assert info["run"] == rivals.loc[rivals["best_eval_top1"].idxmax(), "run"] and info["candidates"] == len(rivals)
    for split in ("eval", "test"):
        assert info["accuracy"][split]["top1"] == pytest.approx(row[f"best_{split}_top1"])
    assert info["manifest_sha256"] == row["manifest_sha256"]
    assert list(classifier.classes) == list(dict.fromkeys(read_pictures("test")["class"]))


def test_the_files_are_small_and_the_card_is_fresh():
    folder = weights_dir()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MAX_BYTES
    released = {model: load_pretrained(model) for model in RELEASED}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == release.model_card(released), "stale: python -m asymmbook release writes it anew"
    assert {path.name for path in folder.iterdir()} == {
        "README.md", *(f"{model}.{suffix}" for model in released for suffix in ("json", "safetensors"))}
    assert folder == project_root() / "weights"


@pytest.mark.slow
@pytest.mark.parametrize("model", RELEASED)
def test_the_weights_reach_what_their_card_says(caltech16, model):
    """On the real test pictures, where they are at hand: the same answers as recorded."""
    classifier = load_pretrained(model)
    pictures, info = read_pictures("test"), classifier.provenance
    files = caltech16.manifest.set_index("name")["path"]
    predicted = classifier.predict([caltech16.images / files[name] for name in pictures["name"]]).argmax(axis=1)
    labels = pictures["class"].map(list(classifier.classes).index).to_numpy()
    assert (predicted == labels).sum() == info["accuracy"]["test"]["right"]
    assert (predicted == read_predictions(info["run"])["predicted"]).mean() > 0.98


@pytest.mark.slow
def test_released_files_say_what_they_are_and_are_renewed_tensor_by_tensor(tmp_path):
    for path in weights_dir().glob("*.*s*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / "asymmnet_small.safetensors"
    (tensors, metadata), card = read_safetensors(path), json.loads(path.with_suffix(".json").read_text())
    settings, sha256 = json.loads(metadata["settings"]), card.pop("sha256")
    assert sha256 == checksum(path)
    assert settings == {"variant": "small", "width": 1.0, "asymmrate": 1, "port": "pytorch", "size": card["image_size"],
                        "classes": card["classes"], "mean": card["mean"], "std": card["std"]}
    save_file(tensors, path)  # as it was released before there were settings
    path.with_suffix(".json").write_text(json.dumps({**card, "sha256": checksum(path)}))
    release.renew(tmp_path)
    renewed, again = read_safetensors(path)
    assert again == metadata and renewed.keys() == tensors.keys()
    assert all(renewed[name].tobytes() == value.tobytes() and renewed[name].dtype == value.dtype
               for name, value in tensors.items())
    assert json.loads(path.with_suffix(".json").read_text()) == {**card, "sha256": checksum(path)}


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
                                    lambda path: path.with_suffix(".json").write_text("{}")])
def test_weights_that_are_not_those_of_their_card_are_refused(tmp_path, damage):
    for suffix in ("json", "safetensors"):
        shutil.copy(project_root() / "weights" / f"asymmnet_small.{suffix}", tmp_path)
    assert load_pretrained("asymmnet_small", tmp_path).name == "asymmnet_small"
    damage(tmp_path / "asymmnet_small.safetensors")
    with pytest.raises(ValueError, match="asymmnet_small.*(SHA-256|is damaged).*fetch it again"):
        load_pretrained("asymmnet_small", tmp_path)


@pytest.mark.slow
def test_the_recorded_manifest_is_the_one_that_the_rule_gives(caltech16, monkeypatch):
    from asymmlib.data.manifest import manifest_hash
    monkeypatch.setenv("ASYMMLIB_HOME", str(caltech16.folder.parent))
    manifest = prepare("caltech16", test_share=True, progress=False).manifest
    claimed = {load_pretrained(model).provenance["manifest_sha256"] for model in RELEASED}
    assert {manifest_hash(manifest)} == claimed
    held_out = manifest[manifest["split"] == "test"]
    assert list(held_out["name"]) == list(read_pictures("test")["name"])
