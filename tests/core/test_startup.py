"""A quiet start with all cores, and nothing hidden that matters."""
import os
import subprocess
import sys

import pytest

START = "from asymmlib.base.startup import load_paddle; load_paddle(); "


def _run(code, **environment):
    base = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=base | environment)


@pytest.mark.slow
def test_import_prints_nothing_and_uses_all_cores():
    result = _run(START + "import os; print(os.environ['OMP_NUM_THREADS'])")
    assert result.stdout.strip() == str(os.cpu_count()) and result.stderr == ""


@pytest.mark.slow
def test_the_users_number_of_threads_stays():
    assert _run(START + "import os; print(os.environ['OMP_NUM_THREADS'])", OMP_NUM_THREADS="1").stdout.strip() == "1"


def test_other_messages_are_passed_on(tmp_path):
    (tmp_path / "paddle.py").write_text("import sys; print('PLEASE USE OMP_NUM_THREADS WISELY.', file=sys.stderr);"
                                        "print('a driver is missing', file=sys.stderr)")
    result = _run(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {START}")
    assert result.stderr == "a driver is missing\n"


def test_import_of_the_library_needs_no_paddle():
    assert _run("import asymmlib, sys; assert 'paddle' not in sys.modules; assert asymmlib.__version__").returncode == 0
