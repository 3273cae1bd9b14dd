"""The split by the article's rule, its file, and what is refused before any training starts."""
import errno
import os
import struct
import subprocess
import sys
import unicodedata
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from asymmlib.base.files import checksum
from asymmlib.data import manifest
from asymmlib.data.manifest import (
    COLUMNS,
    class_names,
    counts,
    list_pictures,
    make_manifest,
    read_manifest,
    write_manifest,
)


def draw(path, seed=0):
    """Write a small picture of noise, as the suffix asks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def images(tmp_path):
    """Two classes of 11 and 5 pictures."""
    for label, number in (("dog", 11), ("cat", 5)):
        for index in range(number):
            draw(tmp_path / "Images" / label / f"image {index:02d}.jpg", seed=index)
    return tmp_path / "Images"


def shares(frame, label):
    return "".join(frame.loc[frame["class"] == label, "split"].map({"train": ".", "eval": "E", "test": "T"}))


def test_every_fifth_of_the_sorted_names_is_for_evaluation(images):
    frame = make_manifest(images)
    assert tuple(frame.columns) == COLUMNS
    assert class_names(frame) == ["cat", "dog"]
    assert shares(frame, "dog") == "E....E....E"
    assert shares(frame, "cat") == "E...."
    row = frame.iloc[5]
    assert row["path"] == "dog/image 00.jpg" and row["name"] == "dog/image_00.jpg"
    assert row["sha256"] == checksum(images / "dog" / "image 00.jpg")
    assert all((images / path).is_file() for path in frame["path"])


def test_a_test_share_takes_from_train_only(images):
    plain, shared = make_manifest(images), make_manifest(images, test_share=True)
    assert shares(shared, "dog") == "ET...ET...E"
    assert list(shared["path"]) == list(plain["path"])
    changed = plain["split"] != shared["split"]
    assert set(plain["split"][changed]) == {"train"} and set(shared["split"][changed]) == {"test"}
    assert list(np.flatnonzero(changed)) == [1, 6, 11]


def test_counts(images):
    table = counts(make_manifest(images, test_share=True))
    assert table.to_dict("index") == {"cat": {"train": 3, "eval": 1, "test": 1, "total": 5},
                                      "dog": {"train": 6, "eval": 3, "test": 2, "total": 11}}
    assert list(counts(make_manifest(images)).columns) == ["train", "eval", "total"]


def test_the_order_of_the_folder_does_not_matter(images, monkeypatch, tmp_path):
    write_manifest(make_manifest(images), tmp_path / "a.csv")
    real = Path.iterdir
    monkeypatch.setattr(manifest.Path, "iterdir", lambda self: reversed(sorted(real(self))))
    write_manifest(make_manifest(images), tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_the_same_bytes_in_another_process_place_and_language(images, tmp_path):
    write_manifest(make_manifest(images), tmp_path / "a.csv")
    moved = images.rename(tmp_path / "elsewhere")
    code = "import sys; from asymmlib.data.manifest import *; write_manifest(make_manifest(sys.argv[1]), sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, moved, tmp_path / "b.csv"], check=True, env={
        **os.environ, "PYTHONPATH": str(Path(manifest.__file__).parents[2]), "LC_ALL": "C", "PYTHONHASHSEED": "7"})
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert b"\r" not in (tmp_path / "a.csv").read_bytes()


def test_names_are_sorted_by_code_point_of_their_composed_form(images):
    """`é` sorts behind `z` whether a file system stores it as one sign or as two."""
    for form in ("NFC", "NFD"):
        folder = images.parent / form
        for name in ("z", "é", "e1", "B", "a"):
            draw(folder / "one" / f"{unicodedata.normalize(form, name)}.png")
            draw(folder / "two" / f"{name}.png")
        frame = make_manifest(folder)
        names = [unicodedata.normalize("NFC", Path(path).stem) for path in frame["path"][:5]]
        assert names == ["B", "a", "e1", "z", "é"]
        assert all((folder / path).is_file() for path in frame["path"])


def test_hidden_folders_and_files_shift_nothing(images, capsys):
    before = make_manifest(images)
    draw(images / ".ipynb_checkpoints" / "image 00-checkpoint.jpg")
    draw(images / "__MACOSX" / "x.jpg")
    draw(images / "cat" / ".hidden.jpg")
    (images / "cat" / "Thumbs.db").write_bytes(b"x")
    pd.testing.assert_frame_equal(make_manifest(images), before)
    assert capsys.readouterr().out == ""


def test_other_visible_files_are_left_out_and_counted(images, capsys):
    before = make_manifest(images)
    (images / "cat" / "notes.txt").write_text("x")
    (images / "cat" / "aaa.TXT").write_text("x")
    (images / "LICENSE").write_text("x")
    draw(images / "dog" / "more" / "x.jpg")
    capsys.readouterr()
    pd.testing.assert_frame_equal(make_manifest(images), before)
    assert "4 entries are no pictures of a class and are left out (.txt: 2, folder: 1, no suffix: 1)" in \
        capsys.readouterr().out


def test_every_suffix_counts_in_any_case(tmp_path):
    for label in ("a", "b"):
        for suffix in manifest.PICTURES:
            draw(tmp_path / label / f"x{suffix}").rename(tmp_path / label / f"x{suffix.upper()}")
    assert len(make_manifest(tmp_path)) == 2 * len(manifest.PICTURES)


def test_a_class_name_in_chinese(images, tmp_path):
    (images / "dog").rename(images / "蝴蝶 甲")
    frame = make_manifest(images)
    assert class_names(frame) == ["cat", "蝴蝶 甲"]
    assert frame["name"].iloc[-1] == "蝴蝶 甲/image_10.jpg"
    write_manifest(frame, tmp_path / "manifest.csv")
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "manifest.csv"), frame)


def test_names_that_collide_lose_no_file(images):
    for index, name in enumerate(("a b", "a_b", "a_b-2", "a b c", "a_b c", "a b_c", "a_b_c")):
        draw(images / "cat" / f"{name}.jpg", seed=100 + index)
    cats = make_manifest(images).query("`class` == 'cat'")
    assert cats["name"].is_unique and cats["path"].is_unique and len(cats) == 12
    names = dict(zip(cats["path"], cats["name"], strict=True))
    assert names["cat/a b.jpg"] == "cat/a_b.jpg"
    assert names["cat/a_b-2.jpg"] == "cat/a_b-2.jpg"  # a name that is there already is never given away
    assert names["cat/a_b.jpg"] == "cat/a_b-3.jpg"
    assert [names[f"cat/{name}.jpg"] for name in ("a b c", "a b_c", "a_b c", "a_b_c")] == \
        ["cat/a_b_c.jpg", "cat/a_b_c-2.jpg", "cat/a_b_c-3.jpg", "cat/a_b_c-4.jpg"]
    assert cats["sha256"].is_unique


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nothing: give a folder that holds one folder"):
        make_manifest(tmp_path / "nothing")


def test_no_class_and_one_class(tmp_path):
    with pytest.raises(ValueError, match="holds no class folders"):
        make_manifest(tmp_path)
    draw(tmp_path / "cat" / "a.jpg")
    with pytest.raises(ValueError, match="holds one class only, 'cat'; a classifier needs two or more"):
        make_manifest(tmp_path)


def test_an_empty_class(images):
    (images / "empty").mkdir()
    (images / "empty" / "notes.txt").touch()
    with pytest.raises(ValueError, match="class 'empty' has no pictures"):
        make_manifest(images)


def test_fewer_than_five_pictures(images):
    (images / "cat" / "image 04.jpg").unlink()
    with pytest.raises(ValueError, match="class 'cat' has 4 pictures; the split needs 5 or more"):
        make_manifest(images)


def test_an_unknown_answer_to_errors(images):
    with pytest.raises(ValueError, match="on_error is 'ignore'; accepted are 'error' and 'skip'"):
        make_manifest(images, on_error="ignore")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def bomb(path, side=20_000):
    """A PNG of a hundred bytes that declares 400 million pixels."""
    data = BytesIO()
    Image.new("L", (1, 1)).save(data, format="PNG")
    header = b"IHDR" + struct.pack(">II", side, side) + data.getvalue()[24:29]
    path.write_bytes(data.getvalue()[:12] + header + struct.pack(">I", zlib.crc32(header)) + data.getvalue()[33:])


def smaller_bomb(path):
    bomb(path, 10_000)  # Pillow only warns of this one


BAD = {
    "a truncated JPEG": (truncate, "truncated"),
    "a text file named .jpg": (lambda path: path.write_text("not a picture"), "cannot identify"),
    "an empty file": (lambda path: path.write_bytes(b""), "an empty file"),
    "PostScript, for which Pillow would start a program": (lambda path: path.write_text("%!PS-Adobe-3.0"), "identify"),
    "more pixels than memory should hold": (bomb, "400000000 pixels.*decompression bomb"),
    "many pixels": (smaller_bomb, "100000000 pixels.*decompression bomb"),
    "a dead link": (lambda path: (path.unlink(), path.symlink_to("nowhere")), "No such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_unreadable_picture_is_found_up_front(images, case):
    spoil, reason = BAD[case]
    spoil(images / "dog" / "image 05.jpg")
    with pytest.raises(ValueError, match=f"1 unreadable pictures in .*\n  dog/image 05.jpg: .*{reason}") as caught:
        make_manifest(images)
    assert str(images) in str(caught.value) and 'on_error="skip"' in str(caught.value)
    with pytest.warns(UserWarning, match="1 unreadable pictures .* are left out:\n  dog/image 05.jpg: "):
        frame = make_manifest(images, on_error="skip")
    assert "dog/image 05.jpg" not in set(frame["path"])
    assert shares(frame, "dog") == "E....E...."  # the rule over the files that are left


def test_all_unreadable_pictures_are_listed_up_to_a_number(images):
    for index in range(30):
        (images / "dog" / f"x{index:02d}.jpg").write_text("x")
    with pytest.raises(ValueError, match="30 unreadable") as caught:
        make_manifest(images)
    assert "dog/x19.jpg" in str(caught.value) and "dog/x20.jpg" not in str(caught.value)
    assert "... and 10 more" in str(caught.value)


def test_a_class_that_skipping_empties(images):
    for path in (images / "cat").iterdir():
        path.write_text("x")
    with pytest.warns(UserWarning, match="5 unreadable"), \
            pytest.raises(ValueError, match="class 'cat' has no pictures"):
        make_manifest(images, on_error="skip")


def test_known_pictures_are_not_decoded_again(images, monkeypatch):
    frame = make_manifest(images)
    draw(images / "cat" / "new.jpg", seed=99)
    decoded = []
    monkeypatch.setattr(manifest, "decode", lambda file: decoded.append(Path(file.name)))
    make_manifest(images, known=set(frame["sha256"]))
    assert decoded == [images / "cat" / "new.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["a\\b.jpg", "a\nb.jpg", "a\rb.jpg", b"caf\xe9.jpg"])
def test_names_that_other_machines_cannot_hold(images, name):
    try:
        os.rename(images / "cat" / "image 00.jpg", os.path.join(os.fsencode(images / "cat"), os.fsencode(name)))
    except OSError as error:  # macOS refuses the last one itself
        pytest.skip(str(error))
    with pytest.raises(ValueError, match="1 unreadable pictures.*\n  cat/.*jpg: .*rename it"):
        make_manifest(images)


def test_awkward_names_survive_the_file(images, tmp_path):
    for name in ('a,"b".jpg', "NA.jpg", "-1.jpg", "#x.jpg", "  .jpg", "'.jpg"):
        draw(images / "cat" / name)
    (images / "dog").rename(images / "null")
    frame = make_manifest(images)
    write_manifest(frame, tmp_path / "manifest.csv")
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "manifest.csv"), frame)


GOOD = "cat/a.jpg,cat,train," + "0" * 64 + ",cat/a.jpg"


@pytest.mark.parametrize("lines, line, reason", [
    ([], 1, "lists no pictures"), ([",".join(COLUMNS)], 1, "lists no pictures"),
    (["path,class", GOOD], 1, "the columns must be path,class,split,sha256,name"),
    ([",".join(COLUMNS), GOOD, "cat/b.jpg,cat"], 3, "2 fields in place of 5"),
    ([",".join(COLUMNS), GOOD, GOOD.replace("a.jpg", "../../b")], 3, "leads out of the target folder"),
    ([",".join(COLUMNS), GOOD.replace("cat/a", "/cat/a")], 2, "absolute"),
    ([",".join(COLUMNS), GOOD.replace("cat/a", "C:/a")], 2, "drive letter"),
    ([",".join(COLUMNS), GOOD.replace("cat/a", "cat\\a")], 2, "backslash"),
    ([",".join(COLUMNS), GOOD.replace("train", "training")], 2, "split 'training' is none of train, eval, test"),
    ([",".join(COLUMNS), GOOD.replace("000,", "00x,")], 2, "is no SHA-256"),
    ([",".join(COLUMNS), GOOD, GOOD], 3, "occurs twice"),
    ([",".join(COLUMNS), GOOD, GOOD.replace("cat/a", "cat/b", 1)], 3, "occurs twice"),
    ([",".join(COLUMNS), GOOD.replace(",cat,", ",dog,")], 2, "must be <class>/<file> of class 'dog'"),
    ([",".join(COLUMNS), GOOD.replace("cat/a", "cat/x/a")], 2, "must be <class>/<file>"),
    ([",".join(COLUMNS), GOOD.replace("cat/a.jpg", "", 1)], 2, "must be <class>/<file>"),
])
def test_a_damaged_manifest_names_the_line(tmp_path, lines, line, reason):
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match=f"manifest.csv, line {line}: .*{reason}"):
        read_manifest(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'"', b"a" * 200_000, b'a"b\n"c"d\n'])
def test_what_is_no_manifest(tmp_path, content):
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(ValueError, match="manifest.csv, (line 1|after line)"):
        read_manifest(tmp_path / "manifest.csv")


def test_a_manifest_saved_by_a_spreadsheet_is_read(images, tmp_path):
    frame = make_manifest(images)
    write_manifest(frame, tmp_path / "manifest.csv")
    text = (tmp_path / "manifest.csv").read_text(encoding="utf-8")
    (tmp_path / "saved.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "saved.csv"), frame)


def test_a_missing_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match="no manifest .*nothing.csv: make one with python -m asymmlib prepare"):
        read_manifest(tmp_path / "nothing.csv")


def test_no_right_to_write_a_manifest(images, tmp_path, monkeypatch):
    """Simulated, as root may write anywhere."""
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    frame = make_manifest(images)
    monkeypatch.setattr("asymmlib.base.files.os.replace", refuse)
    with pytest.raises(PermissionError, match="cannot write in .*ASYMMLIB_HOME"):
        write_manifest(frame, tmp_path / "manifest.csv")
    assert not (tmp_path / "manifest.csv").exists()


def test_list_pictures_gives_sorted_paths(images):
    files = list_pictures(images)
    assert list(files) == ["cat", "dog"]
    assert [path.name for path in files["cat"]] == [f"image {index:02d}.jpg" for index in range(5)]
