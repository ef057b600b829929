"""A real server and a headless Chromium, on the front end that belongs to the server and on the newest one.

These tests are run where CNC_BROWSER=1 asks for them: on two busy cores some of them still miss their time limits.
Chromium is taken from CNC_CHROMIUM, the PATH, or `python -m playwright install chromium`, whichever is first.
Without one, or without Playwright, they are skipped and say so.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devtools.demo import PICTURES
from devtools.environment import FRONT_END
from devtools.server import Server

from .editor import Editor

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Notification.ShowVersionUpdates": False}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium. Closed after each module: Playwright's event loop is in the way of other tests' own."""
    if os.environ.get("CNC_BROWSER") != "1":
        pytest.skip("browser tests run with CNC_BROWSER=1")
    api = pytest.importorskip("playwright.sync_api", reason="browser tests need Playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = os.environ.get("CNC_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
        if not found and not own.is_file():
            pytest.skip("no Chromium: `apt install chromium`, `python -m playwright install chromium` or CNC_CHROMIUM")
        sandbox = [] if hasattr(os, "geteuid") and os.geteuid() else ["--no-sandbox"]  # it refuses to run as root
        running = playwright.chromium.launch(executable_path=found or own, args=sandbox)
        yield running
        running.close()


@pytest.fixture(scope="module", params=["own front end", "newest front end"])
def server(request: pytest.FixtureRequest, comfy: Path, browser: Browser) -> Iterator[Server]:
    """A server with the demo's pictures; `server.url` is where the page is."""
    extra = ["--cpu"]
    if request.param.startswith("newest"):
        if not FRONT_END.is_dir():
            pytest.skip(f"no front end in {FRONT_END}: `python3 dev.py test` puts it there")
        extra += ["--front-end-root", str(FRONT_END)]
    with Server(comfy, extra_args=extra) as running:
        for picture in PICTURES.glob("*.png"):
            shutil.copy(picture, running.input)
        yield running


@pytest.fixture
def settings() -> dict[str, Any]:
    """The front end's settings before the page is opened; parametrise to override."""
    return {}


@pytest.fixture
def editor(server: Server, browser: Browser, settings: dict[str, Any]) -> Iterator[Editor]:
    """An open page. What our scripts write to the console as error or warning fails the test."""
    configure(server, settings)
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, accept_downloads=True)
    opened = Editor(context, server)
    yield opened
    context.close()
    assert not opened.complaints, opened.complaints


@pytest.fixture(params=["classic canvas", "Vue nodes"])
def renderer(request: pytest.FixtureRequest, settings: dict[str, Any]) -> str:
    """Each test that asks for it runs in both; ask for it before `editor`."""
    settings["Comfy.VueNodes.Enabled"] = request.param == "Vue nodes"
    return str(request.param)


def configure(server: Server, settings: dict[str, Any]) -> None:
    """Set the user's settings on the server, ours at their default unless given."""
    plain = {"Comfy.VueNodes.Enabled": False, "Comfy.ColorPalette": "dark", "ComposeAndConquer.RunOnRelease": False}
    body = json.dumps({**SETTINGS, **plain, **settings}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/api/settings", data=body, headers=headers, method="POST")
    urllib.request.urlopen(request, timeout=30).close()
