"""Decoding once, exact statistics, reproducible order and augmentation."""
import itertools
import subprocess
import sys
from itertools import chain

import numpy as np
import paddle
import pytest
from PIL import Image

from asymmlib.data.pictures import cached_pixels, load_picture, measure_statistics, normalise
from asymmlib.data.sources import prepare
from asymmlib.dataset import EpochSampler, Pictures, make_loader


@pytest.fixture
def prepared(home, picture_folder):
    return prepare(str(picture_folder))


def test_items_have_the_promised_shapes_and_types(prepared):
    train = Pictures(prepared, "train", 32)
    image, label = train[0]
    assert (image.shape, image.dtype) == ((3, 32, 32), np.float32)
    assert (label.shape, label.dtype) == ((1,), np.int64)
    assert (len(train), len(Pictures(prepared, "eval", 32))) == (24, 6)
    images, labels = next(iter(make_loader(train, 10)))
    assert (images.shape, labels.shape) == ([10, 3, 32, 32], [10, 1])
    assert (images.dtype, labels.dtype) == (paddle.float32, paddle.int64)


def test_labels_follow_class_order(prepared):
    train = Pictures(prepared, "train", 32)
    assert train.classes == ["blue", "green", "red"]
    for index in range(len(train)):
        brightest = train.picture(index).mean(axis=(0, 1)).argmax()
        assert train.classes[train.labels[index]] == ("red", "green", "blue")[brightest]


def test_every_picture_is_decoded_once(prepared, monkeypatch):
    decoded = []

    def counting(path, *arguments, original=load_picture):
        decoded.append(path)
        return original(path, *arguments)
    monkeypatch.setattr("asymmlib.data.pictures.load_picture", counting)
    for split in ("train", "eval"):
        for _ in range(2):
            _ = [item for item in Pictures(prepared, split, 32)]
    assert len(decoded) == len(set(decoded)) == 30


def test_cache_equals_direct_decoding_and_is_made_again_when_damaged(prepared):
    pixels = cached_pixels(prepared, 32)
    first = prepared.images / prepared.manifest["path"][0]
    assert (pixels[0] == load_picture(first, 32)).all()
    path = next((prepared.folder / "cache").glob("pixels-32-*.npy"))
    original = path.read_bytes()
    path.write_bytes(original[:-100])
    assert (cached_pixels(prepared, 32)[0] == load_picture(first, 32)).all()
    assert path.read_bytes() == original
    path.write_bytes(b"")
    cached_pixels(prepared, 32)
    assert path.read_bytes() == original


def test_changed_picture_gets_a_new_cache(home, picture_folder):
    before = cached_pixels(prepare(str(picture_folder)), 32)[0].copy()
    changed = sorted((picture_folder / "blue").iterdir())[0]
    Image.new("RGB", (40, 40), (9, 9, 9)).save(changed)
    after = cached_pixels(prepare(str(picture_folder)), 32)[0]
    assert (after == 9).all() and not (before == 9).all()


def test_statistics_equal_numpy():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 12, 10, 3), dtype=np.uint8)
    mean, std = measure_statistics(pixels)
    np.testing.assert_allclose(mean, (pixels / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (pixels / 255).std(axis=(0, 1, 2)), rtol=1e-9)


def test_train_split_is_normalised_and_eval_uses_its_statistics(prepared):
    train, evaluation = Pictures(prepared, "train", 32), Pictures(prepared, "eval", 32)
    batch = np.stack([item[0] for item in train])
    np.testing.assert_allclose(batch.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(batch.std(axis=(0, 2, 3)), 1, atol=1e-4)
    assert (train.mean, train.std) == (evaluation.mean, evaluation.std)


def test_normalise_is_the_formula():
    pixels = np.random.default_rng(1).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.4])
    expected = ((pixels / 255 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(normalise(pixels, mean, std), expected, atol=1e-6)


def test_greyscale_palette_and_rotated_pictures_become_upright_rgb(tmp_path):
    grey = Image.new("L", (20, 30), 77)
    grey.save(tmp_path / "grey.jpg")
    assert load_picture(tmp_path / "grey.jpg", 16).shape == (16, 16, 3)
    Image.new("P", (20, 30)).save(tmp_path / "palette.png")
    assert load_picture(tmp_path / "palette.png", 16).shape == (16, 16, 3)
    half = np.zeros((32, 32, 3), np.uint8)
    half[:16] = 255                                    # white above black ...
    exif = Image.Exif()
    exif[0x0112] = 3                                   # ... stored upside down
    Image.fromarray(half).save(tmp_path / "turned.png", exif=exif)
    assert load_picture(tmp_path / "turned.png", 32)[0, 0, 0] == 0


def test_order_and_augmentation_depend_on_seed_and_epoch_alone(prepared):
    def epoch(number, seed=0):
        pictures = Pictures(prepared, "train", 32, augmentation="rotate", seed=seed)
        loader = make_loader(pictures, 8, shuffle=True, seed=seed)
        loader.batch_sampler.set_epoch(number)
        pictures.set_epoch(number)
        np.random.seed(number + seed)                  # global state must not matter
        return np.concatenate([images.numpy() for images, _ in loader])
    first = epoch(3)
    assert (first == epoch(3)).all()
    assert not (first == epoch(4)).all()
    assert not (first == epoch(3, seed=1)).all()


WORKERS = """
import sys
from asymmlib.dataset import Pictures, make_loader
from asymmlib.data.sources import prepare
pictures = Pictures(prepare(sys.argv[1], progress=False), "train", 32, augmentation="rotate")
alone = [images.numpy() for images, _ in make_loader(pictures, 8)]
helped = [images.numpy() for images, _ in make_loader(pictures, 8, workers=2)]
assert all((a == b).all() for a, b in zip(alone, helped, strict=True))
"""


def test_workers_do_not_change_a_batch(home, picture_folder):
    # in a process of its own: Paddle's workers leave signal handlers behind, on which other engines crash later
    done = subprocess.run([sys.executable, "-c", WORKERS, str(picture_folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("augmentation", ["rotate", "rotate-nearest", "rotate-flip", "crop-flip", "crop-flip-colour"])
def test_each_augmentation_changes_pixels_and_keeps_the_shape(prepared, augmentation):
    plain = Pictures(prepared, "train", 32)[0][0]
    changed = Pictures(prepared, "train", 32, augmentation=augmentation)[0][0]
    assert changed.shape == plain.shape and not np.allclose(changed, plain)


def test_sampler_gives_each_index_once(prepared):
    sampler = EpochSampler(Pictures(prepared, "train", 32), 7, shuffle=True)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == [7, 7, 7, 3] and len(sampler) == 4
    assert sorted(chain(*batches)) == list(range(24))


def test_drop_last_leaves_out_other_pictures_each_epoch(prepared):
    sampler = EpochSampler(Pictures(prepared, "train", 32), 7, shuffle=True, drop_last=True)
    left_out = []
    for epoch in range(8):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert [len(batch) for batch in batches] == [7, 7, 7] and len(sampler) == 3
        left_out += set(range(24)) - set(itertools.chain.from_iterable(batches))
    assert len(left_out) == 3 * 8 and len(set(left_out)) > 3
    with pytest.raises(ValueError, match="24 pictures fill no batch of 25: drop_last would leave none"):
        EpochSampler(Pictures(prepared, "train", 32), 25, drop_last=True)


def test_per_class_keeps_the_first_of_each_class(prepared):
    few = Pictures(prepared, "train", 32, per_class=2)
    assert np.bincount(few.labels).tolist() == [2, 2, 2]


def test_errors_name_the_file_or_the_split(prepared, tmp_path):
    with pytest.raises(ValueError, match="split 'test' of .* has no pictures; it has: eval, train"):
        Pictures(prepared, "test", 32)
    with pytest.raises(FileNotFoundError, match="missing.jpg is missing"):
        load_picture(tmp_path / "missing.jpg", 32)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match="text.jpg is not a readable picture"):
        load_picture(tmp_path / "text.jpg", 32)
