"""Every notebook found is one that ran, whole and in order, and has the parts that its readers expect."""
import json
import re
from itertools import pairwise

import pytest

from asymmbook.checkout import project_root

NOTEBOOKS = sorted((project_root() / "notebooks").glob("*.ipynb"))
HEADINGS = ("Exercises", "What you have learned", "Next")
# The lesson starts on the first screen: what one will be able to do, what one needs, how long it takes
OPENER = (r"\*\*[^*]*able to", r"\*\*(You need|Before)", r"\*\*Time")
MAX_OPENER_LINES = 10
# Sections that held this before; a page that is not rewritten yet has them all
OLD_OPENER = ("What you will build", "Before you start", "Time and hardware", "Imports")
MAX_BYTES = 600_000  # drawings with words are stored twice, once a language
MAX_CELL_LINES = 40
# /home/aistudio is the same on every machine of AI Studio
ABSOLUTE = re.compile(r"(?<![\w.~/-])/(?:root|work|tmp|Users|var/folders|home/(?!aistudio\b))[\w./-]*"
                      r"|\b[A-Z]:\\\\?\w[\w\\.-]*")


def source(cell):
    return "".join(cell["source"])


def cells(notebook, kind):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def headings(notebook):
    """(level, text) of every Markdown heading, in order; lines inside fenced blocks are none."""
    found = []
    for cell in cells(notebook, "markdown"):
        text = re.sub(r"^(`{3,}|:{3,}|~{3,}).*?^\1", "", source(cell), flags=re.M | re.S)
        found += [(len(marks), title.strip()) for marks, title in re.findall(r"^(#{1,6})\s+(.+)$", text, re.M)]
    return found


def has_picture(cell):
    kinds = ("image/png", "image/jpeg", "image/svg+xml")
    return any(kind in output.get("data", {}) for output in cell["outputs"] for kind in kinds)


def texts(output):
    """Every text of an output; pictures apart."""
    yield "".join(output.get("text", []))
    for kind, value in output.get("data", {}).items():
        if not kind.startswith("image/") or kind == "image/svg+xml":
            yield value if isinstance(value, str) else "".join(map(str, value))


def test_there_are_notebooks():
    assert NOTEBOOKS, "no notebook in notebooks/"
    numbers = [path.name.split("_")[0] for path in NOTEBOOKS]
    assert numbers == [f"{number:02d}" for number in range(1, len(NOTEBOOKS) + 1)]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_executed_from_top_to_bottom(notebook):
    counts = [cell["execution_count"] for cell in cells(notebook, "code") if source(cell).strip()]
    assert counts == list(range(1, len(counts) + 1)), "executed out of order, or not at all: run `make notebooks`"


def test_outputs_hold_no_error_and_no_warning(notebook):
    for cell in cells(notebook, "code"):
        for output in cell["outputs"]:
            assert output["output_type"] != "error", f"{output.get('ename')} in {source(cell)!r}"
            assert output.get("name") != "stderr", f"{''.join(output['text'])!r} after {source(cell)!r}"


def test_no_path_of_one_machine(notebook):
    found = [match for cell in notebook["cells"] for match in ABSOLUTE.findall(source(cell))]
    found += [match for cell in cells(notebook, "code") for output in cell["outputs"] for text in texts(output)
              for match in ABSOLUTE.findall(text)]
    assert not found


@pytest.mark.parametrize(("text", "found"), [
    ("saved in /root/x", True), ("'/tmp/a.png'", True), ("/home/me/data", True), ("C:\\Users\\me", True),
    ("/home/aistudio/data/Images.zip", False), ("data/tmp/x", False), ("../work/x", False), ("1/workers", False)])
def test_the_rule_for_paths(text, found):
    assert bool(ABSOLUTE.search(text)) == found


def test_size(path):
    assert path.stat().st_size < MAX_BYTES, f"{path.stat().st_size} bytes: use smaller figures"


def test_anatomy(notebook):
    titles = headings(notebook)
    assert titles[0][0] == 1 and [level for level, _ in titles].count(1) == 1, "one title, at the top"
    sections = [title for level, title in titles if level == 2]
    positions = [sections.index(name) if name in sections else None for name in HEADINGS]
    assert None not in positions, f"missing: {[name for name in HEADINGS if name not in sections]}"
    assert positions == sorted(positions), f"order of sections: {sections}"
    for (above, _), (level, title) in pairwise(titles):
        assert level <= above + 1, f"heading {title!r} skips a level"


def test_opener(notebook):
    first = source(notebook["cells"][0])
    if not set(OLD_OPENER) <= {title for _, title in headings(notebook)}:
        assert all(re.search(part, first) for part in OPENER), first
        assert len(list(filter(str.strip, first.splitlines()))) <= MAX_OPENER_LINES, first


def test_three_exercises(notebook):
    titles = [title for _, title in headings(notebook)]
    for number, kind in enumerate(("predict", "change", "extend"), start=1):
        assert f"Exercise {number} ({kind})" in titles
    hidden = [cell for cell in cells(notebook, "code") if "hide-cell" in cell["metadata"].get("tags", [])]
    assert len(hidden) >= 3, "every exercise has a folded solution that is executed"


def test_cells_are_short(notebook):
    for cell in cells(notebook, "code"):
        assert len(source(cell).splitlines()) <= MAX_CELL_LINES, source(cell)[:80]


def test_figures_have_an_alt_text(notebook):
    for cell in cells(notebook, "code"):
        if has_picture(cell):
            alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) > 20, f"no alt text: {source(cell)!r}"


def test_pictures_stay_as_they_are_on_a_dark_page(notebook):
    """Drawings change light for dark there; what shows a picture says so."""
    for cell in cells(notebook, "code"):
        if has_picture(cell) and re.search(r"imshow\(|draw_grid\(\w+, ", source(cell)):
            assert "photographs" in cell["metadata"].get("tags", []), source(cell)[:80]


def test_metadata_hold_nothing_of_one_run(notebook):
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert not [cell for cell in notebook["cells"] if "execution" in cell["metadata"]], "times of one run are stored"
    assert "version" not in notebook["metadata"].get("language_info", {}), "run `make notebooks`, which strips it"
