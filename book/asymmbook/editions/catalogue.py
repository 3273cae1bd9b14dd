"""The words of outputs in another language: a gettext catalogue whose entries may have places for numbers and names.

`locale/<language>/LC_MESSAGES/outputs.po` holds what cells print, the headings of their tables and the words of their
drawings. In its entries `{n}`, `{n1}`, ... stand for a number, `{x}`, `{x1}`, ... for any part of a line and of a
sentence, `{w}` for one without commas; such texts are looked up in their turn. A translation may count in other units:
`{n/100}` is the number over 100, `{n*100}` times 100. The context "figure" holds short forms for drawings. A space is
any white space. The English text is the key, so numbers come from the one execution that both editions show. Words that
stay as they are: `kept.txt` beside it.
"""
import re
from collections.abc import Iterable
from decimal import Decimal
from functools import cache

from asymmbook.checkout import project_root

__all__ = ["FIGURE", "Catalogue", "catalogue", "foreign", "kept"]

FIGURE = "figure"  # context of what stands in a drawing
PLACE = re.compile(r"\{([nwx]\d*)(?:[*/]10+)?\}")
SCALED = re.compile(r"\{(n\d*)([*/])(10+)\}")
NUMBER = r"[-+±\u2212\u2013]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?%?(?: [kMG]\b)?"
INSIDE = r"(?!\.\s+[A-Z`*])"  # of a sentence: no end of one, with the beginning of another
KINDS = {"n": NUMBER, "w": rf"(?:{INSIDE}[^,\n])+?", "x": rf"(?:{INSIDE}.)+?"}
SENTENCE_END = re.compile(r"(?<=[.!?:;*])\s+")
LIST = re.compile(r", | and ")
NAME = 60  # letters: what is longer is no name in a list
FULL_WIDTH = "。，：；、）”"
HAN = rf"[\u4e00-\u9fff（“{FULL_WIDTH}]"
SPACE = re.compile(rf"(?<={HAN}) (?={HAN})")  # that stood between an English name and its sentence
CODE = re.compile("|".join((
    r"[\w/]+\s\d+\.jpg", r"\{[\w:-]+\}(?=`)", r"`[^`]*`",  # files, roles, code
    r"[\w.-]*[\w-][./\\_=*]\"?\w[\w./\\*=-]*", r"\{[^}]*\}", r"'\w+'",  # paths, dotted names, dictionaries
    r"\b(?=[a-f]*\d)[0-9a-f]{8,}\b", r"（[A-Za-z_]+）")))  # hashes, a name behind its meaning


class Catalogue:
    """Texts and their translations; entries: (context or None, English, translation)."""

    def __init__(self, entries: Iterable[tuple[str | None, str, str]]) -> None:
        self.exact: dict[tuple[str | None, str], str] = {}
        patterns = []
        for context, english, text in entries:
            if PLACE.search(english):
                patterns.append((len(PLACE.sub("", english)), context, _pattern(english), text))
            else:
                self.exact[context, _one_line(english)] = text
        # the one with the most words of its own comes first
        self.patterns = [entry for _, *entry in sorted(patterns, key=lambda entry: -entry[0])]
        self.whole = cache(self._whole)

    def _whole(self, text: str, context: str | None = None) -> str | None:
        """The translation of exactly this text; None where there is none. No place reaches over the end of a line."""
        text, line = text.strip(), _one_line(text)
        for ours in dict.fromkeys((context, None)):
            if (ours, line) in self.exact:
                return self.exact[ours, line]
            for theirs, pattern, translation in self.patterns:
                if theirs == ours and (found := pattern.fullmatch(text)):
                    parts = {place: self._part(place, part, context) for place, part in found.groupdict().items()}
                    return SPACE.sub("", _filled(translation, parts))
        return None

    def _part(self, place, text, context):
        """What stands in a place: numbers as they are; a name or a list of names as this catalogue has them."""
        if place.startswith("n") or not re.search("[A-Za-z]", text) or re.fullmatch("`[^`]*`", text):
            return text
        if (said := self.whole(text, context)) is not None:
            return said
        listed, words = LIST.split(text), text.split(" ")
        if len(listed) > 1 and not re.search(r"['\"{}\[\]]", text) and all(map(_is_name, listed)):
            return "、".join(self.say(part, context) for part in listed)
        if all((None, word) in self.exact for word in words):
            return "、".join(self.say(word, context) for word in words)
        return self.say(text, context)

    def say(self, text: str, context: str | None = None) -> str:
        """The text in this language, sentence by sentence where it is not known as a whole; else as it is."""
        if not re.search("[A-Za-z]", text):
            return text
        sentences, said = SENTENCE_END.split(_one_line(text)), []
        while sentences:
            for end in range(len(sentences), 0, -1):
                if (known := self.whole(" ".join(sentences[:end]), context)) is not None:
                    break
            said.append(sentences[0] if known is None else known)
            del sentences[:end]
        return text if said == SENTENCE_END.split(_one_line(text)) else _joined(said)

    def drawn(self, text: str) -> str:
        """A text in a drawing, which may have lines of its own."""
        whole = self.whole(text, FIGURE)
        return "\n".join(self.say(line, FIGURE) for line in text.split("\n")) if whole is None else whole


def _filled(text, parts):
    """A translation with its places filled: {place: text}."""
    def scaled(place):
        number, factor = Decimal(parts[place[1]].replace(",", "")), Decimal(place[3])
        return f"{(number * factor if place[2] == '*' else number / factor).normalize():f}"
    return PLACE.sub(lambda place: parts[place[1]], SCALED.sub(scaled, text))


def _is_name(text):
    return len(text) <= NAME and text.count("(") == text.count(")")


def _one_line(text):
    return " ".join(text.split())


def _pattern(english):
    """An expression that matches the text with its places filled; a place that returns holds the same again."""
    text, seen = "", set()
    for number, part in enumerate(PLACE.split(_one_line(english))):
        if number % 2 == 0:
            text += re.sub(r"(?:\\ )+", r"\\s+", re.escape(part))
        elif part in seen:
            text += f"(?P={part})"
        else:
            text += f"(?P<{part}>{KINDS[part[0]]})"
            seen.add(part)
    return re.compile(text)


def _joined(sentences):
    text = sentences[0]
    for sentence in sentences[1:]:
        text += sentence if text.rstrip("*").endswith(tuple(FULL_WIDTH)) else f" {sentence}"
    return text


@cache
def catalogue(language: str) -> Catalogue:
    """The catalogue of a language such as "zh_CN". Raises `FileNotFoundError` where the book has no such edition."""
    from babel.messages.pofile import read_po
    path = _folder(language) / "outputs.po"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: there is no edition in {language}; editions: "
                                + ", ".join(sorted(folder.parent.parent.name for folder in
                                                   (project_root() / "locale").glob("*/LC_MESSAGES/outputs.po"))))
    with path.open("rb") as file:
        return Catalogue((entry.context, str(entry.id), str(entry.string)) for entry in read_po(file)
                         if entry.id and entry.string and not entry.fuzzy)


def _folder(language):
    return project_root() / "locale" / language / "LC_MESSAGES"


@cache
def kept(language: str) -> re.Pattern[str]:
    """What stays in English in an edition: one expression a line of kept.txt, a comment behind `#`."""
    lines = (_folder(language) / "kept.txt").read_text(encoding="utf-8").splitlines()
    parts = filter(None, (line.partition("#")[0].strip() for line in lines))
    return re.compile(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)")


def foreign(text: str, language: str) -> list[str]:
    """The English words of a text that are neither code nor among those that stay."""
    return re.findall(r"[A-Za-z]{2,}", kept(language).sub(" ", CODE.sub(" ", text)))
