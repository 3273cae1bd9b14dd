"""What the other edition still shows in English: for `python -m asymmbook untranslated`, and for the tests."""
import json
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from myst_nb.core.utils import coalesce_streams

from asymmbook.checkout import project_root
from asymmbook.editions.catalogue import catalogue, foreign
from asymmbook.editions.outputs import comments, texts

__all__ = ["Shown", "executed", "outputs", "shown", "untranslated"]


class Shown(NamedTuple):
    """One text that a reader sees: file of its notebook and number of its cell, English, translated."""

    place: str
    english: str
    translated: str


def executed() -> list[Path]:
    """The stored notebooks, and the pages in the cache of `make executed`."""
    root = project_root()
    return sorted([*root.glob("notebooks/*.ipynb"), *root.glob("_build/executed/executed/*/base.ipynb")])


def outputs(path: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(place, cell, output) of everything that a page shows of its cells; what was printed in pieces is one output."""
    notebook = nbformat.read(path, as_version=4)
    for number, cell in enumerate(notebook["cells"]):
        if not {"remove-output", "remove_output"} & set(cell["metadata"].get("tags", ())):
            for output in coalesce_streams(cell.get("outputs", [])):
                yield f"{path.relative_to(project_root())} [{number}]", cell, output


def shown(path: Path, language: str) -> Iterator[Shown]:
    """Every text that cells of a page show, and the comments in their code."""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code" and "remove-input" not in cell["metadata"].get("tags", ()):
            for _, _, text in comments("".join(cell["source"])):
                yield Shown(f"{path.relative_to(project_root())} [{number}]", text, catalogue(language).say(text))
    for place, _, output in outputs(path):
        for english, translated in texts(output, language, catalogue(language)):
            yield Shown(place, english, translated)


def untranslated(language: str) -> Iterator[tuple[str, str, list[str]]]:
    """(place, text as the edition shows it, its English words), of all that is not wholly translated."""
    packages = {package.name for package in distributions()}  # a table of them is not for translation
    for path in executed():
        for place, _, text in shown(path, language):
            if (words := foreign(text, language)) and text not in packages:
                yield place, text, words
