"""The built Chinese pages: what cells show is Chinese, but for the words that `kept.txt` names."""
import re

import pytest
from bs4 import BeautifulSoup

from asymmbook.checkout import project_root
from asymmbook.editions.catalogue import foreign

SITE = project_root() / "_build" / "html"
PAGES = sorted(path.relative_to(SITE).as_posix() for folder in ("zh/book", "zh/notebooks")
               for path in (SITE / folder).glob("*.html"))
PACKAGES = "zh/book/trust.html"  # its table of licences names packages
# code, what brings words of its own, and no output
OWN = "script, style, code, math, .highlight, .live, .explorer, .stderr"


def outputs(page):
    """The cells' outputs in a page of the site."""
    return BeautifulSoup((SITE / page).read_text(encoding="utf-8"), "html.parser").select("div.cell_output")


def shown(output):
    """The texts of an output as a reader sees them: one, or the heads and cells of a table."""
    for element in output.select(OWN):
        element.replace_with("`x`")
    text = output.get_text("\n" if output.table else "")
    return [part.strip() for part in (text.split("\n") if output.table else [text]) if re.search("[A-Za-z]{2}", part)]


@pytest.mark.skipif(not PAGES, reason="no built Chinese site in _build/html/zh: run `make site` first")
@pytest.mark.parametrize("page", PAGES)
def test_outputs_are_chinese(page):
    rows = [] if page != PACKAGES else [row.th.get_text() for output in outputs(page) for row in output.select("tr")
                                         if row.th and row.td]
    left = {line: words for output in outputs(page) for line in shown(output)
            if (words := foreign(line, "zh_CN")) and line not in rows}
    assert not left


@pytest.mark.skipif(not PAGES, reason="no built Chinese site in _build/html/zh: run `make site` first")
def test_drawings_are_those_of_the_language():
    """A file of make figures comes as its twin; the same cells have drawings in both editions."""
    for page in PAGES:
        ours, theirs = ([image["src"] for output in outputs(name) for image in output.select("img")]
                        for name in (page, page.removeprefix("zh/")))
        assert len(ours) == len(theirs), page
    cards = {path.name for path in (project_root() / "book" / "images" / "cards").iterdir()}  # without words
    images = {path.name for path in (SITE / "zh" / "_images").glob("*.svg")} - cards
    assert images and all(name.endswith(".zh_CN.svg") for name in images)
