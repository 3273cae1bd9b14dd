"""Compile C++ beside the package once per machine, let malloc keep what it has, and keep signals off its memory."""
import ctypes
import faulthandler
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from asymmlib.base.folders import cache_dir

__all__ = ["give_signals_a_stack", "load_library", "tune_malloc"]

FLAGS = ("-std=c++17", "-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-fno-trapping-math",
         "-fopenmp", "-fPIC")


@functools.cache
def tune_malloc() -> bool:
    """Make glibc's malloc keep freed memory instead of handing it back and faulting it in anew for every tensor.

    Where the kernel has huge pages to give, the memory consists of them. Returns whether that was possible (it is with
    glibc). The process holds on to its peak memory from then on.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, madvise = libc.mallopt, libc.madvise
    except (AttributeError, OSError, TypeError):
        return False
    trim_threshold, top_pad, mmap_max, huge_page = -1, -2, -4, 14  # names in malloc.h and sys/mman.h
    if not (mallopt(mmap_max, 0) and mallopt(trim_threshold, -1) and mallopt(top_pad, 64 << 20)):
        return False
    # addresses for half the machine's memory, advised and handed back to malloc before any of it is touched
    size, page = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2, 2 << 20
    libc.malloc.restype = ctypes.c_void_p
    block = libc.malloc(ctypes.c_size_t(size))
    if block:
        madvise(ctypes.c_void_p(-(-block // page) * page), ctypes.c_size_t(size - page), huge_page)
        libc.free(ctypes.c_void_p(block))
    return True


def give_signals_a_stack() -> bool:
    """Have this thread's signals handled on a stack of their own: the one that `faulthandler` brings.

    oneDNN's matrix product uses a piece of the heap as its stack. A signal, such as Ctrl-C's, that arrives meanwhile
    would write over what lies before it: crashes and wrong weights. Returns whether there is such a stack now.
    """
    if not faulthandler.is_enabled() and sys.__stderr__ is not None:
        with suppress(OSError, RuntimeError, ValueError):  # no console to tell crashes to
            faulthandler.enable(sys.__stderr__)
    return faulthandler.is_enabled()


def load_library(source: Path, folder: Path, names: Sequence[str]) -> ctypes.CDLL:
    """Compile a C++ file, or find it compiled; link the libraries `names` out of `folder`; return a `ctypes.CDLL`.

    The result lies in `ASYMMLIB_CACHE` or the user's cache, under a name made of all that it depends on and of its own
    hash: a damaged file is made anew. Raises `OSError` or `CalledProcessError` where it cannot be had.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise OSError(f"they are for Linux on x86-64, this is {platform.system()} on {platform.machine()}")
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "g++"), "c++", "clang++"))), None)
    links = [str(path) for name in names for path in sorted(folder.glob(f"{name}.so*"))[:1]]
    if compiler is None or len(links) < len(names):
        raise OSError("no C++ compiler found" if compiler is None else f"not all of {', '.join(names)} in {folder}")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    key = _hash("\n".join((source.read_text(), *FLAGS, version, cpu, *links)).encode())
    cache = cache_dir()
    for path in cache.glob(f"{source.stem}-{key}-*.so"):
        if path.stem.endswith(_hash(path.read_bytes())):  # loading half a library would kill the process
            return ctypes.CDLL(str(path))
        path.unlink(missing_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        objects, library = Path(temporary, "code.o"), Path(temporary, "code.so")
        # linked without -fopenmp, which would bring GCC's libgomp beside the libiomp5 that Paddle has loaded
        for arguments in ([*FLAGS, "-c", source, "-o", objects],
                          ["-shared", objects, "-o", library, *links, f"-Wl,-rpath,{folder}"]):
            subprocess.run([compiler, *map(str, arguments)], capture_output=True, check=True)
        path = cache / f"{source.stem}-{key}-{_hash(library.read_bytes())}.so"
        os.replace(library, path)
    return ctypes.CDLL(str(path))


def _hash(data):
    return hashlib.sha256(data).hexdigest()[:16]
