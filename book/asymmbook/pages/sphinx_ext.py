"""A Sphinx extension for the book's pages: a description for each, and nothing that would come from another host.

The words of the Chinese search are cut by jieba, whose cache stays with the build: see `keep_words_private`. The words
by which a page is found first are those of `book/keywords.csv`: see `add_keywords`.

Named in `_config.yml`. Jupyter Book loads `sphinx_thebe` in any case, which writes the address of a remote script into
every page, twice, and thereby an error into the browser's console; the book has no use for it.
"""
import csv
import functools
import html
import logging
import re
from pathlib import Path
from typing import Any

from asymmbook.checkout import project_root
from asymmlib.base.extras import missing_package

__all__ = ["add_keywords", "describe", "keep_words_private", "read_keywords", "setup"]

COLUMNS = {"zh_CN": "chinese"}  # of book/keywords.csv, for languages other than English
LENGTH = 155  # characters that search engines show
LABELLED = re.compile(r"\s*<strong>[^<]*(?:[:：]</strong>|</strong>\s*[:：])(.*?)(?=<strong>|$)", re.S)
# The lines of a long signature: Sphinx makes them a list of definitions without terms, which is none
SIGNATURE_LINES = re.compile(r'<dl>\s*<dd><em class="sig-param">.*?</dl>', re.S)
CITATION = re.compile(r"\s*<span[^>]*>\[(?:<a [^>]*>[^<]*</a>[,\s]*)+\]</span>")
# What a page may load and whom it may ask: the site itself, also when it is opened as a file. Scripts within the page
# are the theme's. A page that says more, such as the live one, has its own.
POLICY = ("default-src 'self' file: data: blob: 'unsafe-inline'; script-src 'self' file: 'unsafe-inline'; "
          "object-src 'none'; base-uri 'none'; form-action 'self' file:")


def describe(body: str | None, length: int = LENGTH) -> str:
    """Return what the first paragraph of a page's HTML says, cut at a word's end; "" where there is none.

    Citations are left out. Of a paragraph with labels, "**What you will be able to do:** ... **Before:** ...", it is
    what follows the first.
    """
    for paragraph in re.findall(r"<p[^>]*>(.*?)</p>", body or "", flags=re.S):
        labelled = LABELLED.match(paragraph)
        text = _plain(labelled[1] if labelled else paragraph)
        if text:
            text = text[0].upper() + text[1:]
            return text if len(text) <= length else re.sub(r"\s+\S{0,20}$", "", text[:length]) + "…"
    return ""


def _plain(markup):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", CITATION.sub("", markup))).split())


@functools.cache
def read_keywords(column: str = "english") -> dict[str, list[str]]:
    """{page: words and phrases in the language of that column, by which a search finds that page first}."""
    with (project_root() / "book" / "keywords.csv").open(encoding="utf-8", newline="") as file:
        return {row["page"]: row[column].split("|") for row in csv.DictReader(file)}


def add_keywords(app: Any, doctree: Any) -> None:
    """Put a page's words of `read_keywords` into the index that the search reads, as main entries."""
    from sphinx import addnodes
    words = read_keywords(COLUMNS.get(app.config.language, "english")).get(app.env.docname, [])
    if words:
        doctree.insert(0, addnodes.index(entries=[("single", word, "", "main", None) for word in words]))


def keep_words_private(app: Any) -> None:
    """Let jieba keep its cache with the build's doctrees.

    Left alone, it reads one of a fixed name in the temporary folder that all users of the machine share. Without
    jieba the search would find no Chinese word, of which Sphinx says nothing: here it is a warning.
    """
    if app.config.html_search_language != "zh":
        return
    if reason := missing_package("jieba"):
        logging.getLogger(f"sphinx.{__name__}").warning("no search for Chinese words: %s", reason)
        return
    import jieba
    folder = Path(app.doctreedir, "jieba")
    folder.mkdir(parents=True, exist_ok=True)
    jieba.dt.tmp_dir = str(folder)


def _describe_page(app, pagename, templatename, context, doctree):
    """Before sphinxext.opengraph, which then says the same."""
    text = describe(context.get("body"))
    if text:
        _add_tag(context, f'<meta name="description" content="{html.escape(text)}">')
        context["meta"] = {**(context.get("meta") or {}), "og:description": html.escape(text)}


def _add_tag(context, tag):
    context["metatags"] = f'{context.get("metatags", "")}\n{tag}\n'


def _finish_page(app, pagename, templatename, context, doctree):
    if "Content-Security-Policy" not in context.get("metatags", ""):
        _add_tag(context, f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">')
    context["body"] = SIGNATURE_LINES.sub(_as_blocks, context.get("body") or "")
    unwanted = tuple(_unwanted(context, pagename))
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context.get(kind, ())
                         if not any(word in _words(file).lower() for word in unwanted)]


def _as_blocks(lines):
    return re.sub(r"<(/?)d[ld]>", r"<\1div>", lines[0])


def _unwanted(context, pagename):
    """Words in the names of scripts and styles that this page does without."""
    yield "thebe"
    if pagename != "search":
        yield "static/search.js"
    # MathJax and its fonts are a third of a megabyte even when compressed: only where there are formulas
    if 'class="math' not in (context.get("body") or ""):
        yield "mathjax/"


def _words(file):
    return f"{getattr(file, 'filename', file)} {getattr(file, 'attributes', '')}"


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx; called by it."""
    from asymmbook.editions.render import CodeComments  # needs MyST-NB, which only a build has
    app.add_transform(CodeComments)
    app.connect("builder-inited", keep_words_private)
    app.connect("doctree-read", add_keywords)
    app.connect("html-page-context", _describe_page, priority=400)
    app.connect("html-page-context", _finish_page, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
