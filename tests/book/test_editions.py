"""Cells show both editions the same numbers: text from the catalogue of outputs, drawings from one execution."""
import base64
import json
import re
from collections import Counter
from io import BytesIO

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from babel.messages.pofile import read_po
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font
from PIL import Image

from asymmbook.checkout import project_root
from asymmbook.editions import coverage, font
from asymmbook.editions.catalogue import FIGURE, PLACE, Catalogue, catalogue, foreign
from asymmbook.editions.outputs import PICTURES, TWINS, alt, in_code, in_html, in_markdown, printed, texts, twin
from asymmbook.editions.twins import emit, spoken
from asymmbook.pages.notebook import run_of, start

LANGUAGE = "zh_CN"
NOTEBOOKS = sorted((project_root() / "notebooks").glob("*.ipynb"))
FOLDER = project_root() / "locale" / LANGUAGE / "LC_MESSAGES"
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
HAN = re.compile("[\u4e00-\u9fff]")


@pytest.fixture
def words():
    return Catalogue([
        (None, "{n} of {n1} pictures", "{n1} 张图片中的 {n} 张"), (None, "picture", "图片"),
        (None, "fish", "鱼（fish）"),
        (FIGURE, "fish", "鱼"), (None, "seen as {x} ({n})", "误认为 {x}（{n}）"), (None, "It is so.", "就是这样。"),
        (None, "By {x}: {n}.", "由 {x} 得到 {n}。"), (None, "the rule depends on every name", "规则取决于每个文件名"),
        (None, "Accuracy", "准确率"), (None, "{x} against {x1}", "{x} 与 {x1} 相比"), (None, "{x}, loud", "{x}，大声"),
        (None, "{n} M of them", "共 {n/100} 亿，即 {n*100} 万"), (None, "told: {x}", "报错：{x}")])


@pytest.mark.parametrize(("english", "said"), [
    ("picture", "图片"), ("3 of 1,024 pictures", "1,024 张图片中的 3 张"),
    ("seen as fish (12.5%)", "误认为鱼（fish）（12.5%）"),
    ("It is so. By hand: 3.", "就是这样。由 hand 得到 3。"),
    ("It is so. Never heard.", "就是这样。Never heard."),
    ("fish, picture against ResNet50", "鱼（fish）、图片与 ResNet50 相比"),
    ("Never heard", "Never heard"), ("-3.5", "-3.5"),
    ("It is so. Fish against ResNet50", "就是这样。Fish 与 ResNet50 相比"),
    ("(3, 4) against fish", "(3, 4) 与鱼（fish）相比"), ("many of 3 pictures", "many of 3 pictures"),
    ("216.9 M of them", "共 2.169 亿，即 21690 万"), ("told: `fish, picture`", "报错：`fish, picture`")])
def test_texts_are_put_into_other_words(words, english, said):
    assert words.say(english) == said


def test_a_drawing_has_short_forms(words):
    assert words.drawn("fish\npicture") == "鱼\n图片" and words.say("fish") == "鱼（fish）"


def test_printed_sentences_run_over_lines(words):
    assert printed("3 of 4 pictures\nthe rule\ndepends on every name\n\n- fish", words).split("\n") == [
        "4 张图片中的 3 张", "规则取决于每个文件名", "", "- 鱼（fish）"]
    wide = printed("By " + "x" * 200 + ": 3.", words)
    assert "x" * 200 in wide, "a word is not broken"
    long = Catalogue([(None, "long", "很长" * 60)])
    assert {len(line) for line in printed("long", long).split("\n")} == {39, 3}


def test_a_place_stays_on_its_line(words):
    assert printed("By hand\nit came: 3.", words) == "By hand\nit came: 3."


def test_tables_and_markdown(words):
    table = pd.DataFrame({"picture": ["fish", "<b>"]}).to_html()
    said = in_html(table, words)
    assert "<th>图片</th>" in said and "<td>鱼（fish）</td>" in said and "&lt;b&gt;" in said
    assert in_html(said, words) == said and in_html("<script>picture</script>", words) == "<script>picture</script>"
    text = ("It is\nso.\n\n- picture\n- fish\n\n| picture | 3 |\n| --- | --- |\n\n"
            ":::{dropdown} Accuracy\nfish\n:::\n# fish")
    assert in_markdown(text, words) == ("就是这样。\n\n- 图片\n- 鱼（fish）\n\n| 图片 | 3 |\n| --- | --- |\n\n"
                                        ":::{dropdown} 准确率\n鱼（fish）\n:::\n# 鱼（fish）")


def test_comments_in_code(words):
    code = "x = '# fish'  # picture\n    # fish\ny = 3 # Never heard\n"
    assert in_code("if x:\n    " + code, words) == (
        "if x:\n    x = '# fish'  # 图片\n    # 鱼（fish）\ny = 3 # Never heard\n")
    assert in_code("x = '''\n# fish", words) == "x = '''\n# fish", "what is no Python stays"


def test_alternative_texts(words):
    metadata = {"tags": ["x"], "mystnb": {"image": {"alt": "It is so.", "width": 3}}}
    assert alt(metadata, words) == {"tags": ["x"], "mystnb": {"image": {"alt": "就是这样。", "width": 3}}}
    assert alt({}, words) == {} and metadata["mystnb"]["image"]["alt"] == "It is so."
    metadata["mystnb"]["image"]["alt"] = "fish against picture"
    assert alt(metadata, words) == metadata, "Sphinx finds no translation of a text that is translated in part"


def test_an_edition_that_does_not_exist():
    with pytest.raises(FileNotFoundError, match=r"no edition in xx; editions: zh_CN"):
        catalogue("xx")


def draw():
    figure, axes = plt.subplots(figsize=(4, 3))
    axes.bar(["fish", "ResNet50"], [1, 2], label="picture")
    axes.set(title="Accuracy", xlabel="3 of 4 pictures")
    axes.legend()
    return figure


def picture(figure):
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def test_a_figure_is_drawn_again_with_other_words(words):
    alone, figure = picture(draw()), draw()
    with spoken(figure, words) as said:
        chinese = picture(figure)
        assert figure.axes[0].get_title() == "准确率"
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["鱼", "ResNet50"]
    assert said == {"Accuracy": "准确率", "3 of 4 pictures": "4 张图片中的 3 张", "picture": "图片", "fish": "鱼",
                    "ResNet50": "ResNet50"}
    assert chinese != alone and picture(figure) == alone, "the English figure is as if it had been drawn alone"
    bars = [Image.open(BytesIO(data)).convert("RGB") for data in (alone, chinese)]
    assert bars[0].size == bars[1].size
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1, 2]
    plt.close("all")


def test_no_letter_of_a_drawing_is_a_box(words, recwarn):
    figure = draw()
    with spoken(figure, words):
        picture(figure)
    assert not [warning for warning in recwarn if "missing from font" in str(warning.message)]
    plt.close("all")


def test_cells_put_out_both(monkeypatch, words):
    """As in a kernel: a formatter for PNG, then `emit`."""
    monkeypatch.setattr("asymmbook.editions.twins.catalogue", lambda language: words)
    shell = InteractiveShell()
    shell.display_formatter.formatters["image/png"].for_type(Figure, picture)
    emit(shell, ["zh_CN"])
    figure = draw()
    data, metadata = shell.display_formatter.format(figure)
    made = metadata[TWINS]["zh_CN"]
    assert made["words"]["Accuracy"] == "准确率" and data["image/png"] == picture(figure)
    with spoken(figure, words):
        assert base64.b64decode(made["image/png"]) == picture(figure)
    assert twin("image/png", "English", metadata, "zh_CN", words) == made["image/png"]
    assert twin("image/png", "English", {}, "zh_CN", words) == "English"
    output = {"output_type": "display_data", "data": data, "metadata": metadata}
    assert dict(texts(output, "zh_CN", words)) == made["words"]
    plt.close("all")


def test_the_first_cell_names_the_run(monkeypatch):
    monkeypatch.setenv("ASYMMBOOK_RUN", "1234-now")
    monkeypatch.delenv("ASYMMBOOK_EDITIONS", raising=False)
    _, metadata = InteractiveShell().display_formatter.format(start())
    notebook = {"cells": [{"outputs": [{"metadata": metadata}]}, {"outputs": [{}]}, {}]}
    assert run_of(notebook) == ["1234-now"]
    monkeypatch.delenv("ASYMMBOOK_RUN")
    assert InteractiveShell().display_formatter.format(start())[1] == {}


# the catalogue

def entries():
    with (FOLDER / "outputs.po").open("rb") as file:
        return [entry for entry in read_po(file) if entry.id]


def test_every_entry_is_translated_with_its_places():
    for entry in entries():
        assert entry.string and not entry.fuzzy, entry.id
        assert set(PLACE.findall(entry.id)) == set(PLACE.findall(entry.string)), entry.id


def test_numbers_written_out_stay():
    for entry in entries():
        here, there = (Counter(NUMBER.findall(PLACE.sub("", text))) for text in (entry.id, entry.string))
        assert not here - there, f"{here - there} of {entry.id!r}"


def test_punctuation_is_chinese():
    for entry in entries():
        text = re.sub(r"`[^`]*`|\{[\w:-]+\}|\[[^]]*\]", "x", PLACE.sub("x", entry.string))
        assert not re.findall(r"[\u4e00-\u9fff][,;:!?](?!\w)|[,;:!?(][\u4e00-\u9fff]", text), entry.string


@pytest.mark.slow
def test_a_font_is_cut_elsewhere_twice_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(font, "FOLDER", tmp_path)
    try:
        first = {path.name: path.read_bytes() for path in font.write()}
    except FileNotFoundError as error:
        pytest.skip(str(error))
    for path in font.files():
        assert font.characters() <= {chr(code) for code in get_font(str(path)).get_charmap()}
    assert {path.name: path.read_bytes() for path in font.write()} == first


def test_the_font_has_every_character():
    assert len(font.files()) == 2, "python -m asymmbook font"
    for path in font.files():
        missing = font.characters() - {chr(code) for code in get_font(str(path)).get_charmap()}
        assert not missing, f"{path.name} lacks {''.join(sorted(missing))}: python -m asymmbook font"


# what is stored

@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def test_no_word_is_left_in_english(path):
    left = {text.translated: found for text in coverage.shown(path, LANGUAGE)
            if (found := foreign(text.translated, LANGUAGE))}
    assert not left, "translate it in outputs.po (python -m asymmbook untranslated), or name it in kept.txt"


def test_both_editions_show_the_same_numbers(path):
    for text in coverage.shown(path, LANGUAGE):
        gone = Counter(NUMBER.findall(text.english)) - Counter(NUMBER.findall(text.translated))
        assert not gone, f"{gone} of {text.english!r} in {text.translated!r}"


def test_every_drawing_has_its_twin(path):
    drawn = [(place, output) for place, _, output in coverage.outputs(path)
             if set(PICTURES) & set(output.get("data", ()))]
    for place, output in drawn:
        made = output.get("metadata", {}).get(TWINS, {}).get(LANGUAGE)
        assert made is not None, f"{place}: make notebooks"
        stale = {text: said for text, said in made["words"].items() if catalogue(LANGUAGE).drawn(text) != said}
        assert not stale, f"{place} was drawn with other words: make notebooks"
        kinds = set(PICTURES) & set(output["data"])
        if any(HAN.search(said) for said in made["words"].values()):
            assert all(made[kind] != output["data"][kind] for kind in kinds), f"{place} has no words of its own"


def test_a_drawing_and_its_twin_show_the_same(path):
    """Nearly the same size, and mostly the same pixels where nothing but words differs."""
    for place, _, output in coverage.outputs(path):
        made = output.get("metadata", {}).get(TWINS, {}).get(LANGUAGE, {})
        for kind in set(PICTURES) & set(made):
            pair = [Image.open(BytesIO(base64.b64decode("".join(data)))).convert("L") for data in
                    (output["data"][kind], made[kind])]
            assert np.abs(np.subtract(*(image.size for image in pair))).max() < 0.2 * max(pair[0].size), place
            dark = [np.mean(np.asarray(image) < 128) for image in pair]
            assert abs(dark[0] - dark[1]) < 0.05, place


def test_all_notebooks_are_stored_by_one_run():
    runs = {path.name: run_of(json.loads(path.read_text(encoding="utf-8"))) for path in NOTEBOOKS}
    assert runs and all(len(found) == 1 for found in runs.values()), f"make notebooks stores them all: {runs}"
    assert len({found[0] for found in runs.values()}) == 1, f"by several runs: {runs}; make notebooks"
    assert "dirty" not in str(runs), "stored by code that no commit has"
