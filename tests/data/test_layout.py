"""Any folder: which split a picture belongs to, which folder is a class, and what is left out, told and named."""
import os
import unicodedata

import pytest
from test_manifest import draw

from asymmlib.__main__ import main
from asymmlib.base import files
from asymmlib.data import sources
from asymmlib.data.manifest import counts, list_pictures, make_manifest, read_manifest, write_manifest
from asymmlib.data.sources import prepare


def folders(root, names, number=6, seed=0):
    """Class folders with distinct pictures."""
    for place, name in enumerate(names):
        for index in range(number):
            draw(root / name / f"{index}.png", seed=seed + 100 * place + index)
    return root


def splits(root, names):
    for place, name in enumerate(names):
        folders(root / name, ("cat", "dog"), seed=1000 * place)
    return root


@pytest.mark.parametrize(("names", "expected"), [
    ("train val", "train eval"), ("train validation", "train eval"), ("Train VALID", "train eval"),
    ("training dev", "train eval"), ("train valid test", "train eval test"), ("TRAIN Val Testing", "train eval test"),
    ("train test", "train eval"), ("train eval", "train eval"), ("training_set test_set", "train eval"),
    ("train_images Val_Images test1", "train eval test"),
])
def test_a_split_of_any_common_name_is_kept(home, tmp_path, names, expected, capsys):
    frame = prepare(splits(tmp_path / "mine", names.split())).manifest
    assert (counts(frame)[expected.split()] == 6).all(axis=None) and len(frame) == 12 * len(names.split())
    wanted = dict(zip(names.split(), expected.split(), strict=True))
    assert all(wanted[path.split("/")[0]] == split for path, split in zip(frame["path"], frame["split"], strict=True))
    write_manifest(frame, tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv").equals(frame)
    said = capsys.readouterr().out
    assert ("'test' is used to evaluate" in said) == (names == "train test")


def test_a_given_test_split_is_the_test_share(home, tmp_path):
    root = splits(tmp_path / "mine", ["train", "val", "test"])
    assert prepare(root, test_share=True).manifest.equals(prepare(root).manifest)


def test_two_folders_of_one_split(tmp_path):
    with pytest.raises(ValueError, match="'val' and 'valid' are both for eval"):
        make_manifest(splits(tmp_path, ["train", "val", "valid"]))


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "Validation"), ("train_images", "test_images"),
                                   ("train", "test1"), ("training_set", "test_set", "val")])
def test_splits_without_class_folders_are_refused(tmp_path, names):
    with pytest.raises(ValueError, match="hold pictures, not class folders, .*a folder of its own"):
        make_manifest(folders(tmp_path, names))


@pytest.mark.parametrize("names", [("test", "validation"), ("val_images", "test1")])
def test_splits_without_one_to_train_on_are_refused(tmp_path, names):
    with pytest.raises(ValueError, match=f"{names[0]!r}.*none .* is for training; call one 'train'"):
        make_manifest(splits(tmp_path, names))


def test_pictures_without_classes_beside_a_train_folder_with_them(tmp_path):
    folders(tmp_path / "train", ("cat", "dog"))
    with pytest.raises(ValueError, match=f"'test' hold pictures.*; give the folder {tmp_path / 'train'}"):
        make_manifest(folders(tmp_path, ["test"], seed=500))


def test_a_class_called_train_among_others_is_one(tmp_path):
    assert set(make_manifest(folders(tmp_path, ("train", "car", "ship")))["class"]) == {"train", "car", "ship"}


def test_all_classes_that_are_too_small_are_told_at_once(tmp_path):
    folders(tmp_path, [f"c{number}" for number in range(30)], 3)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError) as caught:
        make_manifest(folders(tmp_path, ("big", "bigger"), 9))
    assert all(f"'c{number}' has 3" in str(caught.value) for number in range(30))
    assert "class 'none' has no pictures" in str(caught.value)


def test_two_forms_of_one_name_are_one_class(tmp_path):
    for place, form in enumerate(("NFC", "NFD")):
        folders(tmp_path / "Images", [unicodedata.normalize(form, "é")], 4, seed=500 * place)
    if len(list((tmp_path / "Images").iterdir())) == 1:
        pytest.skip("this file system keeps one of them")
    frame = make_manifest(folders(tmp_path / "Images", ["z"]))
    assert frame["class"].value_counts().to_dict() == {"é": 8, "z": 6}
    assert frame["name"].is_unique and all((tmp_path / "Images" / path).is_file() for path in frame["path"])
    write_manifest(frame, tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv").equals(frame)


def test_what_is_left_out_is_counted_and_named(tmp_path, capsys):
    folders(tmp_path, ("cat", "dog"))
    draw(tmp_path / "cat" / "more" / "deep" / "x.png")
    draw(tmp_path / "loose.png")
    draw(tmp_path / "dog" / "y.png").rename(tmp_path / "dog" / "y.png_large")
    (tmp_path / "dog" / "z.heic").write_bytes(b"\0\0\0\x24ftypheic" + bytes(40))
    (tmp_path / "dog" / "notes.txt").write_text("x")
    assert len(make_manifest(tmp_path)) == 12
    said = capsys.readouterr().out
    assert "5 entries are no pictures of a class and are left out" in said
    assert "2 outside a class folder or in a folder below one ('loose.png', 'cat/more/deep/x.png')" in said
    assert "2 with other endings ('dog/y.png_large', 'dog/z.heic')" in said


@pytest.mark.parametrize("place", ["home", "out/home", "cat/../home", "."])
def test_the_home_folder_inside_the_data_is_no_class(home, monkeypatch, tmp_path, place):
    root = folders(tmp_path / "mine", ("cat", "dog"))
    monkeypatch.setenv("ASYMMLIB_HOME", str(root / place))
    monkeypatch.setenv("ASYMMLIB_RUNS", str(root / "runs"))
    (root / "runs" / "one").mkdir(parents=True)
    for _ in range(2):
        assert prepare(root).class_names == ["cat", "dog"]


def test_the_home_folder_beside_the_only_folder(home, monkeypatch, tmp_path):
    root = folders(tmp_path / "mine" / "Images", ("cat", "dog")).parent
    monkeypatch.setenv("ASYMMLIB_HOME", str(root / "home"))
    for _ in range(2):
        assert prepare(root).class_names == ["cat", "dog"]


def test_classes_that_differ_in_case_or_spaces_alone_are_told(tmp_path, capsys):
    names = ["cat", "cat ", "Dog", "dog", "owl"]
    folders(tmp_path / "x", names)
    if sorted(os.listdir(tmp_path / "x")) == sorted(names):  # some systems take them for the same
        assert list(list_pictures(tmp_path / "x")) == sorted(names)
        assert "in case or spaces alone: 'Dog' and 'dog'; 'cat' and 'cat '." in capsys.readouterr().out


def test_copies_across_splits_and_classes_are_told(home, tmp_path, capsys):
    root = folders(tmp_path / "mine", ("cat", "dog"))
    prepare(root)
    assert "copies" not in capsys.readouterr().out
    for source, target in (("cat/0", "cat/9"), ("cat/1", "dog/9"), ("dog/1", "dog/2")):  # the last within train
        (root / f"{target}.png").write_bytes((root / f"{source}.png").read_bytes())
    prepare(root)
    said = capsys.readouterr().out
    assert "4 pictures are copies" in said and "'cat/0.png' (eval) = 'cat/9.png' (train)" in said
    assert "'cat/1.png' (train) = 'dog/9.png' (train)" in said and "dog/2" not in said


def test_a_split_that_is_a_copy_of_another_is_told(home, tmp_path, capsys):
    for name in ("train", "val"):
        folders(tmp_path / "mine" / name, ("cat", "dog"))
    prepare(tmp_path / "mine")
    assert "every picture of eval is in train too" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_pipes_and_devices_among_the_pictures_are_named(home, tmp_path):
    root = folders(tmp_path / "mine", ("cat", "dog"))
    os.mkfifo(root / "cat" / "pipe.jpg")
    (root / "dog" / "zero.jpg").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="2 unreadable .*\n  cat/pipe.jpg: a named pipe, .*\n  dog/zero.jpg: a device"):
        prepare(root)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is a named pipe, not a file"):
        prepare(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is a named pipe, not a file"):
        read_manifest(tmp_path / "pipe")


@pytest.mark.parametrize("number", files.READ_ONLY)
def test_prepared_data_that_may_only_be_read_are_read(home, tmp_path, monkeypatch, number):
    """Simulated, as root may write anywhere."""
    def refuse(*args, **kwargs):
        raise OSError(number, "only to be read")

    root = folders(tmp_path / "mine", ("cat", "dog"))
    first = prepare(root)
    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    assert prepare(root).manifest.equals(first.manifest) and prepare(first.name).images == first.images
    with pytest.raises(OSError, match="cannot write in"):
        prepare(folders(tmp_path / "other", ("cat", "dog")))


def test_a_relative_path_counts_from_the_checkout_too(home, tmp_path, monkeypatch):
    folders(tmp_path / "checkout" / "data" / "mine", ("cat", "dog"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sources, "checkout", lambda: tmp_path / "checkout")
    assert prepare("data/mine").class_names == ["cat", "dog"]


@pytest.mark.parametrize("choice", ["flowers.zip", "flowers.tar.gz", "photo.jpg"])
def test_a_file_that_is_not_there(home, choice):
    with pytest.raises(FileNotFoundError, match=f"no data at {choice}: there is no such file or folder below "):
        prepare(choice)


def test_without_a_home_folder(monkeypatch):
    from asymmlib.base import folders as places

    def unknown(*_, **__):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(places.Path, "expanduser", unknown)
    with pytest.raises(ValueError, match="~/pictures: there is no home folder for ~ .*give the whole path"):
        prepare("~/pictures")
    monkeypatch.undo()
    monkeypatch.delenv("ASYMMLIB_HOME", raising=False)
    monkeypatch.delenv("ASYMMLIB_CACHE", raising=False)
    monkeypatch.setattr(places, "checkout", lambda: None)
    monkeypatch.setattr(places, "user_data_path", lambda *_, **__: places.Path("~/.local/share/asymmlib"))
    monkeypatch.setattr(places, "user_cache_path", lambda *_, **__: places.Path("~/.cache/asymmlib"))
    for _ in range(2):
        with pytest.raises(ValueError, match="no home folder .*ASYMMLIB_HOME"):
            places.home()
        assert places.cache_dir().is_absolute()
        for name in ("user_data_path", "user_cache_path"):  # other versions of platformdirs raise
            monkeypatch.setattr(places, name, unknown)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "\xff", ""])
def test_a_damaged_marker_of_the_sample(tmp_path, content):
    from asymmlib.data.sample import draw_sample
    (tmp_path / "Images").mkdir()
    (tmp_path / "sample.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="sample.json is damaged .*; remove both, and they are drawn again"):
        draw_sample(tmp_path)


@pytest.mark.slow
def test_a_console_that_cannot_show_a_name_gets_its_code(home, tmp_path):
    import subprocess
    import sys
    folders(tmp_path / "mine", ("🐱", "Løve"))
    done = subprocess.run([sys.executable, "-m", "asymmlib", "prepare", "--data", tmp_path / "mine"],
                          capture_output=True, env={**os.environ, "PYTHONIOENCODING": "gbk"})
    assert done.returncode == 0, done.stderr
    assert b"\\U0001f431" in done.stdout and b"12 pictures in 2 classes" in done.stdout


def test_predict_answers_the_good_and_names_the_bad(home, tmp_path, capsys):
    root = folders(tmp_path / "mine", ["cat"], 2)
    (root / "cat" / "x.jpg").write_text("<html>404")
    predict = ["predict", "--model", "asymmnet_small", "--top", "1"]
    assert main([*predict, str(root / "cat")]) == 2
    answer = capsys.readouterr()
    assert answer.out.count("%") == 2 and "1 of 3 files cannot be read" in answer.err
    assert "x.jpg is not a readable picture (cannot identify it: a web page" in answer.err
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "nosuch.jpg", "nosuch.jpg is missing: there is no such file"),
                          (tmp_path / "empty", "is a folder without pictures in it (.jpg, .jpeg"),
                          (root / "cat" / "x.jpg", "x.jpg is not a readable picture")):
        assert main([*predict, str(path)]) == 2
        said = capsys.readouterr().err
        assert message in said and "prepare" not in said and said.count("error:") == 1
