"""Tables and sentences of pages as Markdown, so that all look alike and their words are translated.

Numbers stand right-aligned under their headings, words to the left. Notebooks show DataFrames, which the site's style
and `book/static/book.js` align in the same way.
"""
import json
import re
from collections.abc import Callable, Iterable, Mapping

import pandas as pd

__all__ = ["NUMBER", "bullets", "folded", "machines", "markdown_table", "percent", "ranges", "with_total"]

# 12, -3.5, 4,816, 97 %, < 0.001, 20.7 M, 70.8 ± 1.4, 65.9–75.2
NUMBER = re.compile(r"(?:[<>≤≥]=? ?)?[-+]?\d[\d.,]*(?: ?[%kMG×])?(?: ?[±–] ?[\d.,]+)?")


def markdown_table(frame: pd.DataFrame, formats: Mapping[str, Callable[..., str]] | None = None) -> str:
    """A Markdown table of a frame without its index.

    formats: {column: function that makes the text of a value}, else `str`. Missing values are empty cells. A column is
    right-aligned where every value in it reads as a number.
    """
    formats = formats or {}
    cells = [[formats.get(column, str)(value) if pd.notna(value) else "" for column, value in row.items()]
             for row in frame.to_dict("records")]
    ruler = ["---:" if _numbers(column) else "---" for column in zip(*cells, strict=True)]
    rows = [list(frame), ruler or ["---"] * frame.shape[1], *cells]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def with_total(frame: pd.DataFrame, name: str = "together") -> pd.DataFrame:
    """A frame with one row more, called `name` in its first column: the sums of its columns of numbers."""
    sums = frame.sum(numeric_only=True).to_dict()
    return pd.concat([frame, pd.DataFrame([{frame.columns[0]: name, **sums}])], ignore_index=True)


def _numbers(column):
    return any(column) and all(NUMBER.fullmatch(text) for text in column if text)


def percent(share: float) -> str:
    """A share between 0 and 1 in per cent, with one decimal and without the sign."""
    return f"{100 * share:.1f}"


def ranges(low: Iterable[float], high: Iterable[float]) -> list[str]:
    """Texts "65.9–75.2" in per cent of shares, one for each pair of ends."""
    return [f"{percent(start)}–{percent(end)}" for start, end in zip(low, high, strict=True)]


def machines(runs: pd.DataFrame) -> str:
    """Where recorded runs come from, each value once, folded; runs: rows of a table of runs."""
    facts = {"processor": runs["cpu"], "device": runs["device"], "threads": runs["threads"], "Python": runs["python"],
             "packages": runs["packages"].map(lambda text: ", ".join(f"{k} {v}" for k, v in json.loads(text).items())),
             "commit": runs["commit"].map("`{}`".format),
             "manifest": runs["manifest_sha256"].str[:16].map("`{}`".format)}
    rows = [{"": name, "value": "; ".join(map(str, dict.fromkeys(values)))} for name, values in facts.items()]
    return folded("Machines and versions", markdown_table(pd.DataFrame(rows)))


def bullets(sentences: Iterable[str]) -> str:
    """Sentences as a Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def folded(title: str, content: str) -> str:
    """Markdown that is shown when its title is clicked."""
    return f":::{{dropdown}} {title}\n{content}\n:::"
