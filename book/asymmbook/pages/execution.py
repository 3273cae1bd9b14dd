"""Execute notebooks and pages side by side into the cache that the book is built from, and say how far it is.

Jupyter Book would execute them one after another; most keep one processor busy, whatever the number of threads.
`python -m asymmbook execute FOLDER PAGE...`, called by `make book` and `make executed`.
"""
import os
import resource
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Done", "execute"]

MOST = 4  # pages at a time: each may hold two gigabytes
TIMEOUT_S = 900  # of a cell
MARKDOWN = {"name": "myst_nb_md", "type": "plugin"}  # how jupyter-cache reads pages; notebooks it knows
QUIET = ["--log-level=ERROR"]  # a kernel warns each time that it talks to this machine without encryption
EDITIONS = "ASYMMBOOK_EDITIONS"


class Done(NamedTuple):
    """An executed page: seconds by the clock and of processors, its outputs, and its last error or ""."""

    seconds: float
    cpu: float
    notebook: Any
    error: str

    def line(self, name: str) -> str:
        """For whoever waits."""
        return f"{name}: {self.seconds:.0f} s, {self.cpu:.0f} s of a processor" + (
            f"; failed: {self.error}" if self.error else "")


def execute(pages: Sequence[Path], folder: Path, jobs: int | None = None) -> list[Path]:
    """Execute pages in the order given, `jobs` at a time, into a cache of jupyter-cache; return those that failed.

    The cores are shared out among the jobs (default: one job a core, at most 4). A line is printed for each page. What
    is without code is left out; what fails is not in the cache, so that the build executes it again and says why.
    """
    from jupyter_cache import get_cache
    cores = os.cpu_count() or 1
    jobs = jobs or min(cores, MOST)
    folder.mkdir(parents=True, exist_ok=True)
    cache, failed = get_cache(folder), []
    waiting = {page: _read(cache, page) for page in pages}
    waiting = {page: notebook for page, notebook in waiting.items() if _has_code(notebook)}
    print(f"executing {len(waiting)} pages, {jobs} at a time", flush=True)
    with ProcessPoolExecutor(jobs, get_context("spawn"), _share, (max(1, cores // jobs),)) as pool:
        editions = os.environ.get(EDITIONS, "")
        futures = {pool.submit(_execute, page, notebook, editions): page for page, notebook in waiting.items()}
        for number, future in enumerate(as_completed(futures), 1):
            page, done = futures[future], future.result()
            print(f"{number} of {len(futures)}: {done.line(page.as_posix())}", flush=True)
            if done.error:
                failed.append(page)
            else:
                _keep(cache, page, done)
    return failed


def _read(cache, page):
    known = {} if page.suffix == ".ipynb" else {"read_data": MARKDOWN}
    return cache.get_project_notebook(cache.add_nb_to_project(str(page.resolve()), **known).pk).nb


def _has_code(notebook):
    return any(cell.cell_type == "code" for cell in notebook.cells)


def _share(threads):
    """In each process that executes: what its kernels get."""
    os.environ["OMP_NUM_THREADS"] = str(threads)


def _execute(page, notebook, editions):
    from jupyter_cache.executors.utils import single_nb_execution
    # the other editions show the stored outputs of notebooks, not these
    os.environ[EDITIONS] = "" if page.suffix == ".ipynb" else editions
    before = _cpu()
    result = single_nb_execution(notebook, cwd=str(page.resolve().parent), timeout=TIMEOUT_S, allow_errors=False,
                                 extra_arguments=QUIET)
    error = str(result.exc_string or "").strip().rpartition("\n")[2]
    return Done(result.time, _cpu() - before, result.nb, error)


def _cpu():
    """Processor time of the kernels that this process has started, and of what these started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _keep(cache, page, done):
    from jupyter_cache.base import CacheBundleIn
    bundle = CacheBundleIn(done.notebook, str(page.resolve()), data={"execution_seconds": done.seconds})
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
