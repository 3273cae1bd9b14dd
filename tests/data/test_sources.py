"""Every way in for pictures: drawn, Caltech-101, own folder, own archive; and every way it can go wrong."""
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asymmlib.base import files, folders
from asymmlib.data import manifest, sources
from asymmlib.data.manifest import read_manifest
from asymmlib.data.sources import CALTECH16, CALTECH_MD5, find_images, keep_classes, largest_classes, prepare


def jpeg(seed=0):
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(data, "JPEG")
    return data.getvalue()


def pictures(top, classes=("cat", "dog"), number=6):
    return {f"{top}{label}/{index} x.jpg": jpeg(index) for label in classes for index in range(number)}


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))


TOPS = ["", "Images/", "some data/Images/", "图片/"]


@pytest.mark.parametrize("top", TOPS)
def test_a_folder_is_used_where_it_is(home, top):
    folder = write_folder(home / "my pictures", pictures(top))
    before = tree(folder)
    prepared = prepare(folder)
    assert prepared.images == folder / top
    assert prepared.class_names == ["cat", "dog"]
    assert prepared.folder == folders.home() / prepared.name
    assert prepared.name.startswith("my_pictures-") and len(prepared.name) == len("my_pictures-") + 8
    assert (prepared.folder / "manifest.csv").is_file()
    assert len(prepared.manifest) == 12
    assert tree(folder) == before


@pytest.mark.parametrize("top", TOPS)
@pytest.mark.parametrize("write, name", [(write_zip, "Images.zip"), (write_tar, "Images.tar.gz")])
def test_an_archive_of_one(home, top, write, name):
    litter = {"__MACOSX/Images/._x.jpg": b"x", f"{top}.ipynb_checkpoints/1.jpg": b"x", f"{top}cat/Thumbs.db": b"x"}
    packed = write(home / name, {**pictures(top), **litter})
    prepared = prepare(str(packed))
    assert prepared.class_names == ["cat", "dog"] and len(prepared.manifest) == 12
    assert prepared.name == f"Images-{hashlib.sha256(packed.read_bytes()).hexdigest()[:8]}"
    assert folders.home() in prepared.images.parents
    assert all((prepared.images / path).is_file() for path in prepared.manifest["path"])


def test_the_choice_may_come_from_the_environment(home, monkeypatch):
    monkeypatch.setenv("ASYMMLIB_DATA", str(write_zip(home / "Images.zip", pictures(""))))
    assert prepare().class_names == ["cat", "dog"]


def test_two_folders_of_one_name_stay_apart(home):
    one = prepare(write_folder(home / "a" / "Images", pictures("")))
    two = prepare(write_folder(home / "b" / "Images", pictures("")))
    assert one.name != two.name
    assert one.manifest.equals(two.manifest)


def test_the_name_alone_finds_the_data_again(home):
    for first in (prepare(write_folder(home / "mine", pictures(""))), prepare(write_zip(home / "x.zip", pictures("")))):
        again = prepare(first.name)
        assert (again.name, again.images) == (first.name, first.images)


def test_the_manifest_in_the_file_is_the_one_in_memory(home):
    folder = write_folder(home / "mine", pictures(""))
    plain, shared = prepare(folder), prepare(folder, test_share=True)
    assert read_manifest(plain.folder / "manifest.csv").equals(plain.manifest)
    assert read_manifest(plain.folder / "manifest-test.csv").equals(shared.manifest)
    assert set(plain.manifest["split"]) == {"train", "eval"}
    assert set(shared.manifest["split"]) == {"train", "eval", "test"}


def test_a_second_call_decodes_only_what_changed(home, monkeypatch):
    folder = write_folder(home / "mine", pictures(""))
    prepare(folder)
    decoded = []
    monkeypatch.setattr(manifest, "decode", lambda opened: decoded.append(Path(opened.name).name))
    prepare(folder, test_share=True)
    assert decoded == []
    (folder / "cat" / "0 x.jpg").write_bytes(jpeg(99))
    prepare(folder)
    assert decoded == ["0 x.jpg"]


def test_a_picture_that_breaks_later_is_found(home):
    folder = write_folder(home / "mine", pictures(""))
    prepare(folder)
    (folder / "cat" / "0 x.jpg").write_bytes(jpeg()[:200])
    with pytest.raises(ValueError, match="1 unreadable pictures in .*\n  cat/0 x.jpg"):
        prepare(folder)
    with pytest.warns(UserWarning, match="cat/0 x.jpg"):
        assert len(prepare(folder, on_error="skip").manifest) == 11


def test_a_damaged_manifest_is_replaced_and_said(home):
    folder = write_folder(home / "mine", pictures(""))
    first = prepare(folder)
    (first.folder / "manifest.csv").write_text("path,cla")
    with pytest.warns(UserWarning, match="manifest.csv, line 1: .* decoded again and it is replaced"):
        assert prepare(folder).manifest.equals(first.manifest)
    assert read_manifest(first.folder / "manifest.csv").equals(first.manifest)


def test_what_a_killed_run_left_is_removed(home):
    folder = write_folder(home / "mine", pictures(""))
    first = prepare(folder)
    write_folder(first.folder / ".Images.00000000.tmp", pictures(""))
    (first.folder / ".manifest.csv.00000000.tmp").touch()
    prepare(folder)
    assert tree(first.folder) == ["manifest.csv", "source.txt"]


@pytest.mark.slow
def test_processes_at_once_give_one_result(home):
    packed = write_zip(home / "Images.zip", pictures("", number=50))
    code = "import sys; from asymmlib.data.sources import prepare; print(prepare(sys.argv[1], progress=False).images)"
    environment = {**os.environ, "PYTHONPATH": str(Path(sources.__file__).parents[2])}
    jobs = [subprocess.Popen([sys.executable, "-c", code, packed], env=environment, stdout=subprocess.PIPE)
            for _ in range(3)]
    said = {job.communicate(timeout=60)[0].splitlines()[-1] for job in jobs}
    assert [job.returncode for job in jobs] == [0, 0, 0] and len(said) == 1
    folder = prepare(packed).folder
    assert sorted(os.listdir(folder)) == ["Images", "manifest.csv", "source.txt"]


def test_no_paddle_is_needed(home):
    code = ("import sys; from asymmlib.data.sources import prepare; prepare(sys.argv[1]); "
            "assert 'paddle' not in sys.modules, 'paddle was imported'")
    subprocess.run([sys.executable, "-c", code, write_folder(home / "mine", pictures(""))], check=True,
                   env={**os.environ, "PYTHONPATH": str(Path(sources.__file__).parents[2])})


# --- Caltech-101

COUNTS = {"watch": 239, "Leopards": 200, "bonsai": 128, "car_side": 123, "ketch": 114, "chandelier": 107,
          "hawksbill": 100, "grand_piano": 99, "brain": 98, "butterfly": 91, "helicopter": 88, "menorah": 87,
          "kangaroo": 86, "starfish": 86, "trilobite": 86, "buddha": 85}


def test_the_rule_of_the_sixteen_classes():
    others = {"BACKGROUND_Google": 399, "Faces": 435, "airplanes": 800, "accordion": 55, "z": 85}
    assert largest_classes({**others, **COUNTS}) == CALTECH16  # buddha before z: ties go by name
    assert largest_classes({**COUNTS, "a": 85}) == tuple(sorted({*CALTECH16, "a"} - {"buddha"}))
    assert list(CALTECH16) == sorted(COUNTS)


def test_the_next_sixteen_leave_out_the_first():
    counts = {**COUNTS, **{f"c{index:02d}": 85 for index in range(3)}, "small": 31, "Faces": 435}
    assert largest_classes(counts, skip=16) == ("c00", "c01", "c02", "small")  # buddha goes before c00


def small_caltech(number=5, other=None):
    names = {label: number for label in CALTECH16}
    names |= {"accordion": other or number - 1, "BACKGROUND_Google": number + 1}
    return {f"101_ObjectCategories/{label}/image_{index:04d}.jpg": jpeg(100 * place + index)
            for place, (label, count) in enumerate(names.items()) for index in range(1, count + 1)}


@pytest.fixture
def official(home):
    """An archive within an archive, as the official one, of five pictures a class."""
    inner = write_tar(home / "inner.tar.gz", small_caltech()).read_bytes()
    return write_zip(home / "copy.zip", {f"caltech-101/{sources.CALTECH_INNER}": inner,
                                         "caltech-101/Annotations.tar": b"x",
                                         f"__MACOSX/caltech-101/._{sources.CALTECH_INNER}": b"x"})


def test_a_local_copy_of_caltech_is_unpacked_to_sixteen_classes(home, official, capsys):
    prepared = prepare("caltech16", archive=str(official))
    assert prepared.name == "caltech16" and tuple(prepared.class_names) == CALTECH16
    assert set(os.listdir(prepared.images)) == set(CALTECH16)
    assert len(prepared.manifest) == 80
    said = capsys.readouterr().out
    assert hashlib.md5(official.read_bytes()).hexdigest() in said and CALTECH_MD5 in said
    assert sorted(os.listdir(prepared.folder)) == ["Images", "manifest.csv"]
    official.unlink()
    assert prepare("caltech16").manifest.equals(prepared.manifest)
    assert capsys.readouterr().out == ""


def test_the_official_archive_draws_no_remark(home, official, monkeypatch, capsys):
    monkeypatch.setattr(sources, "CALTECH_MD5", hashlib.md5(official.read_bytes()).hexdigest())
    prepare("caltech16", archive=official)
    assert capsys.readouterr().out == ""


def test_all_object_categories_of_caltech(home):
    packed = write_zip(home / "x.zip", small_caltech(number=6, other=5))
    prepared = prepare("caltech101", archive=packed)
    assert prepared.name == "caltech101" and set(prepared.class_names) == {*CALTECH16, "accordion"}  # no background
    sixteen, alone = keep_classes(prepared, CALTECH16, "some"), prepare("caltech16", archive=packed)
    assert sixteen.manifest.equals(alone.manifest) and sixteen.name == "some"
    assert (sixteen.images, sixteen.folder) == (prepared.images, prepared.folder)


def test_classes_that_cannot_be_kept(home):
    prepared = prepare(write_folder(home / "mine", pictures("")))
    assert keep_classes(prepared, ["dog", "cat"]).manifest.equals(prepared.manifest)
    with pytest.raises(ValueError, match="to 3 classes: it has no 'cow'; it has cat, dog"):
        keep_classes(prepared, ["cow", "cat", "dog"])
    with pytest.raises(ValueError, match="to 1 classes: a classifier needs two"):
        keep_classes(prepared, ["cat"])


@pytest.mark.parametrize("write, name", [(write_tar, "101_ObjectCategories.tar.gz"), (write_zip, "mine.zip")])
def test_any_packing_of_caltech_will_do(home, write, name):
    prepared = prepare("caltech16", archive=write(home / name, small_caltech()))
    assert tuple(prepared.class_names) == CALTECH16


def test_a_copy_in_the_download_folder_is_found(home, official):
    (folders.home() / "downloads").mkdir(parents=True)
    official.rename(folders.home() / "downloads" / "caltech-101.zip")
    assert len(prepare("caltech16").manifest) == 80


def test_caltech_is_downloaded_where_no_copy_is(home, official, monkeypatch):
    asked = []

    def fetch(url, path, md5, progress):
        asked.append((url, path, md5, progress))
        path.parent.mkdir(parents=True)
        return official.rename(path)

    monkeypatch.setattr(sources, "download", fetch)
    assert len(prepare("caltech16", progress=False).manifest) == 80
    assert asked == [(sources.CALTECH_URL, folders.home() / "downloads" / "caltech-101.zip", CALTECH_MD5, False)]


def test_without_network_the_message_names_the_option(home, monkeypatch):
    def fail(*args):
        raise ConnectionError("cannot download it.")

    monkeypatch.setattr(sources, "download", fail)
    with pytest.raises(ConnectionError, match="cannot download it. Or name the file: --archive FILE"):
        prepare("caltech16")


def test_an_archive_that_is_not_caltech(home):
    with pytest.raises(ValueError, match="x.zip is not Caltech-101: .* are cat, dog; they should be Leopards"):
        prepare("caltech16", archive=write_zip(home / "x.zip", pictures("")))
    with pytest.raises(ValueError, match="text.zip is not a zip or tar archive"):
        (home / "text.zip").write_text("text")
        prepare("caltech16", archive=home / "text.zip")
    assert tree(folders.home() / "caltech16") == []


def test_an_archive_without_caltech(home, official):
    with pytest.raises(ValueError, match="an archive goes with the data caltech16 or caltech101, not with 'sample'"):
        prepare(archive=official)
    with pytest.raises(FileNotFoundError, match="no archive nothing.zip: give the path of a local copy"):
        prepare("caltech16", archive="nothing.zip")


@pytest.mark.slow
def test_the_real_caltech_archive(caltech16):
    """The count that the project's description gives: 1,817 pictures, 1,447 to train, 370 to evaluate."""
    frame = caltech16.manifest
    assert frame["class"].value_counts().to_dict() == COUNTS
    assert tuple(caltech16.class_names) == CALTECH16
    assert len(frame) == 1817
    assert frame["split"].value_counts().to_dict() == {"train": 1447, "eval": 370}
    assert largest_classes(frame["class"].value_counts().to_dict()) == CALTECH16


# --- bad input

@pytest.mark.parametrize("choice, kind, message", [
    ("nothing/here", FileNotFoundError,
     "no data at nothing/here: .* accepted are 'sample', 'caltech16', 'caltech101', or the path"),
    (Path("nothing"), FileNotFoundError, "no data at nothing: "),
    ("~/no such folder", FileNotFoundError, "no data at ~/no such folder: "),
    ("", ValueError, "unknown data ''; accepted are"),
    ("caltech", ValueError,
     "unknown data 'caltech'; accepted are 'sample', 'caltech16', 'caltech101', or the path.*ASYMMLIB_DATA"),
])
def test_data_that_are_not_there(home, choice, kind, message):
    with pytest.raises(kind, match=message):
        prepare(choice)
    assert not folders.home().exists()


def test_a_zip_that_is_no_zip(home):
    (home / "Images.zip").write_text("no zip")
    with pytest.raises(ValueError, match="Images.zip is not a zip or tar archive"):
        prepare(home / "Images.zip")


def test_a_zip_that_leaves_its_folder(home):
    packed = write_zip(home / "Images.zip", {**pictures(""), "../x": b"evil"})
    with pytest.raises(ValueError, match="is not unpacked: its member '../x' leads out of the target folder"):
        prepare(packed)
    assert not [name for name in tree(home) if name.endswith("/x") or name == "x"]


def test_bad_settings(home):
    folder = write_folder(home / "mine", pictures(""))
    with pytest.raises(ValueError, match="on_error is 'maybe'; accepted are 'error' and 'skip'"):
        prepare(folder, on_error="maybe")


@pytest.mark.parametrize("files, message", [
    (pictures("", classes=("cat",)), "holds one class only, 'cat'"),
    (pictures("Images/", classes=("cat",)), "holds one class only, 'cat'"),
    ({"Images.zip": b"x"}, "holds no class folders but Images.zip: give the path .*Images.zip"),
    ({"notes.txt": b"x"}, "holds no class folders"),
    ({**pictures(""), "empty/notes.txt": b"x"}, "class 'empty' has no pictures"),
    ({**pictures(""), **pictures("", ("few",), 4)}, "class 'few' has 4 pictures; the split needs 5 or more"),
    ({**pictures("one/"), **pictures("two/")}, "'one', 'two' has no pictures .* the class folders themselves"),
])
def test_folders_that_cannot_be_split(home, files, message):
    folder = write_folder(home / "mine", files)
    with pytest.raises(ValueError, match=message):
        prepare(folder)


def test_a_class_in_chinese_and_a_checkpoint_folder(home):
    files = {**pictures("", ("蝴蝶", "cat")), ".ipynb_checkpoints/1.jpg": jpeg()}
    assert prepare(write_folder(home / "mine", files)).class_names == ["cat", "蝴蝶"]


def test_find_images_stops_where_pictures_are(tmp_path):
    write_folder(tmp_path, pictures("a/b/"))
    assert find_images(tmp_path) == tmp_path / "a" / "b"
    (tmp_path / "a" / "loose.jpg").write_bytes(jpeg())
    assert find_images(tmp_path) == tmp_path / "a"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /sys, where even root makes no folder")
def test_a_home_that_nobody_may_write_in(tmp_path, monkeypatch):
    monkeypatch.setenv("ASYMMLIB_HOME", "/sys/asymmlib")
    with pytest.raises(PermissionError, match="cannot write in /sys/asymmlib .*ASYMMLIB_HOME"):
        prepare(write_folder(tmp_path / "mine", pictures("")))


def test_no_right_to_write(home, monkeypatch):
    """Simulated, as root may write anywhere."""
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    folder = write_folder(home / "mine", pictures(""))
    monkeypatch.setattr(files.Path, "mkdir", refuse)
    with pytest.raises(PermissionError, match="cannot write in .*Permission denied.*ASYMMLIB_HOME"):
        prepare(folder)
