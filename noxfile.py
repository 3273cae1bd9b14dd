"""The versions that this project supports, as one command: `nox` (after `make setup`: `.venv/bin/python -m nox`).

Each session makes an environment of its own, prints its versions and runs the test suite without the site; a run of the
whole suite leaves its row in results/matrix.csv, which book/trust.md shows. A Python that is not on the machine fails
its session; `nox --sessions "tests(python=3.13, paddle=3.3.1)"` runs one alone, `-- tests/core` a part of it.
`nox -s audit` looks up known advisories of the pinned versions, for which the network must reach their database.

`nox -s wheel` and `nox -s aistudio` (`make wheel`, `make aistudio`) try what others install: the wheel alone in an
empty folder, and the command for AI Studio with its notebooks. They need a package index and skip without one.
"""
import csv
import json
import os
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2024"
nox.options.sessions = ["tests"]
nox.options.error_on_missing_interpreters = True

# Paddle 2.6.2 has no wheel for Python 3.13, so three of the four combinations exist.
MATRIX = [nox.param("3.10", "2.6.2", id="python=3.10, paddle=2.6.2"),
          nox.param("3.10", "3.3.1", id="python=3.10, paddle=3.3.1"),
          nox.param("3.13", "3.3.1", id="python=3.13, paddle=3.3.1")]
# What an older Paddle needs instead of the versions in constraints.txt
INSTEAD = {"2.6.2": {"paddlepaddle": "2.6.2", "numpy": "1.26.4"}, "3.3.1": {}}
# onnx asks for a newer protobuf than Paddle 2.6.2 takes: the tests of the extra `ship` skip there
EXTRAS = {"2.6.2": "cpu,book,dev", "3.3.1": "cpu,book,dev,ship"}
PYTEST = ("python", "-m", "pytest", "-q", "-rfEs")
SUITE = ("tests", "--ignore=tests/browser")  # the browser's tests look at a built site
# as `make unit`: most in two processes of one thread each, those that want the machine for themselves after them
PARTS = ({"OMP_NUM_THREADS": "1"}, ("-n", "2", "--dist", "worksteal", "-m", "not serial")), ({}, ("-m", "serial"))
TABLE = Path("results/matrix.csv")
# What AI Studio's image has of the packages that the notebooks need, a Jupyter kernel, and what runs notebooks here
STUDIO = ("paddlepaddle", "numpy", "pandas", "matplotlib", "pillow", "visualdl", "ipykernel", "nbmake")
STUDIO_PAGE = Path("book/how-to-run.md")
VERSIONS = "import json, platform, numpy, paddle; print(json.dumps({'python': platform.python_version(), " \
           "'paddle': paddle.__version__, 'numpy': numpy.__version__}))"


def offer_pyenv():
    """Let pyenv's shims answer for every version that it has, the present one first, not for the chosen one alone."""
    if "PYENV_VERSION" in os.environ or not shutil.which("pyenv"):
        return
    asked = (["pyenv", "version-name"], ["pyenv", "versions", "--bare"])
    chosen, known = (subprocess.run(command, capture_output=True, text=True).stdout.replace(":", " ").split()
                     for command in asked)
    os.environ["PYENV_VERSION"] = ":".join(dict.fromkeys(chosen + known[::-1]))


offer_pyenv()


def constraints(session, paddle):
    """A copy of constraints.txt with the exceptions of one Paddle."""
    with open("constraints.txt", encoding="utf-8") as file:
        lines = [line for line in file if line.split("==")[0].lower() not in INSTEAD[paddle]]
    lines += [f"{name}=={version}\n" for name, version in INSTEAD[paddle].items()]
    path = f"{session.virtualenv.location}/constraints.txt"
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)
    return path


def pinned(session, paddle="3.3.1"):
    """The environment of a pip that takes the pinned versions, in its isolated builds too.

    Before pip 25.3 those read the first variable, later the second. A relative path: pip splits both at spaces.
    """
    path = os.path.relpath(constraints(session, paddle))
    return {"PIP_CONSTRAINT": path, "PIP_BUILD_CONSTRAINT": path}


def record(session, versions, reports):
    """Write the row of a session: versions, counts of pytest's reports, date, commit. Return how many tests failed."""
    suites = [ElementTree.parse(report).getroot().find("testsuite").attrib for report in reports]
    tests, skipped, failed, broken = (sum(int(suite[name]) for suite in suites)
                                      for name in ("tests", "skipped", "failures", "errors"))
    commit = session.run("git", "rev-parse", "--short=12", "HEAD", external=True, silent=True).strip()
    changed = session.run("git", "status", "--porcelain", ".", f":!{TABLE}", external=True, silent=True).strip()
    row = versions | {"passed": tests - skipped - failed - broken, "skipped": skipped, "failed": failed + broken,
                      "date": date.today().isoformat(), "commit": commit + "-dirty" * bool(changed)}
    rows = list(csv.DictReader(TABLE.open(encoding="utf-8", newline=""))) if TABLE.exists() else []
    same = [(old["python"], old["paddle"]) == (row["python"], row["paddle"]) for old in rows]
    rows = sorted([row, *(old for old, stale in zip(rows, same, strict=True) if not stale)],
                  key=lambda row: (row["paddle"], row["python"]))
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, row, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return row["failed"]


@nox.session
@nox.parametrize(("python", "paddle"), MATRIX)
def tests(session, paddle):
    """The test suite, without the notebooks and the site."""
    session.install("--quiet", "--editable", f".[{EXTRAS[paddle]}]", env=pinned(session, paddle))
    versions = json.loads(session.run("python", "-c", VERSIONS, silent=True).splitlines()[-1])
    session.log(", ".join(f"{name} {version}" for name, version in versions.items()))
    if session.posargs:
        session.run(*PYTEST, *session.posargs)
        return
    # create_tmp's TMPDIR is too long for Chromium's socket
    reports = [Path(session.virtualenv.location) / f"report-{number}.xml" for number, _ in enumerate(PARTS)]
    for report, (environment, words) in zip(reports, PARTS, strict=True):
        report.unlink(missing_ok=True)
        session.run(*PYTEST, *SUITE, *words, f"--junitxml={report}", env=environment,
                    success_codes=[0, 1])  # 1: tests failed, which the row tells
    if record(session, versions, reports):
        session.error("tests failed")


@nox.session
def audit(session):
    """Known advisories of the pinned versions, without installing them."""
    session.install("--quiet", "pip-audit")
    session.run("pip-audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip")


def need_index(session):
    """Skip the session where no package index can be reached: asked for one small package."""
    try:
        session.run("python", "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "--retries", "0",
                    "--dest", f"{session.virtualenv.location}/probe", "tomli", silent=True)
    except CommandFailed:
        session.skip("no package index can be reached")


def copy_checkout(target):
    """Copy the files of the checkout that git does not ignore into a new folder; return it."""
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True,
                           capture_output=True, text=True).stdout.split("\0")
    for path in filter(Path.is_file, map(Path, filter(None, names))):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target / path)
    return target


@nox.session(python=["3.10", "3.13"])
def wheel(session):
    """The wheel alone, beside Paddle and the declared dependencies, in an empty folder: tests/wheel."""
    need_index(session)
    work, pins = Path(session.virtualenv.location), pinned(session)
    session.install("--quiet", "build", "pytest", env=pins)
    source, dist = copy_checkout(work / "checkout"), work / "dist"
    session.run("python", "-m", "build", "--outdir", str(dist), str(source), env=pins, silent=True)
    built, = dist.glob("*.whl")
    session.run("python", "-m", "venv", str(work / "bare"))
    python = str(work / "bare" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    session.run(python, "-m", "pip", "install", "--quiet", str(built), "paddlepaddle", external=True, env=pins)
    session.run("python", "-m", "pytest", "-q", "-rs", "--noconftest", "tests/wheel", *session.posargs,
                env={"BARE_PYTHON": python, "BARE_DIST": str(dist)})


def studio_command():
    """The one command that how-to-run.md gives for AI Studio, less `--user`, which pip refuses in an environment."""
    section = STUDIO_PAGE.read_text(encoding="utf-8").split("## On AI Studio")[1].split("\n## ")[0]
    command, = re.findall(r"^ *(pip install .*)$", section.replace("\\\n", " "), re.M)
    return command.replace(" --user ", " ")


@nox.session(python="3.10")
def aistudio(session):
    """Notebooks 01 to 05 where only the packages of AI Studio are, after the page's command."""
    need_index(session)
    session.install("--quiet", *STUDIO, env=pinned(session))
    book = copy_checkout(Path(session.virtualenv.location) / "asymmnet")
    before = session.run("python", "-c", VERSIONS, silent=True).splitlines()[-1]
    notebooks = [str(path) for path in sorted(Path("notebooks").glob("0[1-5]*.ipynb"))]
    with session.chdir(book):
        session.run("bash", "-c", studio_command(), external=True)
        after = session.run("python", "-c", VERSIONS, silent=True).splitlines()[-1]
        if after != before:
            session.error(f"the command changed what it must keep: {before} became {after}")
        session.run("python", "-m", "pytest", "-q", "--nbmake", "--nbmake-timeout=900", *(session.posargs or notebooks),
                    env={"ASYMMLIB_DATA": "sample", "ASYMMLIB_RECIPE": "quick"})
