"""What a file really is, by its first bytes, whatever its name says, and what to do with one that cannot be used."""
import codecs
import re
from pathlib import Path
from typing import NamedTuple

from asymmlib.base.files import open_regular

__all__ = ["HEAD_BYTES", "PICTURE", "Kind", "kind_of", "kind_of_file"]

HEAD_BYTES = 512
PICTURE = "picture"  # the remedy of what this project reads itself
CONVERT = "convert it to JPEG or PNG"
UNPACK = "unpack it yourself and give the folder"


class Kind(NamedTuple):
    """what: in words, "a HEIC picture"; remedy: what to do with it, `PICTURE` for a picture that is read here."""

    what: str
    remedy: str


# (pattern at the beginning of the file, what it is, what to do): the first that fits counts
KINDS = [(re.compile(pattern, re.DOTALL | re.IGNORECASE), Kind(what, remedy)) for pattern, what, remedy in (
    (rb"\xff\xd8\xff", "a JPEG picture", PICTURE),
    (rb"\x89PNG\r\n\x1a\n", "a PNG picture", PICTURE),
    (rb"GIF8[79]a", "a GIF picture", PICTURE),
    (rb"RIFF....WEBP", "a WebP picture", PICTURE),
    (rb"BM.{12}[\x0c\x28\x40\x6c\x7c]\x00\x00\x00", "a BMP picture", PICTURE),
    (rb"....ftyp(hei|hev|mif|msf)", "a HEIC picture", f"{CONVERT} (iPhone: Camera, Formats, Most Compatible)"),
    (rb"....ftypavi[fs]", "an AVIF picture", CONVERT),
    (rb"....ftypcrx", "a raw picture of a camera", CONVERT),
    (rb"....ftyp", "a video", "take single frames of it as JPEG or PNG"),
    (rb"RIFF....AVI |\x1a\x45\xdf\xa3|....(moov|mdat)", "a video", "take single frames of it as JPEG or PNG"),
    (rb"II[*+]\x00|MM\x00[*+]", "a TIFF picture, or a raw one of a camera", CONVERT),
    (rb"\xff\x0a|\x00{3}\x0cJXL ", "a JPEG XL picture", CONVERT),
    (rb"\x00{3}\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture", CONVERT),
    (rb"8BPS", "a Photoshop picture", CONVERT),
    (rb"\x00\x00[\x01\x02]\x00", "an icon", CONVERT),
    (rb"P[1-7]\s", "a PNM picture", CONVERT),
    (rb".{128}DICM", "a DICOM picture", CONVERT),
    (rb"\x89HDF", "an HDF5 file", "write its pictures as JPEG or PNG"),
    (rb"\x93NUMPY", "a NumPy array", "write its pictures as JPEG or PNG"),
    (rb"%PDF", "a PDF document", "save its pages as JPEG or PNG"),
    (rb"%!PS", "PostScript", CONVERT),
    (rb"version https://git-lfs", "a pointer of Git LFS, without the file itself", "fetch it with: git lfs pull"),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg[^>]*>\s*)?<svg", "an SVG drawing", CONVERT),
    (rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body|title|script)",
     "a web page (HTML)", "fetch the file itself again: the page may say why it was not sent"),
    (rb"(\xef\xbb\xbf)?\s*<\?xml", "an XML document", "fetch the file itself again"),
    (rb"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (rb"PK\x07\x08PK", "one part of a zip in several parts, or one that was such", UNPACK),
    (rb"PK(\x03\x04|\x05\x06)", "a zip archive", UNPACK),
    (rb"\x1f\x8b", "a gzip archive", UNPACK),
    (rb"BZh[1-9]", "a bzip2 archive", UNPACK),
    (rb"\xfd7zXZ\x00", "an xz archive", UNPACK),
    (rb"\x28\xb5\x2f\xfd", "a Zstandard archive", UNPACK),
    (rb"\x04\x22\x4d\x18", "an LZ4 archive", UNPACK),
    (rb"\x1f[\x9d\xa0]", "an archive of compress (.Z)", UNPACK),
    (rb"LZIP", "a lzip archive", UNPACK),
    (rb"\x5d\x00\x00.{2}", "an LZMA archive", UNPACK),
    (rb"MSCF", "a cabinet of Windows", UNPACK),
    (rb"!<arch>\n", "an archive of ar (.deb, .a)", UNPACK),
    (rb"0707[0-9]{2}|\xc7\x71|\x71\xc7", "a cpio archive", UNPACK),
    (rb"\x60\xea", "an ARJ archive", UNPACK),
    (rb".{2}-lh[0-9d]-", "an LHA archive", UNPACK),
    (rb".{257}ustar", "a tar archive", UNPACK),
    (rb"MZ", "a program of Windows, maybe an archive that unpacks itself", UNPACK),
    (rb"\x00{16,}\Z", "nothing but zero bytes", "copy or fetch it again: the last copy was cut off"),
)]


def kind_of(head: bytes) -> Kind | None:
    """The `Kind` of a file that begins with these bytes (`HEAD_BYTES` are enough); None where nothing is known of it.

    Text in UTF-8 or ASCII counts as known.
    """
    if not head:
        return Kind("an empty file", "fetch it again")
    for pattern, kind in KINDS:
        if pattern.match(head):
            return kind
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # its last sign may be cut
    except UnicodeDecodeError:
        return None
    printable = text.strip() and all(letter.isprintable() or letter.isspace() for letter in text)
    return Kind("a text", "fetch the file itself again") if printable else None


def kind_of_file(path: Path | str) -> Kind | None:
    """`kind_of` a file's first bytes. Raises as `asymmlib.base.files.open_regular`."""
    with open_regular(path) as file:
        return kind_of(file.read(HEAD_BYTES))
