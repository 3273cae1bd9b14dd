"""What MyST-NB shows of cells in an edition in another language: `nb_render_plugin: asymmbook` in its configuration.

The class is found by the entry point in `pyproject.toml`. Source, stored outputs and cache are those of the English
edition; nothing is executed for it.
"""
from dataclasses import replace
from typing import Any

from docutils.nodes import Element, Text, container, literal_block
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.transforms import SphinxTransform

from asymmbook.editions.catalogue import catalogue
from asymmbook.editions.outputs import alt, in_code, printed, twin

__all__ = ["CodeComments", "EditionRenderer"]


class CodeComments(SphinxTransform):
    """The comments in the code of cells, in an edition that `EditionRenderer` makes."""

    default_priority = 400

    def apply(self, **settings: Any) -> None:
        """Replace the text of each cell's code."""
        if getattr(self.config, "nb_render_plugin", None) != "asymmbook":  # a build may have no MyST-NB
            return
        for cell in self.document.findall(container):
            if cell.get("nb_element") == "cell_code_source":
                for block in cell.findall(literal_block):
                    block.rawsource = in_code(block.astext(), catalogue(self.config.language))
                    block.children = [Text(block.rawsource)]


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
