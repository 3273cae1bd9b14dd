"""A Sphinx extension for what depends on where the book is published: buttons, addresses, what search engines read.

Two settings of `_config.yml`, both empty there: `repository.url` and `html.baseurl`. The environment variables
`BOOK_REPOSITORY` and `BOOK_URL` go before them, so that a workflow can fill them in for any copy of the repository.
Without the first there is no button, which would lead nowhere; without the second no address, which would be wrong.
"""
import html
import os
import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from xml.etree import ElementTree

from sphinx.locale import _

__all__ = ["EDITIONS", "base_url", "repository", "setup", "sitemap"]

# what Jupyter Book 1 puts in the place of a repository that is not set
NOT_OURS = "https://github.com/executablebooks/jupyter-book"
AI_STUDIO = ("book/how-to-run", "on-ai-studio")  # there is no address that imports a repository: the steps are here
NOWHERE = "404"  # the page for addresses that are none
LOST = """<h1>Page not found · 没有这一页</h1>
<p>The address is wrong, or the page has moved. <a href="{root}book/intro.html">The beginning of the book</a> and
<a href="{root}search.html">its search</a> are still there.</p>
<p lang="zh-CN">地址有误，或者页面已经移走。请回到<a href="{root}zh/book/intro.html">本书首页</a>，或者<a
href="{root}zh/search.html">搜索</a>。</p>"""
INDEX = """<!DOCTYPE html>
<html lang="{language}"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={page}">
{tags}
</head><body><p><a href="{page}">{page}</a></p></body></html>
"""
HEAD = r'<title>.*?</title>|<meta (?:name="description"|property=)[^>]*>|<link rel="(?:canonical|alternate)"[^>]*>'


class Edition(NamedTuple):
    """One language of the book: its code in HTML, its folder in the site, how a page of the other one names it."""

    code: str
    folder: str
    name: str
    label: str


EDITIONS = {"en": Edition("en", "", "English", "Read this page in English"),
            "zh_CN": Edition("zh-CN", "zh/", "中文", "阅读本页的中文版")}


def repository(configured: str | None) -> str:
    """The address of the book's repository, without a slash at its end; "" where none is set."""
    address = os.environ.get("BOOK_REPOSITORY") or configured or ""
    return "" if address == NOT_OURS else address.rstrip("/")


def base_url(configured: str | None) -> str:
    """The address of the published site, the English edition's, with a slash at its end; "" where none is set.

    Raises `ValueError` where it is no address of the web.
    """
    address = os.environ.get("BOOK_URL") or configured or ""
    if address and urlsplit(address).scheme not in ("http", "https"):
        raise ValueError(f"html.baseurl or BOOK_URL is {address!r}: give the site's address, such as "
                         "https://someone.github.io/asymmnet/")
    return address and address.rstrip("/") + "/"


def _edition(config):
    return EDITIONS.get(config.language, EDITIONS["en"])


def _settle(app, config):
    """Hand both settings to the theme, to Sphinx and to the extensions that take them."""
    options = config.html_theme_options
    address = repository(options.get("repository_url"))
    options["repository_url"] = address
    options |= dict.fromkeys(("use_repository_button", "use_issues_button"), bool(address))
    launch = dict(options.get("launch_buttons", {})) if address else {}
    if urlsplit(address).hostname != "github.com":
        launch.pop("colab_url", None)  # Colab opens notebooks of GitHub alone
    options["launch_buttons"] = launch
    config.myst_substitutions |= {"clone": f"`git clone {address or 'ADDRESS'} asymmnet`"}
    config.book_base_url = base_url(config.html_baseurl)  # of both editions, while html_baseurl is this one's
    if config.book_base_url:
        config.html_baseurl = config.ogp_site_url = config.book_base_url + _edition(config).folder
        config.ogp_site_name, config.ogp_social_cards = config.html_title, {"enable": False}
        root = urlsplit(config.book_base_url).path
        config.notfound_urls_prefix = root
        config.notfound_context = {"title": "Page not found", "body": LOST.format(root=root)}


def _link_editions(app, pagename, templatename, context, doctree):
    """The twin of a page in the other language, for the template of the switch, and for search engines."""
    config = app.config
    if not config.two_editions or pagename == NOWHERE:
        return
    here, = (edition for edition in EDITIONS.values() if edition == _edition(config))
    other, = (edition for edition in EDITIONS.values() if edition != here)
    folder = "../" if here.folder else other.folder
    context["twin"] = other._asdict() | {"address": context["pathto"](f"{folder}{pagename}.html", 1)}
    if config.book_base_url:
        context["metatags"] = context.get("metatags", "") + "".join(
            f'\n<link rel="alternate" hreflang="{edition.code}" href="{html.escape(address)}">'
            for edition, address in _addresses(config.book_base_url, pagename).items())


def _addresses(base, pagename):
    return {edition: f"{base}{edition.folder}{pagename}.html" for edition in EDITIONS.values()}


def _fit_buttons(app, pagename, templatename, context, doctree):
    """Run buttons on notebooks alone, AI Studio's among them, and the theme's English words for these buttons."""
    buttons = context.get("header_buttons", [])
    if context.get("page_source_suffix") != ".ipynb":
        buttons[:] = [button for button in buttons if button.get("label") != "launch-buttons"]
    for group in buttons:
        if group.get("label") == "launch-buttons":
            page, section = AI_STUDIO
            group["buttons"].append({"type": "link", "text": "AI Studio", "tooltip": "How to run on AI Studio",
                                     "icon": "fas fa-list-ol", "url": f"{context['pathto'](page)}#{section}"})
        for button in (group, *group.get("buttons", ())):
            button |= {word: _(button[word]) for word in ("text", "tooltip") if button.get(word)}


def sitemap(base: str, pages: list[str], two_editions: bool) -> ElementTree.ElementTree:
    """The site's pages in the form of sitemaps.org, each with its address in the other language, where there is one."""
    root = ElementTree.Element("urlset", {"xmlns": "http://www.sitemaps.org/schemas/sitemap/0.9",
                                          "xmlns:xhtml": "http://www.w3.org/1999/xhtml"})
    for page in sorted(pages):
        addresses = _addresses(base, page)
        for edition, address in addresses.items():
            if two_editions or not edition.folder:
                entry = ElementTree.SubElement(root, "url")
                ElementTree.SubElement(entry, "loc").text = address
                for twin, other in addresses.items() if two_editions else ():
                    ElementTree.SubElement(entry, "xhtml:link", rel="alternate", hreflang=twin.code, href=other)
    return ElementTree.ElementTree(root)


def _write_site(app, exception):
    """The site's first page, which leads to the book's and tells search engines the same; the map of both editions."""
    if exception or app.builder.name != "html":
        return
    folder, page = Path(app.outdir), f"{app.config.root_doc}.html"
    tags = re.findall(HEAD, (folder / page).read_text(encoding="utf-8"), flags=re.S)
    index = INDEX.format(language=_edition(app.config).code, page=page, tags="\n".join(tags))
    (folder / "index.html").write_text(index, encoding="utf-8")
    if app.config.book_base_url and not _edition(app.config).folder:
        found = sitemap(app.config.book_base_url, list(app.env.found_docs), app.config.two_editions)
        found.write(folder / "sitemap.xml", encoding="utf-8", xml_declaration=True)


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx; called by it."""
    # whether both are built, so that each page has a twin: `make` knows
    app.add_config_value("two_editions", os.environ.get("BOOK_EDITIONS") == "both", "html")
    app.add_config_value("book_base_url", "", "html")
    if base_url(app.config.html_baseurl):
        app.setup_extension("sphinxext.opengraph")
        if not _edition(app.config).folder:  # servers look for it at the top of a site
            app.setup_extension("notfound.extension")
    app.connect("config-inited", _settle, priority=400)
    app.connect("html-page-context", _link_editions, priority=400)  # before the theme leaves out templates without text
    app.connect("html-page-context", _fit_buttons, priority=900)
    app.connect("build-finished", _write_site, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
