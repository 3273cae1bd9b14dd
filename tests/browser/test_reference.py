"""The reference of the built site has every public name of the library, and names in the code of the book lead there.

Needs `make site` before, but no browser; skipped where there is no built site.
"""
import functools
import importlib
import posixpath
import re
from urllib.parse import unquote

import pytest
from sphinx.util.inventory import InventoryFile

import asymmlib
from asymmbook.checkout import project_root
from asymmbook.pages.sphinx_api import home

ROOT = project_root()
SITE = ROOT / "_build" / "html"
MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
                 for path in (ROOT / "asymmlib").rglob("*.py") if path.name != "__main__.py")
EDITIONS = [edition for edition in (SITE, SITE / "zh") if (edition / "objects.inv").is_file()]
LINK = re.compile(r'<a class="sphinx-codeautolink-a" href="([^"]+)"')

pytestmark = pytest.mark.skipif(not EDITIONS, reason="no built site in _build/html: run `make site` first")


@pytest.fixture(params=EDITIONS or [None], ids=lambda edition: edition and edition.name)
def edition(request):
    return request.param


def test_every_public_name_is_there(edition):
    with (edition / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, ".", posixpath.join)
    known = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    assert set(MODULES) - {"asymmlib"} - rooms_without_names() <= known
    public = {f"{home(module, name)}.{name}" for module in MODULES if module != "asymmlib"
              for name in getattr(importlib.import_module(module), "__all__", ())}
    assert public - known == set()
    assert [name for name, owner in asymmlib._OWNERS.items() if f"asymmlib.{owner}.{name}" not in known] == []


def rooms_without_names():
    """Packages that are a folder and nothing else."""
    return {module for module in MODULES if not hasattr(importlib.import_module(module), "__all__")}


@functools.cache
def anchors(path):
    return set(re.findall(r'\bid="([^"]+)"', path.read_text(encoding="utf-8")))


def test_names_in_code_lead_to_the_reference(edition):
    pages = [page for folder in ("notebooks", "book") for page in (edition / folder).glob("*.html")]
    linked = {page: set(LINK.findall(page.read_text(encoding="utf-8"))) for page in pages}
    assert any("#asymmlib.network.AsymmNet" in link for link in linked[edition / "notebooks" / "04_asymmnet.html"])
    assert sum(map(len, linked.values())) > 50
    for page, links in linked.items():
        for link in links:
            name, _, anchor = link.partition("#")
            assert unquote(anchor) in anchors((page.parent / name).resolve()), f"{page.name}: {link}"


def test_names_lead_to_their_source(edition):
    page = (edition / "book" / "api" / "core.html").read_text(encoding="utf-8")
    links = re.findall(r'href="(../../_modules/[^"]+)#([^"]+)"', page)
    assert len(links) > 30
    for name, anchor in links:
        assert anchor in anchors((edition / "book" / "api" / name).resolve()), f"{name}#{anchor}"
