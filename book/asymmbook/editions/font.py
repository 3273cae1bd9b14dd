"""The Chinese letters of drawings: a part of Noto Sans CJK SC that comes with the book, so that no machine lacks it.

It holds the 3755 usual characters (level 1 of GB 2312), for names of classes too, and all of the catalogue of outputs.
`python -m asymmbook font` cuts it anew out of Debian's package fonts-noto-cjk.
"""
from functools import cache
from pathlib import Path

__all__ = ["FAMILY", "characters", "files", "register", "write"]

FAMILY = "AsymmBook Sans SC"  # a name of its own: an installed Noto is another font
FOLDER = Path(__file__).with_name("fonts")  # with its licence
WEIGHTS = ("Regular", "Bold")
SOURCE = "/usr/share/fonts/opentype/noto/NotoSansCJK-{weight}.ttc"
FACE = "Noto Sans CJK SC"
PUNCTUATION = "，。：；（）《》、“”—…·\uff1f\uff01\uff5e\u2018\u2019"


def files() -> list[Path]:
    """The files of the font that are here."""
    return [path for weight in WEIGHTS if (path := FOLDER / f"AsymmBookSansSC-{weight}.otf").is_file()]


@cache
def register() -> None:
    """Let matplotlib find the font."""
    from matplotlib import font_manager
    for path in files():
        font_manager.fontManager.addfont(path)


def characters() -> set[str]:
    """The characters that the font has to hold."""
    from asymmbook.checkout import project_root
    usual = {bytes([row, cell]).decode("gb2312") for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF)
             if row < 0xD7 or cell <= 0xF9}
    written = "".join(path.read_text(encoding="utf-8")
                      for path in project_root().glob("locale/*/LC_MESSAGES/outputs.po"))
    return usual | set(PUNCTUATION) | {letter for letter in written if "\u4e00" <= letter <= "\u9fff"}


def write() -> list[Path]:
    """Cut the font; return its files. Raises `FileNotFoundError` with what to install where there is no whole one."""
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTCollection
    written = []
    for weight in WEIGHTS:
        source = Path(SOURCE.format(weight=weight))
        if not source.is_file():
            raise FileNotFoundError(f"{source} is missing: on Debian, apt install fonts-noto-cjk")
        fonts = TTCollection(source, lazy=True).fonts
        font = next(font for font in fonts if font["name"].getDebugName(1) == FACE)
        subsetter = Subsetter(Options(layout_features=[], hinting=False, notdef_outline=True, name_languages=[0x409],
                                      name_IDs=[0, 1, 2, 4, 6, 13, 14]))
        subsetter.populate(text="".join(characters()))
        subsetter.subset(font)
        for number, text in ((1, FAMILY), (4, f"{FAMILY} {weight}"), (6, f"AsymmBookSansSC-{weight}")):
            font["name"].setName(text, number, 3, 1, 0x409)
        font["CFF "].cff.topDictIndex[0].FamilyName = FAMILY
        font.recalcTimestamp = False  # the same letters make the same file
        written.append(FOLDER / f"AsymmBookSansSC-{weight}.otf")
        FOLDER.mkdir(exist_ok=True)
        font.save(written[-1])
    return written
