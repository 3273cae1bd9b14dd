"""The drawn sample: layout, repeatable, hard enough for pixels, whole or not there."""
import json

import numpy as np
import pytest
from PIL import Image

from asymmlib.data import sample
from asymmlib.data.sample import CLASSES, draw, draw_sample
from asymmlib.data.sources import prepare
from asymmlib.dataset import Pictures


@pytest.mark.slow
def test_layout_is_the_articles(sample):
    assert sample.class_names == sorted(CLASSES) and len(CLASSES) == 16
    assert sample.images.name == "Images"
    assert (sample.manifest.groupby("class").size() == 60).all()
    assert sample.manifest["split"].value_counts().to_dict() == {"train": 768, "eval": 192}


@pytest.mark.slow
def test_the_sample_is_the_default_and_is_drawn_once(home, sample_home, sample, monkeypatch):
    monkeypatch.setenv("ASYMMLIB_HOME", str(sample_home))
    times = {path: path.stat().st_mtime_ns for path in sample.images.rglob("*.jpg")}
    for again in (prepare(), prepare("sample")):
        assert sample.name == again.name == "sample" and sample.images == again.images
    assert len(times) > 900 and times == {path: path.stat().st_mtime_ns for path in again.images.rglob("*.jpg")}


@pytest.mark.slow
def test_grey_pictures_spaces_and_sizes_vary(sample):
    with_space = sample.manifest[sample.manifest["path"].str.contains(" ")]
    assert 20 < len(with_space) < 300
    assert not with_space["name"].str.contains(" ").any()
    modes, sizes = {}, set()
    for path, label in zip(sample.manifest["path"], sample.manifest["class"], strict=True):
        with Image.open(sample.images / path) as image:
            modes.setdefault(image.mode, set()).add(label)
            sizes.add(image.size)
    assert set(modes) == {"RGB", "L"} and 5 < len(modes["L"]) <= 16
    assert max(map(max, sizes)) <= 160 and len(sizes) > 100


@pytest.mark.slow
def test_nearest_neighbour_on_pixels_stays_under_60_percent(sample):
    train, evaluation = Pictures(sample, "train", 32), Pictures(sample, "eval", 32)
    known = train.pixels[train.rows].reshape(len(train), -1).astype(np.float32)
    asked = evaluation.pixels[evaluation.rows].reshape(len(evaluation), -1).astype(np.float32)
    distance = (asked**2).sum(1)[:, None] - 2 * asked @ known.T + (known**2).sum(1)
    top1 = (train.labels[distance.argmin(axis=1)] == evaluation.labels).mean()
    assert 1 / 16 < top1 < 0.6


@pytest.mark.slow
def test_the_same_seed_draws_the_same_bytes(tmp_path):
    def content(name, **settings):
        images = draw_sample(tmp_path / name, per_class=5, size=48, **settings)
        return {path.relative_to(images): path.read_bytes() for path in sorted(images.rglob("*.jpg"))}
    first = content("a")
    assert first == content("b") and len(first) == 80
    assert first != content("c", seed=1)


@pytest.mark.slow
def test_a_picture_does_not_depend_on_the_others(tmp_path):
    few = draw_sample(tmp_path / "few", per_class=5, size=48)
    many = draw_sample(tmp_path / "many", per_class=7, size=48)
    for path in few.rglob("*.jpg"):
        assert path.read_bytes() == (many / path.relative_to(few)).read_bytes()


@pytest.mark.slow
def test_existing_sample_stays_and_another_one_is_drawn_again(tmp_path):
    images = draw_sample(tmp_path, per_class=5, size=48)
    before = {path: path.stat().st_mtime_ns for path in images.rglob("*.jpg")}
    draw_sample(tmp_path, per_class=5, size=48)
    assert before == {path: path.stat().st_mtime_ns for path in images.rglob("*.jpg")}
    draw_sample(tmp_path, per_class=6, size=48)
    assert len(list(images.rglob("*.jpg"))) == 96
    assert json.loads((tmp_path / "sample.json").read_text())["per_class"] == 6


def test_interrupted_drawing_leaves_no_pictures(tmp_path, monkeypatch):
    drawn = []

    def stop(name, rng, size):
        drawn.append(name)
        if len(drawn) == 20:
            raise KeyboardInterrupt
        return draw(name, rng, size)
    monkeypatch.setattr(sample, "draw", stop)
    with pytest.raises(KeyboardInterrupt):
        draw_sample(tmp_path, per_class=5, size=48)
    assert not (tmp_path / "Images").exists()
    monkeypatch.undo()
    assert len(list(draw_sample(tmp_path, per_class=5, size=48).rglob("*.jpg"))) == 80


@pytest.mark.parametrize(("settings", "message"), [
    ({"per_class": 4}, "per_class is 4; it must be an integer of at least 5"),
    ({"size": 16}, "size is 16; it must be an integer of at least 32"),
    ({"size": 64.0}, "size is 64.0"),
    ({"seed": -1}, "seed is -1"),
])
def test_bad_arguments(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        draw_sample(tmp_path, **settings)


def test_foreign_pictures_are_never_replaced(tmp_path):
    (tmp_path / "Images").mkdir()
    with pytest.raises(ValueError, match="was not drawn by this project"):
        draw_sample(tmp_path)
    with pytest.raises(ValueError, match="unknown class 'dog'; known: balloon"):
        draw("dog", np.random.default_rng(0))
