"""A picture file becomes an upright RGB image, whatever its format keeps: 16 bits, transparency, palettes, metadata.

The live page of the book does the same in a browser (`book/static/live/pixels.js`).
"""
import io
import struct
import warnings
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from asymmlib.base.files import open_regular
from asymmlib.data.kinds import HEAD_BYTES, PICTURE, kind_of

__all__ = ["FORMATS", "READ_ERRORS", "decode"]

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")  # Pillow's other readers stay closed: some start other programs
# What Pillow raises on damaged bytes, and on more pixels than its limit
READ_ERRORS = (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning, SyntaxError, ValueError,
               TypeError, OverflowError, IndexError, KeyError, AttributeError, EOFError, struct.error, zlib.error)
GROUND = (255, 255, 255)  # what shows through: white, as paper and web pages are
ORIENTATION = 0x0112  # the EXIF tag that says how the camera was held; no other one is looked at
TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_90}
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # that Pillow converts by their meaning
DEEP = ("I;16", "I;16B", "I;16L", "I;16N")  # grey with 16 bits; Pillow would cut every value at 255
GREY_STEPS = {"1": 255, "L;2": 85, "L;4": 17}  # Pillow stretches grey of few bits, not its key
PNG, TEXTS = b"\x89PNG\r\n\x1a\n", (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def decode(source: Path | str | IO[bytes]) -> Image.Image:
    """Decode a picture, a path or a file open for reading bytes, to a Pillow image: RGB, upright.

    Transparent pixels show a white ground, half-transparent ones mix with it: per channel
    round(value * alpha / 255) + 255 - alpha. Of 16 bits the upper eight count, as in every browser. Of the metadata
    only the orientation is read. Raises whatever Pillow raises on bad bytes, and `ValueError` for a mode that cannot be
    shown in 256 levels; a picture beyond Pillow's limit on pixels is an error, not only a warning.
    """
    opened = open_regular(source) if isinstance(source, str | Path) else nullcontext(source)
    with opened as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata, and without the file's name
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _decode(file)
        except UnidentifiedImageError as error:
            raise UnidentifiedImageError(_unknown(file)) from error
        except ValueError:
            file.seek(0)
            if file.read(len(PNG)) != PNG:
                raise
            return _decode(io.BytesIO(_without_texts(file)))  # Pillow refuses large ones


def _decode(file):
    with Image.open(file, formats=FORMATS) as image:
        key = _transparent_value(image)
        image.load()  # here damage is found; what follows forgives broken metadata
        try:
            turn = TURNS.get(image.getexif().get(ORIENTATION))
        except READ_ERRORS:  # broken metadata of a good picture
            turn = None
        plain = _rgb(image, key)
    return plain if turn is None else plain.transpose(turn)


def _rgb(image, key):
    if image.mode in DEEP:
        values = np.asarray(image)
        image, values = Image.fromarray((values >> 8).astype(np.uint8)), values
    elif image.mode not in MODES:
        raise ValueError(f"its pixels are of mode {image.mode}, which has no fixed range; save it with 8 bits a colour")
    else:
        values = image if key is None else np.asarray(image if image.mode == "RGB" else image.convert("L"))
    if key is not None:
        same = values == key
        alpha = Image.fromarray(np.where(same.all(axis=-1) if same.ndim == 3 else same, 0, 255).astype(np.uint8))
        return _on_ground(image.convert("RGB"), alpha)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return _on_ground(image.convert("RGB"), image.getchannel("A"))
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _on_ground(image, alpha):
    ground = Image.new("RGB", image.size, GROUND)
    ground.paste(image, mask=alpha)
    return ground


def _transparent_value(image):
    """The grey value or colour that a PNG without alpha calls transparent, in the image's own range; else None."""
    key = image.info.get("transparency") if image.mode in ("1", "L", "RGB", *DEEP) else None
    raw = image.tile[0].args if image.tile and key is not None else None
    if isinstance(key, tuple):
        return tuple(value >> 8 for value in key) if raw == "RGB;16B" else key
    return key * GREY_STEPS.get(raw, 1) if isinstance(key, int) else None


def _unknown(file):
    file.seek(0)
    kind = kind_of(file.read(HEAD_BYTES))
    if kind is None:
        return f"cannot identify it: no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture"
    return f"cannot identify it: {kind.what}" + (", but damaged" if kind.remedy == PICTURE else f"; {kind.remedy}")


def _without_texts(file):
    """A PNG's bytes without its texts and its colour profile, none of which changes what is read here."""
    file.seek(len(PNG))
    kept = [PNG]
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        body = file.read(length + 4)
        if kind not in TEXTS:
            kept += [head, body]
    return b"".join(kept)
