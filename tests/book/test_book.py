"""The book's sources hold together: links, citations, figures, table of contents, spelling, and the workflow."""
import json
import logging
import os
import re
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from printed import fences
from spellchecker import SpellChecker

from asymmbook.checkout import project_root
from asymmbook.pages import sphinx_ext
from asymmbook.pages.sphinx_ext import describe

ROOT = project_root()
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
CHAPTERS = [chapter for part in TOC["parts"] for chapter in part["chapters"]]
LISTED = [TOC["root"], *(page["file"] for chapter in CHAPTERS for page in (chapter, *chapter.get("sections", ())))]
SOURCES = sorted([*ROOT.glob("book/*.md"), *ROOT.glob("book/api/*.md"), *ROOT.glob("notebooks/*.ipynb")])
WORDS = set((ROOT / "tests" / "words.txt").read_text(encoding="utf-8").split())
COLUMNS = 79  # that a page shows at its usual width
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(?:---\n.*?^---\n|(?::\w+:[^\n]*\n)*)(.*?)^```", re.M | re.S)
FENCE = re.compile(r"^(`{3,})\{?([\w-]*)\}?.*?^\1[ ]*$", re.M | re.S)


def markdown(path):
    """The prose of a page or notebook; fenced code apart, text of other directives kept."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
    return FENCE.sub(lambda match: "" if match[2] in NO_PROSE else match[0], text)


NO_PROSE = ("code-cell", "eval-rst", "ipython3", "literalinclude", "python", "raw", "shell", "")


def code_lines(text):
    """The lines of code in a page: of its cells, without their settings, and of its blocks, those in other ones too."""
    return [line for block in (*CELL.findall(text), *(block.text for block in fences("", text)))
            for line in block.splitlines()]


@pytest.mark.parametrize("path", [path for path in SOURCES if path.suffix == ".md"], ids=lambda path: path.stem)
def test_lines_of_code_are_not_cut_off(path):
    assert [line for line in code_lines(path.read_text(encoding="utf-8")) if len(line) > COLUMNS] == []


def test_lines_of_code_are_found():
    page = ("---\na: b\n---\n```{code-cell} ipython3\n---\nmystnb: x\n---\none\n```\n\n```{code-cell} ipython3\n"
            ":tags: [y]\ntwo\n```\n\n1. list\n\n   ```shell\n   three\n   ```\n\n```{figure} x\nno code\n```\n")
    assert code_lines(page) == ["one", "two", "three"]


def slug(title):
    """The anchor that MyST gives to a heading."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def source(request):
    return request.param


def test_table_of_contents_is_complete():
    assert len(LISTED) == len(set(LISTED))
    assert set(LISTED) == {path.relative_to(ROOT).with_suffix("").as_posix() for path in SOURCES}


@pytest.mark.parametrize("column", ["english", "chinese"])
def test_search_words_name_one_page_each(column):
    words = sphinx_ext.read_keywords(column)
    assert set(words) <= set(LISTED)
    every = [word for of_page in words.values() for word in of_page]
    assert len(every) == len(set(every)), {word for word in every if every.count(word) > 1}
    assert all(word and word == word.strip().lower() for word in every)


def test_links_lead_somewhere(source):
    for target in re.findall(r"\]\(([^)\s]+)\)", markdown(source)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (source.parent / name).resolve() if name else source
        assert file.is_file(), f"{source.name} links {target}, which is no file"
        if anchor:
            titles = re.findall(r"^#{1,6}\s+(.+)$", markdown(file), re.M)
            labels = re.findall(r"^\(([\w-]+)\)=|:name: ([\w-]+)", markdown(file), re.M)
            assert anchor in {*map(slug, titles), *(a or b for a, b in labels)}, f"no #{anchor} in {file.name}"


def test_every_citation_has_an_entry():
    entries = set(re.findall(r"^@\w+\{([^,\s]+),", (ROOT / "book/references.bib").read_text(encoding="utf-8"), re.M))
    cited = {key.strip() for path in SOURCES for keys in re.findall(r"\{cite[:\w]*\}`([^`]+)`", markdown(path))
             for key in keys.split(",")}
    assert cited and cited <= entries, f"not in references.bib: {cited - entries}"


def test_every_drawing_is_used_and_described():
    used = set()
    for path in SOURCES:
        text = markdown(path)
        shown = re.findall(r"^`{3,}\{figure\} (\S+)\n(.*?)^`{3,}", text, re.M | re.S)
        shown = [(name, "".join(re.findall(r"^:alt: (.+)$", options, re.M))) for name, options in shown]
        for name, alt in shown + [(name, alt) for alt, name in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text)]:
            assert (path.parent / name).is_file(), f"{path.name} shows {name}, which is no file"
            assert len(alt) > 40, f"{path.name}: {name} needs an alt text that says what it shows"
            used.add((path.parent / name).resolve())
    english = {path for path in (ROOT / "book" / "images").glob("*.svg") if not Path(path.stem).suffix}
    assert used >= english, "a drawing that no page shows"


def test_references_to_figures_and_terms_exist():
    text = {path: markdown(path) for path in SOURCES}
    names = {name for prose in text.values() for name in re.findall(r"^:name: ([\w-]+)", prose, re.M)}
    glossary = re.search(r"^```\{glossary\}\n(.*?)^```", (ROOT / "book/notation.md").read_text(encoding="utf-8"),
                         re.M | re.S)[1]
    terms = {line.lower() for line in glossary.splitlines() if line and not line.startswith(" ")}
    for path, prose in text.items():
        assert set(re.findall(r"\{numref\}`(?:[^`<]*<)?([\w-]+)>?`", prose)) <= names, path.name
        for reference in re.findall(r"\{term\}`([^`]+)`", prose):
            term = re.sub(r".*<(.*)>$", r"\1", " ".join(reference.split())).lower()
            assert term in terms, f"{path.name} links {term!r}, which the glossary does not have"


def test_pages_open_with_what_they_give_and_cost(source):
    text = markdown(source)
    titles = re.findall(r"^(#{1,6})\s", text, re.M)
    assert titles[0] == "#" and titles.count("#") == 1, "one title, at the top"
    assert all(len(b) <= len(a) + 1 for a, b in pairwise(titles)), "a heading skips a level"
    if source.suffix == ".md" and source.stem != "intro":
        opening = text.split("\n## ")[0]
        for mark in ("**What you will be able to do:**", "**Before:**", "**Time:**"):
            assert mark in opening, f"{source.name} does not open with {mark}"


@cache
def dictionary():
    return SpellChecker(language="en")


def words(text):
    """Words of prose: no code, formulas, roles, links, options of directives."""
    text = re.sub(r"^:\w+:(?! ).*$|^`{3,}.*$|^:(?:name|tags|width).*$", " ", text, flags=re.M)
    text = re.sub(r"\{term\}`([^`<]+)(?:<[^>]*>)?`", r"\1", text)
    text = re.sub(r"\{[\w:]+\}`[^`]*`|\$\$.*?\$\$|`[^`]*`|\$[^$]*\$|\]\([^)]*\)|https?://\S+", " ", text, flags=re.S)
    return {re.sub(r"'s$", "", word.strip("'")).lower() for word in re.findall(r"[A-Za-z][A-Za-z']+", text)}


def test_spelling(source):
    unknown = dictionary().unknown(words(markdown(source))) - WORDS
    assert not unknown, f"{source.name}: {sorted(unknown)}; misspelt, or missing in tests/words.txt"


def test_the_spelling_check_finds_a_mistake():
    assert dictionary().unknown(words("The netwrok is trained.")) == {"netwrok"}


def test_descriptions():
    assert describe("<h1>T</h1><p></p><p>One <b>bold</b> &amp; plain.</p><p>Two</p>") == "One bold & plain."
    assert describe("<h1>nothing</h1>") == "" and len(describe("<p>" + "word " * 90 + "</p>")) <= 156


WORKFLOW = ROOT / ".github" / "workflows" / "book.yml"


def test_workflow_tests_then_publishes():
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    build, publish, release = (workflow["jobs"][name] for name in ("build", "publish", "release"))
    assert "make test" in [step.get("run") for step in build["steps"]]
    assert publish["needs"] == release["needs"] == "build"
    assert publish["permissions"] == {"pages": "write", "id-token": "write"}
    assert publish["if"] == "github.ref == 'refs/heads/main'" and release["if"] == "github.ref_type == 'tag'"
    folder = next(step["with"]["path"] for step in build["steps"] if "upload-pages" in step.get("uses", ""))
    assert Path(folder) == Path("_build/html")
    assert publish["concurrency"]["cancel-in-progress"] is False, "no deployment is stopped halfway"
    assert workflow["concurrency"]["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"


def test_actions_of_the_workflow_are_named_by_commit():
    """With the version in a comment; one action, one commit."""
    text = WORKFLOW.read_text(encoding="utf-8")
    used = re.findall(r"uses: ([\w/-]+)@(.*)", text)
    assert len(used) == text.count("uses:")
    assert all(re.fullmatch(r"[0-9a-f]{40}  # v\d+\.\d+\.\d+", commit) for _, commit in used)
    assert len(set(used)) == len({name for name, _ in used})


def test_workflow_elsewhere_runs_the_commands_of_the_readme():
    steps = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["elsewhere"]["steps"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("## Windows without make")[1].split("```")[1]
    commands = [line.replace(r".venv\Scripts\python", "${{ matrix.python }}").replace(
        r".venv\Scripts\jupyter-book", "${{ matrix.book }}") for line in readme.splitlines()[1:] if "py -3" not in line]
    runs = " ".join(step.get("run", "") for step in steps)
    assert len(commands) == 4 and [line for line in commands if line in runs] == commands[:3]


@pytest.mark.slow
def test_jieba_keeps_its_cache_with_the_build(tmp_path):
    """A Chinese page, built by Sphinx with a shared temporary folder: that one stays empty."""
    pytest.importorskip("jieba")
    shared, source = tmp_path / "tmp", tmp_path / "source"
    shared.mkdir()
    source.mkdir()
    (source / "index.rst").write_text("卷积网络\n========\n", encoding="utf-8")
    options = ["-C", "-D", "extensions=asymmbook.pages.sphinx_ext", "-D", "language=zh_CN", "-D",
               "html_search_language=zh", "-d", str(tmp_path / "doctrees")]
    done = subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", *options, str(source), str(tmp_path / "html")],
                          env=os.environ | {"TMPDIR": str(shared)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(shared.rglob("*")) and (tmp_path / "doctrees" / "jieba" / "jieba.cache").is_file()
    index = (tmp_path / "html" / "searchindex.js").read_text(encoding="utf-8")
    assert f'"titleterms": {{{json.dumps("卷积")}: 0, {json.dumps("网络")}: 0}}' in index


def test_a_chinese_search_without_jieba_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "jieba", None)
    app = SimpleNamespace(config=SimpleNamespace(html_search_language="zh"), doctreedir=tmp_path)
    with caplog.at_level(logging.WARNING):
        sphinx_ext.keep_words_private(app)
    assert "the package jieba is not installed; it is in the extra `book`" in caplog.text
    caplog.clear()
    app.config.html_search_language = "en"
    sphinx_ext.keep_words_private(app)
    assert not caplog.text and not list(tmp_path.iterdir())
