"""Chromium, for what the book prints and photographs."""
import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

__all__ = ["chromium"]


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Yield a browser of playwright's. `FileNotFoundError` says what to do where there is no Chromium."""
    from playwright.sync_api import sync_playwright
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise FileNotFoundError("there is no Chromium here; on Debian: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
