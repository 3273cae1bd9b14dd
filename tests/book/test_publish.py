"""What the addresses of a published book change, on a book of three small pages with the real configuration.

Each is built by Sphinx as Jupyter Book would: without a setting, with both, and in Chinese.
"""
import json
import os
import re
import subprocess
import sys
from functools import cache
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import yaml

from asymmbook.checkout import project_root
from asymmbook.pages import cite, publish
from asymmbook.pages.publish import base_url, repository, sitemap
from asymmbook.pages.sphinx_ext import POLICY, describe
from asymmlib import __version__

ROOT = project_root()
REPOSITORY, SITE = "https://github.com/someone/asymmnet", "https://someone.example/asymmnet/"
PAGES = {"book/intro.md": "# AsymmNet, rebuilt and checked\n\nA book {cite}`someone2021` in plain words.\n",
         "book/how-to-run.md": "# How to run it\n\n**What you will be able to do:** run it. **Before:** a shell.\n\n"
                               "## On AI Studio\n\nClone it: {{ clone }}.\n\n```{bibliography}\n```\n"}
FIRST = "notebooks/01_data_split"
NOTEBOOK = {"cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# 1. A notebook\n\nIts text."}],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            "nbformat": 4, "nbformat_minor": 5}
TOC = {"format": "jb-book", "root": "book/intro",
       "parts": [{"caption": "Start", "chapters": [{"file": "book/how-to-run"}, {"file": FIRST}]}]}
START, RUN = (f"book/{name}.html" for name in ("intro", "how-to-run"))
BIB = "@misc{someone2021, author = {One, Some}, title = {A paper}, year = {2021}}"
# Sphinx with the configuration that Jupyter Book makes of a _config.yml; argv: configuration, source, target
BUILD = """
import sys
from pathlib import Path

from jupyter_book.config import get_final_config
from sphinx.application import Sphinx

config, source, target = map(Path, sys.argv[1:])
settings, _ = get_final_config(user_yaml=config, sourcedir=source, cli_config={"latex_individualpages": False})
settings["external_toc_path"] = str(source / "_toc.yml")
app = Sphinx(source, None, target, target.with_suffix(".doctrees"), "html", settings, status=None, warningiserror=True)
app.build()
sys.exit(app.statuscode)
"""


def changes(folder, language, url, both):
    """What the small book changes in _config.yml: where things are, and no pictures and demos to copy."""
    theme = {"html_static_path": [str(folder / "static")], "templates_path": [str(ROOT / "book" / "templates")],
             "nb_execution_mode": "off", "two_editions": both, "html_css_files": [], "mathjax_path": "tex-chtml.js"}
    if language != "en":
        theme |= {"language": language, "locale_dirs": [str(ROOT / "locale")], "html_search_language": "en"}
    return {"repository": {"url": url}, "logo": "", "html": {"favicon": ""}, "sphinx": {"config": theme},
            "bibtex_bibfiles": ["references.bib"], "exclude_patterns": []}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    @cache
    def build(language="en", url=REPOSITORY, site=SITE, both=True):
        """The folder of the built book."""
        source = tmp_path_factory.mktemp("book")
        for name, text in PAGES.items() | {(f"{FIRST}.ipynb", json.dumps(NOTEBOOK)), ("references.bib", BIB)}:
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_text(text, encoding="utf-8")
        (source / "_toc.yml").write_text(yaml.safe_dump(TOC), encoding="utf-8")
        (source / "static").mkdir()
        for name in ("book.js", "search-zh.js"):
            (source / "static" / name).write_bytes((ROOT / "book" / "static" / name).read_bytes())
        config = merge(yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8")),
                       changes(source, language, url, both))
        (source / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        done = subprocess.run([sys.executable, "-c", BUILD, source / "_config.yml", source, source / "html"],
                              capture_output=True, text=True, encoding="utf-8", env=environment(site))
        assert done.returncode == 0, done.stderr[-3000:]
        return source / "html"
    return build


def merge(base, changed):
    """`changed` over `base`; mappings are merged, everything else is replaced."""
    return base | {key: merge(base.get(key, {}), value) if isinstance(value, dict) else value
                   for key, value in changed.items()}


def environment(site):
    return {name: value for name, value in os.environ.items() if not name.startswith("BOOK_")} | {
        "PYTHONUTF8": "1", **({"BOOK_URL": site} if site else {})}


def text(folder, page):
    return (folder / f"{page}.html").read_text(encoding="utf-8")


def links(page):
    return re.findall(r'href="([^"]+)"', page)


def shown(page):
    return re.sub(r"<[^>]+>", "", page)


@pytest.mark.slow
def test_without_settings_nothing_leads_elsewhere(build):
    folder = build(url="", site="", both=False)
    for name in ("book/intro", FIRST):
        page = text(folder, name)
        assert not [link for link in links(page) if "://" in link], "nor to Jupyter Book's own repository"
        assert not re.search(r"colab|mybinder|AI Studio</span>|og:|canonical|hreflang", page)
        assert "language-switch" not in page, "the other edition is not there"
    assert not (folder / "404.html").exists() and not (folder / "sitemap.xml").exists()
    assert "git clone ADDRESS asymmnet" in shown(text(folder, "book/how-to-run"))


@pytest.mark.slow
def test_buttons_of_a_repository(build):
    notebook, page = (text(build(), name) for name in (FIRST, "book/how-to-run"))
    assert f"https://colab.research.google.com/github/someone/asymmnet/blob/main/{FIRST}.ipynb" in links(notebook)
    assert f"https://mybinder.org/v2/gh/someone/asymmnet/main?urlpath=lab/tree/{FIRST}.ipynb" in links(notebook)
    assert f"../{RUN}#on-ai-studio" in links(notebook) and 'id="on-ai-studio"' in page
    assert not [link for link in links(page) if "colab" in link or "mybinder" in link], "no notebook for them to open"
    for one in (notebook, page):
        assert any(link.startswith(f"{REPOSITORY}/issues/new?") for link in links(one))
    assert f"git clone {REPOSITORY} asymmnet" in shown(page)
    assert not re.search(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//', notebook + page), "nothing from elsewhere"


def settled(**changed):
    """The theme's options after both have spoken: Jupyter Book, which has a repository of its own, and this book."""
    from jupyter_book.config import get_final_config
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8")) | changed
    if config["repository"] is None:
        del config["repository"]
    settings, _ = get_final_config(user_yaml=config, cli_config={"latex_individualpages": False})
    settings = SimpleNamespace(**{"language": "en", "myst_substitutions": {}} | settings)
    publish._settle(None, settings)
    return settings.html_theme_options


@pytest.mark.parametrize("unset", [None, {"url": ""}, {"branch": "main"}])
def test_unset_is_not_jupyter_books_own_repository(monkeypatch, unset):
    monkeypatch.delenv("BOOK_REPOSITORY", raising=False)
    options = settled(repository=unset)
    assert not options["repository_url"] and not options["launch_buttons"] and not options["use_issues_button"]


def test_another_host_has_no_colab(monkeypatch):
    monkeypatch.delenv("BOOK_REPOSITORY", raising=False)
    assert "colab_url" in settled(repository={"url": REPOSITORY})["launch_buttons"]
    options = settled(repository={"url": "https://gitlab.com/someone/asymmnet"})
    assert "colab_url" not in options["launch_buttons"] and options["launch_buttons"]["binderhub_url"]


@pytest.mark.slow
def test_buttons_in_chinese(build):
    notebook = text(build("zh_CN"), FIRST)
    buttons = notebook.split('<div class="article-header-buttons">')[1].split("theme-switch")[0]
    names = re.findall(r'(?:title|aria-label)="([^"]*)"', buttons)
    assert len(names) > 8 and all(re.search("[\u4e00-\u9fff]", name) for name in names), names


@pytest.mark.slow
@pytest.mark.parametrize(("language", "folder", "other"), [("en", "", "../zh/book"), ("zh_CN", "zh/", "../../book")])
def test_addresses_of_a_site(build, language, folder, other):
    page = text(build(language), "book/how-to-run")
    assert f'<link rel="canonical" href="{SITE}{folder}{RUN}"' in page
    for code, where in (("en", ""), ("zh-CN", "zh/")):
        assert f'<link rel="alternate" hreflang="{code}" href="{SITE}{where}{RUN}">' in page
    assert f'property="og:url" content="{SITE}{folder}{RUN}"' in page
    for kind in ('name="description"', 'property="og:description"'):
        assert f'{kind} content="Run it."' in page
    assert page.count('name="description"') == 1
    assert f'language-switch" href="{other}/how-to-run.html"' in page


@pytest.mark.slow
def test_first_page_has_one_title_and_plain_words(build):
    folder = build()
    landing, index = text(folder, "book/intro"), text(folder, "index")
    title, = re.findall("<title>(.*?)</title>", landing)
    assert title == "AsymmNet, rebuilt and checked"
    for page in (landing, index):
        assert 'content="A book in plain words."' in page, "no mark of a citation"
        assert f'<link rel="canonical" href="{SITE}{START}"' in page and f"<title>{title}</title>" in page
    assert f'content="0; url={START}"' in index
    assert re.findall("<title>(.*?)</title>", text(folder, FIRST)) == [f"1. A notebook &#8212; {title}"]


@pytest.mark.slow
def test_lost_readers_find_back(build):
    """The page for unknown addresses is shown at any of them: its links start at the top of the site."""
    page = text(build(), "404")
    assert all(link.startswith(("/asymmnet/", "http", "#")) for link in links(page)), links(page)
    assert {f"/asymmnet/{START}", f"/asymmnet/zh/{START}"} <= set(links(page))
    assert "language-switch" not in page and not (build("zh_CN") / "404.html").exists()


@pytest.mark.slow
def test_sitemap_lists_the_pages_of_both_languages(build):
    found = ElementTree.parse(build() / "sitemap.xml").getroot()
    space = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9", "x": "http://www.w3.org/1999/xhtml"}
    pages = [f"{SITE}{folder}{page}.html" for page in ("book/how-to-run", "book/intro", FIRST)
             for folder in ("", "zh/")]
    assert [place.text for place in found.findall("s:url/s:loc", space)] == pages
    assert len(found.findall("s:url/x:link", space)) == 2 * len(pages)
    alone = sitemap(SITE, ["a"], two_editions=False).getroot()
    assert [child.tag for child in alone.iter()] == ["urlset", "url", "loc"]


@pytest.mark.slow
def test_every_page_forbids_itself_other_hosts(build):
    for name in ("book/intro", FIRST, "search", "genindex", "404"):
        assert f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">' in text(build(), name), name


def test_addresses_from_the_environment_go_first(monkeypatch):
    monkeypatch.delenv("BOOK_URL", raising=False)
    monkeypatch.delenv("BOOK_REPOSITORY", raising=False)
    assert base_url("") == "" == base_url(None) and base_url("https://a.example/b") == "https://a.example/b/"
    assert repository(None) == "" == repository("https://github.com/executablebooks/jupyter-book")
    monkeypatch.setenv("BOOK_URL", "https://c.example")
    monkeypatch.setenv("BOOK_REPOSITORY", f"{REPOSITORY}/")
    assert base_url("https://a.example/b") == "https://c.example/" and repository("https://x.example/y/z") == REPOSITORY
    monkeypatch.setenv("BOOK_URL", "someone.example/asymmnet")
    with pytest.raises(ValueError, match=r"'someone.example/asymmnet': give the site's address, such as https://"):
        base_url("")


def test_descriptions_in_plain_words():
    labelled = "<p><strong>What you will be able to do:</strong> run it.\n<strong>Before:</strong> nothing.</p>"
    assert describe(labelled) == "Run it."
    assert describe("<p><strong>学习目标</strong>：运行本书。<strong>用时</strong>：一分钟。</p>") == "运行本书。"
    cited = '<p>A paper <span id="id1">[<a class="r" href="x">YSZ21</a>, <a class="r" href="y">A</a>]</span> says.</p>'
    assert describe(cited) == "A paper says."
    assert len(describe(f"<p>{'字' * 300} 尾</p>")) == 156, "Chinese has no spaces to cut at"


FACTS = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_citation_file():
    """What version 1.2.0 of the Citation File Format asks for, and what this project knows elsewhere too."""
    assert {"cff-version", "message", "title", "authors"} <= set(FACTS) and FACTS["cff-version"] == "1.2.0"
    assert FACTS["type"] in ("software", "dataset") and FACTS["license"] == "MIT"
    people = [author for work in (FACTS, *FACTS["references"]) for author in work["authors"]]
    assert people and all("name" in author or {"family-names", "given-names"} <= set(author) for author in people)
    assert all(isinstance(value, str) for value in (FACTS["version"], FACTS["date-released"], FACTS["message"]))
    assert FACTS["version"] == __version__
    assert f"## {FACTS['version']} - {FACTS['date-released']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert FACTS["title"] == config["title"] and [author["name"] for author in FACTS["authors"]] == [config["author"]]


@pytest.mark.parametrize("site", ["", SITE])
def test_reference_for_bibtex(monkeypatch, site):
    from pybtex.database import parse_string
    monkeypatch.delenv("BOOK_REPOSITORY", raising=False)
    monkeypatch.setenv("BOOK_URL", site)
    block = cite.bibtex()
    assert block.startswith("```bibtex\n") and block.endswith("\n```")
    entry, = parse_string(block[len("```bibtex"):-len("```")], "bibtex").entries.values()
    assert entry.fields["note"] == f"Version {__version__}" and FACTS["title"] in entry.fields["title"]
    assert (SITE in entry.fields.get("howpublished", "")) == bool(site) == (SITE in cite.sentence())
