"""Released weights: trained by the plan, calibrated, no answer lost, and what they claim is what they do."""
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from asymmbook.__main__ import main as book
from asymmbook.checkout import project_root
from asymmbook.evidence import records, release, trial_work
from asymmbook.evidence.inference import fit_temperature
from asymmbook.evidence.model_card import model_card
from asymmbook.evidence.results import read_pictures
from asymmbook.evidence.trial import TrialRun
from asymmlib.__main__ import main
from asymmlib.base.files import checksum
from asymmlib.base.folders import weights_dir
from asymmlib.data import sources
from asymmlib.evaluation import evaluate, softmax
from asymmlib.recipes import Recipe
from asymmlib.runs import find_run, load_pretrained
from asymmlib.weights.own import read_safetensors
from asymmlib.weights.released import RELEASED

MAX_BYTES = 25_000_000  # of all released files together


def settle(patch, root):
    """Have a plan that trains for release for a few epochs on small pictures, all of whose files lie below `root`.

    One network begins with another's weights.
    """
    recipe = Recipe("released", image_size=32, epochs=3, batch_size=6, base_lr=0.001, test_share=True)
    source = TrialRun("weights", "asymmnet_small", RELEASED["asymmnet_small"], recipe.replace(name="source"), "mine")
    runs = [TrialRun("weights", model, settings, recipe, "mine",
                     start=source.name if model == source.model else None) for model, settings in RELEASED.items()]
    prepared = sources.prepare(str(root / "pictures"), test_share=True)
    patch.setattr(sources, "prepare", lambda *given, **more: prepared)
    for name, folder in (("HOME", "data"), ("RUNS", "runs"), ("WEIGHTS", "weights")):
        patch.setenv(f"ASYMMLIB_{name}", str(root / folder))
    patch.setattr(release, "plan", lambda scores: (source, *runs))
    patch.setattr(records, "scores", lambda: {run.name: 0.5 for run in runs})
    return source, runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_colours):
    """The folder of `settle` with the plan's runs trained."""
    root = tmp_path_factory.mktemp("released")
    write_colours(root / "pictures", 10)
    with pytest.MonkeyPatch.context() as patch:
        source, runs = settle(patch, root)
        for run in (source, *runs):
            trial_work.train_and_measure(run, run.name)
    return root


@pytest.fixture
def planned_runs(trained, monkeypatch):
    """The plan's runs for release, for one test; what it writes to the weights' folder is gone for the next."""
    yield settle(monkeypatch, trained)[1]
    shutil.rmtree(trained / "weights", ignore_errors=True)


@pytest.mark.slow
def test_what_was_trained_for_release_is_written_and_predict_uses_it(trained, planned_runs, capsys):
    released = release.release()
    for planned, (model, classifier) in zip(planned_runs, released.items(), strict=True):
        info, run = classifier.provenance, find_run(planned.name)
        assert info["run"] == run.name and info["epoch"] == 3 and (info["source"] is None) == (planned.start is None)
        said = {split: evaluate(run.network("last"), run.pictures(split, sources.prepare()))
                for split in ("eval", "test")}
        assert info["temperature"] == pytest.approx(fit_temperature(said["eval"].logits, said["eval"].labels))
        right = said["test"].right
        assert info["accuracy"]["test"] == {"right": right.sum(), "pictures": len(right), "top1": right.mean()}
        assert np.array(list(info["per_class"].values())).sum(axis=0).tolist() == [right.sum(), len(right)]
        cooled = classifier.evaluate(sources.prepare(), "test").logits
        assert cooled == pytest.approx(said["test"].logits / info["temperature"], rel=0.05, abs=0.02)
        again = load_pretrained(model)
        assert again.provenance == info and not again.network.training and again.model == model
        assert info["sha256"] == checksum(trained / "weights" / f"{model}.safetensors")
    card = (trained / "weights" / "README.md").read_text(encoding="utf-8")
    assert card == model_card(released) and released["asymmnet_small"].provenance["run"] in card
    picture = next((trained / "pictures" / "red").iterdir())
    capsys.readouterr()
    assert main(["predict", "--model", "asymmnet_small", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(picture) and {line.split()[1] for line in lines[1:]} == {"blue", "green", "red"}


@pytest.mark.slow
def test_float16_only_where_no_answer_changes(trained, planned_runs, monkeypatch):
    measure = release._measure

    def worse(run, tensors, prepared):
        measured = measure(run, tensors, prepared)
        if any(value.dtype == np.float16 for value in tensors.values()):
            logits = measured["test"].logits
            logits[0] = -logits[0]
        return measured
    for answer, dtype in ((measure, "float16"), (worse, "float32")):
        monkeypatch.setattr(release, "_measure", answer)
        info = release.release()["asymmnet_small"].provenance
        stored = load_file(trained / "weights" / "asymmnet_small.safetensors")
        assert info["dtype"] == dtype == str(stored["classifier.weight"].dtype)
        assert all(value.dtype == np.float32 for value in stored.values() if value.ndim == 1)


def test_a_temperature_makes_probabilities_honest_and_changes_no_answer():
    """Logits that are three times too large; the labels are drawn by the true probabilities."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 5))
    labels = np.array([rng.choice(5, p=one) for one in softmax(logits)])
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)
    assert fit_temperature(logits / 4, labels) == pytest.approx(1 / 4, rel=0.05)
    names = ("head.weight", "head.bias")
    tensors = {"head.weight": np.ones((3, 2), np.float32), "head.bias": np.ones(2, np.float32),
               "body.weight": np.ones(2, np.float32)}
    cooled = release.cool(tensors, 4.0, names)
    assert {name: value.flat[0] for name, value in cooled.items()} == {
        "head.weight": 0.25, "head.bias": 0.25, "body.weight": 1} and cooled["head.bias"].dtype == np.float32


def test_what_is_missing_is_said(home, monkeypatch, capsys):
    monkeypatch.setenv("ASYMMLIB_WEIGHTS", str(home / "weights"))
    with pytest.raises(FileNotFoundError, match="weights of asymmnet_large in .*there: none.*ASYMMLIB_WEIGHTS"):
        load_pretrained("asymmnet_large")
    with pytest.raises(ValueError, match="no released weights of 'vgg19'; there are: asymmnet_large"):
        load_pretrained("vgg19")
    monkeypatch.setattr(records, "results_dir", lambda: home)
    assert book(["release"]) == 2
    assert "no run for the release of asymmnet_large is recorded" in capsys.readouterr().err


@pytest.mark.parametrize("model", RELEASED)
def test_the_weights_of_the_book_are_those_that_are_recorded(model):
    classifier = load_pretrained(model)
    info = classifier.provenance
    row = records.read_runs().set_index("run").loc[info["run"]]
    assert release.released_runs()[model].name == info["run"]
    assert info["accuracy"]["eval"]["top1"] == pytest.approx(row["top1"])
    assert info["manifest_sha256"] == row["manifest_sha256"] and info["epoch"] == row["epochs_done"]
    assert list(classifier.classes) == list(dict.fromkeys(read_pictures("test")["class"]))
    assert info["calibration_error"]["after"] < 1 and sum(
        right for right, _ in info["per_class"].values()) == info["accuracy"]["test"]["right"]


def test_the_files_are_small_and_the_card_is_fresh():
    folder = weights_dir()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MAX_BYTES
    released = {model: load_pretrained(model) for model in RELEASED}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == model_card(released), "stale: python -m asymmbook release writes it anew"
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
    right = {name: [int((predicted == labels)[labels == label].sum()), int((labels == label).sum())]
             for label, name in enumerate(classifier.classes)}
    assert right == info["per_class"]


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
    manifest = sources.prepare("caltech16", test_share=True, progress=False).manifest
    claimed = {load_pretrained(model).provenance["manifest_sha256"] for model in RELEASED}
    assert {manifest_hash(manifest)} == claimed
    held_out = manifest[manifest["split"] == "test"]
    assert list(held_out["name"]) == list(read_pictures("test")["name"])
