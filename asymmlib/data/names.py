"""How the names of an archive's members are written: one encoding for all that do not say it themselves.

A zip marks a name as UTF-8 by a flag, or carries its Unicode form in an extra field; many tools do neither and write
the encoding of the Windows they ran on. Whether bytes are valid decides nothing then: cp437 gives a sign to every
byte, and most Japanese names are valid Chinese. What decides is whether all signs are common in the language.
"""
import re
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path

from asymmlib.data.kinds import UNPACK

__all__ = ["ENCODINGS", "choose", "decode_all", "unicode_path"]

ENCODINGS = ("gb18030", "cp932", "cp850", "cp437")  # in the order in which they are taken where several fit
WORDS = {"utf-8": "UTF-8", "gb18030": "GB18030 (Chinese)", "cp932": "Shift-JIS (Japanese)",
         "cp850": "cp850 (Western European)", "cp437": "cp437 (Western European)"}
CJK = ("gb18030", "cp932")
# Accented letters of Western European languages; in cp437 and cp850 they are single bytes from 0x80 on
LATIN = frozenset("äöüÄÖÜßàâçèéêëîïôûùÿœÀÂÇÈÉÊËÎÏÔÛÙáíóúñÁÍÓÚÑªºìòÌÒåæøÅÆØãõÃÕðþÐÞýÝ")
SHOWN = 3  # names in a printed reading
LEAST = 0.5  # share of common signs: with fewer it is another encoding
MORE = "big5, cp949 (Korean) or cp866 (Russian)"  # that are never guessed


def unicode_path(raw: bytes, extra: bytes) -> str | None:
    """The name in the Info-ZIP extra field 0x7075 of a zip's entry; None without one, or where it is of another name.

    raw: the name's bytes, whose CRC the field repeats. extra: bytes of all extra fields.
    """
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        body, extra = extra[4:4 + length], extra[4 + length:]
        if kind == 0x7075 and len(body) > 5 and body[:5] == struct.pack("<BI", 1, zlib.crc32(raw)):
            try:
                return body[5:].decode("utf-8")
            except UnicodeDecodeError:
                return None
    return None


def decode_all(archive: Path, names: Sequence[str | bytes], encoding: str | None = None) -> list[str]:
    """Member names as text. Prints a line where the encoding had to be guessed.

    names: each a `str` that is known, or bytes. encoding: what all bytes are in; None to choose.
    Raises `ValueError` that names the archive for an unknown encoding, or one in which the names are not valid.
    """
    raw = [name for name in names if isinstance(name, bytes) and not name.isascii()]
    if raw and encoding is None:
        encoding, others = choose(raw)
        if not encoding:
            raise ValueError(f"{archive}: its names do not say their encoding, and make words in none of "
                             f"{', '.join(WORDS.values())}: name theirs, {MORE} or another one, with --names-encoding "
                             f"(names_encoding=); where they are in several, {UNPACK}")
        _tell(archive, raw, encoding, others)
    try:
        return [name if isinstance(name, str) else name.decode("ascii" if name.isascii() else str(encoding))
                for name in names]
    except (LookupError, UnicodeError) as error:
        raise ValueError(f"{archive}: its names cannot be read as {encoding} ({error}); give another encoding, such as "
                         f"{', '.join(ENCODINGS)} or {MORE}, with --names-encoding (names_encoding=)") from error


def choose(raw: list[bytes]) -> tuple[str, list[str]]:
    """(the encoding for all these names, the others that fit as well): UTF-8 where every name is valid, else the one
    of `ENCODINGS` whose signs are all common in its language, else the one with most common signs; "" where even in
    that fewer than half are."""
    readings = {encoding: text for encoding in ("utf-8", *ENCODINGS) if (text := _read(raw, encoding)) is not None}
    fitting = [encoding for encoding in ENCODINGS if encoding in readings and _share(readings[encoding], encoding) == 1]
    if "utf-8" in readings:
        return "utf-8", [encoding for encoding in fitting if encoding in CJK]
    if fitting and fitting[0] not in CJK:  # characters that are rare in names make no Latin words out of them
        fitting = [encoding for encoding in CJK if encoding in readings and _share(readings[encoding], encoding) >= 0.5
                   and not _wedged(readings[encoding])] + fitting
    if not fitting:
        shares = {encoding: _share(readings[encoding], encoding) for encoding in ENCODINGS if encoding in readings}
        most = max(shares, key=lambda encoding: shares[encoding])  # of equal ones the first
        return most if shares[most] >= LEAST else "", []
    best = fitting[0]
    if best == "cp932" and len(fitting) > 1 and _wedged(readings[best]):
        best = fitting[1]
    return best, [encoding for encoding in fitting if readings[encoding] != readings[best]]


def _read(raw, encoding):
    try:
        return [name.decode(encoding) for name in raw]
    except UnicodeDecodeError:
        return None


def _share(texts, encoding):
    """Share of the signs beyond ASCII that are common in the encoding's language, 0 to 1; rarer ones count half.

    Of Western European encodings 0 where the letters make no words.
    """
    signs = [sign for text in texts for sign in text if not sign.isascii()]
    common, rarer = _signs(encoding)
    if encoding not in CJK and not all(map(_is_latin_word, re.findall(r"[^\W\d_]+", " ".join(texts)))):
        return 0.0
    return sum(1 if sign in common else 0.5 * (sign in rarer) for sign in signs) / len(signs)


def _is_latin_word(word):
    """A word of one case, or with a capital first; where it is longer than a letter, with a plain letter in it."""
    plain = any(letter.isascii() for letter in word)
    return word.isascii() or ((plain or len(word) == 1) and (word.islower() or word.isupper() or word.istitle()))


def _wedged(texts):
    """Whether every sign beyond ASCII stands alone beside an ASCII letter: "L背e" is rather a misread "Löwe"."""
    runs = [match for text in texts for match in re.finditer(r"([A-Za-z]?)([^\x00-\x7f]+)([A-Za-z]?)", text)]
    return all(len(match[2]) == 1 and (match[1] or match[3]) for match in runs)


@cache
def _signs(encoding):
    """(common, rarer) signs of an encoding's language, from the rows of its national standard.

    Both standards put signs into 94 rows of 94 and characters into two levels by frequency.
    """
    if encoding == "gb18030":  # GB 2312: punctuation, full-width forms, level 1; level 2
        return _rows("gb18030", [1, 3, *range(16, 56)]), _rows("gb18030", range(56, 88))
    if encoding == "cp932":  # JIS X 0208: punctuation, hiragana, katakana, level 1; level 2
        return tuple(frozenset(sign.encode("shift_jis", "ignore").decode("cp932") for sign in _rows("euc_jp", rows))
                     for rows in ([1, 4, 5, *range(16, 48)], range(48, 85)))
    return LATIN, frozenset()


def _rows(codec, rows):
    """The signs in these rows of a standard, by Python's codec of it."""
    cells = (bytes((0xA0 + row, 0xA0 + cell)).decode(codec, "ignore") for row, cell in product(rows, range(1, 95)))
    return frozenset(filter(None, cells))


def _tell(archive, raw, encoding, others):
    def reading(name):
        texts = _read(list(dict.fromkeys(raw))[:SHOWN], name)
        return f"as {WORDS[name]}: {', '.join(map(repr, texts))}"

    more = f"; they could also be read {'; '.join(map(reading, others))}" if others else ""
    print(f"{archive}: its names do not say their encoding; they are read {reading(encoding)}{more}. If that is wrong, "
          "name the right one with --names-encoding (names_encoding= in Python)")
