"""The pictures of VisualDL in notebook 3: its page of scalars with the runs of that notebook, in a real browser.

VisualDL's own server shows it in the language of each edition, without telemetry, and the browser reaches nothing but
that server.
"""
import contextlib
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from PIL import Image

from asymmbook.checkout import project_root
from asymmbook.pages.browser import chromium
from asymmlib.base.files import atomic_write
from asymmlib.base.folders import runs_dir

__all__ = ["LANGUAGES", "PATTERNS", "find_runs", "photograph", "serve", "write_photographs"]

# The runs that notebook 3 leaves with the recipe "quick", by the beginnings of their names
PATTERNS = ("resnet50-quick-short", "mobilenet_v2-quick-short", "mobilenet_v2-quick-sample")
WIDTH, HEIGHT = 1240, 1020
COLOURS, PATIENCE_S = 64, 120
# of each edition: VisualDL's word for its language, what it calls its page there, and the name that Sphinx looks for
LANGUAGES = {"en": ("en", "Scalars", "visualdl.png"), "zh_CN": ("zh", "标量数据", "visualdl.zh_CN.png")}
# Two charts of the eval split, which VisualDL opens by itself, and that of the learning rate
DRAWN = "document.querySelectorAll('canvas').length >= 3"


def find_runs(folder: Path | None = None) -> list[Path]:
    """The folders of notebook 3's runs in `folder` (None: `runs_dir()`). `FileNotFoundError` names what is missing."""
    folder = folder or runs_dir()
    found = {pattern: sorted(folder.glob(f"{pattern}*")) for pattern in PATTERNS}
    missing = [pattern for pattern, runs in found.items() if not runs]
    if missing:
        raise FileNotFoundError(f"{folder} has no run {', '.join(missing)}: execute notebook 3 with the recipe quick")
    return [runs[0] for runs in found.values()]


@contextlib.contextmanager
def serve(runs: Sequence[Path], language: str = "en") -> Iterator[str]:
    """VisualDL's server over the curves of these runs, under the names of their folders: yields its address.

    language: of its page, "en" or "zh".
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            shutil.copytree(run / "visualdl", Path(folder, run.name))
        words = ["--logdir", ".", "--host", "127.0.0.1", "--port", str(port), "--disable-telemetry"]
        command = [sys.executable, "-c", "from visualdl.server.app import main; main()", *words, "--language", language]
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            address = f"http://127.0.0.1:{port}/app"
            _await(address, server)
            yield address
        finally:
            server.terminate()
            server.wait()


def _await(address, server):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with contextlib.suppress(URLError, ConnectionError), urlopen(address, timeout=PATIENCE_S):
            return
        if server.poll() is not None:
            break
        time.sleep(0.2)
    raise RuntimeError("VisualDL's server did not start: try the command that notebook 3 shows in section 5")


def write_photographs(folder: Path | None = None) -> list[Path]:
    """Write a picture for each edition of the book to `folder`, by default `book/images`; return their paths.

    Raises as `photograph`.
    """
    folder = folder or project_root() / "book" / "images"
    return [photograph(folder / name, edition) for edition, (*_, name) in LANGUAGES.items()]


def photograph(target: Path, edition: str = "en") -> Path:
    """Write the picture for an edition, a key of `LANGUAGES`, as PNG with a palette to `target`; return its path.

    Raises `FileNotFoundError` without the runs or without Chromium, and `RuntimeError` where the server does not start.
    """
    language, scalars, _ = LANGUAGES[edition]
    with serve(find_runs(), language) as address, chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, locale=edition.replace("_", "-"))
        page.route("**/*", lambda route: route.continue_() if route.request.url.startswith(address.rsplit("/", 1)[0])
                   else route.abort())
        page.goto(address)
        page.get_by_text(scalars).first.click()
        page.get_by_text("lr", exact=True).click()
        page.get_by_role("spinbutton").or_(page.locator("input[value='0.6']")).first.fill("0")  # smoothing
        page.wait_for_function(DRAWN, timeout=1000 * PATIENCE_S)
        page.wait_for_timeout(5000)  # curves are drawn in a movement
        taken = page.screenshot()
    packed = io.BytesIO()
    Image.open(io.BytesIO(taken)).convert("RGB").quantize(COLOURS).save(packed, "PNG", optimize=True)
    with atomic_write(target) as file:
        file.write(packed.getvalue())
    return target
