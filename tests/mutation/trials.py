"""Would the tests notice a small mistake in the taught core: `python tests/mutation/trials.py [draw | again] [TESTS]`.

`draw` samples 200 of all mutants with a fixed seed into mutants.csv, before any is tried. Without a word those that
have no verdict yet are tried (`make mutants`; a stopped run goes on), with `again` those that survived. Each is tried
in a copy of the tree, by the tests that call its function (where it stands in none, by those of every file that calls
its module), the quickest first, until they would take `BUDGET` seconds without a mutant. The tests are those named,
else the fast ones of `TESTS`. After a change of the core its mutants are others: draw anew.
"""
import ast
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
from pathlib import Path

from mutants import ROOT, mutants

TABLE = Path(__file__).with_name("mutants.csv")
COLUMNS = ("id", "file", "line", "operator", "before", "after", "verdict", "killed_by")
SAMPLE, SEED = 200, 0
TESTS = ("tests/core", "tests/weights/test_weights.py", "tests/deploy/test_export.py", "tests/book/test_explorer.py",
         "tests/book/test_evidence.py", "tests/book/test_figures.py", "tests/book/test_release.py")
FAST = ("-m", "not slow and not serial")
BUDGET = 60


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
    calling = {test for test, (_, called) in seen.items() for where, name in called
               if where == Path(file).stem and function in (None, name)}
    files = {test.split("::")[0] for test in calling}
    tests, total = [], 0
    for test, (seconds, _) in sorted(seen.items(), key=lambda item: item[1][0]):
        if (test in calling or (not function and test.split("::")[0] in files)) and total + seconds < BUDGET:
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
            name = (row["file"], int(row["line"]), row["operator"], row["before"], row["after"],
                    int(row["id"].partition("~")[2] or 0))
            if name not in found:
                raise SystemExit(f"{row['file']} has changed since the sample was drawn: draw anew")
            tests, seconds = judges(seen, row["file"], int(row["line"]))
            path, kept = folder / row["file"], (folder / row["file"]).read_bytes()
            path.write_text(found[name](), encoding="utf-8")
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
    print(f"killed {killed} of {len(tried)} ({killed / len(tried):.1%}, 95 % interval {low:.1%} to {high:.1%}), {late} "
          f"of them by the time limit; {len(rows) - len(tried)} not tried; survived:")
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
