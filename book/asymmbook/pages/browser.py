"""Chromium, for what the book prints and photographs, and for the tests that look at its pages."""
import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

__all__ = ["chromium", "find_chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The path of a Chromium on this machine; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """Yield a browser of playwright's, started with these arguments. `FileNotFoundError` says what to do without one.
    """
    from playwright.sync_api import sync_playwright
    found = find_chromium()
    if found is None:
        raise FileNotFoundError("there is no Chromium here; on Debian: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", *arguments])
        try:
            yield browser
        finally:
            browser.close()
