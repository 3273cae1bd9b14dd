"""Whatever a picture file keeps, its pixels are read right or refused by name; caches carry what proves them whole."""
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from asymmlib.data import pictures
from asymmlib.data.copies import NearCopies
from asymmlib.data.decoding import decode
from asymmlib.data.kinds import kind_of
from asymmlib.data.pictures import cached_pixels, load_picture
from asymmlib.data.sources import Prepared, prepare


def pixels(path):
    return np.asarray(decode(path)).astype(int)


def png(path, bits, colour, rows, *chunks):
    """A PNG written chunk by chunk, for what Pillow does not write: bit depths and transparent values."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    header = struct.pack(">IIBBBBB", len(rows[0]) * 8 // bits // samples, len(rows), bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunk(*each) for each in chunks)
                     + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def test_sixteen_bits_keep_their_upper_eight(tmp_path):
    ramp = np.linspace(0, 65_535, 256).astype(">u2")
    grey = pixels(png(tmp_path / "grey.png", 16, 0, [ramp.tobytes()]))
    assert (grey[0] == np.arange(256)[:, None]).all()
    for colour, samples in ((2, 3), (4, 2), (6, 4)):
        values = np.repeat(ramp[:, None], samples, axis=1)
        if colour in (4, 6):
            values[:, -1] = 65_535
        assert (pixels(png(tmp_path / "x.png", 16, colour, [values.tobytes()])) == grey).all()


@pytest.mark.parametrize(("bits", "row", "key"), [(1, b"\x80", 1), (2, b"\xc0", 3), (4, b"\xf0", 15),
                                                   (8, b"\x63\0", 99)])
def test_the_transparent_value_of_grey_counts_in_its_own_bits(tmp_path, bits, row, key):
    found = pixels(png(tmp_path / "x.png", bits, 0, [row], (b"tRNS", struct.pack(">H", key))))
    assert found[0, 0].tolist() == [255, 255, 255] and found[0, 1].tolist() == [0, 0, 0]


def test_the_transparent_value_of_sixteen_bits(tmp_path):
    row = np.array([500, 501], ">u2").tobytes()
    found = pixels(png(tmp_path / "x.png", 16, 0, [row], (b"tRNS", struct.pack(">H", 500))))
    assert found[0, :, 0].tolist() == [255, 1]
    found = pixels(png(tmp_path / "x.png", 8, 2, [bytes((9, 8, 7, 9, 8, 6))], (b"tRNS", struct.pack(">3H", 9, 8, 7))))
    assert found[0].tolist() == [[255, 255, 255], [9, 8, 6]]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_laid_on_white(tmp_path, kind):
    colour, alpha = np.mgrid[:256, :256].astype(np.uint8)
    image = np.stack([colour, colour[::-1], np.full_like(colour, 9), alpha], axis=-1)
    Image.fromarray(image).save(tmp_path / "x", kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    wide = image.astype(float)
    expected = np.floor(wide[..., :3] * wide[..., 3:] / 255 + 0.5) + 255 - wide[..., 3:]
    assert (pixels(tmp_path / "x") == expected).all()
    Image.fromarray(image[..., [0, 3]]).save(tmp_path / "la.png")
    assert (pixels(tmp_path / "la.png") == expected[..., :1]).all()


def test_transparent_palettes_show_white_and_warn_of_nothing(tmp_path, recwarn):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "x.png", transparency=b"\x00\x80\xff")
    assert pixels(tmp_path / "x.png")[0].tolist() == [[255] * 3, [147, 152, 157], [70, 80, 90]]
    image.save(tmp_path / "x.gif", transparency=1)
    assert pixels(tmp_path / "x.gif")[0].tolist() == [[10, 20, 30], [255] * 3, [70, 80, 90]]
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_a_picture_cut_off_anywhere_is_no_picture(tmp_path, kind):
    """Also one whose metadata, at its end, would have to be looked for."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "x", kind)
    data = (tmp_path / "x").read_bytes()
    for share in (0.2, 0.5, 0.8):
        (tmp_path / "x").write_bytes(data[:int(len(data) * share)])
        with pytest.raises(ValueError, match="x is not a readable picture"):
            load_picture(tmp_path / "x", 8)


@pytest.mark.parametrize("place", range(0, 40, 4))
def test_one_flipped_bit_in_the_pixels_of_a_png_is_seen(tmp_path, place):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    data = bytearray((tmp_path / "x.png").read_bytes())
    data[data.index(b"IDAT") + 100 + 50 * place] ^= 1
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ValueError, match="x.png is not a readable picture"):
        load_picture(tmp_path / "x.png", 8)


def exif(*entries):
    body = b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + b"\0\0\0\0"


@pytest.mark.parametrize("odd", [(0x128, 4, struct.pack("<I", 70_000)), (0x11A, 5, struct.pack("<I", 9_999)),
                                 (0x9286, 2, b"\xff\xff\xff\xff"), (0x8769, 4, struct.pack("<I", 8)), (0, 99, b"abcd")])
def test_only_the_orientation_is_read_of_the_metadata(tmp_path, odd, recwarn):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8))
    image.save(tmp_path / "x.jpg", exif=exif((0x112, 3, struct.pack("<HH", 6, 0)), odd))
    assert decode(tmp_path / "x.jpg").size == (8, 16) and not recwarn.list
    image.save(tmp_path / "x.jpg", exif=exif((0x112, 3, struct.pack("<HH", 6, 0)), odd)[:-9])  # cut off
    assert sorted(decode(tmp_path / "x.jpg").size) == [8, 16] and not recwarn.list


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation(tmp_path, orientation):
    from PIL import ImageOps
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8))
    tag = Image.Exif()
    tag[0x112] = orientation
    image.save(tmp_path / "x.png", exif=tag)
    with Image.open(tmp_path / "x.png") as opened:
        assert (pixels(tmp_path / "x.png") == np.asarray(ImageOps.exif_transpose(opened))).all()


def test_a_png_with_large_metadata_is_read(tmp_path):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "x" * 3_000_000, zip=True)
    texts.add_itxt("XML:com.adobe.xmp", "y" * 3_000_000, zip=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8))
    image.save(tmp_path / "x.png", pnginfo=texts, icc_profile=bytes(3_000_000))
    assert (pixels(tmp_path / "x.png") == np.asarray(image)).all()


@pytest.mark.parametrize(("head", "what"), [
    (b"\0\0\0\x24ftypheic" + bytes(40), "a HEIC picture"), (b"\0\0\0\x24ftypavif", "an AVIF picture"),
    (b"II*\0" + bytes(40), "a TIFF picture"), (b"<!DOCTYPE html>", "a web page"), (b"\n <html lang=en>", "a web page"),
    (b"<svg xmlns=", "an SVG drawing"), (b"<?xml version='1.0'?>\n<svg", "an SVG drawing"), (b"%PDF-1.7", "a PDF"),
    (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"), (b"\0\0\0\x18ftypmp42", "a video"),
    (b"8BPS\0\1", "a Photoshop"), (bytes(512), "nothing but zero"), (b"plain text", "a text"),
    ("文".encode() * 200, "a text"), (b"Rar!\x1a\x07\0", "a RAR"), (b"\xff\xd8\xff\xe0", "a JPEG picture"),
])
def test_a_file_is_named_by_its_first_bytes(tmp_path, head, what):
    assert what in kind_of(head[:512]).what
    (tmp_path / "x.jpg").write_bytes(head)
    with pytest.raises(ValueError, match=f"x.jpg is not a readable picture .*{what}") as caught:
        load_picture(tmp_path / "x.jpg", 8)
    assert str(caught.value).count("x.jpg") == 1 and "prepare" not in str(caught.value)


def test_bytes_of_no_kind():
    assert kind_of(b"\x81\x82\x83" * 100) is None and kind_of(b"").what == "an empty file"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX")
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device", "folder"])
def test_only_files_are_opened(tmp_path, kind):
    path = tmp_path / "x.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = path if kind == "link to a device" else "/dev/zero"
        if kind == "link to a device":
            path.symlink_to("/dev/zero")
    code = "import sys; from asymmlib.data.pictures import load_picture; load_picture(sys.argv[1], 8)"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1].startswith(f"ValueError: {path} is a ") and "not a file" in done.stderr


@pytest.fixture
def prepared(home, picture_folder):
    return prepare(picture_folder, progress=False)


def cache_of(prepared):
    return next((prepared.folder / "cache").glob("pixels-*.npy"))


@pytest.mark.parametrize("place", [3, 9, 60, 200, -40, -1])
def test_one_flipped_bit_in_a_cache_is_seen_and_the_cache_made_again(prepared, capsys, place):
    before = np.array(cached_pixels(prepared, 16))
    data = bytearray(good := cache_of(prepared).read_bytes())
    data[place] ^= 4
    cache_of(prepared).write_bytes(data)
    os.utime(cache_of(prepared), ns=(1, 1))
    capsys.readouterr()
    assert (cached_pixels(prepared, 16) == before).all() and cache_of(prepared).read_bytes() == good
    said = capsys.readouterr().out
    assert "is damaged" in said and "a new cache takes its place" in said
    assert (np.load(cache_of(prepared)) == before).all()  # for other programs, an array of NumPy's


def test_a_cache_is_made_of_the_manifest_s_bytes_alone(prepared):
    path = prepared.images / prepared.manifest["path"][7]
    Image.new("RGB", (20, 20)).save(path)
    with pytest.raises(ValueError, match=f"{path.name} has changed since it was checked; prepare the data again"):
        cached_pixels(prepared, 16)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="is missing: prepare the data again"):
        cached_pixels(prepared, 16)
    assert not list((prepared.folder / "cache").glob("*.npy"))


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_a_pipe_in_the_place_of_a_cache(prepared):
    cached_pixels(prepared, 16)
    path = cache_of(prepared)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=f"{path.name} is a named pipe, not a file: nothing is read from it"):
        cached_pixels(prepared, 16)
    assert path.is_fifo(), "what is not ours stays"


def test_nearly_equal_pictures_are_reported_once(home, capsys):
    pytest.importorskip("imagehash")
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (home / "mine" / label).mkdir(parents=True)
        for number in range(6):
            image = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((90, 80))
            image.save(home / "mine" / label / f"{number}.png")
    image.resize((60, 50)).save(home / "mine" / "cat" / "6.jpg", quality=60)  # the last dog, again
    prepared = prepare(home / "mine", progress=False)
    assert "nearly" not in capsys.readouterr().out
    cached_pixels(prepared, 32)
    said = capsys.readouterr().out
    assert "2 pictures look nearly like one in another split or class: 'cat/6.jpg' (train) = 'dog/5.png' (eval)" in said
    cached_pixels(prepared, 32)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_pictures_without_a_pattern_are_reported_in_time(home, prepared, capsys):
    near = NearCopies()
    near.phash, near.hashes = True, [np.zeros(8, np.uint8)] * 5_000
    manifest = prepared.manifest.iloc[np.arange(5_000) % 30].assign(sha256=[str(n) for n in range(5_000)],
                                                                    path=[str(n) for n in range(5_000)])
    assert near.report(Prepared("many", home, home, manifest)) == 5_000 and len(capsys.readouterr().out) < 2_000


def test_without_imagehash_one_line_says_so(prepared, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    cached_pixels(prepared, 16)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "nearly equal pictures are not looked for: the package imagehash is not" in said
    assert "the extra `copies`" in said


def test_the_digest_is_checked_once_a_process(prepared, monkeypatch):
    cached_pixels(prepared, 16)
    opened = []
    real = pictures.open_regular
    monkeypatch.setattr(pictures, "open_regular", lambda path: opened.append(path) or real(path))
    for _ in range(3):
        cached_pixels(prepared, 16)
    assert len(opened) <= 1


def test_a_picture_in_memory_is_decoded_too():
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (1, 2, 3)).save(file, "PNG")
    file.seek(0)
    assert np.asarray(decode(file))[0, 0].tolist() == [1, 2, 3]
