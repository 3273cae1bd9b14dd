"""Decoding once, exact statistics, reproducible order and augmentation."""
import itertools
from itertools import chain

import numpy as np
import paddle
import pytest
from PIL import Image

from asymmlib.data.pictures import cached_pixels, load_picture, measure_statistics, normalise
from asymmlib.data.sources import prepare
from asymmlib.dataset import EpochSampler, Pictures, _crop_flip, make_loader
from asymmlib.recipes import Recipe


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


@pytest.mark.parametrize("shape", [(5, 6, 3), (2, 5, 6, 3), (0, 4, 4, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_normalising_plane_by_plane_changes_no_bit_and_not_its_input(shape, dtype):
    """Recorded runs were normalised pixel by pixel, in new arrays; what they saw must stay what is seen now."""
    pixels = np.random.default_rng(2).integers(0, 256, shape).astype(dtype)
    before, mean, std = pixels.copy(), np.array([0.51, 0.44, 0.37]), np.array([0.21, 0.33, 0.45])
    scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    found = normalise(pixels, mean, std)
    assert found.dtype == np.float32 and found.flags.c_contiguous and (pixels == before).all()
    assert np.array_equal(found, np.moveaxis(pixels * scale + shift, -1, -3))
    planar = np.moveaxis(np.moveaxis(pixels, -1, -3).copy(), -3, -1)  # as it lies in memory, already what comes out
    assert np.array_equal(normalise(planar, mean, std), found) and (planar == before).all()


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


def test_each_epoch_turns_a_picture_anew(prepared):
    pictures = Pictures(prepared, "train", 32, augmentation="rotate")
    first = pictures[0][0]
    pictures.set_epoch(1)
    assert not (pictures[0][0] == first).all()
    pictures.set_epoch(0)
    assert (pictures[0][0] == first).all()


def test_without_shuffling_pictures_come_in_the_order_of_the_manifest(prepared):
    pictures = Pictures(prepared, "train", 32)
    assert pictures.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    loader = make_loader(pictures, 10)
    assert np.concatenate([labels.numpy() for _, labels in loader]).ravel().tolist() == pictures.labels.tolist()
    assert list(loader.batch_sampler)[2] == [20, 21, 22, 23]


@pytest.mark.parametrize("workers", [2, 40])
def test_workers_do_not_change_a_batch(prepared, workers):
    pictures = Pictures(prepared, "train", 32, augmentation="rotate")
    alone, helped = (list(make_loader(pictures, 10, workers=count)) for count in (0, workers))
    for batch, same in zip(alone, helped, strict=True):
        for one, other in zip(batch, same, strict=True):
            assert one.dtype == other.dtype and one.shape == other.shape and (one == other).all()


@pytest.mark.parametrize("augmentation", ["rotate", "rotate-nearest", "rotate-flip", "crop-flip", "crop-flip-colour"])
def test_each_augmentation_changes_pixels_and_keeps_the_shape(prepared, augmentation):
    plain = Pictures(prepared, "train", 32)[0][0]
    changed = Pictures(prepared, "train", 32, augmentation=augmentation)[0][0]
    assert changed.shape == plain.shape and not np.allclose(changed, plain)


def colours(pixels):
    return {tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()}


def test_unless_told_otherwise_a_set_turns_by_what_a_recipe_does(prepared):
    assert Pictures(prepared, "train", 32).rotation == Recipe("any", image_size=32, epochs=1).rotation == 10.0


def test_nearest_rotation_invents_no_colour_and_bilinear_does(prepared):
    plain = Pictures(prepared, "train", 32).picture(0)
    known = colours(plain) | {(0, 0, 0)}               # black comes in at the corners
    for augmentation in ("rotate", "rotate-nearest"):
        pictures = Pictures(prepared, "train", 32, augmentation=augmentation, mean=(0, 0, 0), std=(1 / 255,) * 3)
        turned = pictures[0][0].round().astype(int).transpose(1, 2, 0)
        assert (colours(turned) <= known) == (augmentation == "rotate-nearest")


def test_angles_fill_the_range_to_both_sides(prepared, monkeypatch):
    angles = []
    monkeypatch.setattr(Image.Image, "rotate", lambda image, angle, *rest: angles.append(angle) or image)
    _ = [item for item in Pictures(prepared, "train", 32, augmentation="rotate", rotation=20)]
    assert len(set(angles)) == 24 and -20 <= min(angles) < -10 and 10 < max(angles) <= 20


def test_crops_have_the_areas_and_aspects_of_imagenet_and_half_are_mirrored():
    """On a picture whose red is its column and whose green is its row, each crop says where it comes from."""
    size, crops = 200, []
    rows, columns = np.mgrid[:size, :size]
    picture = Image.fromarray(np.stack([columns, rows, rows * 0], axis=-1).astype(np.uint8))
    for seed in range(300):
        red, green, _ = np.asarray(_crop_flip(picture, np.random.default_rng(seed))).transpose(2, 0, 1).astype(float)
        assert red.shape == (size, size)
        crops.append([red[0, -1] - red[0, 0], green[-1, 0] - green[0, 0], red.min(), green.min()])
    width, height, left, top = np.array(crops).T
    assert (height > 0).all(), "none is upside down"
    assert 120 < (width < 0).sum() < 180, "a fair coin lies outside once in two thousand times"
    width, height = np.abs(width) + 1, height + 1      # from the first pixel to the last one
    area, aspect = width * height / size**2, width / height
    assert 0.07 < area.min() < 0.12 and 0.9 < area.max() <= 1.01
    assert 0.73 < aspect.min() < 0.78 and 1.28 < aspect.max() < 1.37
    assert left.max() > 0.5 * size and top.max() > 0.5 * size and left.min() < 5 and top.min() < 5


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
