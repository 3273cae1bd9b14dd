"""The first cell of every notebook: seed, figure style, and what the page runs on; and what keeps outputs readable."""
import contextlib
import io
import os
import platform
import random
import re
import sys
import textwrap
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, TextIO

import numpy as np
import pandas as pd
from PIL import Image

from asymmbook.editions.outputs import COLUMNS
from asymmlib.base.folders import data_choice
from asymmlib.base.startup import load_paddle
from asymmlib.recipes import get_recipe

__all__ = ["Settings", "run_of", "settled", "small_figures", "start"]

LEFT = re.compile(r"\s+\d+:\d\d:\d\d left")  # at the end of a line of asymmlib.callbacks.Progress
RUN = "asymmbook"  # key in the metadata of the first cell's output: the run that stored the notebook


class Settings(pd.DataFrame):
    """The table of `start`; its output also names the run of all notebooks that it belongs to, where there is one."""

    def _repr_mimebundle_(self, **choice: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        run = os.environ.get("ASYMMBOOK_RUN")
        return {}, {RUN: {"run": run}} if run else {}


def run_of(notebook: dict[str, Any]) -> list[str]:
    """The runs that a stored notebook's outputs name; one, where `make notebooks` has stored it."""
    found = (output.get("metadata", {}).get(RUN, {}).get("run") for cell in notebook["cells"]
             for output in cell.get("outputs", ()))
    return [run for run in found if run]


def start(seed: int = 0) -> pd.DataFrame:
    """Seed Python, NumPy and Paddle, set the figure style, and return a table of versions, device, data and recipe.

    With `ASYMMBOOK_EDITIONS=zh_CN`, as `make` sets it, figures are also put out in that language, for its edition.
    """
    paddle = load_paddle()
    from asymmbook.figures.style import use_style
    use_style()
    if languages := os.environ.get("ASYMMBOOK_EDITIONS", "").split():
        from IPython.core.getipython import get_ipython

        from asymmbook.editions.twins import emit
        emit(get_ipython(), languages)
    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)
    facts = {"Python": platform.python_version(), "Paddle": paddle.__version__, "NumPy": version("numpy"),
             "device": paddle.device.get_device(), "cores": os.cpu_count(),
             "threads": os.environ.get("OMP_NUM_THREADS", "not set"), "data": data_choice(),
             "recipe": get_recipe().name, "seed": seed}
    return Settings({"value": facts})


def small_figures(shell: Any, colours: int = 64, dpi: int = 110) -> None:
    """Store the figures of this notebook as PNG with a palette: drawings lose little that is seen, and two thirds of
    their bytes. Not for photographs. `shell` is the notebook's `get_ipython()`."""
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure
    plt.switch_backend(plt.get_backend())  # loads the notebook's backend, which would put its own formatter in place
    formatter = shell.display_formatter.formatters["image/png"]
    formatter.for_type(Figure, lambda figure: _palette_png(figure, colours, dpi))


def _palette_png(figure, colours, dpi):
    drawn, stored = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.12)
    Image.open(drawn).convert("RGB").quantize(colours).save(stored, format="png", optimize=True)
    return stored.getvalue()


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Pass on what the block prints, at once, for those who read it later: without the time left, for which they do not
    wait, and in lines as long as a page is wide."""
    with contextlib.redirect_stdout(_Settled(sys.stdout)):
        yield


class _Settled(io.TextIOBase):
    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text):
        self.stream.write("\n".join(_fit(LEFT.sub("", line)) for line in text.split("\n")))
        return len(text)

    def flush(self):
        self.stream.flush()


def _fit(line):
    if len(line) <= COLUMNS:  # `print` writes its words one by one, and the spaces between them
        return line
    return textwrap.fill(line, COLUMNS, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
