"""In which encoding the names of an archive's members are: one for all that do not say it, told when it is guessed."""
import struct
import zipfile
import zlib

import pytest

from asymmlib.data.archive import members, unpack
from asymmlib.data.names import choose
from asymmlib.data.sources import prepare


def raw_zip(path, names, extra=lambda raw: b"", flag=lambda raw: 0):
    """A stored zip with member names given as bytes, as tools of Windows write them."""
    body, central = b"", b""
    for number, raw in enumerate(names):
        data = b"%d" % number
        head = struct.pack("<HHHHHIIIHH", 20, flag(raw), 0, 0, 33, zlib.crc32(data), len(data), len(data), len(raw),
                           len(extra(raw)))
        central += (struct.pack("<IH", 0x02014B50, 20) + head + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + raw
                    + extra(raw))
        body += struct.pack("<I", 0x04034B50) + head + raw + extra(raw) + data
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(names), len(names), len(central), len(body), 0)
    path.write_bytes(body + central + end)
    return path


def unicode_field(text, of=None, version=1):
    def field(raw):
        content = struct.pack("<BI", version, zlib.crc32(raw if of is None else of)) + text.encode()
        return struct.pack("<HHI", 0x9999, 4, 7) + struct.pack("<HH", 0x7075, len(content)) + content
    return field


def found(path, **options):
    return [member.path.as_posix() for member in members(path, **options)]


@pytest.mark.parametrize(("encoding", "names"), [
    ("gbk", ["猫/0.jpg", "狗/0.jpg"]),  # the first alone would be valid UTF-8
    ("gbk", ["数据集/尤里的陰謀/图0.jpg", "数据集/狗/图0.jpg"]),
    ("gbk", ["鹦鹉/0.jpg", "蝴蝶/0.jpg", "蝙蝠（2）/0.jpg"]),
    ("cp932", ["ねこ/0.jpg", "いぬ/0.jpg"]), ("cp932", ["猫/0.jpg", "犬/0.jpg"]), ("cp932", ["薔薇/0.jpg"]),
    ("cp932", ["テスト表/0.jpg"]),  # ends in a backslash byte
    ("cp850", ["Löwe/0.jpg", "Bär/0.jpg"]), ("cp850", ["Noël/0.jpg", "été/à.jpg"]), ("cp850", ["São Tomé/Ø.jpg"]),
    ("cp437", ["Straße/0.jpg", "ÄPFEL/0.jpg"]), ("utf-8", ["猫/0.jpg", "Löwe/0.jpg", "ねこ/🐱.jpg"]),
])
def test_one_encoding_for_a_whole_archive_and_a_line_that_says_so(tmp_path, capsys, encoding, names):
    path = raw_zip(tmp_path / "x.zip", [name.encode(encoding) for name in names])
    assert found(path) == names
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "x.zip: its names do not say their encoding" in said
    assert "--names-encoding" in said and repr(names[0])[1:-1] in said


def test_marked_names_are_no_guess_and_decide_nothing_for_the_others(tmp_path, capsys):
    marked = raw_zip(tmp_path / "a.zip", ["猫/0.jpg".encode(), b"dog/0.jpg"], flag=lambda raw: 0x800)
    assert found(marked) == ["猫/0.jpg", "dog/0.jpg"] and capsys.readouterr().out == ""
    mixed = raw_zip(tmp_path / "b.zip", ["é́/0.jpg".encode(), "猫/0.jpg".encode("gbk"), "狗/0.jpg".encode("gbk")],
                    flag=lambda raw: 0x800 * raw.startswith("é".encode()))
    assert found(mixed) == ["é́/0.jpg", "猫/0.jpg", "狗/0.jpg"]


def test_the_unicode_field_counts_for_its_own_name_alone(tmp_path, capsys):
    raw = "ねこ/0.jpg".encode("cp932")
    assert found(raw_zip(tmp_path / "a.zip", [raw], unicode_field("ねこ/0.jpg"))) == ["ねこ/0.jpg"]
    assert found(raw_zip(tmp_path / "b.zip", [b"???/0.jpg"], unicode_field("Ελλάς/0.jpg"))) == ["Ελλάς/0.jpg"]
    assert capsys.readouterr().out == ""
    assert found(raw_zip(tmp_path / "c.zip", [b"cat/0.jpg"], unicode_field("evil/0.jpg", of=b"x"))) == ["cat/0.jpg"]
    assert found(raw_zip(tmp_path / "d.zip", [b"cat/0.jpg"], unicode_field("evil/0.jpg", version=2))) == ["cat/0.jpg"]
    with pytest.raises(ValueError, match="leads out of the target"):
        members(raw_zip(tmp_path / "e.zip", [b"cat/0.jpg"], unicode_field("../0.jpg")))


def test_where_two_readings_remain_both_are_printed_and_gb18030_is_taken(tmp_path, capsys):
    raw = "丁a".encode("gbk")
    assert raw.decode("cp850") == "Âía" and choose([raw]) == ("gb18030", ["cp850"])
    assert found(raw_zip(tmp_path / "x.zip", [raw + b"/0.jpg"])) == ["丁a/0.jpg"]
    said = capsys.readouterr().out
    assert "'丁a/0.jpg'; they could also be read as cp850 (Western European): 'Âía/0.jpg'" in said


@pytest.mark.parametrize(("encoding", "names"), [
    ("big5", ["貓咪/0.jpg", "小狗/0.jpg"]), ("cp866", ["кошка/0.jpg", "собака/0.jpg"]),
    ("gb18030", ["貓/0.jpg", "鳥/0.jpg"])])
def test_names_that_make_words_in_no_known_encoding_are_refused(tmp_path, encoding, names):
    path = raw_zip(tmp_path / "x.zip", [name.encode(encoding) for name in names])
    with pytest.raises(ValueError, match="x.zip: its names do not say .* words in none of .*--names-encoding"):
        members(path)
    assert found(path, names_encoding=encoding) == names


def test_names_in_two_encodings_are_refused(tmp_path):
    raw = ["狗/0.jpg".encode("gbk"), "鸟/0.jpg".encode("gbk"), "猫/无.jpg".encode()]
    with pytest.raises(ValueError, match="where they are in several, unpack it yourself and give the folder"):
        members(raw_zip(tmp_path / "x.zip", raw))


def test_the_encoding_may_be_named(home, capsys):
    names = [f"{label}/{number}.jpg".encode("cp932") for label in ("表", "犬") for number in range(6)]
    path = raw_zip(home / "x.zip", names)
    assert found(path, names_encoding="cp932")[0] == "表/0.jpg" and capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="x.zip: its names cannot be read as ascii .*--names-encoding"):
        members(path, names_encoding="ascii")
    with pytest.raises(ValueError, match="x.zip: its names cannot be read as klingon"):
        members(path, names_encoding="klingon")
    for data in ("sample", home):
        with pytest.raises(ValueError, match="goes with an archive"):
            prepare(data, names_encoding="cp932")


def test_another_encoding_makes_other_data_and_its_name_finds_it_again(home):
    from test_sources import jpeg
    with zipfile.ZipFile(home / "x.zip", "w") as packed:
        for number in range(12):
            packed.writestr(f"{'ab'[number % 2] * 2}/{number}.jpg", jpeg(number))
    data = (home / "x.zip").read_bytes()
    for plain, raw in ((b"aa/", "é".encode("cp850") + b"t/"), (b"bb/", b"b\x84/")):
        data = data.replace(plain, raw)
    (home / "x.zip").write_bytes(data)
    guessed, named = prepare(home / "x.zip"), prepare(home / "x.zip", names_encoding="cp866")
    assert guessed.class_names == ["bä", "ét"] and named.class_names == ["bД", "Вt"]  # noqa: RUF001
    assert named.name != guessed.name and prepare(named.name).class_names == named.class_names


def test_unpacking_writes_the_right_names(tmp_path):
    path = raw_zip(tmp_path / "x.zip", ["猫\\图.jpg".encode("gbk"), "狗\\图.jpg".encode("gbk")])
    unpack(path, tmp_path / "out")
    assert sorted(file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.jpg")) == \
        ["狗/图.jpg", "猫/图.jpg"]
