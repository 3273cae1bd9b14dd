"""The versions that this project supports, as one command: `nox` (after `make setup`: `.venv/bin/python -m nox`).

Each session makes an environment of its own, prints its versions and runs the test suite without the site; a run of the
whole suite leaves its row in results/matrix.csv, which book/trust.md shows. A Python that is not on the machine fails
its session; `nox --sessions "tests(python=3.13, paddle=3.3.1)"` runs one alone, `-- tests/core` a part of it.
`nox -s audit` looks up known advisories of the pinned versions, for which the network must reach their database.
"""
import csv
import json
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import nox

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
SUITE = ("tests", "--ignore=tests/browser")  # the browser's tests look at a built site
TABLE = Path("results/matrix.csv")
VERSIONS = "import json, platform, numpy, paddle; print(json.dumps({'python': platform.python_version(), " \
           "'paddle': paddle.__version__, 'numpy': numpy.__version__}))"


def constraints(session, paddle):
    """A copy of constraints.txt with the exceptions of one Paddle."""
    with open("constraints.txt", encoding="utf-8") as file:
        lines = [line for line in file if line.split("==")[0].lower() not in INSTEAD[paddle]]
    lines += [f"{name}=={version}\n" for name, version in INSTEAD[paddle].items()]
    path = f"{session.virtualenv.location}/constraints.txt"
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)
    return path


def record(session, versions, report):
    """The row of one session in the table: versions, counts of pytest's report, date, commit."""
    suite = ElementTree.parse(report).getroot().find("testsuite").attrib
    tests, skipped, failed, broken = (int(suite[name]) for name in ("tests", "skipped", "failures", "errors"))
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


@nox.session
@nox.parametrize(("python", "paddle"), MATRIX)
def tests(session, paddle):
    """The test suite, without the notebooks and the site."""
    session.install("--quiet", "--constraint", constraints(session, paddle), "--editable", f".[{EXTRAS[paddle]}]")
    versions = json.loads(session.run("python", "-c", VERSIONS, silent=True).splitlines()[-1])
    session.log(", ".join(f"{name} {version}" for name, version in versions.items()))
    report = Path(session.virtualenv.location) / "report.xml"  # create_tmp's TMPDIR is too long for Chromium's socket
    report.unlink(missing_ok=True)
    try:
        session.run("python", "-m", "pytest", "-q", "-rfEs", f"--junitxml={report}", *(session.posargs or SUITE))
    finally:
        if not session.posargs and report.exists():
            record(session, versions, report)


@nox.session
def audit(session):
    """Known advisories of the pinned versions, without installing them."""
    session.install("--quiet", "pip-audit")
    session.run("pip-audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip")
