"""What strangers may send: any bytes, any names, any settings end in a right result or a ValueError that says which."""
import ast
import io
import struct
import time
import zipfile
import zlib
from dataclasses import fields
from pathlib import PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_download import DATA, MD5, PIECE, server  # noqa: F401 - `server` is a fixture

from asymmbook.checkout import project_root
from asymmlib.data import archive
from asymmlib.data import download as downloads
from asymmlib.data.archive import safe_path, unpack
from asymmlib.data.download import download
from asymmlib.data.manifest import read_manifest
from asymmlib.data.pictures import load_picture
from asymmlib.recipes import Recipe
from asymmlib.runs import find_run
from asymmlib.weights.gluon import parse_params

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@QUICK
@given(st.text() | st.lists(st.sampled_from(["..", ".", "a", "C:", "", "\\", "/", "~"])).map("/".join))
def test_no_name_leads_out_of_a_folder(name):
    try:
        path = safe_path(name)
    except ValueError:
        return
    assert not path.is_absolute() and ".." not in path.parts and isinstance(path, PurePosixPath)


@QUICK
@given(st.binary(max_size=200).map(lambda tail: struct.pack("<QQQ", 0x112, 0, 1) + tail) | st.binary())
def test_any_bytes_as_params(data):
    try:
        assert isinstance(parse_params(data, "x.params"), dict)
    except ValueError as error:
        assert "x.params" in str(error)


@QUICK
@given(st.text().map(str.encode) | st.binary())
def test_any_bytes_as_a_manifest(tmp_path, data):
    path = tmp_path / "manifest.csv"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="manifest.csv"):
        read_manifest(path)


@QUICK
@given(JSON)
def test_any_json_as_a_run(tmp_path, value):
    import json
    (tmp_path / "run.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match="run.json is"):
        find_run(tmp_path)


@QUICK
@given(st.sampled_from([field.name for field in fields(Recipe) if field.name not in ("name", "data")]), JSON)
def test_any_value_in_a_recipe(field, value):
    try:
        recipe = Recipe("mine", image_size=64, epochs=10).replace(**{field: value})
    except ValueError as error:
        assert field in str(error)
    else:
        assert getattr(recipe, field) == value


def bomb(width, height):
    """A PNG of a few kilobytes that declares any size, with pixels for its first rows alone."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6)))
            + chunk(b"IEND", b""))


@pytest.mark.parametrize("sides", [(10_000, 9_500), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_decompression_bomb_is_refused_before_it_unfolds(tmp_path, kind, sides):
    data = bomb(*sides)
    if kind == "JPEG":
        packed, sides = io.BytesIO(), [min(side, 65_535) for side in sides]
        Image.new("L", (16, 16)).save(packed, "JPEG")
        data = bytearray(packed.getvalue())
        at = data.index(b"\xff\xc0") + 5  # height and width in the frame's header
        data[at:at + 4] = struct.pack(">HH", *reversed(sides))
    (tmp_path / "bomb").write_bytes(data)
    started = time.perf_counter()
    with pytest.raises(ValueError, match="bomb is not a readable picture"):
        load_picture(tmp_path / "bomb", 32)
    assert time.perf_counter() - started < 20


def test_other_formats_stay_closed(tmp_path):
    """Pillow would start Ghostscript for this one."""
    (tmp_path / "x.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match="x.jpg is not a readable picture"):
        load_picture(tmp_path / "x.jpg", 32)


@pytest.mark.slow
def test_a_real_zip_bomb_writes_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for number in range(3):
            packed.writestr(f"{number}.bmp", bytes(archive.LIMITS["ratio from"] // 2))
    with pytest.raises(ValueError, match="exceeds a limit on size .ratio."):
        unpack(tmp_path / "bomb.zip", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bomb.zip"]


def test_nothing_that_users_exchange_is_a_pickle():
    """No paddle.load, no unpickler but the one that knows five names, no NumPy objects."""
    calls = [(path.name, ast.unparse(node)) for path in (project_root() / "asymmlib").glob("*.py")
             for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call for call in calls if call[1].startswith(("paddle.load(", "pickle.load", "torch.load(", "eval("))]
    assert not [call for call in calls if "allow_pickle=True" in call[1]]
    assert {name for name, text in calls if "Unpickler" in text} <= {"pth.py"}


# --- the network, beyond test_download.py

def test_cuts_at_any_byte(server, tmp_path):  # noqa: F811
    cuts = [PIECE, 1, PIECE - 1, PIECE + 1, 0, 100_003, 200_017]  # never three in a row without a whole piece
    server.script = [*(("cut", cut) for cut in cuts), "whole"]
    download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert (tmp_path / "data.zip").read_bytes() == DATA


def test_a_file_that_changed_between_two_tries_is_not_patched_together(server, tmp_path):  # noqa: F811
    server.script = [("cut", 3 * PIECE), "wrong bytes"]
    with pytest.raises(ValueError, match="has MD5 .* it was deleted"):
        download(server.url, tmp_path / "data.zip", MD5, progress=False)
    server.script = ["whole"]
    download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert (tmp_path / "data.zip").read_bytes() == DATA


def test_a_server_that_stalls_for_good_is_left(server, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(downloads, "TIMEOUT_S", (5, 0.2))
    server.script = ["stall"]
    started = time.perf_counter()
    with pytest.raises(ConnectionError, match="cannot download .* on another machine"):
        download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert time.perf_counter() - started < 60 and len(server.ranges) == downloads.TRIES
    assert not (tmp_path / "data.zip").exists()
