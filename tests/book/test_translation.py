"""The Chinese edition is complete and current, keeps the markup of the English text, and uses the agreed words."""
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
import yaml
from babel.messages.pofile import read_po
from markdown_it import MarkdownIt
from scripts import load_script

from asymmbook.checkout import project_root

ROOT = project_root()
CATALOGUES = ROOT / "locale" / "zh_CN" / "LC_MESSAGES"
FIXED = re.compile(r"book/api/")  # of these pages the docstrings stay as they are in the code
COMPLETE = re.compile(r"book/|notebooks/(0[1-9]|10)_")  # these pages are translated whole
HAN = "\u4e00-\u9fff"
CODE = re.compile(r"(\{[\w:-]+\})?(`+)(.+?)\2")  # with a role's name in front, or without
OTHER = re.compile(r"\$+[^$]+\$+|\]\([^)\s]+\)|\*\*")  # formulas, targets of links, bold


edition = load_script("locale/edition.py")


def pages():
    """Every page of the table of contents, in its order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *(page["file"] for chapter in chapters for page in (chapter, *chapter.get("sections", ())))]


def entries(path):
    with path.open("rb") as file:
        return [entry for entry in read_po(file) if entry.id]


@pytest.fixture(params=pages())
def page(request):
    return request.param


@pytest.fixture
def catalogue(page):
    path = CATALOGUES / f"{page}.po"
    assert path.is_file(), f"{page} has no catalogue: run `make catalogues`, then translate {path.relative_to(ROOT)}"
    return entries(path)


@pytest.fixture
def translated(catalogue):
    return [entry for entry in catalogue if entry.string and not entry.fuzzy]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """{page: what there is to translate in the English text of today}, as Sphinx finds it; nothing is executed."""
    folder = tmp_path_factory.mktemp("gettext")
    edition.write("gettext", folder)
    command = "from jupyter_book.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "build", ".", "--config", str(folder / "_config.yml"), "--toc",
         str(folder / "_toc.yml"), "--path-output", str(folder), "--builder", "custom", "--custom-builder", "gettext"],
        cwd=ROOT, env={**os.environ, "PYTHONUTF8": "1"}, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    pots = folder / "_build" / "gettext"
    return {path.relative_to(pots).with_suffix("").as_posix(): {entry.id for entry in entries(path)}
            for path in pots.rglob("*.pot")}


@pytest.mark.slow
def test_catalogue_is_current(page, catalogue, template):
    here, there = {entry.id for entry in catalogue}, template[page]
    assert here == there, (f"run `make catalogues` and translate; new in the English text: {sorted(there - here)}, "
                           f"no longer there: {sorted(here - there)}")


def test_there_is_no_catalogue_without_a_page():
    found = {path.relative_to(CATALOGUES).with_suffix("").as_posix() for path in CATALOGUES.rglob("*.po")}
    found -= {"sphinx", "outputs"}  # words of the theme, and of what cells put out
    assert found <= set(pages()), f"delete the catalogues of {found - set(pages())}"


def test_everything_is_translated(page, catalogue, translated):
    share = len(translated) / len(catalogue)
    print(f"{page}: {share:.0%} of {len(catalogue)} entries")
    if COMPLETE.match(page):
        left = [entry.id for entry in catalogue if not entry.string or entry.fuzzy]
        assert not left, f"{share:.0%} of {page} is translated; missing: {left}"


def test_what_stays_english_is_told(page, catalogue):
    """Docstrings are no text to translate: a page of them says so, in Chinese, and has its own text and no other."""
    if FIXED.match(page):
        source = " ".join((ROOT / f"{page}.md").read_text(encoding="utf-8").split())
        assert all(" ".join(entry.id.split()) in source for entry in catalogue)
        assert any("英文" in entry.string and "docstring" in entry.id for entry in catalogue)


def test_no_entry_waits_for_a_check(catalogue):
    assert not [entry.id for entry in catalogue if entry.fuzzy], "marked fuzzy: correct the text, remove the mark"


def test_sentences_are_chinese(translated):
    # a content security policy among a page's metadata is code
    prose = [entry for entry in translated if len(re.findall(r"[A-Za-z]{2,}", plain(entry.id))) > 3
             and not entry.id.startswith("default-src ")]
    assert not [entry.string for entry in prose if not re.search(f"[{HAN}]", entry.string)]


def markup(text):
    """What a translation keeps: code, roles and what they point at, formulas, targets of links, bold."""
    roles = [role + re.sub(r".*<(.*)>", r"\1", content) for role, _, content in CODE.findall(text)]
    return Counter(roles + OTHER.findall(CODE.sub("", text)))


def plain(text):
    """A text without its roles, code, formulas and targets of links; a formula of its own has nothing else."""
    if text.startswith("\n"):
        return ""
    return re.sub(r"\{[\w:-]+\}(?=`)|`[^`]*`|\$[^$]*\$|\]\([^)]*\)", " ", text)


def test_markup_is_that_of_the_english_text(translated):
    for entry in translated:
        assert markup(entry.string) == markup(entry.id), f"{entry.id!r}\n{entry.string!r}"


def test_markdown_is_read_as_meant(translated):
    """A list, a heading or a lone asterisk in a translation is none in the English text, and is an accident here."""
    reader = MarkdownIt("commonmark")
    for entry in translated:
        text = re.sub(r"\$[^$]*\$", "x", entry.string)
        if not entry.id.startswith("\n"):
            blocks = reader.parse(text)
            assert [token.type for token in blocks] == ["paragraph_open", "inline", "paragraph_close"], entry.string
            stray = [child.content for child in blocks[1].children if child.type == "text" and "*" in child.content]
            assert not stray, f"emphasis that Markdown does not see, beside punctuation: {entry.string!r}"


def test_punctuation_is_chinese(translated):
    for entry in translated:
        found = re.findall(f"[{HAN}][,;:!?](?!\\w)|[{HAN}]\\.(?=\\s|$)|[,;:!?(][{HAN}]", plain(entry.string))
        assert not found, f"half-width punctuation {found} in {entry.string!r}"


TERMS = edition.read_terms()


def test_terms_are_listed_once_and_in_order():
    english = [row["english"].lower() for row in TERMS]
    assert english == sorted(set(english)), "locale/terms.csv: in alphabetical order, each once"
    assert all(row["chinese"] for row in TERMS)


def test_agreed_terms_are_used(translated):
    """Where a term of locale/terms.csv stands in the English text, one of its Chinese words stands in the other."""
    missing = []
    for entry in translated:
        english, chinese = plain_terms(entry.id), entry.string.lower()
        for row in TERMS:
            found = re.search(rf"(?<![\w-]){re.escape(row['english'].lower())}(?:e?s)?(?![\w-])", english)
            if found and not any(word.lower() in chinese for word in row["chinese"].split("|")):
                missing.append(f"{row['english']} -> {row['chinese']}: {entry.id!r} -> {entry.string!r}")
    assert not missing, "\n".join(missing)


def plain_terms(text):
    """The words of a text: roles keep what they show, code and formulas go."""
    return plain(re.sub(r"\{term\}`([^`<]*)(?:<[^`]*)?`", r"\1", text)).lower()


def test_merge():
    assert edition.merge({"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 3, "c": [2]}, "e": 4}) == {
        "a": {"b": 3, "c": [1, 2]}, "d": 2, "e": 4}


def test_edition_changes_captions_and_language(tmp_path):
    folder = edition.write("zh_CN", tmp_path)
    config, toc = edition.load(folder / "_config.yml"), edition.load(folder / "_toc.yml")
    english = edition.load(ROOT / "_config.yml")
    assert config["sphinx"]["config"]["language"] == "zh_CN" and config["title"] != english["title"]
    assert config["sphinx"]["config"]["html_static_path"] == english["sphinx"]["config"]["html_static_path"]
    assert [part["chapters"] for part in toc["parts"]] == [
        part["chapters"] for part in edition.load(ROOT / "_toc.yml")["parts"]]
    captions = edition.messages(CATALOGUES / f"{toc['root']}.po")
    assert [part["caption"] for part in toc["parts"]] == [
        captions[part["caption"]] for part in edition.load(ROOT / "_toc.yml")["parts"]]
    words = (folder / "words.txt").read_text(encoding="utf-8").splitlines()
    assert "非对称瓶颈" in words and len(words) == len(set(words))
