"""A Sphinx extension for the reference of `asymmlib`: its docstrings as pages, and names in code that lead there.

Autodoc reads the docstrings, viewcode shows the source, sphinx-codeautolink turns names in cells and blocks into links.
What is added here: a name between single backticks is code, and a link where this reference has it; docstrings stay as
they are in every language; and the names of other projects, whose pages are not at hand offline, are no broken links.
"""
import ast
import builtins
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.ext.autodoc import DataDocumenter, ModuleDocumenter
from sphinx.util.docutils import SphinxRole

import asymmlib

__all__ = ["Constant", "Name", "constant", "home", "is_docstring", "setup"]

# roots of names that have their pages elsewhere
FOREIGN = ("paddle", "numpy", "pandas", "PIL", "argparse", "collections", "contextlib", "ctypes", "pathlib", "re",
           "types", "typing", "zipfile")
# types that stand in signatures and have no entry: variables of ours, aliases of Paddle's
PRIVATE = ("asymmlib.fast.Model", "asymmlib.data.packing.Source", "ParamAttrLike", "DataLayoutND")
SETTINGS = {
    "default_role": "name",
    "autodoc_default_options": {"members": True, "member-order": "bysource", "no-value": True},
    "autodoc_inherit_docstrings": False,  # those of Paddle's classes are not ours
    "autodoc_typehints_format": "short",
    "python_maximum_signature_line_length": 79,
    "python_use_unqualified_type_names": True,
    "toc_object_entries_show_parents": "hide",
    "codeautolink_concat_default": True,  # a page is one program
    "codeautolink_autodoc_inject": False,
}


class Name(SphinxRole):
    """Text between single backticks in a docstring."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Code, as a reference that stays code where nothing has this name."""
        text = re.sub(r"\s+", " ", self.rawtext.strip("`"))
        reference = addnodes.pending_xref(
            self.rawtext, nodes.literal(self.rawtext, text), refdomain="py", reftype="name", reftarget=text,
            refdoc=self.env.docname, refwarn=False)
        reference["py:module"] = self.env.ref_context.get("py:module")
        reference["py:class"] = self.env.ref_context.get("py:class")
        return [reference], []


class Constant(DataDocumenter):
    """A public value of a module; autodoc's own documenter leaves out those without a comment of a form of its own."""

    objtype, directivetype, priority = "constant", "data", DataDocumenter.priority + 1

    @classmethod
    def can_document_member(cls, member: Any, membername: str, isattr: bool, parent: Any) -> bool:
        """Whether it is neither a class nor a function."""
        return isinstance(parent, ModuleDocumenter) and not (inspect.isclass(member) or inspect.isroutine(member))


def is_docstring(node: nodes.Element) -> bool:
    """Whether a text comes out of the code, and so is the same in every language."""
    return "docstring of" in (node.source or "")


def _keep(app, doctree):
    for node in filter(is_docstring, doctree.findall(nodes.TextElement)):
        node["translatable"] = False


def _skip(app, what, name, member, skip, options):
    """A module's constants belong to it; what it has from another module is documented there, and code leads there."""
    module = app.env.temp_data.get("autodoc:module", "")
    if what != "module" or name not in getattr(import_module(module), "__all__", ()):
        return None
    if (owner := home(module, name)) != module:
        app.config.codeautolink_inventory_map[f"{module}.{name}"] = f"{owner}.{name}"
        return True
    return False


def home(module: str, name: str) -> str:
    """The module of ours that makes what another one has under a name; that one itself where it is not imported."""
    loaded = import_module(module)
    owner = getattr(getattr(loaded, name), "__module__", None)
    if isinstance(owner, str) and owner.startswith("asymmlib"):
        return owner
    imports = [node for node in ast.parse(Path(str(loaded.__file__)).read_text(encoding="utf-8")).body
               if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]]
    return home(str(imports[0].module), name) if imports else module


def _show_constant(app, what, name, member, options, lines):
    """A constant says of itself what its lines and the comment above them say."""
    if what == "constant":
        module, _, name = name.rpartition(".")
        lines[:] = [".. code-block:: python", "   :class: library", "",
                    *(f"   {line}" for line in constant(str(import_module(module).__file__), name)), ""]


def constant(path: str, name: str) -> list[str]:
    """The lines that assign a module's constant, and the comment above them. `ValueError` where it is not assigned."""
    source = Path(path).read_text(encoding="utf-8")
    lines = source.splitlines()
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if name in {part.id for target in targets if target for part in ast.walk(target) if isinstance(part, ast.Name)}:
            first = node.lineno - 1
            while lines[first - 1].startswith("#"):
                first -= 1
            return lines[first:node.end_lineno]
    raise ValueError(f"{path} assigns no {name}")


def _configure(app, config):
    for name, value in SETTINGS.items():
        config[name] = value
    config.codeautolink_inventory_map = {
        f"asymmlib.{name}": f"asymmlib.{owner}.{name}" for name, owner in asymmlib._OWNERS.items()}
    config.nitpick_ignore = [*config.nitpick_ignore, *(("py:class", name) for name in (*dir(builtins), *PRIVATE))]
    config.nitpick_ignore_regex = [*config.nitpick_ignore_regex, ("py:name", ".*"),
                                   ("py:.*", rf"({'|'.join(FOREIGN)})(\..*)?")]


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx; called by it."""
    for name in ("sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_codeautolink"):
        app.setup_extension(name)
    app.add_role("name", Name())
    app.add_autodocumenter(Constant)
    app.connect("config-inited", _configure, priority=400)
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-docstring", _show_constant)
    app.connect("doctree-read", _keep)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
