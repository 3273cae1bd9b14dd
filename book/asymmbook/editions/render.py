"""What MyST-NB shows of cells in an edition in another language: `nb_render_plugin: asymmbook` in its configuration.

The class is found by the entry point in `pyproject.toml`. Source, stored outputs and cache are those of the English
edition; nothing is executed for it.
"""
from dataclasses import replace
from typing import Any

from docutils.nodes import Element
from myst_nb.core.render import MimeData, NbElementRenderer

from asymmbook.editions.catalogue import catalogue
from asymmbook.editions.outputs import alt, printed, twin

__all__ = ["EditionRenderer"]


class EditionRenderer(NbElementRenderer):
    """The usual elements, with their words in the language of the build."""

    @property
    def language(self) -> str:
        """The language of the build, such as "zh_CN"."""
        return str(self.renderer.sphinx_env.config.language)

    def render_stdout(self, output: Any, *place: Any) -> list[Element]:
        """What a cell prints."""
        return super().render_stdout({**output, "text": printed(output["text"], catalogue(self.language))}, *place)

    def render_mime_type(self, data: MimeData) -> list[Element]:
        """What a cell shows: a picture's twin, a table's headings, a sentence."""
        words = catalogue(self.language)
        content = twin(data.mime_type, data.content, data.output_metadata, self.language, words)
        return super().render_mime_type(replace(data, content=content, cell_metadata=alt(data.cell_metadata, words)))
