"""Drawings: they come from the network's own plan, refuse what cannot be drawn, and the stored ones are fresh."""
import os
import pkgutil
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from asymmbook.checkout import project_root
from asymmbook.figures import diagrams, layers, style
from asymmbook.figures.thumbnails import CARDS, write_thumbnails
from asymmlib.network import plan_blocks


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


@pytest.mark.parametrize("rate", [0, 1, 2])
def test_a_block_shows_its_channels_and_weights(rate):
    plan = plan_blocks("large", asymmrate=rate)[2]
    shown = texts(diagrams.draw_bottlenecks((rate,)))
    assert str(plan.depthwise) in shown and str(plan.new) in shown
    weights = plan.c_in * plan.new + plan.kernel**2 * plan.depthwise + plan.depthwise * plan.out
    assert f"= {weights:,} weights" in shown


def test_the_strip_shows_every_block():
    shown = texts(diagrams.draw_network("small"))
    assert sum(bool(re.match(r"block|\d+$", text)) for text in shown) >= len(plan_blocks("small"))


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="block 0 of large has no first pointwise"):
        diagrams.draw_bottlenecks((0,), index=0)
    with pytest.raises(ValueError, match="at least one rate"):
        diagrams.draw_bottlenecks(())


@pytest.mark.parametrize(("draw", "settings"), [
    (layers.draw_convolutions, {"d": 2}), (layers.draw_convolutions, {"c_in": 0}),
    (layers.draw_excitation, {"squeezed": 0}), (layers.draw_excitation, {"channels": 8, "squeezed": 16})])
def test_layers_that_cannot_be_drawn(draw, settings):
    with pytest.raises(ValueError, match="kernel sides are 1, 3 or 5|squeezed is from 1"):
        draw(**settings)


def test_a_convolution_is_drawn_with_what_it_sees():
    pointwise, depthwise = layers.draw_convolutions(c_in=3, m=5, d=3).axes
    for axes, seen, channels in ((pointwise, 3, 3 + 5), (depthwise, 9, 5 + 5)):
        colours = [matplotlib.colors.to_hex(patch.get_facecolor()).upper() for patch in axes.patches]
        assert colours.count(layers.SEEN) == seen and colours.count(layers.MADE) == 1
        assert colours.count(matplotlib.colors.to_hex(layers.MAP).upper()) == channels


def test_the_pipeline_names_what_the_library_has():
    named = [text for *_, function in diagrams.PIPELINE if (text := function.split(",")[0])]
    assert len(named) == len(diagrams.PIPELINE) - 1
    for name in named:
        assert pkgutil.resolve_name(f"asymmlib.{name}").__doc__, name


def test_excitation_shows_its_channels():
    shown = texts(layers.draw_excitation(channels=96, squeezed=24))
    assert {"96 means", "24"} <= set(shown)


def test_the_style_ends_and_leaves_other_settings():
    before = dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError), style.in_style():
        assert matplotlib.rcParams["axes.titlesize"] == style.STYLE["axes.titlesize"]
        matplotlib.rcParams["interactive"] = not before["interactive"]
        _ = 1 / 0
    changed = {key for key, value in matplotlib.rcParams.items() if value != before[key]}
    matplotlib.rcParams["interactive"] = before["interactive"]
    assert changed == {"interactive"}


NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
shell = InteractiveShell.instance()
for cell in ("from asymmbook.figures import diagrams, layers", "diagrams.draw_copies();", "diagrams.draw_network();",
             "layers.draw_excitation();", "import matplotlib.pyplot as plt; plt.subplots();"):
    with capture_output() as shown:
        assert shell.run_cell(cell).success
    print(len(shown.outputs), end=" ")
"""


@pytest.mark.slow
def test_every_cell_of_a_notebook_shows_its_figure():
    """The first figure loads the notebook's backend, and what is drawn after it is shown as well."""
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], capture_output=True, text=True,
                          env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    assert done.stdout.split() == ["0", "1", "1", "1", "1"], done.stdout + done.stderr


NUMBER = re.compile(r"(?<![#\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?")  # not within a colour or a name


def drawing(text):
    """What an SVG file draws: (elements with their attributes, # for each number; the numbers).

    Left out are the comments and the metadata, which draw nothing; the names that matplotlib makes of a digest, and
    which differ between its versions, are numbered in the order of their first use.
    """
    root, names, elements = ElementTree.fromstring(text), {}, []
    for metadata in root.findall("{*}metadata"):
        root.remove(metadata)
    for element in root.iter():
        words = [element.tag, *(f"{key}={value}" for key, value in sorted(element.attrib.items())), element.text or ""]
        elements += [re.sub(r"(?<=[#\"=])[a-z][0-9a-f]{10}\b", lambda name: f"n{names.setdefault(name[0], len(names))}",
                            word) for word in words]
    return [NUMBER.sub("#", word) for word in elements], [float(n) for word in elements for n in NUMBER.findall(word)]


def same(one, other):
    """Whether two SVG files draw the same, to a hundredth of a point: a last digit is the library's affair."""
    (shapes, numbers), (other_shapes, other_numbers) = drawing(one), drawing(other)
    return shapes == other_shapes and len(numbers) == len(other_numbers) and np.allclose(numbers, other_numbers,
                                                                                         rtol=0, atol=0.01)


@pytest.mark.slow
def test_stored_drawings_are_fresh(tmp_path):
    stored = project_root() / "book" / "images"
    for path in diagrams.write_images(tmp_path):
        fresh, kept = (file.read_text(encoding="utf-8") for file in (path, stored / path.name))
        assert same(fresh, kept), f"book/images/{path.name} is stale: python -m asymmbook draw draws it again"
    twins = {name.replace(".svg", ".zh_CN.svg") for name in diagrams.IMAGES}
    assert {path.name for path in stored.glob("*.svg")} == twins | set(diagrams.IMAGES)
    assert {draw.__name__ for draw, _ in diagrams.IMAGES.values()} <= set(diagrams.ALT)


@pytest.mark.parametrize(("old", "new"), [
    (r"fill: #56b4e9", "fill: #e69f00"), (r'viewBox="0 0 (\S+) ', r'viewBox="0 0 2\1 '), (r'width="\d', 'width="1'),
    (r"M (\d+)", r"M 1\1"), (r"stroke-width: 0.8", "stroke-width: 1.8"), (r'<path d="M[^>]*/>', ""),
    (r'xlink:href="#DejaVuSans-6e"', 'xlink:href="#DejaVuSans-6f"'), (r'clip-path="url\(#\w+\)"', "")])
def test_a_drawing_that_was_touched_is_stale(old, new):
    """Recoloured, squeezed, moved, thicker, a piece missing, another letter, no longer clipped: once in the file."""
    text = (project_root() / "book" / "images" / "bottleneck.svg").read_text(encoding="utf-8")
    touched = re.sub(old, new, text, count=1)
    assert touched != text and not same(text, touched)
    assert same(text, re.sub(r"<!--.*?-->", "", text))


def test_cards_are_fresh_and_every_page_of_the_landing_has_one(tmp_path):
    stored = project_root() / "book" / "images" / "cards"
    for path in write_thumbnails(tmp_path):
        fresh, kept = (file.read_text(encoding="utf-8") for file in (path, stored / path.name))
        assert same(fresh, kept), f"book/images/cards/{path.name} is stale: python -m asymmbook draw draws it again"
    assert {path.stem for path in stored.iterdir()} == set(CARDS)
    landing = (project_root() / "book" / "intro.md").read_text(encoding="utf-8")
    cards = re.findall(r':img-top: images/cards/([\w-]+)\.svg\n:img-alt: ""\n\n\[\]\((?:\S*/)?([\w-]+)\.\w+\)', landing)
    assert sorted(cards) == sorted((page, page) for page in CARDS)


def test_type_is_large_enough_for_a_phone():
    """At 9 points and WIDTH inches a letter is 9 pixels high on a screen of 390; nothing is smaller or wider."""
    smallest = min(value for key, value in style.STYLE.items() if key.endswith("size") and isinstance(value, int))
    assert smallest >= 9
    inches = style.WIDTH + 2 * style.STYLE["savefig.pad_inches"]
    assert smallest / 72 * (390 - 32) / inches >= 9
    for path in (project_root() / "book" / "asymmbook" / "figures").glob("*.py"):
        assert not re.findall(r"\bsize=[1-8]\b|[\d.]+ \* WIDTH", path.read_text(encoding="utf-8")), path.name
