"""A cell in another language: what it prints, its tables, its sentences in Markdown, the comments in its code.

A drawing cannot be translated afterwards: `asymmbook.editions.twins` draws it twice. Everything else is text with the
numbers of the one execution, and is translated when an edition is built.
"""
import html
import io
import re
import tokenize
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

from asymmbook.editions.catalogue import Catalogue

__all__ = ["PICTURES", "TWINS", "alt", "comments", "in_code", "in_html", "in_markdown", "printed", "texts", "twin"]

TWINS = "editions"  # key in the metadata of an output: {language: {MIME type of a picture: base64, "words": {...}}}
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
COLUMNS = 79  # that a page shows at its usual width
LINES = 6  # over which a printed sentence may run
LEAD = re.compile(r"(\s*(?:(?:[-*] |#+ |\d+\. )\s*)?)(.*)")
CELL = re.compile(r"(<(?:th|td|caption)\b[^>]*>)([^<>]+)(?=</)")
CODE = re.compile(r"(`{3,})\w+")  # with the name of a language: code stays as it is
FENCE = re.compile(r"(\s*(?::{3,}|`{3,})(?:\{[\w-]+\})?\s*)(.*)")

Say = Callable[[str], str]


def printed(text: str, words: Catalogue) -> str:
    """What a cell prints: sentences may run over several lines; lines that get too wide are broken."""
    lines, said = text.split("\n"), []
    while lines:
        for end in range(min(LINES, len(lines)), 0, -1):
            lead, first = _lead(lines[0])
            body = "\n".join([first, *lines[1:end]])
            known = words.whole(body) if re.search("[A-Za-z]", body) and lines[end - 1].strip() else None
            if known is not None:
                break
        said.append(_fit(lead + (words.say(first) if known is None else known), lines[0]))
        del lines[:end]
    return "\n".join(said)


def _lead(line):
    """What stands before a text, such as the mark of a list, and the text."""
    found = LEAD.fullmatch(line)
    return found.groups() if found else ("", line)


def _fit(line, before):
    """A translated line, broken where a page ends; Chinese letters are two columns wide."""
    if line == before or _width(line) <= COLUMNS:
        return line
    rows = [""]
    for letter in re.findall(r"[!-~]+ ?|.", line):
        if _width(rows[-1] + letter.rstrip()) > COLUMNS and letter not in "，。：；、）":
            rows.append("")
        rows[-1] += letter
    return "\n".join(row.rstrip() for row in rows)


def _width(text):
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def in_html(text: str, words: Catalogue) -> str:
    """A table as pandas writes it: its headings and the texts in its cells."""
    return CELL.sub(lambda cell: cell[1] + html.escape(words.say(html.unescape(cell[2])), quote=False), text)


def in_markdown(text: str, words: Catalogue) -> str:
    """Markdown as the book's functions write it: paragraphs, lists, headings, tables, titles of directives."""
    return "\n".join(_markdown(text, words.say))


def _markdown(text, say):
    code = ""  # the sign that ends the block of code that we are in
    for lines in _blocks(text):
        fence = FENCE.fullmatch(lines[0])
        if code or CODE.fullmatch(lines[0]):
            code = "" if code and lines[0].strip() == code else code or CODE.fullmatch(lines[0])[1]
            yield "\n".join(lines)
        elif fence:
            yield fence[1] + (say(fence[2]) if fence[2] else "")
        elif lines[0].startswith("|"):
            yield "|".join(f" {say(cell.strip())} " if cell.strip() else cell for cell in lines[0].split("|"))
        else:
            lead, first = _lead(lines[0])
            body = " ".join([first, *map(str.strip, lines[1:])])
            yield lead + say(body) if body.strip() else lines[0]


def _blocks(text: str) -> Iterator[list[str]]:
    """The lines of a text that belong together: an item, a paragraph, a row of a table, an empty line."""
    block: list[str] = []
    for line in text.split("\n"):
        alone = not line.strip() or line.startswith("|") or FENCE.fullmatch(line)
        if block and (alone or _lead(line)[0].strip()):
            yield block
            block = []
        block.append(line)
        if alone:
            yield block
            block = []
    if block:
        yield block


def comments(code: str) -> list[tuple[int, int, str]]:
    """(row from 0, column, text behind the sign) of each comment in Python code; [] for what is no Python alone."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (tokenize.TokenError, SyntaxError):
        return []
    return [(token.start[0] - 1, token.start[1], token.string.removeprefix("#").strip()) for token in tokens
            if token.type == tokenize.COMMENT]


def in_code(code: str, words: Catalogue) -> str:
    """Python code with its comments in this language; all else is as it was."""
    lines = code.split("\n")
    for row, column, text in comments(code):
        lines[row] = f"{lines[row][:column]}# {words.say(text)}"
    return "\n".join(lines)


SAID = {"text/html": in_html, "text/markdown": in_markdown, "text/plain": printed}


def twin(kind: str, content: Any, metadata: dict[str, Any], language: str, words: Catalogue) -> Any:
    """One entry of an output's data in another language; kind: its MIME type, metadata: of the whole output."""
    if kind in PICTURES:
        return metadata.get(TWINS, {}).get(language, {}).get(kind, content)
    text = content if isinstance(content, str) else "".join(content) if isinstance(content, list) else content
    return SAID[kind](text, words) if kind in SAID and isinstance(text, str) else content


def alt(metadata: dict[str, Any], words: Catalogue) -> dict[str, Any]:
    """A cell's metadata with the alternative text of its picture in this language, if `words` have it word for word.

    The catalogues of the pages hold the others, and Sphinx looks them up by the whole English text: it stays whole.
    """
    image = metadata.get("mystnb", {}).get("image", {})
    if "alt" not in image:
        return metadata
    image = {**image, "alt": words.exact.get((None, " ".join(image["alt"].split())), image["alt"])}
    return {**metadata, "mystnb": {**metadata["mystnb"], "image": image}}


def texts(output: dict[str, Any], language: str, words: Catalogue) -> Iterator[tuple[str, str]]:
    """(English, translated) of everything that an output shows to a reader: streams, tables, sentences, drawings."""
    if output["output_type"] == "stream" and output["name"] == "stdout":
        text = "".join(output["text"])
        yield text, printed(text, words)
    data = output.get("data", {})
    for kind in ("text/html", "text/markdown", "text/plain"):
        if kind in data and not any(other in data for other in PICTURES):
            text = "".join(data[kind])
            yield from _pairs(kind, text, words)
            break
    for text in output.get("metadata", {}).get(TWINS, {}).get(language, {}).get("words", ()):
        yield text, words.drawn(text)


def _pairs(kind, text, words):
    if kind == "text/html":  # other HTML than a table speaks for itself
        yield from ((shown, words.say(shown)) for _, cell in CELL.findall(text) if (shown := html.unescape(cell)))
    else:
        yield text, SAID[kind](text, words)
