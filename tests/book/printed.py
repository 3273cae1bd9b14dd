"""What the project prints as code: commands and Python in its Markdown and notebooks, names and paths everywhere.

Pages are read by `documents`, code cells apart, since the build executes those. Everything is found by its form, so a
new block or command is found as well; tests/book/test_printed_code.py says what becomes of each.
"""
import ast
import json
import re
import shlex
import textwrap
from functools import cache
from typing import NamedTuple

from asymmbook.checkout import project_root

ROOT = project_root()
FENCE = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2`* *$", re.M | re.S)
INLINE = re.compile(r"(?<!`)(`{1,2})(?!`)([^`\n]+(?:\n[^`\n]+)?)\1(?!`)")
CODE = re.compile(r"\{code(?:-block)?\}\s*")         # directives that show code; other directives hold text
SHELLS = ("shell", "console", "bash", "sh")
PROGRAMS = ("python", "make", "nox", "pip", "apt", "apt-get", "conda", "mamba", "npm", "py")
ASSIGNED = re.compile(r"([A-Z][A-Z_]*)=(.*)")
DOTTED = re.compile(r"(?<![\w./-])asymm(?:lib|book)(?:\.[A-Za-z_]\w*)+")
TOP = r"(?:asymmlib|book|notebooks|results|weights|tests|benchmarks|locale|\.github)"
PATH = re.compile(rf"(?<![\w/.~<>{{}}*-]){TOP}"
                  r"/[\w./*-]*(?:/|\.\w+)(?![\w/])")
JOINED = re.compile(rf'(?:project_root\(\)|\bROOT)((?: / "{TOP}(?:/[\w./-]+)?")(?: / "[\w./-]+")*)')
CHECKERS = ("printed.py", "test_printed_code.py")    # their tables name what is wrong or missing elsewhere


class Block(NamedTuple):
    """A fenced block: name of its page, language, text without indentation."""

    page: str
    language: str
    text: str

    @property
    def title(self):
        return self.text.strip().splitlines()[0]


class Command(NamedTuple):
    """One command line: its page, its text without a comment, {variable: value} in front of it, its words."""

    page: str
    text: str
    settings: dict
    words: tuple


@cache
def documents():
    """{path in the checkout: Markdown}; of a notebook its Markdown cells."""
    paths = [path for pattern in ("*.md", "*/*.md", "book/reference/*.md") for path in ROOT.glob(pattern)]
    texts = {path: path.read_text(encoding="utf-8") for path in paths if path.name != "CHANGELOG.md"}
    for path in ROOT.glob("notebooks/*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts[path] = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return {path.relative_to(ROOT).as_posix(): text for path, text in sorted(texts.items())
            if not path.relative_to(ROOT).parts[0].startswith((".", "_"))}


@cache
def sources():
    """{path in the checkout: text} of the code, and of the files that build and check it."""
    patterns = ("asymmlib/**/*.py", "asymmlib/**/*.cc", "book/asymmbook/**/*.py", "book/reference/*.py",
                "book/static/explorer/*.js", "book/static/live/*.js", "benchmarks/*.py", "locale/*.py", "tests/**/*.py",
                "notebooks/*.ipynb", "Makefile", "noxfile.py", "pyproject.toml", "*.yml",
                ".*.yaml", "locale/*.yml", ".github/workflows/*.yml")
    paths = sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.name not in CHECKERS)
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def fences(page, text):
    """The blocks of code in a text, those inside other directives too; code cells apart."""
    for _, _, kind, content in FENCE.findall(text):
        if CODE.match(kind) or not kind.startswith("{"):
            yield Block(page, CODE.sub("", kind).strip(), textwrap.dedent(content))
        elif not kind.startswith(("{code-cell}", "{raw}")):
            yield from fences(page, textwrap.dedent(content))


def prose(text):
    """A text without its fenced code; what other directives hold stays."""
    return FENCE.sub(lambda match: prose(match[4]) if match[3].startswith("{") and "code" not in match[3] else "", text)


def inline(text):
    """Code between backticks in a text, outside of fenced code, each on one line."""
    return [" ".join(code.split()) for _, code in INLINE.findall(prose(text))]


@cache
def blocks():
    """Every block of every document."""
    return [block for page, text in documents().items() for block in fences(page, text)]


def command(page, line):
    """Read one line of a shell; None for an empty one. Programs count without the environment's folder."""
    text = line.replace(".venv\\Scripts\\", "").replace(".venv/bin/", "")
    words = shlex.split(text, comments=True)
    settings = {}
    while words and (words[0] == "export" or ASSIGNED.fullmatch(words[0])):
        if words[0] != "export":
            settings.update([ASSIGNED.fullmatch(words[0]).groups()])
        words.pop(0)
    return Command(page, re.sub(r"\s+#.*", "", text).strip(), settings, tuple(words)) if words or settings else None


@cache
def commands():
    """Every command line of every document, in blocks for a shell and between backticks, each text once."""
    lines = [(block.page, line) for block in blocks() if block.language in SHELLS
             for line in block.text.replace("\\\n", " ").splitlines()]
    found = [command(page, part) for page, line in lines for part in line.split("# or: ")]
    for page, text in documents().items():
        for code in inline(text):
            code = code.replace(".venv/bin/", "")
            spoken = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", code).split()
            if (len(spoken) > 1 and spoken[0] in PROGRAMS) or re.fullmatch(r"ASYMMLIB_\w+=\S+", code):
                found.append(command(page, code))
    return list({item.text: item for item in found if item}.values())


def module_of(path):
    """The module's name of a file of one of the two packages."""
    return path.removeprefix("book/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def docstrings(path, text):
    """Docstrings of a module, its classes and functions: (name of the class or "", text)."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            yield (node.name if isinstance(node, ast.ClassDef) else ""), ast.get_docstring(node)


def calls(text):
    """The calls of functions between backticks: (code, its syntax tree)."""
    for code in inline(text):
        try:
            tree = ast.parse(code, mode="eval").body
        except SyntaxError:
            continue
        if isinstance(tree, ast.Call) and isinstance(tree.func, (ast.Name, ast.Attribute)):
            yield code, tree
