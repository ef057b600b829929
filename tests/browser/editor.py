"""The open page, in the words of the tests."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools import demo
from devtools.environment import ROOT
from devtools.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page

OURS = "/extensions/compose-and-conquer/"
SCREENSHOTS = Path(os.environ.get("CNC_SCREENSHOTS") or ROOT / ".cache" / "screenshots")
READY = "() => window.app?.extensionManager?.setting && window.app.canvas && !!document.querySelector('canvas')"
FIND = "const find = type => app.canvas.graph.nodes.find(node => node.comfyClass === type);"


class Editor:
    """One tab.

    complaints: what our own scripts wrote to its console as errors or warnings, or threw.
    heard: what the server told it, (type, data).
    """

    def __init__(self, context: BrowserContext, server: Server, *, scripts: bool = True) -> None:
        self.context, self.server = context, server
        self.complaints: list[str] = []
        self.page: Page = context.new_page()
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._on_frame))
        # The front end alone asks for more files than a page's record of them holds.
        self.page.add_init_script("performance.setResourceTimingBufferSize(10000)")
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self._keep(f"{error}\n{error.stack}", ""))
        if not scripts:
            self.page.route(f"**{OURS}**", lambda route: route.abort())
        self.open()

    def open(self) -> None:
        """Load, or load again, the page."""
        self.page.goto(self.server.url)
        self.page.wait_for_function(READY, timeout=120_000)

    def _on_frame(self, frame: str | bytes) -> None:
        if isinstance(frame, str):  # the others are pictures of the sampling
            packet = json.loads(frame)
            self.heard.append((packet["type"], packet["data"]))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._keep(message.text, str(message.location.get("url")))

    def _keep(self, words: str, place: str) -> None:
        # The front end complains of things of its own: ours are those that name our files or our extension.
        if any(OURS in part or "ComposeAndConquer" in part for part in (words, place)):
            self.complaints.append(f"{place}: {words}")

    def load(self, prompt: Mapping[str, Any], class_type: str = "CnC_Compose") -> None:
        """Open a workflow in the API format and look at one of its nodes."""
        self.page.evaluate("prompt => app.loadApiJson(prompt, 'test')", prompt)
        self.page.wait_for_function(f"type => {{ {FIND} return !!find(type); }}", arg=class_type)
        self.look_at(class_type)

    def look_at(self, class_type: str) -> None:
        """Bring a node to the middle of the window at full size."""
        self.page.evaluate(
            f"""type => {{ {FIND}
                app.canvas.ds.scale = 1;
                app.canvas.centerOnNode(find(type));
                app.canvas.setDirty(true, true);
            }}""",
            class_type,
        )
        self.page.wait_for_timeout(600)  # until the view stands still

    @property
    def version(self) -> str:
        """The front end's."""
        return str(self.page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__"))

    @property
    def pad(self) -> Locator:
        """The pad that is to be seen."""
        return self.page.locator(".cnc-pad:visible").first

    def drag_pad(self, *places: tuple[float, float], drop: bool = True) -> None:
        """Press the pad at the first place (shares of its width and height, from the lower left) and drag on."""
        box = self.pad.locator(".cnc-pad-plot").bounding_box()
        assert box is not None
        for index, (x, y) in enumerate(places):
            at = box["x"] + x * box["width"], box["y"] + (1 - y) * box["height"]
            self.page.mouse.move(*at, steps=1 if index == 0 else 5)
            if index == 0:
                self.page.mouse.down()
        if drop:
            self.page.mouse.up()

    def drag_slider(self, name: str, start: float, end: float) -> None:
        """Drag the node's own slider from one share of its width to another, in whichever renderer."""
        label = {"lambda_fg": "foreground", "lambda_bg": "background"}[name]
        slider = self.page.locator("[data-node-id] [role=slider]:not(.cnc-pad)").nth(0 if name == "lambda_fg" else 1)
        if slider.count() and slider.is_visible():
            track = slider.locator("xpath=ancestor::*[@data-slot='slider' or @data-orientation][last()]")
            box = (track if track.count() else slider).first.bounding_box()
        else:
            box = self.page.evaluate(
                f"""name => {{ {FIND}
                    const node = find('CnC_Compose') ?? find('CnC_SoftGuidance');
                    const widget = node.widgets.find(one => one.name === name);
                    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + 15, node.pos[1] + widget.y + 10]);
                    const view = app.canvas.canvas.getBoundingClientRect();
                    return {{x: x + view.left, y: y + view.top, width: node.size[0] - 30, height: 0}};
                }}""",
                name,
            )
        assert box is not None, label
        middle = box["y"] + box["height"] / 2
        self.page.mouse.move(box["x"] + start * box["width"], middle)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + end * box["width"], middle, steps=5)
        self.page.mouse.up()

    def lambdas(self, class_type: str = "CnC_Compose") -> tuple[float, float]:
        """What the node's widgets hold, foreground first."""
        values = self.page.evaluate(
            f"""type => {{ {FIND}
                return ['lambda_fg', 'lambda_bg'].map(name => find(type).widgets.find(one => one.name === name).value);
            }}""",
            class_type,
        )
        return round(values[0], 4), round(values[1], 4)

    def links(self, class_type: str = "CnC_Compose") -> dict[str, tuple[str, int]]:
        """The node's connected inputs: the other node's id and its output."""
        found = self.page.evaluate(
            f"""type => {{ {FIND}
                const node = find(type);
                const links = node.inputs.map((input, slot) => [input.name, node.getInputLink(slot)]);
                return links.filter(([_, link]) => link)
                    .map(([name, link]) => [name, String(link.origin_id), link.origin_slot]);
            }}""",
            class_type,
        )
        return {name: (node, slot) for name, node, slot in found}

    def command(self, name: str) -> None:
        """Run one of the front end's commands, as its menu does."""
        self.page.evaluate("name => app.extensionManager.command.execute(name)", name)

    def choose_from_menu(self, class_type: str, entry: str) -> None:
        """Choose an entry that our extension puts into a node's menu."""
        self.page.evaluate(
            f"""([type, entry]) => {{ {FIND}
                const node = find(type);
                app.collectNodeMenuItems(node).find(item => item?.content === entry).callback();
            }}""",
            [class_type, entry],
        )
        self.page.wait_for_timeout(300)

    def save(self, name: str) -> None:
        """Save the workflow under a name, as Ctrl+S and the dialog do."""
        self.command_unawaited("Comfy.SaveWorkflowAs")
        field = self.page.get_by_role("dialog").locator("input").last
        field.fill(name)
        field.press("Enter")
        self.wait_for(lambda: f"{name}.json" in str(self.server.get("/userdata?dir=workflows")), "the saved file", 20)

    def command_unawaited(self, name: str) -> None:
        """Run a command that waits for the user."""
        self.page.evaluate("name => { app.extensionManager.command.execute(name); }", name)

    def open_saved(self, name: str) -> None:
        """Open a saved workflow from the server's folder."""
        saved = self.server.get(f"/userdata/workflows%2F{name}.json")
        self.page.evaluate("([saved, name]) => app.loadGraphData(saved, true, true, name)", [saved, name])
        self.page.wait_for_timeout(600)

    def workflow(self) -> dict[str, Any]:
        """What "Export" would write."""
        saved: dict[str, Any] = self.page.evaluate("async () => (await app.graphToPrompt()).workflow")
        return saved

    def api_format(self) -> dict[str, Any]:
        """What "Export (API)" would write."""
        exported: dict[str, Any] = self.page.evaluate("async () => (await app.graphToPrompt()).output")
        return exported

    @contextmanager
    def run(self) -> Iterator[dict[str, Any]]:
        """Expect one run from what is done inside; `executed`, the nodes whose code ran, is there afterwards."""
        begun = len(self.heard)
        told: dict[str, Any] = {}
        yield told
        self.wait_for(lambda: self._ended(begun) is not None, "the end of a run")
        heard = self.heard[begun:]
        assert self._ended(begun) == "execution_success", [data for kind, data in heard if kind == "execution_error"]
        told["executed"] = {data["node"] for kind, data in heard if kind == "executing" and data["node"]}

    def _ended(self, begun: int) -> str | None:
        ends = ("execution_success", "execution_error", "execution_interrupted")
        return next((kind for kind, _ in self.heard[begun:] if kind in ends), None)

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 120) -> None:
        """Let the page go on until the condition holds."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"waited {seconds:.0f} s for {what}"
            self.page.wait_for_timeout(20)

    def starts(self) -> int:
        """How many runs have begun since the page was opened."""
        return sum(kind == "execution_start" for kind, _ in self.heard)

    def screenshot(self, name: str) -> Path:
        """Keep a picture of the page for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name.replace(' ', '-')}.png"
        self.page.screenshot(path=path)
        return path


def example(object_info: dict[str, Any], **compose: Any) -> dict[str, Any]:
    """The demo's workflow with exemplars, in two steps; Compose's inputs as given."""
    flow, _ = demo.workflow(object_info, demo.SCENES[2], steps=2, seed=5)
    node = next(node for node in flow.prompt.values() if node["class_type"] == "CnC_Compose")
    node["inputs"].update(compose)
    return flow.prompt
