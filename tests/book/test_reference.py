"""Pages of the reference name every module; tables and sentences of pages come out as readers see them."""
import importlib
import re

import pandas as pd
import pytest
from docutils import nodes

import asymmlib
from asymmbook.checkout import project_root
from asymmbook.pages import sphinx_api
from asymmbook.pages.tables import NUMBER, markdown_table, with_total
from asymmlib import network

ROOT = project_root()
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "book" / "api").glob("*.md")}


def test_every_module_stands_on_one_page():
    listed = [name for text in PAGES.values() for name in re.findall(r"^\.\. automodule:: (\S+)$", text, re.M)]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
               for path in (ROOT / "asymmlib").rglob("*.py")} - {"asymmlib", "asymmlib.__main__"}
    assert len(listed) == len(set(listed))
    assert set(listed) == {name for name in modules if getattr(importlib.import_module(name), "__all__", None)}
    headings = re.findall(r"^## `(asymmlib[\w.]*)`$", "\n".join(PAGES.values()), re.M)
    assert headings == listed


def test_the_first_page_has_the_public_names():
    named = set(re.findall(r"`(asymmlib\.[\w.]+)`", PAGES["index"]))
    assert named >= {f"asymmlib.{owner}.{name}" for name, owner in asymmlib._OWNERS.items()}


def test_a_constant_is_shown_with_its_comment():
    lines = sphinx_api.constant(network.__file__, "ROWS")
    assert lines[0].startswith("# kernel, expansion width") and lines[1] == "ROWS = {" and lines[-1] == "}"
    with pytest.raises(ValueError, match="assigns no NOTHING"):
        sphinx_api.constant(network.__file__, "NOTHING")


@pytest.mark.parametrize(("source", "fixed"), [
    ("asymmlib/network.py:docstring of asymmlib.network.Row", True), ("book/api/core.md", False), (None, False)])
def test_docstrings_are_no_text_to_translate(source, fixed):
    node = nodes.paragraph("", "One line.")
    node.source = source
    assert sphinx_api.is_docstring(node) == fixed


@pytest.mark.parametrize("text", ["12", "-3.5", "4,816", "97 %", "< 0.001", "20.7 M", "70.8 ± 1.4", "65.9–75.2",
                                  "≥ 7.0"])
def test_numbers(text):
    assert NUMBER.fullmatch(text) and not NUMBER.fullmatch(f"{text} of them")


def test_numbers_stand_to_the_right():
    table = markdown_table(pd.DataFrame({"name": ["a", "b"], "share": [0.5, None], "seed": [0, 1]}),
                           {"share": "{:.0%}".format})
    assert table.splitlines() == ["| name | share | seed |", "| --- | ---: | ---: |", "| a | 50% | 0 |", "| b |  | 1 |"]
    assert markdown_table(pd.DataFrame({"name": []})) == "| name |\n| --- |"


def test_a_row_of_sums():
    frame = with_total(pd.DataFrame({"name": ["a", "b"], "tried": [2, 3]}))
    assert frame.to_dict("list") == {"name": ["a", "b", "together"], "tried": [2, 3, 5]}
