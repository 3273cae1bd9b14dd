"""Which small mistakes in the taught core would the tests notice: `python tests/mutants.py [draw | again [TESTS]]`.

A mutant is the core with one change: a comparison or an operator swapped, a constant moved, a condition negated, a
statement, decorator or keyword removed, two arguments swapped, nothing returned. `draw` samples 200 of all with a
fixed seed into tests/mutants.csv, before any is tried; without a word those without a verdict are tried (`make mutants`),
with `again` those that survived, by the tests named (default: all of `TESTS`). Each is tried in a copy of the tree, by the fast tests that call its function (or any function of
its module, where it stands in none), the quickest first, until they would take `BUDGET` seconds without a mutant.
Not mutated: docstrings, annotations, `__all__`, imports, words for people (strings with a blank, what is printed or
raised, help of the command line), how a number is formatted, and keywords that no right input can tell (`QUIET`).
"""
import ast
import copy
import csv
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "mutants.csv"
COLUMNS = ("id", "file", "line", "operator", "before", "after", "verdict", "killed_by")
SAMPLE, SEED = 200, 0
CORE = ("__main__", "callbacks", "checkpoint", "complexity", "dataset", "evaluation", "models", "network", "recipes",
        "runs", "training")
TESTS = ("tests/core", "tests/weights/test_weights.py", "tests/deploy/test_export.py", "tests/book/test_explorer.py",
         "tests/book/test_evidence.py", "tests/book/test_figures.py", "tests/book/test_release.py")
FAST = ("-k", "not killed_at_random and not lost_process and not processes_give and not only_rank_0")
BUDGET = 60
QUIET = {"flush", "strict", "encoding", "help", "description", "metavar"}
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift,
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
            or isinstance(child, ast.Expr) and isinstance(child.value, (ast.Constant, ast.Yield))
            or isinstance(child, ast.Assign) and getattr(child.targets[0], "id", "") == "__all__"
            or isinstance(child, ast.If) and "__main__" in ast.unparse(child.test)
            or isinstance(child, ast.keyword) and child.arg in QUIET)


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


def read():
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(rows):
    """Store the table, whole or not at all: the run may be stopped and goes on at the first row without a verdict."""
    with open(f"{TABLE}.part", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    os.replace(f"{TABLE}.part", TABLE)


def draw():
    """The sample, before any look at what the tests do with it."""
    names = random.Random(SEED).sample(sorted(mutants()), SAMPLE)
    write([dict(zip(COLUMNS, (f"{number}{'' if not name[5] else '~' + str(name[5])}", *name[:5]), strict=False))
           for number, name in enumerate(sorted(names))])


def copied(folder):
    """Copy what git tracks or would track, so that no mutant ever stands in the checkout; return a digest of it."""
    digest = hashlib.sha256()
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, stdout=subprocess.PIPE,
                            check=True).stdout.decode().split("\0")
    for name in sorted(name for name in listed if (ROOT / name).is_file()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
        if name.endswith(".py"):
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()


class Watch:
    """A plugin of pytest: {test: [seconds, the (module, function) of the core that it calls]}."""

    def __init__(self, folder):
        self.prefix, self.seen, self.failed = f"{folder}/asymmlib/", {}, set()

    def trace(self, frame, event, _):
        if frame.f_code.co_filename.startswith(self.prefix):
            self.called.add((Path(frame.f_code.co_filename).stem, frame.f_code.co_name))

    def pytest_runtest_logstart(self, nodeid):
        self.called, self.started = set(), time.perf_counter()
        threading.settrace(self.trace)  # Paddle's loader reads pictures in a thread
        sys.settrace(self.trace)

    def pytest_runtest_logfinish(self, nodeid):
        sys.settrace(None)
        if nodeid not in self.failed:
            self.seen[nodeid] = [time.perf_counter() - self.started, sorted(self.called)]

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.add(report.nodeid)


def ask(folder, tests, watch=None):
    """In a forked process: run tests against a copy of the tree; stop at the first that fails."""
    import pytest
    os.setsid()
    os.chdir(folder)
    with open("log", "w") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    sys.path[:0] = [str(folder), str(folder / "book")]
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # the tests need none, and each takes time to load
    status = pytest.main(["-q", "-rfE", "--tb=line", "-p", "no:cacheprovider", f"--basetemp={folder}/made",
                          *([] if watch else ["-x"]), *tests], plugins=[watch] if watch else [])
    if watch:
        Path("seen.json").write_text(json.dumps(watch.seen))
    sys.stdout.flush()
    os._exit(status)


def verdict(folder, tests, limit=None, watch=None):
    """("killed", by which test), ("killed", "time") past the limit in seconds, or ("survived", "")."""
    process = multiprocessing.get_context("fork").Process(target=ask, args=(folder, tests, watch))
    process.start()
    process.join(limit)
    late = process.exitcode is None
    if late:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    if process.exitcode == 0:
        return "survived", ""
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", (folder / "log").read_text(errors="replace"), re.M)
    return "killed", "time" if late else failed[0] if failed else f"exit status {process.exitcode}"


def watched(folder, digest, asked):
    """What every fast test calls and how long it takes, from a run without a mutant; kept for the same tree."""
    kept = ROOT / "_build" / f"mutants-{hashlib.sha256(repr((digest, asked)).encode()).hexdigest()[:12]}.json"
    if not kept.exists():
        print("without a mutant:", *verdict(folder, [*(FAST if asked == TESTS else ()), *asked], watch=Watch(folder)))
        kept.parent.mkdir(exist_ok=True)
        shutil.copy(folder / "seen.json", kept)
    return json.loads(kept.read_text())


def judges(seen, file, line):
    """The tests to ask about a line, the quickest first, and how long they take without a mutant."""
    inside = [node for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
              if isinstance(node, ast.FunctionDef) and node.lineno <= line <= node.end_lineno]
    function = max(inside, key=lambda node: node.lineno).name if inside else None
    module, tests, total = Path(file).stem, [], 0
    for test, (seconds, called) in sorted(seen.items(), key=lambda item: item[1][0]):
        if any(where == module and function in (None, name) for where, name in called) and total + seconds < BUDGET:
            tests, total = [*tests, test], total + seconds
    return tests, total


def try_all(wanted, asked=TESTS):
    """Give every row of the table with the wanted verdict a new one, by the tests asked."""
    for library in ("PIL.Image", "paddle", "pandas", "statsmodels.api", "pytest"):
        importlib.import_module(library)  # once, before the forks: they take seconds
    rows, found = read(), mutants()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        seen = watched(folder, copied(folder), asked)
        for count, row in enumerate(rows):
            if row["verdict"] != wanted:
                continue
            number, _, same = row["id"].partition("~")
            text = found[row["file"], int(row["line"]), row["operator"], row["before"], row["after"], int(same or 0)]()
            tests, seconds = judges(seen, row["file"], int(row["line"]))
            path, kept = folder / row["file"], (folder / row["file"]).read_bytes()
            path.write_text(text, encoding="utf-8")
            os.utime(path, (count, count))  # compiled files go by seconds and size
            row["verdict"], row["killed_by"] = verdict(folder, tests, 60 + 5 * seconds) if tests else ("survived", "")
            path.write_bytes(kept)
            os.utime(path, (10**9 + count,) * 2)
            write(rows)
            print(row["id"], row["file"], row["line"], row["verdict"], row["killed_by"], flush=True)


def summary(rows):
    """How many were killed, with Wilson's interval, and the survivors by name."""
    from asymmbook.evidence.statistics import wilson
    tried = [row for row in rows if row["verdict"]]
    if not tried:
        return print(f"{len(rows)} mutants, none tried yet")
    killed = sum(row["verdict"] == "killed" for row in tried)
    low, high = wilson(killed / len(tried), len(tried))
    late = sum(row["killed_by"] == "time" for row in tried)
    print(f"killed {killed} of {len(tried)} ({killed / len(tried):.1%}, 95 % interval {low:.1%} to {high:.1%}), {late} of "
          f"them by the time limit; {len(rows) - len(tried)} not tried; survived:")
    for row in tried:
        if row["verdict"] == "survived":
            print(f"{row['id']:>6} {row['file']}:{row['line']} {row['operator']}: {row['before']} -> {row['after']}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["draw"]:
            draw()
        case ["again", *asked]:
            try_all("survived", tuple(asked) or TESTS)
        case asked:
            try_all("", tuple(asked) or TESTS)
    summary(read())
