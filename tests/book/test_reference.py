"""Pages of the reference name every module; tables and sentences of pages come out as readers see them."""
import importlib
import re

import pandas as pd
import pytest
from docutils import nodes

import asymmlib
from asymmbook.checkout import project_root
from asymmbook.pages import sphinx_api
from asymmbook.pages.speed import TARGETS, targets
from asymmbook.pages.tables import NUMBER, markdown_table, with_total
from asymmbook.pages.words import say
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


def paragraph(text, source="book/page.md", output=True):
    entry = nodes.entry("", node := nodes.paragraph("", "", *text))
    node.source = source
    nodes.container("", entry, classes=["cell_output"] if output else [])
    return node


@pytest.mark.parametrize(("text", "options", "fixed"), [
    ([nodes.Text("20.7 M")], {}, True), ([nodes.Text("1,447")], {}, True), ([nodes.literal("", "cosine")], {}, True),
    ([nodes.Text("20.7 M")], {"output": False}, False), ([nodes.Text("network")], {}, False),
    ([nodes.Text("Decode.")], {"source": "x.py:docstring of asymmlib.x", "output": False}, True)])
def test_docstrings_and_numbers_are_no_text_to_translate(text, options, fixed):
    assert sphinx_api.is_fixed(paragraph(text, **options)) == fixed


@pytest.mark.parametrize("text", ["12", "-3.5", "4,816", "97 %", "< 0.001", "20.7 M", "70.8 ± 1.4", "65.9–75.2", "≥ 7.0"])
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


def test_a_sentence_in_both_languages():
    text = say("1 < 2", "一小于二").data
    assert '<span lang="en">1 &lt; 2</span><span lang="zh">一小于二</span>' in text


def bench(**speeds):
    rows = [{"case": case, "size": size, "batch": 32, "width": 1.0, "images_per_s": speed * (2 if size == 128 else 1),
             "peak_mib": 100 / speed, "ratio_to_stock": 1.0} for case, speed in speeds.items() for size in (128, 256)]
    return pd.DataFrame(rows)


def test_the_verdict_follows_the_numbers():
    assert len(TARGETS) == 5
    assert targets(bench(stock=1, ours=10)).endswith("\n\nEvery target that was measured is met.")
    missed = targets(bench(stock=1, ours=7, torch_tuned=7)).rpartition("\n\n")[2]
    assert missed == "Missed: images per second at 256 px, beside PyTorch, tuned."
    assert targets(bench(stock=1)).endswith("No target was measured.")
