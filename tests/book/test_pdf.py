"""The book as a PDF: what is printed, and that it is."""
import re

import pytest

from asymmbook.pages import pdf
from asymmbook.pages.browser import find_chromium


def test_addresses_start_at_the_folder_of_the_page():
    markup = '<img src="_images/a.png"><link href="_static/b.css"><a href="#c"></a><a href="https://d.example/_static/"></a>'
    assert pdf.place(markup) == markup.replace('"_', '"../_')


def test_a_page_that_is_not_built_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(pdf, "project_root", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"en._build.singlehtml.book.intro.html is not there: run `make pdf`"):
        pdf.print_book("en")


@pytest.mark.slow
def test_a_page_is_printed_with_numbers_and_outline(tmp_path):
    pytest.importorskip("playwright")
    if find_chromium() is None:
        pytest.skip("no Chromium here; on Debian: apt install chromium")
    page = tmp_path / "page.html"
    page.write_text("<h1>One</h1><p style='break-after: page'>text</p><h1>Two</h1>", encoding="utf-8")
    printed = pdf.print_page(page, tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF-") and len(re.findall(rb"/Type /Page\b", printed)) == 2
    assert b"/Outlines" in printed and b"/StructTreeRoot" in printed
