"""Headless Chromium for what is done in ComfyUI's page: the browser tests, and the drawing of workflows.

It is taken from CNC_CHROMIUM, the PATH, or `python -m playwright install chromium`, whichever is first.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

PAGE_READY = "() => window.app?.extensionManager?.setting && window.app.canvas && !!document.querySelector('canvas')"
"""Holds once the front end can be used."""

START, ANSWER = 180_000, 120_000
"""Milliseconds that a browser has to start and a page to answer, on the slowest of machines."""


class NoBrowser(RuntimeError):
    """There is none that could be started; the text says what to install."""


def missing() -> str | None:
    """What would have to be installed for a browser, or None where there is one."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return "no Playwright: `pip install playwright`"
    if _found():
        return None
    with sync_playwright() as playwright:
        there = Path(playwright.chromium.executable_path).is_file()
    install = "`apt install chromium`, `python -m playwright install chromium`, or name one in CNC_CHROMIUM"
    return None if there else f"no Chromium: {install}"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running headless Chromium. Raises NoBrowser."""
    if words := missing():
        raise NoBrowser(words)
    from playwright.sync_api import sync_playwright

    sandbox = [] if hasattr(os, "geteuid") and os.geteuid() else ["--no-sandbox"]  # it refuses to run as root
    with sync_playwright() as playwright:
        path = _found() or playwright.chromium.executable_path
        running = playwright.chromium.launch(executable_path=path, args=sandbox, timeout=START)
        yield running
        running.close()


def _found() -> str | None:
    return os.environ.get("CNC_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def main() -> int:
    """Say whether there is one: the exit code is 0 then."""
    words = missing()
    print(words or "Chromium is there")
    return bool(words)


if __name__ == "__main__":
    sys.exit(main())
