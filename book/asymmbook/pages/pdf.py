"""The whole book as one PDF a language: Sphinx's page of everything, printed by Chromium in the book's print styles."""
import re
from pathlib import Path

from asymmbook.checkout import project_root
from asymmbook.pages.browser import chromium
from asymmlib.base.files import atomic_write

__all__ = ["EDITIONS", "place", "print_book", "print_page"]

# edition: name of the PDF, in _build/pdf
EDITIONS = {"en": "asymmnet.pdf", "zh_CN": "asymmnet-zh.pdf"}
MARGINS = {"top": "16mm", "bottom": "18mm", "left": "15mm", "right": "15mm"}
SCALE = 0.8  # at which 79 columns of code fit
FOOTER = '<div style="width: 100%; font-size: 8px; text-align: center"><span class="pageNumber"></span></div>'
SETTLED = "Promise.all([window.MathJax?.startup?.promise, document.fonts.ready]).then(() => 0)"


def print_book(edition: str) -> Path:
    """Print the page that `make pdf` has built for `edition`, a key of `EDITIONS`; return the path of the PDF.

    Raises `FileNotFoundError` where that page or Chromium is missing.
    """
    folder = project_root() / "_build" / "pdf"
    page = folder / edition / "_build" / "singlehtml" / "book" / "intro.html"
    if not page.is_file():
        raise FileNotFoundError(f"{page.relative_to(project_root())} is not there: run `make pdf`, which builds it")
    placed = page.with_name("printed.html")
    placed.write_text(place(page.read_text(encoding="utf-8")), encoding="utf-8")
    return print_page(placed, folder / EDITIONS[edition])


def place(markup: str) -> str:
    """The page of everything with addresses as seen from its folder: Sphinx writes them as if it stood at the top."""
    return re.sub(r'((?:src|href)=")(_static|_images|_sphinx_design_static)/', r"\1../\2/", markup)


def print_page(page: Path, target: Path) -> Path:
    """Print an HTML file to a PDF on A4 with an outline, numbered pages, and formulas set; return `target`."""
    with chromium() as browser:
        tab = browser.new_page(color_scheme="light")
        tab.goto(page.resolve().as_uri(), wait_until="load", timeout=120_000)
        tab.evaluate(SETTLED)
        printed = tab.pdf(format="A4", scale=SCALE, margin=MARGINS, print_background=True, outline=True, tagged=True,
                          display_header_footer=True, header_template="<span></span>", footer_template=FOOTER)
    with atomic_write(target) as file:
        file.write(printed)
    return target
