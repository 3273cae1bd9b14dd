"""Pages are executed side by side into the cache that the book is built from; what fails is named and not in it."""
import re

import nbformat
import pytest
from jupyter_cache import get_cache

from asymmbook.pages.execution import Done, execute

pytestmark = pytest.mark.slow
PAGE = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A page

"""


def notebook(path, *cells):
    made = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    made.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(made, path)
    return path


def page(path, code):
    path.write_text(PAGE + (f"```{{code-cell}} ipython3\n{code}\n```\n" if code else "Words.\n"))
    return path


def printed(folder, path):
    """What the cells of a notebook in the cache print, as a build finds it."""
    found = get_cache(folder).merge_match_into_notebook(nbformat.read(path, 4))[1]
    return [output["text"] for cell in found.cells for output in cell.outputs]


WHERE = "import os; print(os.getcwd(), os.environ['OMP_NUM_THREADS'], repr(os.environ.get('ASYMMBOOK_EDITIONS')))"


def test_pages_are_executed_where_they_lie_and_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ASYMMBOOK_EDITIONS", "zh_CN")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    there, folder = tmp_path / "there", tmp_path / "cache"
    there.mkdir()
    pages = [notebook(there / "a.ipynb", WHERE),
             notebook(there / "b.ipynb", "1", "raise ValueError('no\\nsuch thing')"),
             page(there / "c.md", f"{WHERE}; print('c')"), page(there / "d.md", "")]
    assert execute(pages, folder, jobs=2) == [pages[1]]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "executing 3 pages, 2 at a time", "a page without code is left out"
    assert [line.split(":")[0] for line in lines[1:]] == ["1 of 3", "2 of 3", "3 of 3"]
    failed, = (line for line in lines if "b.ipynb" in line)
    assert re.search(r"b\.ipynb: \d+ s, \d+ s of a processor; failed: .*such thing", failed)
    assert printed(folder, pages[0]) == [f"{there} 3 ''\n"], "other editions show the stored outputs of notebooks"
    with pytest.raises(KeyError):
        printed(folder, pages[1])
    made = [nbformat.read(path, 4) for path in folder.glob("executed/*/base.ipynb")]
    assert [f"{there} 3 'zh_CN'\nc\n"] in [[o["text"] for cell in one.cells for o in cell.get("outputs", ())]
                                           for one in made]


def test_a_page_that_takes_long_is_told_with_its_time():
    assert Done(61.4, 90.2, None, "").line("a.md") == "a.md: 61 s, 90 s of a processor"
