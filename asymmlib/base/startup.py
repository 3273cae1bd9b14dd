"""Import Paddle once, with all cores and without lines that concern nobody who runs the book."""
import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from types import ModuleType

from asymmlib.base.interrupts import held

__all__ = ["load_paddle", "native_noise_left_out"]

# Warnings to leave out, by the beginning of their text
NOISE = ("No ccache found", "To copy construct from a tensor", "When training, we now always track global mean")
# Lines that Paddle prints when more than one thread is asked for, which is what we want
# A line that Paddle's C++ writes when it traces a network; it concerns an argument that nobody gave
NATIVE_NOISE = b"not support input out tensor for now"
THREAD_LINES = ("WARNING: OMP_NUM_THREADS set to", "PLEASE USE OMP_NUM_THREADS WISELY")


def load_paddle() -> ModuleType:
    """Import Paddle and return it; everything it prints, but for known noise, is passed on.

    Paddle fixes its number of threads at import, one unless `OMP_NUM_THREADS` says otherwise: here the default is one
    per core. Its handlers of signals, which print a C++ stack, do not replace those of a command.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), held():
            import paddle
    finally:
        for line in printed.getvalue().splitlines():
            if not line.startswith(THREAD_LINES):
                print(line, file=sys.stderr)
    return paddle


@contextlib.contextmanager
def native_noise_left_out() -> Iterator[None]:
    """Pass on what the block's C++ code writes to file descriptor 2, but for lines with `NATIVE_NOISE`."""
    sys.stderr.flush()
    own = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(own, 2)
            os.close(own)
            caught.seek(0)
            for line in caught:
                if NATIVE_NOISE not in line:
                    os.write(2, line)
