"""Archives made here, good and hostile: what is unpacked, what is refused, and that nothing else appears."""
import gzip
import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from asymmlib.base.files import checksum
from asymmlib.data import archive, packing
from asymmlib.data.archive import members, safe_path, stem, unpack


def make_zip(path, files):
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def make_tar(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as packed:
        for name, content in files.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if info is content else content
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def tree(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


FILES = {"Images/cat/a b.jpg": b"one", "Images/猫/ü.jpg": b"two", "Images/dog/empty": b""}


def test_checksum_is_that_of_hashlib(tmp_path):
    data = os.urandom(archive.CHUNK_BYTES + 1)
    (tmp_path / "file").write_bytes(data)
    assert checksum(tmp_path / "file") == hashlib.sha256(data).hexdigest()
    assert checksum(tmp_path / "file", "md5") == hashlib.md5(data).hexdigest()


@pytest.mark.parametrize("name, expected", [
    ("Images.zip", "Images"), ("a/caltech-101.tar.gz", "caltech-101"), ("x.tgz", "x"), ("v1.2.tar", "v1.2"),
    ("plain", "plain"),
])
def test_stem(name, expected):
    assert stem(name) == expected


@pytest.mark.parametrize("make, name", [
    (lambda path, files: make_tar(path, files, "w:bz2"), "x.tar.bz2"),
    (lambda path, files: make_tar(path, files, "w:xz"), "x.tar.xz"),
    (make_zip, "x.zip"), (make_tar, "x.tar.gz"), (lambda path, files: make_tar(path, files, "w"), "x.tar"),
    (make_zip, "misnamed.tar.gz"),
])
def test_zip_and_tar_are_unpacked(tmp_path, make, name):
    packed = make(tmp_path / name, FILES)
    assert unpack(packed, tmp_path / "new" / "out") == tmp_path / "new" / "out"
    assert tree(tmp_path / "new" / "out") == FILES
    assert {member.path.as_posix(): member.size for member in members(packed)} == {k: len(v) for k, v in FILES.items()}
    assert os.listdir(tmp_path / "new") == ["out"]


def test_keep_chooses_members(tmp_path):
    packed = make_zip(tmp_path / "x.zip", FILES)
    unpack(packed, tmp_path / "out", keep=lambda paths: [path for path in paths if path.parent.name == "cat"])
    assert list(tree(tmp_path / "out")) == ["Images/cat/a b.jpg"]


def test_litter_is_left_out(tmp_path):
    litter = ["__MACOSX/Images/cat/._a.jpg", "Images/.DS_Store", "Images/cat/._a.jpg", "Images/cat/Thumbs.db",
              "Images/.ipynb_checkpoints/a.jpg", ".git/config", "Images/Icon\r", "Images/cat/desktop.ini"]
    packed = make_zip(tmp_path / "x.zip", {**FILES, **dict.fromkeys(litter, b"x")})
    assert tree(unpack(packed, tmp_path / "out")) == FILES


def test_a_target_that_exists_is_complete_and_stays(tmp_path):
    packed = make_zip(tmp_path / "x.zip", FILES)
    (tmp_path / "out").mkdir()
    assert tree(unpack(packed, tmp_path / "out")) == {}


@pytest.mark.parametrize("name, reason", [
    ("../x", "leads out of the target folder"), ("Images/../../x", "leads out"), ("a\\..\\..\\x", "leads out"),
    ("/etc/x", "absolute"), ("\\\\server\\x", "absolute"), ("C:/x", "drive letter"), ("a/c:x", "drive letter"),
])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_member_that_leaves_the_target_is_refused(tmp_path, make, name, reason):
    (tmp_path / "inner").mkdir()
    packed = make(tmp_path / "inner" / "x", {**FILES, name: b"evil"})
    with pytest.raises(ValueError, match=f"is not unpacked: its member .*{reason}") as caught:
        unpack(packed, tmp_path / "inner" / "out")
    assert str(packed) in str(caught.value) and repr(name) in str(caught.value)
    assert set(tree(tmp_path)) == {"inner/x"}


@pytest.mark.parametrize("name", ["a/b", "./a/b", "a//b", "a b/ü"])
def test_safe_names(name):
    assert str(safe_path(name)) in ("a/b", "a b/ü")


def test_a_zero_byte_in_a_name():
    with pytest.raises(ValueError, match="zero byte"):
        safe_path("a\0b")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
                                  tarfile.GNUTYPE_SPARSE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    packed = make_tar(tmp_path / "x.tar.gz", {"Images/cat/a.jpg": b"1", "evil": special("evil", kind, "Images")})
    with pytest.raises(ValueError, match="is not unpacked: its member 'evil' is a link or a device"):
        unpack(packed, tmp_path / "out")
    assert set(tree(tmp_path)) == {"x.tar.gz"}


def test_a_symbolic_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("evil")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    packed = make_zip(tmp_path / "x.zip", {"a.jpg": b"1"})
    with zipfile.ZipFile(packed, "a") as more:
        more.writestr(info, "/etc")
    with pytest.raises(ValueError, match="its member 'evil' is a link or a device; unpack it yourself"):
        unpack(packed, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"plain text", b"PK\x03\x04 and then nothing", b"\x1f\x8bno gzip",
                                     gzip.compress(b"no tar", mtime=0), b"\xff" * 2000])
def test_what_is_no_archive(tmp_path, content):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a zip or tar archive") as caught:
        unpack(path, tmp_path / "out")
    assert str(path) in str(caught.value)
    assert set(tree(tmp_path)) == {"x.zip"}


def test_a_missing_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match="no archive .*nothing.zip"):
        unpack(tmp_path / "nothing.zip", tmp_path / "out")


PICTURES = {f"Images/cat/{index}.jpg": os.urandom(3000) for index in range(20)}


@pytest.mark.parametrize("make", [make_zip, make_tar, lambda path, files: make_tar(path, files, "w")])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_a_truncated_archive_leaves_nothing(tmp_path, make, share):
    packed = make(tmp_path / "x", PICTURES)
    data = packed.read_bytes()
    packed.write_bytes(data[:int(len(data.rstrip(b"\0")) * share)])
    with pytest.raises(ValueError, match="is damaged"):
        unpack(packed, tmp_path / "out")
    assert set(tree(tmp_path)) == {"x"}


def test_a_flipped_bit_is_noticed(tmp_path):
    for make in (make_zip, make_tar):
        packed = make(tmp_path / "x", PICTURES)
        data = bytearray(packed.read_bytes())
        data[len(data) // 2] ^= 1
        packed.write_bytes(data)
        with pytest.raises(ValueError, match="is damaged"):
            unpack(packed, tmp_path / "out")


def test_a_broken_header_in_a_tar_loses_no_file_in_silence(tmp_path):
    packed = make_tar(tmp_path / "x.tar", PICTURES, "w")
    data = bytearray(packed.read_bytes())
    data[(512 + 3072) * 10 + 148] ^= 1  # in the checksum field of the eleventh header
    packed.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged .*something other than zeros follows"):
        unpack(packed, tmp_path / "out")


def test_an_encrypted_zip(tmp_path):
    packed = make_zip(tmp_path / "x.zip", FILES)
    data = bytearray(packed.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # flag bit 0 of a central entry
    data[6] |= 1
    packed.write_bytes(data)
    with pytest.raises(ValueError, match="x.zip is encrypted: unpack it yourself with its password and give"):
        unpack(packed, tmp_path / "out")


@pytest.mark.parametrize(("number", "name"), [(9, "Deflate64"), (98, "PPMd"), (77, "method 77")])
def test_a_compression_that_python_does_not_know(tmp_path, number, name):
    packed = make_zip(tmp_path / "x.zip", FILES)
    data = bytearray(packed.read_bytes())
    data[data.index(b"PK\x01\x02") + 10] = number
    packed.write_bytes(data)
    with pytest.raises(ValueError, match=f"x.zip is compressed by {name}.*: unpack it yourself and give the folder"):
        unpack(packed, tmp_path / "out")


@pytest.mark.parametrize(("head", "what", "remedy"), [
    (b"Rar!\x1a\x07\x01\0", "a RAR archive", "unpack it yourself and give the folder"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it yourself"), (b"\x28\xb5\x2f\xfd", "a Zstandard", "unpack it"),
    (b"\xff\xd8\xff\xe0", "a JPEG picture", "give the folder of class folders that it lies in"),
    (b"<html>", "a web page", "fetch the file itself again"), (b"version https://git-lfs", "a pointer", "git lfs pull"),
    (b"", "an empty file", "fetch it again"),
])
def test_other_files_are_named_as_what_they_are(tmp_path, head, what, remedy):
    (tmp_path / "x.zip").write_bytes(head and head + os.urandom(3000))
    with pytest.raises(ValueError, match=f"x.zip is not a zip or tar archive but {what}.*: .*{remedy}"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


@pytest.mark.parametrize("name", ["PKU/a.jpg", "Rar!/a.jpg", "MZ/a.jpg"])
def test_a_tar_is_known_by_its_mark_whatever_its_first_name_looks_like(tmp_path, name):
    packed = make_tar(tmp_path / "x.tar", {name: b"1"}, "w")
    assert tree(unpack(packed, tmp_path / "out")) == {name: b"1"}


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_a_pipe_and_a_device_are_no_archives(tmp_path):
    os.mkfifo(tmp_path / "x.zip")
    with pytest.raises(ValueError, match="x.zip is a named pipe, not a file"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    (tmp_path / "y.zip").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="y.zip is a device, not a file"):
        unpack(tmp_path / "y.zip", tmp_path / "out")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="255 bytes a name are Linux's limit")
def test_a_name_too_long_is_named_with_its_length(tmp_path):
    packed = make_zip(tmp_path / "x.zip", {f"猫/{'长' * 99}.jpg": b"1"})
    with pytest.raises(ValueError, match="its member '猫/长.* has 301 bytes, .*255.*; shorten it") as caught:
        unpack(packed, tmp_path / "out")
    assert "Free some space" not in str(caught.value) and set(tree(tmp_path)) == {"x.zip"}


def test_two_members_of_one_name(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        packed = tmp_path / "x.zip"
        with zipfile.ZipFile(packed, "w") as file:
            file.writestr("cat/a.jpg", b"1")
            file.writestr("cat/a.jpg", b"2")
    with pytest.raises(ValueError, match="two members are called 'cat/a.jpg'"):
        unpack(packed, tmp_path / "out")
    assert set(tree(tmp_path)) == {"x.zip"}


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_a_file_that_is_also_a_folder(tmp_path, names):
    packed = make_zip(tmp_path / "x.zip", dict.fromkeys(names, b"1"))
    with pytest.raises(ValueError, match="two members are called"):
        unpack(packed, tmp_path / "out")


def test_a_zip_bomb_is_refused_by_its_ratio(tmp_path, monkeypatch):
    monkeypatch.setitem(archive.LIMITS, "ratio from", 10_000)
    for make in (make_tar, lambda path, files: zip_deflated(path, files)):
        packed = make(tmp_path / "x", {"cat/a.bmp": bytes(10_000_000)})
        with pytest.raises(ValueError, match="exceeds a limit on size .ratio."):
            unpack(packed, tmp_path / "out")
    assert set(tree(tmp_path)) == {"x"}


def zip_deflated(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


@pytest.mark.parametrize("limit, value", [("members", 2), ("member bytes", 2), ("total bytes", 5)])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_each_limit(tmp_path, monkeypatch, make, limit, value):
    packed = make(tmp_path / "x", FILES)
    monkeypatch.setitem(archive.LIMITS, limit, value)
    with pytest.raises(ValueError, match=f"exceeds a limit on size .*{limit}"):
        unpack(packed, tmp_path / "out")


def test_a_huge_tar_header_is_not_read_into_memory(tmp_path):
    info = special("x", tarfile.XHDTYPE)
    info.size = 40 * 2**20
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(info.tobuf() + bytes(info.size + 1024)))
    with pytest.raises(ValueError, match="is damaged .a header of 4194"):
        members(tmp_path / "x.tar.gz")


def test_a_negative_size(tmp_path):
    info = tarfile.TarInfo("a.jpg")
    header = bytearray(info.tobuf())
    header[124:136] = b"\xff" * 12  # the size field in base 256: -1
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    (tmp_path / "x.tar").write_bytes(header + bytes(1024))
    with pytest.raises(ValueError, match="negative|is damaged"):
        members(tmp_path / "x.tar")


def test_a_zip_that_lies_about_a_size(tmp_path):
    packed = zip_deflated(tmp_path / "x.zip", {"a.jpg": bytes(50_000)})
    data = packed.read_bytes()
    lie = (10).to_bytes(4, "little")
    packed.write_bytes(data.replace((50_000).to_bytes(4, "little"), lie))
    with pytest.raises(ValueError, match="is damaged"):
        unpack(packed, tmp_path / "out")
    assert set(tree(tmp_path)) == {"x.zip"}


@pytest.mark.parametrize("real, message", [(11, "larger than it declares"), (9, "shorter than it declares")])
def test_the_real_size_is_held_to_the_declared_one(tmp_path, monkeypatch, real, message):
    packed = make_zip(tmp_path / "x.zip", {"a.jpg": bytes(10)})
    monkeypatch.setattr(packing.Zip, "open", lambda self, entry: io.BytesIO(bytes(real)))
    with pytest.raises(ValueError, match=message):
        unpack(packed, tmp_path / "out")


@pytest.mark.parametrize("encoding", ["gbk", "utf-8"])
def test_chinese_names_without_the_utf8_mark(tmp_path, encoding):
    """Zips from Chinese Windows hold GBK, those of some other tools UTF-8, both unmarked."""
    raw = "图片/蝴蝶/乗 1.jpg".encode(encoding)  # the last sign ends in a backslash byte in GBK
    packed = make_zip(tmp_path / "x.zip", {"x" * len(raw): b"1"})
    packed.write_bytes(packed.read_bytes().replace(b"x" * len(raw), raw))
    assert tree(unpack(packed, tmp_path / "out")) == {"图片/蝴蝶/乗 1.jpg": b"1"}


def test_names_of_western_windows_lose_no_file(tmp_path):
    for make, expected in ((make_zip, "café.jpg"), (make_tar, "café.jpg")):
        packed = make(tmp_path / "x", {"cafx.jpg": b"1"})
        data = packed.read_bytes()
        if make is make_tar:
            info = tarfile.TarInfo("caf\udc82.jpg")
            info.size = 1
            data = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + b"1".ljust(512, b"\0") + bytes(1024)
        packed.write_bytes(data.replace(b"cafx", b"caf\x82"))
        assert tree(unpack(packed, tmp_path / make.__name__)) == {expected: b"1"}


def test_two_processes_at_once(tmp_path):
    packed = make_zip(tmp_path / "x.zip", PICTURES)
    code = "import sys; from asymmlib.data.archive import unpack; unpack(sys.argv[1], sys.argv[2])"
    root = str(Path(archive.__file__).parents[2])
    jobs = [subprocess.Popen([sys.executable, "-c", code, packed, tmp_path / "both" / "out"],
                             env={**os.environ, "PYTHONPATH": root}) for _ in range(3)]
    assert [job.wait(60) for job in jobs] == [0, 0, 0]
    assert tree(tmp_path / "both" / "out") == PICTURES
    assert os.listdir(tmp_path / "both") == ["out"]


def test_the_slower_process_discards_its_copy(tmp_path, monkeypatch):
    packed = make_zip(tmp_path / "x.zip", FILES)
    real = archive._extract

    def extract_while_another_finishes(source, member, folder):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "theirs").touch()
        real(source, member, folder)

    monkeypatch.setattr(archive, "_extract", extract_while_another_finishes)
    assert tree(unpack(packed, tmp_path / "out")) == {"theirs": b""}
    assert sorted(os.listdir(tmp_path)) == ["out", "x.zip"]


@pytest.mark.parametrize("owner, call", [(archive.Path, "mkdir"), (archive, "open"), (os, "rename")])
def test_no_right_to_write(tmp_path, monkeypatch, owner, call):
    """Root may write anywhere, so the refusal is simulated at the calls that would meet it."""
    packed = make_zip(tmp_path / "x.zip", FILES)
    real = getattr(owner, call, open)

    def refuse(*args, **kwargs):
        if call == "open" and args[1] != "xb":
            return real(*args, **kwargs)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(owner, call, refuse, raising=False)
    with pytest.raises(PermissionError, match="cannot write in .*Permission denied.*ASYMMLIB_HOME"):
        unpack(packed, tmp_path / "out")
    monkeypatch.undo()
    assert set(tree(tmp_path)) == {"x.zip"}
