"""Can Paddle Lite read what `export` writes? python benchmarks/paddle_lite.py FOLDER, with the package paddlelite.

Paddle Lite's converter, `opt`, makes a .nb file for phones of a Paddle Inference model. That of 2.13 aborts on the
program that Paddle 3 writes (inference.json), so the book names ONNX as the way to a phone; here it is tried, in a
process of its own. Exit status 0: a file was written. Needs a Python that paddlelite is built for (3.7 to 3.10), and
nothing of this project.
"""
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CONVERT = """
import sys
from paddlelite.lite import Opt
model, parameters, target = sys.argv[1:]
opt = Opt()
opt.set_model_file(model)
opt.set_param_file(parameters)
opt.set_valid_places("arm")
opt.set_model_type("naive_buffer")
opt.set_optimize_out(target)
opt.run()
"""


def attempt(folder, target):
    """(whether opt has written a model, the last line that it said)."""
    programs = (folder / name for name in ("inference.json", "inference.pdmodel"))
    program = next(filter(Path.is_file, programs), None)
    if program is None:
        raise FileNotFoundError(f"{folder} has no inference.json: python -m asymmlib export --to {folder} writes it")
    done = subprocess.run([sys.executable, "-c", CONVERT, program, folder / "inference.pdiparams", target],
                          capture_output=True, text=True, errors="replace", timeout=300)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    written = target.with_suffix(".nb").is_file() and not done.returncode
    return written, f"status {done.returncode}: {(said or [''])[-1]}"


def main(arguments):
    """Say whether the installed Paddle Lite converts the model of an export."""
    if len(arguments) != 1:
        print("usage: python benchmarks/paddle_lite.py FOLDER (of an export)", file=sys.stderr)
        return 2
    try:
        number = version("paddlelite")
    except PackageNotFoundError:
        print("the package paddlelite is not installed here; it exists for Python 3.7 to 3.10", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as place:
        written, said = attempt(Path(arguments[0]), Path(place) / "model")
    print(f"Paddle Lite {number} {'converts' if written else 'cannot convert'} {arguments[0]} ({said})")
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
