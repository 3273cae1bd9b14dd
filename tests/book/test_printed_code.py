"""Every printed line of code is executed, or `NOT_RUN` has the reason why not, and it is checked as far as it can be.

tests/book/printed.py finds the lines. Commands run in this process, in folders of their own, with `FILLED` in place of
what the page leaves open and `SHORTENED` added to what would take minutes; `make` says what it would do.
"""
import ast
import builtins
import inspect
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from importlib import import_module, util
from pathlib import Path

import pytest
import yaml
from PIL import Image
from printed import (
    DOTTED,
    JOINED,
    PATH,
    ROOT,
    SHELLS,
    blocks,
    calls,
    command,
    commands,
    docstrings,
    documents,
    fences,
    inline,
    module_of,
    sources,
)

import asymmbook.__main__
import asymmlib.__main__
from asymmlib.base.commands import make_parser
from asymmlib.data.sample import draw_sample
from asymmlib.models import MODELS
from asymmlib.recipes import RECIPES
from asymmlib.weights.released import RELEASED

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CLI = {"asymmlib": asymmlib.__main__, "asymmbook": asymmbook.__main__}
SAMPLES = ("sample", "caltech16")

# how a printed line begins that is not run -> why
NOT_RUN = {
    "conda env create": "downloads gigabytes",
    "mamba env create": "downloads gigabytes",
    "conda activate": "needs the environment of the line before",
    "apt install": "changes the machine",
    "py -3.11": "Windows only",
    "pip install": "installs",
    "python -m pip install": "installs",
    "jupyter-book build": "takes ten minutes; `make book` executes first, and then builds by this line",
    "python -m jupyterlab": "runs until it is stopped",
    "python -m pytest": "would start these tests in themselves",
    "visualdl --logdir": "serves until it is stopped; `make visualdl` starts it and looks at its page",
    "cd /home/aistudio": "AI Studio's folder",
    "%env ": "a cell for AI Studio; its settings are checked",
    "python -m asymmlib prepare --data caltech16": "downloads; tests/core/test_caltech.py does it from a copy",
    "python -m paddle.distributed.launch --gpus": "needs eight GPUs",
    "python -m paddle.distributed.launch --master": "needs eight machines",
    "OMP_NUM_THREADS=1 python -m paddle.distributed.launch": "tests/core/test_parallel.py and its page do it",
    "python -m asymmlib bench-infer": "takes a minute; tests/deploy/test_export.py does it in short",
    "python -m asymmbook int8": "needs Caltech-101 and writes results/int8.csv; tests/book/test_int8.py reads it",
    "python -m asymmbook unknown": "needs Caltech-101 and writes cards; tests/book/test_unknown.py reads the record",
    "python -m asymmbook heads": "needs Caltech-101 and writes results/heads.csv; tests/book/test_unknown.py reads it",
    "python -m asymmbook live-operators": "needs Chromium, writes a record; tests/book/test_live_results.py reads it",
    "python -m asymmbook live-webgpu": "needs a graphics chip; tests/book/test_live_results.py reads its record",
    "python -m asymmlib predict --from asymmnet_large --head":
        "needs a head that the live page saved; tests/deploy/test_heads.py and tests/book/test_live.py have some",
    "python -m asymmlib export --from asymmnet_large --to FOLDER --int8":
        "needs Caltech-101; tests/deploy/test_quantise.py does it with other pictures",
    "python -m asymmbook font": "writes the checkout's font; tests/book/test_editions.py cuts one elsewhere",
    "python -m asymmbook experiments run": "trains for days",
    "python -m asymmbook experiments collect": "writes the record; tests/book/test_trial.py does it elsewhere",
    "python -m asymmbook experiments near-copies": "needs all of Caltech-101 and writes results/near-copies.csv",
    "msgid ": "an entry of a catalogue, which no program runs",
    "pre-commit install": "changes what git does in this checkout",
    "python -m asymmbook release": "needs the recorded runs; tests/book/test_release.py does it with others",
}
# what a page leaves open -> what takes its place, {place}: the folder of these tests
FILLED = {"IMAGE...": "{place}/pictures/red/00.png", "NAME": "printed",
          "IN.params": str(ROOT / "book/reference/gluon_small_0.35_r1.params"),
          "OUT.safetensors": "{place}/OUT.safetensors", "FOLDER": "{place}/exported"}
# how a printed line begins -> options added to it, the later of two counts
QUICKLY = "--data {place}/pictures --epochs 1 --warmup-epochs 0 --image-size 32 --batch-size 8"
SHORTENED = {
    "python -m asymmlib train --start asymmnet_large": QUICKLY + " --frozen-epochs 1 --name begun",
    "python -m asymmlib train --start": QUICKLY + " --model asymmnet_small --width 0.35 --new-head --name started"
        " --frozen-epochs 1 --fresh",
    "python -m asymmlib train": QUICKLY + " --fresh",
}
# names of pages that are no files of the checkout -> why
ELSEWHERE = {
    "path/to/caltech-101.zip": "the reader's copy",
    "/data/imagenet": "the reader's copy",
    "/home/aistudio/asymmnet": "AI Studio",
    "/home/aistudio/data/data69664/Images.zip": "AI Studio",
    "book/live/node_modules/.package-lock.json": "fetched by make setup",
    "notebooks/.ipynb_checkpoints": "made by Jupyter",
    "book/static/live/built": "built with the page",
    "book/live.html": "built",
    "results/int8-latency.csv": "made when the machine is at rest",
    "asymmlib/pretrained/asymmnet_small.safetensors": "in the wheel",
    "asymmlib/pretrained/asymmnet_small.json": "in the wheel",
    "book/asymmbook/plan.py": "a decoy that tests/wheel/test_wheel.py lays out",
    "book/explorer.html": "built",
}
# dotted names that no import finds -> why
NO_NAME = {"asymmlib.pretrained": "a folder of an installed package only", "asymmlib.gone": "made up by a test"}


def reason(text):
    """Why a line is not run; None if it is."""
    return next((why for start, why in NOT_RUN.items() if text.startswith(start)), None)


def parse(program, arguments):
    """What argparse makes of the arguments; an AssertionError with its message where they are wrong."""
    module = CLI[program]
    parser = make_parser(module.COMMANDS, program, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("argparse.ArgumentParser.error", lambda self, text: pytest.fail(f"{self.prog}: {text}"))
        try:
            return vars(parser.parse_args(arguments))
        except SystemExit as end:
            assert end.code == 0, arguments
            return {}


def resolve(name):
    """The object of a dotted name, its modules imported. Raises ImportError or AttributeError."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise ImportError(name)


OF_TESTS = {"ASYMMLIB_FAULTS", "ASYMMLIB_MUTANTS", "ASYMMLIB_NOTEBOOKS"}  # settings that tests read


def check_settings(settings):
    assert {name for name in settings if name.startswith("ASYMMLIB_")} <= read_settings() | OF_TESTS
    assert settings.get("ASYMMLIB_RECIPE", "quick") in RECIPES
    data = settings.get("ASYMMLIB_DATA", "sample")
    assert data in SAMPLES or "/" in data


def check_make(words):
    for word in words:
        name, assigned, _ = word.partition("=")
        pattern = rf"^{name} \?=" if assigned else rf"^([a-z-]+ )*{name}( [a-z-]+)*:"
        assert re.search(pattern, MAKEFILE, re.M), f"the Makefile has no {name}"


def check_python(words):
    if words[:2] == ("-m", "paddle.distributed.launch"):
        words = words[words.index("python") + 1:]
    if words[0] != "-m":
        return
    assert util.find_spec(words[1]), f"no module {words[1]}"
    if words[1] in CLI:
        options = parse(words[1], words[2:])
        assert options.get("recipe") in {None, *RECIPES} and options.get("model") in {None, *MODELS}
        assert options.get("network") in {None, "NAME", *RELEASED}
        assert options.get("data") in {None, *SAMPLES, *ELSEWHERE}


def check_files(words):
    for word in words:
        if re.search(r"/|\.(txt|yml|toml|py|md)$", word) and ":" not in word:
            assert word in ELSEWHERE or (ROOT / word).exists(), f"no file {word}"
        extras = re.search(r"\.\[(.+)\]", word)
        for extra in extras[1].split(",") if extras else ():
            assert re.search(rf"^{extra} = \[", PROJECT, re.M), f"no extra {extra}"


def test_pages_and_lines_are_found():
    assert {"README.md", "weights/README.md", "book/scale-out.md"} <= {block.page for block in blocks()}
    assert len(commands()) > 40 and any("06_paper" in item.page for item in commands())


@pytest.mark.parametrize("item", commands(), ids=lambda item: item.text)
def test_command_is_right(item):
    check_settings(item.settings)
    if item.words:
        program, *words = item.words
        check_files(words)
        if Path(program).name in ("python", "make"):
            {"python": check_python, "make": check_make}[Path(program).name](tuple(words))
        if words[:1] == ["activate"]:
            assert words[1] == yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["name"]


@pytest.mark.parametrize("wrong", ["python -m asymmlib train --epoch-count 3", "python -m asymmlib paint",
                                   "python -m asymmlib predict --model alexnet IMAGE", "make tea", "make TEA=1 book",
                                   "python -m asymmlib train --recipe fast", "ASYMMLIB_TEA=1 make book",
                                   "python -m pytest tests/nothing.py", "pip install -e '.[tea]'"])
def test_a_wrong_command_is_found(wrong):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_command_is_right(command("a page", wrong))


def test_reasons_are_not_stale():
    lines = [item.text for item in commands()] + [block.title for block in blocks()]
    for start in (*NOT_RUN, *SHORTENED):
        assert any(line.startswith(start) for line in lines), f"nothing printed begins with {start!r}"
    words = {word for item in commands() for word in item.words}
    assert set(FILLED) <= words
    everything = "".join([*documents().values(), *sources().values()])
    assert not [name for name in (*ELSEWHERE, *NO_NAME) if name not in everything]


def read_settings():
    """The environment variables of ours that the code of the packages reads."""
    return {name for path, text in sources().items() if path.startswith(("asymmlib", "book/asymmbook"))
            for name in re.findall(r'"(ASYMMLIB_[A-Z]+)"', text)}


def test_settings_are_those_that_how_to_run_explains():
    assert set(re.findall(r"^\| `(ASYMMLIB_\w+)` \|", documents()["book/how-to-run.md"], re.M)) == read_settings()
    for path, text in {**documents(), **sources()}.items():
        known = read_settings() | OF_TESTS
        assert set(re.findall(r"ASYMMLIB_[A-Z]+", text)) <= known, path


@pytest.mark.parametrize("path", [*documents(), *sources()])
def test_names_and_files_exist(path):
    text = documents().get(path) or sources()[path]
    for name in set(DOTTED.findall(text)) - set(NO_NAME):
        resolve(name)
    joined = {"/".join(re.findall(r'"([^"]+)"', parts)) for parts in JOINED.findall(text)}
    for name in ({name.rstrip("/") for name in PATH.findall(text)} | joined) - set(ELSEWHERE):
        assert any(ROOT.glob(name)), f"{path} names {name}, which is not there"
    for program, name in re.findall(r"python -m (asymmlib|asymmbook) ([a-z][a-z0-9-]+)", text):
        assert name in CLI[program].COMMANDS, f"{path} names the command {program} {name}"
    for extra in re.findall(r"\bextra `(\w+)`", text):
        check_files([f".[{extra}]"])
    for words in re.findall(r"(?:`|<code>|run: )make ([\w= .-]+)", text):
        check_make(words.split())


def bind(function, call):
    """Raise TypeError where a function does not take the arguments of a call."""
    owner = [None] if inspect.isfunction(function) and "." in function.__qualname__ else []
    inspect.signature(function).bind(*owner, *call.args, **{item.arg: item.value for item in call.keywords})


def test_calls_in_docstrings_fit_their_functions():
    fitting = 0
    for path, text in sources().items():
        if not path.startswith(("asymmlib/", "book/asymmbook/")) or not path.endswith(".py"):
            continue
        module = import_module(module_of(path))
        for scope, docstring in docstrings(path, text):
            names = vars(builtins) | vars(asymmlib) | vars(module) | vars(getattr(module, scope, object))
            for code, call in calls(docstring):
                function = resolve(ast.unparse(call.func)) if "asymmlib." in code else names.get(ast.unparse(call.func))
                if function is not None:
                    bind(function, call)
                    fitting += 1
    assert fitting > 8


def test_calls_in_pages_work_after_the_import_that_they_show():
    for page, text in documents().items():
        for code, call in calls(text):
            root, _, name = ast.unparse(call.func).partition(".")
            if root in CLI:
                assert name in asymmlib.__all__, f"{page}: {code} needs more than `import asymmlib`"
                bind(getattr(asymmlib, name), call)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders of these tests: two classes of pictures and one finished run; nothing is written elsewhere."""
    place = tmp_path_factory.mktemp("printed")
    for name in ("blue", "red"):
        (place / "pictures" / name).mkdir(parents=True)
        for number in range(8):
            spreads = (20, 40, 80) if name == "blue" else (80, 40, 20)
            noise = [Image.effect_noise((40, 36), spread) for spread in spreads]
            Image.merge("RGB", noise).save(place / "pictures" / name / f"{number:02d}.png")
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in (("HOME", "data"), ("RUNS", "runs"), ("DATA", "pictures")):
            patch.setenv(f"ASYMMLIB_{name}", str(place / folder))
        patch.delenv("ASYMMLIB_RECIPE", raising=False)
        patch.setattr("asymmlib.data.sample.draw_sample", partial(draw_sample, per_class=5, size=48))  # not for 10 s
        quickly = QUICKLY.format(place=place).split()
        assert asymmlib.__main__.main(["train", "--model", "asymmnet_small", "--name", "printed", *quickly]) == 0
        assert asymmlib.__main__.main(["convert", fill("IN.params", place), fill("OUT.safetensors", place)]) == 0
        yield place


def fill(word, place):
    return FILLED.get(word, word).format(place=place) if word in FILLED else word


@pytest.mark.slow
@pytest.mark.parametrize("item", [item for item in commands() if item.words and not reason(item.text)],
                         ids=lambda item: item.text)
def test_command_runs(item, place, monkeypatch, capsys):
    program, *words = item.words
    if program == "make":
        if not shutil.which("make"):
            pytest.skip("make is not here")
        done = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout, done.stderr
        return
    assert Path(program).name == "python", f"{item.page} prints {item.text!r}: run it here, or say in NOT_RUN why not"
    for name, value in item.settings.items():
        monkeypatch.setenv(name, value)
    if words[0] == "-c":
        exec(words[1], {})
    elif words[:1] == ["-m"] and words[1] in CLI:
        added = next((options for start, options in SHORTENED.items() if start in item.text), "")
        arguments = [fill(word, place) for word in words[2:]] + shlex.split(added.format(place=place))
        try:
            assert CLI[words[1]].main(arguments) == 0, capsys.readouterr().err
        except SystemExit as end:
            assert "--help" in arguments and end.code == 0
        assert capsys.readouterr().out
    else:
        subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in blocks() if block.language not in SHELLS],
                         ids=lambda block: f"{block.page}: {block.title}")
def test_block_runs(block, place):
    if not reason(block.title):
        assert block.language == "python", f"{block.page} shows {block.title!r}: run it here, or say in NOT_RUN why not"
        code = block.text.replace('"IMAGE"', repr(fill("IMAGE...", place)))
        if "probabilities =" in code:
            code += "assert probabilities.shape == (1, len(classifier.classes))"
        # in a process of its own: here other tests have imported what the block must import by itself
        done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_settings_of_cells_are_known():
    for block in blocks():
        check_settings(dict(re.findall(r"^%env (\w+)=(.*)$", block.text, re.M)))


def test_code_is_found_where_it_hides():
    page = ("see `a` and `b\nc`\n````{note}\nin a note `d`\n```shell\nmake `e`\n```\n````\n"
            "1. a list\n\n   ```python\n   if x:\n       y\n   ```\n"
            "```{code-cell}\nz\n```\n```{code-block} text\nt\n```\n")
    assert inline(page) == ["a", "b c", "d"]
    assert [(block.language, block.text) for block in fences("page", page)] == [
        ("shell", "make `e`\n"), ("python", "if x:\n    y\n"), ("text", "t\n")]
    assert command("page", "  # only a comment") is None
    assert command("page", r'.venv\Scripts\python -m asymmlib  # why').text == "python -m asymmlib"
