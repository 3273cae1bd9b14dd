"""Versions are pinned once, every import is declared, and the library loads Paddle only where it is needed."""
import ast
import subprocess
import sys
import sysconfig
from importlib import metadata
from itertools import chain
from runpy import run_path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from printed import commands

from asymmbook.checkout import project_root

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = project_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
DIRECT = [requirement for text in chain(PROJECT["project"]["dependencies"], *EXTRAS.values())
          if (requirement := Requirement(text)).name != "asymmlib"]  # an extra may take in another
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# where the import's name is not the package's
IMPORTED_AS = {"PIL": "pillow", "bs4": "beautifulsoup4", "cv2": "opencv-python-headless",
               "spellchecker": "pyspellchecker", "yaml": "pyyaml"}
RECORDERS = {"mxnet", "torch", "models", "pytorch"}  # only where seeded.py records what the authors' code answers
OWN = {path.stem for path in (ROOT / "tests").rglob("*.py")}  # tests that import each other
# tests use what pytest and jupyter-book bring with them
COMES_ALONG = {"babel", "jupyter-client", "markdown-it", "nbformat", "packaging", "pybtex", "pyyaml", "tomli"}


def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pins(python):
    """Name -> version that constraints.txt gives to one version of Python."""
    table = {}
    for requirement in constraints():
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            name, (specifier,) = canonicalize_name(requirement.name), requirement.specifier
            assert name not in table, f"{requirement.name} is pinned twice for Python {python}"
            table[name] = specifier.version
    return table


def test_constraints_are_exact():
    for requirement in constraints():
        assert [item.operator for item in requirement.specifier] == ["=="], f"{requirement} is no exact version"
        assert "*" not in str(requirement.specifier) and not requirement.extras


@pytest.mark.parametrize("python", PYTHONS)
def test_every_direct_dependency_has_a_pin_that_fits(python):
    assert python in Requirement(f"python{PROJECT['project']['requires-python']}").specifier
    table = pins(python)
    for requirement in DIRECT:
        version = table.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} of pyproject.toml has no version in constraints.txt for Python {python}"
        assert version in requirement.specifier, f"constraints.txt pins {version}, pyproject.toml wants {requirement}"


def test_exact_versions_are_in_constraints_alone():
    assert not [str(item) for item in DIRECT if any(part.operator in ("==", "===") for part in item.specifier)]
    *conda, pip = ENVIRONMENT["dependencies"]
    assert [item.split("=")[0] for item in conda] == ["python", "pip"], "conda brings Python, pip the rest"
    assert not [line for line in pip["pip"] if "==" in line]


def test_environment_takes_its_versions_from_constraints():
    python = next(item for item in ENVIRONMENT["dependencies"] if str(item).startswith("python=")).split("=")[1]
    lines = dict(line.split(maxsplit=1) for line in ENVIRONMENT["dependencies"][-1]["pip"])
    assert lines["--constraint"] == "constraints.txt"
    extras = Requirement(f"asymmlib{lines['--editable'].removeprefix('.')}").extras
    # PyTorch is only there to be timed: gigabytes that no reader needs; `book` takes in `copies` and `notebooks`; what
    # `runtimes` brings is for tests
    assert extras == set(EXTRAS) - {"cpu", "bench", "copies", "notebooks", "runtimes"}
    table = pins(python)
    assert table["paddlepaddle-gpu"] == table["paddlepaddle"], "CPU and GPU run the same Paddle"


def test_binder_takes_the_processor_build_in_the_pinned_versions():
    """Files of repo2docker; those in .binder/ hide the ones at the top, which are for a GPU."""
    lines = (ROOT / ".binder" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    lines = dict([*line.split(maxsplit=1), ""][:2] for line in lines if not line.startswith("#"))
    assert (ROOT / ".binder" / lines.pop("--constraint")).resolve() == ROOT / "constraints.txt"
    extras = Requirement(f"asymmlib{lines.pop('--editable').removeprefix('.')}").extras
    assert {"cpu", "notebooks"} <= extras <= set(EXTRAS) - {"gpu"}
    python = (ROOT / ".binder" / "runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")
    assert set(lines) <= set(pins(python)) and "jupyterlab" in lines
    assert (ROOT / ".binder" / "postBuild").stat().st_mode & 0o100


def test_two_builds_of_paddle_are_never_asked_for_together():
    paddles = {extra for extra, names in EXTRAS.items() if any(name.startswith("paddle") for name in names)}
    assert paddles == {"cpu", "gpu"}
    assert not [name for name in PROJECT["project"]["dependencies"] if name.startswith("paddle")]


def test_environment_of_make_holds_the_pinned_versions():
    if sys.prefix != str(ROOT / ".venv"):
        pytest.skip("these tests run in an environment that `make` has not made")
    table = pins(f"{sys.version_info.major}.{sys.version_info.minor}")
    # not all of sys.path: setuptools adds its own vendored packages to it once it is imported
    for found in metadata.distributions(path=[sysconfig.get_path("purelib")]):
        name = canonicalize_name(found.metadata["Name"])
        version = Version(found.version).public  # without "+cpu", which says how a wheel was built
        if name not in ("pip", "asymmlib"):
            assert version == table.get(name), f"{name} {version} is installed, pinned is {table.get(name)}"


def imports(path):
    """Top-level names of the foreign packages that a file imports."""
    return imported(ast.parse(path.read_text(encoding="utf-8")))


def imported(tree):
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"asymmlib", "asymmbook", "tomllib"} - OWN


def test_the_library_imports_what_an_extra_brings_inside_functions_only():
    """So that one line can say what is missing; import-linter does not tell these imports from the others."""
    needed = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]} | {"paddle"}
    for path in (ROOT / "asymmlib").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {id(node) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef)
                  for node in ast.walk(function)}
        tree.body = [node for node in ast.walk(tree)
                     if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in inside]
        foreign = {canonicalize_name(IMPORTED_AS.get(name, name)) for name in imported(tree)}
        assert foreign <= needed, f"{path.name} imports {foreign - needed} where it is loaded"


@pytest.mark.parametrize("folder", ["asymmlib", "book/asymmbook", "book/reference", "tests"])
def test_every_import_is_declared(folder):
    declared = {canonicalize_name(requirement.name) for requirement in DIRECT} | {"paddle"}
    declared |= COMES_ALONG if folder == "tests" else set()
    for path in (ROOT / folder).rglob("*.py"):
        foreign = {canonicalize_name(IMPORTED_AS.get(name, name)) for name in imports(path)}
        foreign -= RECORDERS if path.name == "seeded.py" else set()
        assert foreign <= declared, f"{path.name} imports {foreign - declared}, which pyproject.toml does not declare"


def wheel_files():
    """{path in the wheel: path in the checkout} of the packages' files, by pyproject.toml."""
    setup = PROJECT["tool"]["setuptools"]
    tops = setup["package-dir"]
    folders = {name: ROOT / tops.get(name, f"{tops[name.split('.')[0]]}/{'/'.join(name.split('.')[1:])}")
               for name in setup["packages"]}
    files = {}
    for name, folder in folders.items():
        for pattern in ("*.py", *setup["package-data"].get(name, ())):
            found = set(folder.glob(pattern))
            assert found or pattern == "*.py", f"package-data {pattern} of {name} matches nothing"
            files |= {f"{name.replace('.', '/')}/{path.name}": path for path in found}
    return files


def test_the_wheel_brings_kernels_and_small_weights_and_no_tests():
    files = wheel_files()
    assert {"asymmlib/fast/kernels.cc", "asymmlib/pretrained/asymmnet_small.json",
            "asymmlib/pretrained/asymmnet_small.safetensors", "asymmbook/__main__.py"} <= set(files)
    assert {name.split("/")[0] for name in files} == {"asymmlib", "asymmbook"}
    brought = {path.relative_to(ROOT).parts[0] for path in files.values()}
    assert brought == {"asymmlib", "book", "weights"} and sum(name.endswith(".safetensors") for name in files) == 1


def test_tools_of_this_build_are_the_pinned_ones():
    """Isolated builds take the pins too; asymmlib itself is built anew by every set-up, not taken from pip's cache."""
    if sys.prefix != str(ROOT / ".venv"):
        pytest.skip("these tests run in an environment that `make` has not made")
    setuptools = pins(f"{sys.version_info.major}.{sys.version_info.minor}")["setuptools"]
    installed, = metadata.distributions(name="asymmlib", path=[sysconfig.get_path("purelib")])
    assert f"Generator: setuptools ({setuptools})" in installed.read_text("WHEEL")


def test_one_command_for_ai_studio(monkeypatch):
    """`nox -s aistudio` runs the one of how-to-run.md, to its last line; no other page repeats it."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYENV_VERSION", "3.10")  # noxfile.py would look for pyenv's
    pages = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *ROOT.glob("book/*.md"))}
    assert [name for name, text in pages.items() if "pip install --user" in text] == ["how-to-run.md"]
    assert pages["how-to-run.md"].count("pip install --user") == 1
    section = pages["README.md"].split("## AI Studio")[1].split("\n## ")[0]
    assert "(book/how-to-run.md#on-ai-studio)" in section and "pip" not in section
    printed, = (command.text for command in commands() if command.text.startswith("pip install --user"))
    command = run_path(str(ROOT / "noxfile.py"))["studio_command"]()
    assert command.split() == printed.replace(" --user ", " ").split()


def test_every_file_of_the_package_is_installed():
    covered = set(wheel_files().values())
    found = {path for package in ("asymmlib", "book/asymmbook") for path in (ROOT / package).rglob("*")
             if path.is_file() and "__pycache__" not in path.parts and path.name != "README.md"}
    assert found <= covered, f"not installed with the package: {found - covered}"


@pytest.mark.slow
@pytest.mark.parametrize("code", [
    "import asymmlib",
    "import asymmlib; dir(asymmlib)",
    "import asymmlib.base.files, asymmlib.data.manifest, asymmlib.data.sources, asymmlib.recipes",
    "import sys; sys.argv = ['asymmlib', 'train', '--help']; import asymmlib.__main__ as cli\n"
    "try: cli.main()\nexcept SystemExit: pass",
])
def test_no_paddle_before_it_is_needed(code):
    check = f"{code}\nimport sys\nassert not [name for name in sys.modules if name.startswith('paddle')]"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
