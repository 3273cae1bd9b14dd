"""The code of notebooks, read as code: which cells a page writes out, what each cell needs, which ones compare.

A cell with the tag `written` defines what the library has too, and needs nothing of it. A later cell, best with the tag
`compared`, asserts that the two do the same. As a program this file takes lines out of written classes and functions
and says which of them the page's own comparisons notice: `python written.py NOTEBOOK NAME...`, a line of JSON for each.
"""
import ast
import json
import os
import symtable
import sys
import traceback
from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

from asymmbook.checkout import project_root
from asymmbook.figures import comparison, diagrams, plots

ROOT = project_root()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIBRARY = ("asymmlib", "asymmbook")
DRAWING = {"subplots", "sample_grid", *(name for module in (plots, diagrams, comparison) for name in module.__all__
                                        if name.startswith(("draw_", "plot_")))}


class Cell(NamedTuple):
    """A code cell: its text as Python, its tags, the kinds of what it puts out."""

    source: str
    tags: tuple
    kinds: frozenset

    @property
    def tree(self):
        return ast.parse(self.source)

    @property
    def defined(self):
        """The classes and functions that it defines."""
        return {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def cells(path: Path) -> list[Cell]:
    """The code cells of a notebook in order; lines for IPython alone, which begin with % or !, are left out."""
    found = []
    for cell in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            lines = [line for line in "".join(cell["source"]).splitlines() if not line.lstrip().startswith(("%", "!"))]
            kinds = frozenset(kind for output in cell["outputs"] for kind in output.get("data", {}))
            found.append(Cell("\n".join(lines), tuple(cell["metadata"].get("tags", ())), kinds))
    return found


def written(path: Path) -> list[Cell]:
    return [cell for cell in cells(path) if "written" in cell.tags]


def names(source: str) -> tuple[set, set]:
    """(names that a cell binds for later ones, names that it or its functions look up)."""
    table = symtable.symtable(source, "cell", "exec")
    bound = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    used = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    tables = list(table.get_children())
    while tables:
        inner = tables.pop()
        used |= {symbol.get_name() for symbol in inner.get_symbols() if symbol.is_global() and symbol.is_referenced()}
        bound |= {symbol.get_name() for symbol in inner.get_symbols()
                  if symbol.is_declared_global() and symbol.is_assigned()}
        tables += inner.get_children()
    return bound, used


def of_library(source: str) -> set:
    """Names that a cell imports from the library or the book's package."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LIBRARY:
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.asname or "asymmlib" for alias in node.names if alias.name.partition(".")[0] in LIBRARY}
    return found


def asserts(source: str) -> bool:
    return any(isinstance(node, ast.Assert) or (isinstance(node, ast.Attribute) and node.attr.startswith("assert_"))
               for node in ast.walk(ast.parse(source)))


def comparisons(page: list[Cell], name: str) -> list[int]:
    """Places of the cells that compare what a page writes: those with the tag `compared` that assert and depend on it.
    Where there are none, all cells that do so and import, or call, what is the library's; solutions of exercises apart.
    """
    start = next(place for place, cell in enumerate(page) if "written" in cell.tags and name in cell.defined)
    library = set().union(*(of_library(cell.source) for cell in page[:start]))
    follows, found = {name}, []
    for place, cell in enumerate(page[start + 1:], start + 1):
        bound, used = names(cell.source)
        library |= of_library(cell.source)
        if used & follows:
            ours = "compared" in cell.tags or (used & library and "hide-cell" not in cell.tags)
            if ours and asserts(cell.source):
                found.append(place)
            follows |= bound
    return [place for place in found if "compared" in page[place].tags] or found


def needed(page: list[Cell], places: Iterable[int]) -> list[int]:
    """Places of all cells that those at `places` need, themselves included: each that binds a name looked up later."""
    wanted, found = set(), set(places)
    for place in range(max(found), -1, -1):
        bound, used = names(page[place].source)
        if place in found or bound & wanted:
            found.add(place)
            wanted |= used
    return sorted(found)


def without_a_line(cell: Cell, name: str) -> Iterator[tuple[str, str, str]]:
    """(function, line taken out, the cell without it) for the last statement of a function, or of every method of a
    class; what only prints and the call of the base class's method do not count."""
    node = cell.defined[name]
    for function in node.body if isinstance(node, ast.ClassDef) else [node]:
        if not isinstance(function, ast.FunctionDef):
            continue
        statements = [inner for inner in ast.walk(function)
                      if isinstance(inner, ast.Assign | ast.AugAssign | ast.Return)
                      or (isinstance(inner, ast.Expr) and not _is_idle(inner.value))]
        if statements:
            last = max(statements, key=lambda inner: inner.lineno)
            yield function.name, ast.unparse(last), _without(cell.tree, last)


def _is_idle(node):
    return isinstance(node, ast.Constant) or "print(" in ast.unparse(node) or ast.unparse(node).startswith("super()")


def _without(tree, statement):
    place = (statement.lineno, statement.col_offset)

    class Remover(ast.NodeTransformer):
        def visit(self, node):
            if type(node) is type(statement) and (node.lineno, node.col_offset) == place:
                return ast.copy_location(ast.Pass(), node)
            return self.generic_visit(node)
    return ast.unparse(Remover().visit(deepcopy(tree)))


def draws(page: list[Cell]) -> Iterator[tuple[Cell, bool]]:
    """(cell, whether it ought to show a figure): it calls what draws, or a function of the page that does, under no
    condition, and nothing that closes the figure."""
    drawing, closing = set(DRAWING), {"close"}
    for cell in page:
        for node in ast.walk(cell.tree):
            for kinds in (drawing, closing) if isinstance(node, ast.FunctionDef) else ():
                if _called(node.body) & kinds:
                    kinds.add(node.name)
        called = _called([node for node in cell.tree.body
                          if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If)])
        yield cell, bool(called & drawing) and not called & closing


def _called(nodes):
    calls = (node for statement in nodes for node in ast.walk(statement) if isinstance(node, ast.Call))
    return {getattr(call.func, "attr", getattr(call.func, "id", "")) for call in calls}


def run(page: list[Cell], places: Iterable[int], replaced: dict | None = None) -> None:
    """Execute cells in a namespace of their own, some with another text in place of theirs."""
    namespace = {"__name__": "page", "display": lambda *_: None}
    for place in places:
        exec(compile((replaced or {}).get(place, page[place].source), f"<cell {place}>", "exec"), namespace)


def load(page: list[Cell]) -> None:
    """Import what the page imports, which takes longer than most of its cells, for the processes that are forked."""
    for cell in page:
        imports = [node for node in cell.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), "<imports>", "exec"), {})


def take_out(page: list[Cell], name: str) -> None:
    """Run what the comparisons of a name need, then again for each line taken out, and print what became of it."""
    places = needed(page, comparisons(page, name))
    start = next(place for place in places if "written" in page[place].tags and name in page[place].defined)
    run(page, places)  # as the page has it, no comparison may fail
    for function, line, code in without_a_line(page[start], name):
        noticed = ""
        try:
            run(page, places, {start: code})
        except Exception as error:  # any: a function that is half gone fails in its own way
            noticed = type(error).__name__
        print("line", json.dumps({"of": name, "in": function, "line": line, "noticed": noticed}), flush=True)


def main(notebook: str, *tried: str) -> None:
    """`take_out` for names of a page, each in a process of its own; then a line that says which ended well."""
    page, well = cells(notebook), []
    load(page)
    for name in tried:
        sys.stdout.flush()
        process = os.fork()
        if not process:
            try:
                take_out(page, name)
            except BaseException:  # a child must not go on with its parent's work
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        well += [] if os.waitpid(process, 0)[1] else [name]
    print("well", json.dumps(well))


if __name__ == "__main__":
    main(*sys.argv[1:])
