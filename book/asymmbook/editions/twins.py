"""A drawing in two languages from one execution: the same figure, drawn again with other words.

`emit` makes the cells of a notebook put the second picture into the metadata of the output that holds the first one,
where readers of Jupyter never meet it and the other edition finds it (`asymmbook.editions.outputs`).
"""
import base64
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import Formatter

from asymmbook.editions.catalogue import Catalogue, catalogue
from asymmbook.editions.font import FAMILY, register
from asymmbook.editions.outputs import PICTURES, TWINS

__all__ = ["emit", "spoken"]

WORD = re.compile("[A-Za-z]{2}")


class _Spoken(Formatter):
    """An axis' formatter, whose labels are put into other words."""

    def __init__(self, formatter: Formatter, say: Callable[[str], str]) -> None:
        self.formatter, self.say = formatter, say

    def __call__(self, x: float, pos: int | None = None) -> str:
        return self.say(self.formatter(x, pos))

    def format_ticks(self, values):
        return [self.say(label) for label in self.formatter.format_ticks(values)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.formatter, name)


@contextmanager
def spoken(figure: Figure, words: Catalogue) -> Iterator[dict[str, str]]:
    """Within the block the figure's words are those of a catalogue; yields {English: translation}, also of drawn ticks.

    Texts that the catalogue does not have stay as they are, and are among the keys where they have words.
    """
    said: dict[str, str] = {}

    def say(text):
        if WORD.search(text):
            said[text] = words.drawn(text)
        return said.get(text, text)

    register()
    usual = mpl.rcParams["font.family"]  # of the labels that ticks get when they are drawn
    before = [(text, text.get_text(), text.get_fontfamily()) for text in figure.findobj(Text)]
    places = [ticker for axis in figure.findobj(Axis) for ticker in (axis.major, axis.minor)]
    formatters = [ticker.formatter for ticker in places]
    try:
        mpl.rcParams["font.family"] = [*usual, *({FAMILY} - set(usual))]
        for text, english, families in before:
            text.set_text(say(english))
            text.set_fontfamily([*families, *({FAMILY} - set(families))])
        for ticker, formatter in zip(places, formatters, strict=True):
            ticker.formatter = _Spoken(formatter, say)
        yield said
    finally:
        mpl.rcParams["font.family"] = usual
        for text, english, families in before:
            text.set_text(english)
            text.set_fontfamily(families)
        for ticker, formatter in zip(places, formatters, strict=True):
            ticker.formatter = formatter


def emit(shell: Any, languages: Sequence[str]) -> None:
    """Let the figures of this notebook be put out once more for every language; `shell` is its `get_ipython()`."""
    formatters = shell.display_formatter.formatters

    def twins(figure):
        return {}, {TWINS: {language: _twin(figure, formatters, catalogue(language)) for language in languages}}

    shell.display_formatter.mimebundle_formatter.for_type(Figure, twins)


def _twin(figure, formatters, words):
    """{MIME type: base64} by the formatters that the notebook has for figures, and the words that were drawn."""
    pictures: dict[str, Any] = {}
    with spoken(figure, words) as said:
        for kind in PICTURES:
            try:
                drawn = formatters[kind].lookup(figure)(figure)
            except KeyError:  # none for figures
                continue
            pictures[kind] = base64.b64encode(drawn).decode() if isinstance(drawn, bytes) else drawn
    return {**pictures, "words": said} if said else {"words": {}}
