"""Sentences that a page computes from what it has just measured, in both languages of the book.

Sentences about recorded numbers are Markdown and are translated by the catalogues. One that depends on this machine
cannot stand there: both languages go into the page, and `book/static/book.css` shows the one of the edition.
"""
import html

from IPython.display import HTML

__all__ = ["say"]


def say(english: str, chinese: str) -> HTML:
    """One sentence in two languages, as plain text, for the last line of a cell."""
    spans = (f'<span lang="{lang}">{html.escape(text)}</span>' for lang, text in (("en", english), ("zh", chinese)))
    return HTML(f'<p class="said">{"".join(spans)}</p>')
