"""The versions that this project supports, as one command: `nox` (after `make setup`: `.venv/bin/python -m nox`).

Each session makes an environment of its own, prints its versions and runs the test suite without the site. A Python
that is not on the machine fails its session; `nox --sessions "tests(paddle='3.3.1', python='3.13')"` runs one alone.
`nox -s audit` looks up known advisories of the pinned versions, for which the network must reach their database.
"""
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
VERSIONS = "import sys, numpy, paddle; print('Python', sys.version.split()[0], 'NumPy', numpy.__version__, 'Paddle', " \
           "paddle.__version__)"


def constraints(session, paddle):
    """A copy of constraints.txt with the exceptions of one Paddle."""
    with open("constraints.txt", encoding="utf-8") as file:
        lines = [line for line in file if line.split("==")[0].lower() not in INSTEAD[paddle]]
    lines += [f"{name}=={version}\n" for name, version in INSTEAD[paddle].items()]
    path = f"{session.create_tmp()}/constraints.txt"
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)
    return path


@nox.session
@nox.parametrize(("python", "paddle"), MATRIX)
def tests(session, paddle):
    """The test suite, without the notebooks and the site."""
    session.install("--quiet", "--constraint", constraints(session, paddle), "--editable", ".[cpu,book,dev]")
    session.run("python", "-c", VERSIONS)
    session.run("python", "-m", "pytest", "-q", *session.posargs)


@nox.session
def audit(session):
    """Known advisories of the pinned versions, without installing them."""
    session.install("--quiet", "pip-audit")
    session.run("pip-audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip")
