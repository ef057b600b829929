"""Take the tutorial's screenshots, docs/tutorial/NAME.jpg, doing in a headless Chromium what docs/tutorial.md says.

    python -m devtools.documentation.tutorial_pictures PATH_TO_COMFYUI

Chromium is taken from CNC_CHROMIUM, the PATH, or Playwright's own. Run it again when CnC-Mini, the first template or
the pack's scripts have changed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ..environment import ROOT, say
from ..server import Server

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Page

FOLDER = ROOT / "docs" / "tutorial"
TEMPLATE = "01 Quick start with CnC-Mini"
PACK = "compose-and-conquer"
TITLE = "Compose and Conquer (depth, layers, style)"
"""What the node is called on the canvas."""
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.ColorPalette": "dark",
    "Comfy.VueNodes.Enabled": False,
    "Comfy.Minimap.Visible": False,
}
READY = "() => window.app?.extensionManager?.setting && window.app.canvas && !!document.querySelector('canvas')"
WIDEST = 1000
"""Pixels that no screenshot is wider than."""


class Tour:
    """The page, and what an artist does on it."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server = page, server

    def keep(self, name: str, clip: FloatRect | None = None) -> None:
        """Write what is to be seen, or a part of it."""
        # What comes and goes over the page is not the tutorial's.
        self.page.add_style_tag(content=".p-toast { display: none }")
        self.page.wait_for_timeout(1200)  # until fades and pictures are done
        shot = Image.open(io.BytesIO(self.page.screenshot(clip=clip) if clip else self.page.screenshot()))
        shot.thumbnail((WIDEST, WIDEST))
        path = FOLDER / f"{name}.jpg"
        shot.convert("RGB").save(path, quality=85, optimize=True)
        say(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KB")

    def command(self, name: str) -> None:
        """What a menu entry or a key does."""
        self.page.evaluate("name => { app.extensionManager.command.execute(name); }", name)

    def run(self) -> None:
        """Queue the workflow and wait for its end."""
        before = len(self.server.get("/history"))
        self.command("Comfy.QueuePrompt")
        for _ in range(3000):
            history = self.server.get("/history")
            if len(history) > before:
                (status,) = (list(history.values())[-1]["status"]["status_str"],)
                if status != "success":
                    raise RuntimeError(f"the workflow ended with {status}")
                return
            self.page.wait_for_timeout(100)
        raise TimeoutError(f"the workflow did not end in five minutes\n{self.server.log()[-2000:]}")

    def clip(self, *titles: str, around: int = 40) -> FloatRect:
        """Bring the nodes with these titles into view, as large as they fit; the part of the page they are on."""
        self.page.evaluate(
            """titles => {
                const nodes = app.graph.nodes.filter(node => titles.includes(node.title));
                app.canvas.selectItems(nodes);
                app.extensionManager.command.execute('Comfy.Canvas.FitView');
            }""",
            list(titles),
        )
        self.page.wait_for_timeout(1500)  # the view glides
        box = self.page.evaluate(
            """titles => {
                const nodes = app.graph.nodes.filter(node => titles.includes(node.title));
                const view = app.canvas.canvas.getBoundingClientRect();
                const ends = nodes.flatMap(node => [
                    app.canvas.ds.convertOffsetToCanvas([node.pos[0], node.pos[1] - 30]),
                    app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0], node.pos[1] + node.size[1]]),
                ]);
                app.canvas.deselectAll();
                app.canvas.setDirty(true, true);
                const [xs, ys] = [ends.map(end => end[0] + view.left), ends.map(end => end[1] + view.top)];
                return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
            }""",
            list(titles),
        )
        size = self.page.viewport_size or {"width": 0, "height": 0}
        left, top = max(0, box[0] - around), max(0, box[1] - around)
        right, bottom = min(size["width"], box[2] + around), min(size["height"], box[3] + around)
        return {"x": left, "y": top, "width": right - left, "height": bottom - top}

    def drag_pad(self, x: float, y: float) -> None:
        """Drag the pad's handle from its middle to shares of its width and height."""
        box = self.page.locator(".cnc-pad:visible .cnc-pad-plot").first.bounding_box()
        if box is None:
            raise RuntimeError("the pad is not to be seen")
        for place in ((0.5, 0.5), (x, y)):
            at = box["x"] + place[0] * box["width"], box["y"] + (1 - place[1]) * box["height"]
            self.page.mouse.move(*at, steps=6)
            self.page.mouse.down()
        self.page.mouse.up()


@contextmanager
def opened(server: Server) -> Iterator[Tour]:
    """The server's page in a headless Chromium."""
    from playwright.sync_api import sync_playwright

    body = json.dumps(SETTINGS).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/api/settings", data=body, headers=headers, method="POST")
    urllib.request.urlopen(request, timeout=30).close()
    found = os.environ.get("CNC_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    sandbox = [] if hasattr(os, "geteuid") and os.geteuid() else ["--no-sandbox"]  # it refuses to run as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=sandbox)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(server.url)
        page.wait_for_function(READY, timeout=120_000)
        offer = page.get_by_role("button", name="Try it out")
        if offer.count():  # of a newer kind of nodes, in a bar across the page
            offer.locator("xpath=following::button[1]").click()
        yield Tour(page, server)
        browser.close()


def take(tour: Tour) -> None:
    """The tutorial, step by step."""
    page = tour.page
    tour.command("Comfy.BrowseTemplates")
    page.get_by_role("dialog").get_by_text(PACK, exact=True).first.click()
    card = page.get_by_test_id(f"template-workflow-{TEMPLATE}")
    card.wait_for()
    tour.keep("templates")
    card.click()
    page.wait_for_function("() => app.graph.nodes.some(node => node.comfyClass === 'CnC_Compose')", timeout=60_000)
    page.get_by_role("dialog").wait_for(state="hidden")
    loaded = "() => app.graph.nodes.filter(node => node.type === 'LoadImage').every(node => node.imgs?.length)"
    page.wait_for_function(loaded, timeout=60_000)
    tour.command("Comfy.Canvas.FitView")
    tour.keep("graph")
    tour.run()
    tour.keep("result", tour.clip(TITLE, "KSampler", "VAE Decode", "Result"))
    tour.clip(TITLE, "Result")
    tour.drag_pad(0.5, 0.05)
    tour.run()
    tour.keep("pad", tour.clip(TITLE, "Result"))
    page.evaluate("app.canvas.selectItems(app.graph.nodes.filter(node => node.comfyClass === 'CnC_Compose'))")
    tour.command("ComposeAndConquer.SwapLayers")
    tour.run()
    tour.keep("swapped", tour.clip(TITLE, "Result"))


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(prog="python -m devtools.documentation.tutorial_pictures")
    parser.add_argument("comfy", type=Path)
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with Server(options.comfy) as server, opened(server) as tour:
        take(tour)


if __name__ == "__main__":
    main()
