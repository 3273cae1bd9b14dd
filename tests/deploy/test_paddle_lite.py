"""The script that tries Paddle Lite says truly what its converter did: with a package of its interface in its place."""
import os
import subprocess
import sys

import pytest

from asymmbook.checkout import project_root

SCRIPT = project_root() / "benchmarks" / "paddle_lite.py"
OPT = """
import os, pathlib
class Opt:
    def __getattr__(self, name):
        return lambda *given: setattr(self, "given", given)
    def set_optimize_out(self, target):
        self.target = target
    def run(self):
        {run}
"""


@pytest.mark.parametrize(("run", "status", "said"), [
    ("pathlib.Path(self.target + '.nb').write_bytes(b'x')", 0, "Paddle Lite 9.9 converts"),
    ("print('Check failed'); import sys; sys.stdout.flush(); os.abort()", 1, "cannot convert"),
    ("pass", 1, "cannot convert")])
def test_what_opt_did(tmp_path, run, status, said):
    package = tmp_path / "packages"
    (package / "paddlelite").mkdir(parents=True)
    (package / "paddlelite" / "__init__.py").touch()
    (package / "paddlelite" / "lite.py").write_text(OPT.format(run=run))
    (package / "paddlelite-9.9.dist-info").mkdir()
    (package / "paddlelite-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: paddlelite\nVersion: "
                                                                    "9.9\n")
    (tmp_path / "inference.json").touch()
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(package)})
    assert done.returncode == status and said in done.stdout, done.stdout + done.stderr


def test_without_the_package():
    done = subprocess.run([sys.executable, "-S", SCRIPT, "x"], capture_output=True, text=True, timeout=60,
                          env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"})
    assert done.returncode == 2 and "paddlelite is not installed" in done.stderr
