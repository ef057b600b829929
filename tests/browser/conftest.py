"""A real server and a headless Chromium, on the front end that belongs to the server and on the newest one.

Without a Chromium (devtools/templates/chromium.py says where it is looked for), or without Playwright, these tests are
skipped and say so. CNC_BROWSER=1 makes that a failure, for a machine that is known to have one.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devtools.demo import PICTURES
from devtools.environment import FRONT_END
from devtools.server import Server
from devtools.templates import chromium
from devtools.templates.drawing import provide

from .editor import Editor

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HERE = Path(__file__).parent
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.RightSidePanel.IsOpen": False,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try a test of this folder again where it fails: a page on a busy machine may be later than any wait allows."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture(scope="session")
def there_is_a_browser() -> None:
    """Skip, or fail where it was asked for, without one."""
    if words := chromium.missing():
        if os.environ.get("CNC_BROWSER") == "1":
            pytest.fail(f"CNC_BROWSER=1 asks for the browser tests, and there is {words}", pytrace=False)
        pytest.skip(f"browser tests: {words}")


@pytest.fixture(scope="module")
def browser(there_is_a_browser: None) -> Iterator[Browser]:
    """Headless Chromium. Closed after each module: Playwright's event loop is in the way of other tests' own."""
    with chromium.chromium() as running:
        yield running


@pytest.fixture(scope="session", params=["own front end", "newest front end"])
def server(request: pytest.FixtureRequest, comfy: Path, there_is_a_browser: None) -> Iterator[Server]:
    """A server with the demo's pictures; `server.url` is where the page is. One for all modules."""
    extra = ["--cpu"]
    if request.param.startswith("newest"):
        if not FRONT_END.is_dir():
            pytest.skip(f"no front end in {FRONT_END}: `python3 dev.py test` puts it there")
        extra += ["--front-end-root", str(FRONT_END)]
    with Server(comfy, extra_args=extra) as running:
        for picture in PICTURES.glob("*.png"):
            shutil.copy(picture, running.input)
        provide(running)
        yield running


@pytest.fixture
def settings() -> dict[str, Any]:
    """The front end's settings before the page is opened; parametrise to override."""
    return {}


@pytest.fixture
def releasing(settings: dict[str, Any]) -> None:
    """Run-on-release is on; ask for it before `editor`."""
    settings["ComposeAndConquer.RunOnRelease"] = True


@pytest.fixture
def editor(server: Server, browser: Browser, settings: dict[str, Any]) -> Iterator[Editor]:
    """An open page. What our scripts write to the console as error or warning fails the test."""
    configure(server, settings)
    with open_page(browser, server) as page:
        yield page


@contextmanager
def open_page(browser: Browser, server: Server) -> Iterator[Editor]:
    """A page in a browser profile of its own. Raises AssertionError at the end if our scripts complained."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(chromium.ANSWER)
    context.set_default_navigation_timeout(chromium.ANSWER)
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
