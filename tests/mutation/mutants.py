"""Every small mistake of the taught core that is tried on the tests: one change of one place in its syntax tree.

A comparison or an operator is swapped, a constant moved, a condition negated, a statement, a decorator or a keyword
removed, two arguments are swapped, or nothing is returned. Left alone are docstrings, annotations, `__all__`, imports,
words for people (strings with a blank, what is printed or raised, help of the command line), how a number is formatted,
and keywords that no right input can tell (`QUIET`). `trials.py` draws from these and tries the tests on them.
"""
import ast
import copy
import re
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ("__main__", "callbacks", "checkpoint", "complexity", "dataset", "evaluation", "models", "network", "recipes",
        "runs", "training")
QUIET = {"flush", "strict", "encoding", "help", "description", "metavar"}
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}


def with_(node, **changes):
    """A shallow copy of a syntax node with some fields changed."""
    changed = copy.copy(node)
    for field, value in changes.items():
        setattr(changed, field, value)
    return changed


def without(items, index):
    return [*items[:index], *items[index + 1:]]


def replacements(node, spoken):
    """(operator's name, new node) for every change of one node; `spoken`: inside what is printed or raised."""
    if isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            yield "comparison", with_(node, ops=[*node.ops[:index], SWAPS[type(op)](), *node.ops[index + 1:]])
    elif isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)):
        yield "operator", with_(node, op=SWAPS[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "negation", node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield from (("constant", ast.Constant(node.value + step)) for step in (1, -1))
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield "constant", ast.Constant(2 * node.value or 1.0)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        if node.value and not spoken and not re.search(r"\s", node.value):
            yield "string", ast.Constant(f"x{node.value}")
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "return", ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Call):
        if len(node.args) > 1 and not any(isinstance(arg, ast.Starred) for arg in node.args[:2]):
            yield "arguments", with_(node, args=[node.args[1], node.args[0], *node.args[2:]])
        for index, keyword in enumerate(node.keywords):
            if keyword.arg not in QUIET | {None}:
                yield "keyword", with_(node, keywords=without(node.keywords, index))
    if isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield "negation", with_(node, test=ast.UnaryOp(ast.Not(), node.test))
    for index in range(len(getattr(node, "decorator_list", ()))):
        yield "decorator", with_(node, decorator_list=without(node.decorator_list, index))
    kept = isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Attribute, ast.Subscript))
    if kept or isinstance(node, (ast.Expr, ast.AugAssign, ast.Raise, ast.Continue)):
        yield "statement", ast.Pass()


def silent(node, field, child):
    """Whether a part of the tree is left alone: see the module's docstring."""
    return (field in ("annotation", "returns", "format_spec") or isinstance(child, (ast.Import, ast.ImportFrom))
            or (isinstance(child, ast.Expr) and isinstance(child.value, (ast.Constant, ast.Yield)))
            or (isinstance(child, ast.Assign) and getattr(child.targets[0], "id", "") == "__all__")
            or (isinstance(child, ast.If) and "__main__" in ast.unparse(child.test))
            or (isinstance(child, ast.keyword) and child.arg in QUIET))


def sites(node, spoken=False):
    """(holder, key, node, spoken) of every place to change, in the order of the text."""
    for field, value in ast.iter_fields(node):
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST) and not silent(node, field, child):
                words = spoken or isinstance(child, ast.Raise) or (
                    isinstance(child, ast.Call) and getattr(child.func, "id", "") == "print")
                yield (value, index, child, words) if isinstance(value, list) else (node, field, child, words)
                yield from sites(child, words)


def spliced(tree, holder, key, old, new):
    """The text of a module with one node replaced."""
    put = holder.__setitem__ if isinstance(holder, list) else partial(setattr, holder)
    put(key, new)
    try:
        return ast.unparse(ast.fix_missing_locations(tree))
    finally:
        put(key, old)


def head(node):
    """One line that shows a node; of a statement with a body only the first."""
    return ast.unparse(node).splitlines()[0][:160] if not getattr(node, "decorator_list", 0) else \
        " ".join(f"@{ast.unparse(decorator)}" for decorator in node.decorator_list) + f" {node.name}"


def mutants():
    """{(file, line, operator, before, after, how many such before): function that gives the mutant's text}."""
    found = {}
    for module in CORE:
        file = f"asymmlib/{module}.py"
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        for holder, key, node, spoken in sites(tree):
            line = getattr(node, "lineno", 0)
            for operator, new in replacements(node, spoken):
                name = (file, line, operator, head(node), head(new) if not isinstance(new, ast.ClassDef) else node.name)
                same = sum(other[:5] == name for other in found)
                found[(*name, same)] = partial(spliced, tree, holder, key, node, new)
    return found
