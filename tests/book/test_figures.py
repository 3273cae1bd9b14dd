"""Drawings: they come from the network's own plan, refuse what cannot be drawn, and the stored ones are fresh."""
import re

import matplotlib
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from asymmbook.checkout import project_root
from asymmbook.figures import diagrams
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


def test_stored_drawings_are_fresh(tmp_path):
    """Compared without numbers: the last digit of a coordinate may differ between versions of matplotlib."""
    stored = project_root() / "book" / "images"
    for path in diagrams.write_images(tmp_path):
        fresh, kept = (re.findall(r"<!--.*?-->", file.read_text(encoding="utf-8"))
                       for file in (path, stored / path.name))
        assert fresh == kept, f"book/images/{path.name} is stale: python -m asymmbook draw draws it again"
    assert {path.name for path in stored.iterdir()} == set(diagrams.IMAGES)
    assert {draw.__name__ for draw, _ in diagrams.IMAGES.values()} <= set(diagrams.ALT)
