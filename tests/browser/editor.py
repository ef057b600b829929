"""The open page, in the words of the tests."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools import demo
from devtools.environment import ROOT
from devtools.server import Server
from devtools.templates.chromium import ANSWER, PAGE_READY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page

PACK = "compose-and-conquer"
OURS = f"/extensions/{PACK}/"
SCREENSHOTS = Path(os.environ.get("CNC_SCREENSHOTS") or ROOT / ".cache" / "screenshots")
SETTLE = """async ([still, least]) => {
    const frame = () => new Promise(done => requestAnimationFrame(done));
    const place = () => JSON.stringify([
        app.canvas.ds.scale, ...app.canvas.ds.offset,
        ...[...document.querySelectorAll('[data-node-id], .cnc-pad, .cnc-place')].map(one => {
            const { x, y, width, height } = one.getBoundingClientRect();
            return [x, y, width, height].map(Math.round);
        }),
    ]);
    let [since, frames, before] = [performance.now(), 0, place()];
    for (const end = since + 30000; performance.now() < end; ) {
        await frame();
        frames += 1;
        const now = place();
        if (now !== before) [since, frames, before] = [performance.now(), 0, now];
        if (performance.now() - since > still && frames > least) return;
    }
}"""
"""Nothing has moved for so many milliseconds and frames."""
DRESSED = {"CnC_Compose": "lambda_pad", "CnC_SoftGuidance": "lambda_pad", "CnC_PlaceLayer": "place_handles"}
"""What our scripts put on a node a moment after the first of its kind is made."""
FIND = "const find = type => app.canvas.graph.nodes.find(node => node.comfyClass === type);"


class Editor:
    """One tab.

    complaints: what our own scripts wrote to its console as errors or warnings, or threw.
    heard: what the server told it, (type, data).
    """

    def __init__(self, context: BrowserContext, server: Server, *, scripts: bool = True) -> None:
        self.context, self.server, self.scripts = context, server, scripts
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
        self.page.wait_for_function(PAGE_READY, timeout=ANSWER)
        if self.scripts:  # what comes with the page, but is not waited for by it
            self.page.evaluate("url => import(url).then(() => null)", f"{OURS}panels.mjs")

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

    def load(self, prompt: Mapping[str, Any], class_type: str = "CnC_Compose", name: str = "test") -> None:
        """Open a workflow in the API format, in a tab of its own, and look at one of its nodes."""
        self.page.evaluate("([prompt, name]) => app.loadApiJson(prompt, name)", [prompt, name])
        self.page.wait_for_function(f"type => {{ {FIND} return !!find(type); }}", arg=class_type)
        if self.scripts and class_type in DRESSED:
            held = f"([type, name]) => {{ {FIND} return find(type).widgets.some(one => one.name === name); }}"
            self.page.wait_for_function(held, arg=[class_type, DRESSED[class_type]])
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
        self.settle()

    def settle(self, still: int = 400, frames: int = 8) -> None:
        """Wait until nodes and what lies on them stand still for a while: long, as after a workflow has come."""
        self.page.evaluate(SETTLE, [still, frames])

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
        self.settle()
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

    def widgets(self, class_type: str, names: list[str]) -> list[Any]:
        """What a node's widgets hold."""
        held: list[Any] = self.page.evaluate(
            f"""([type, names]) => {{ {FIND}
                return names.map(name => find(type).widgets.find(one => one.name === name).value);
            }}""",
            [class_type, names],
        )
        return held

    def lambdas(self, class_type: str = "CnC_Compose") -> tuple[float, float]:
        """What the node's widgets hold, foreground first."""
        values = self.widgets(class_type, ["lambda_fg", "lambda_bg"])
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

    def put_into_subgraph(self, class_type: str) -> None:
        """Make a node a subgraph of its own, and go into it."""
        self.page.evaluate(
            f"""type => {{ {FIND}
                window.made = app.canvas.graph.convertToSubgraph(new Set([find(type)])).subgraph;
            }}""",
            class_type,
        )
        panels = self.page.locator(".cnc-pad:visible, .cnc-place:visible")
        self.wait_for(lambda: not panels.count(), "the node's place being taken by the subgraph's")
        self.page.evaluate("() => app.canvas.setGraph(window.made)")
        self.look_at(class_type)

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

    def save(self, name: str) -> None:
        """Save the workflow under a name, as Ctrl+S and the dialog do."""
        self.command_unawaited("Comfy.SaveWorkflowAs")
        field = self.page.get_by_role("dialog").locator("input").last
        field.fill(name)
        field.press("Enter")
        self.wait_for(lambda: f"{name}.json" in str(self.server.get("/userdata?dir=workflows")), "the saved file")

    def command_unawaited(self, name: str) -> None:
        """Run a command that waits for the user."""
        self.page.evaluate("name => { app.extensionManager.command.execute(name); }", name)

    def open_saved(self, name: str) -> None:
        """Open a saved workflow from the server's folder."""
        saved = self.server.get(f"/userdata/workflows%2F{name}.json")
        self.page.evaluate("([saved, name]) => app.loadGraphData(saved, true, true, name)", [saved, name])
        self.settle()

    def open_workflow(self, workflow: Mapping[str, Any]) -> None:
        """Open a workflow as saved. A dialog about it may stay open."""
        self.page.evaluate(
            """workflow => {
                window.opened = false;
                app.loadGraphData(workflow, true, true, 'test').finally(() => { window.opened = true; });
            }""",
            workflow,
        )
        types = sorted(str(node["type"]) for node in workflow["nodes"])
        self.wait_for(lambda: self._types() == types, "the workflow's nodes")
        # Its nodes are there before the rest of it, which takes what is said of an earlier one from the screen.
        self.page.wait_for_function("() => window.opened", timeout=ANSWER)
        self.settle()

    def _types(self) -> list[str]:
        return sorted(self.page.evaluate("() => app.graph.nodes.map(node => node.type)"))

    def browse_templates(self) -> None:
        """Open the template browser at our pack."""
        self.command_unawaited("Comfy.BrowseTemplates")
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_text(PACK, exact=True).first.click()

    def open_template(self, name: str, count: int) -> None:
        """Choose one in the template browser."""
        self.page.evaluate("() => app.graph.clear()")
        card = self.page.get_by_test_id(f"template-workflow-{name}")
        if not card.count():
            self.browse_templates()
        card.click()
        self.wait_for(lambda: self.count() == count, f"the template {name}")
        self.page.get_by_role("dialog").wait_for(state="hidden")
        self.settle()

    def count(self) -> int:
        """How many nodes the workflow has."""
        return int(self.page.evaluate("() => app.graph.nodes.length"))

    def show_all(self) -> None:
        """Make the whole workflow fit into the window."""
        self.command("Comfy.Canvas.FitView")
        self.settle()

    def set_steps(self, steps: int) -> None:
        """In all samplers, in subgraphs as well."""
        self.page.evaluate(
            """steps => {
                const walk = graph => graph.nodes.forEach(node => {
                    if (node.subgraph) walk(node.subgraph);
                    const widget = node.type === 'KSampler' && node.widgets.find(one => one.name === 'steps');
                    if (widget) widget.value = steps;
                });
                walk(app.graph);
            }""",
            steps,
        )

    def pictures(self, class_type: str) -> int:
        """How many pictures the nodes of a type show, all of them loaded."""
        return int(
            self.page.evaluate(
                """async type => {
                    const nodes = app.graph.nodes.filter(node => node.type === type);
                    const files = nodes.flatMap(node => app.nodeOutputs[node.id]?.images ?? []);
                    const names = files.map(file => file.filename);
                    const held = [...document.images, ...nodes.flatMap(node => node.imgs ?? [])];
                    const seen = held.filter(image => image.complete && image.naturalWidth > 0).map(image => image.src);
                    return names.filter(name => seen.some(src => src.includes(name))).length;
                }""",
                class_type,
            )
        )

    def disconnect(self, class_type: str, name: str) -> None:
        """Take what is connected to an input away."""
        self.page.evaluate(
            f"""([type, name]) => {{ {FIND}
                const node = find(type);
                node.disconnectInput(node.inputs.findIndex(input => input.name === name));
            }}""",
            [class_type, name],
        )

    def drag_link(self, source: tuple[str, int], class_type: str, name: str) -> None:
        """Drag with the mouse from an output (node id, place) to a node's input."""
        self.show_all()
        ends = self.page.evaluate(
            f"""([[id, slot], type, name]) => {{ {FIND}
                const [from, to] = [app.graph.getNodeById(Number(id)), find(type)];
                const places = [
                    from.getOutputPos(slot),
                    to.getInputPos(to.inputs.findIndex(input => input.name === name)),
                ];
                const view = app.canvas.canvas.getBoundingClientRect();
                const into = to.inputs.findIndex(input => input.name === name);
                const keys = [`${{from.id}}-out-${{slot}}`, `${{to.id}}-in-${{into}}`];
                return places.map((place, end) => {{
                    const dot = document.querySelector(`[data-slot-key="${{keys[end]}}"]`)?.getBoundingClientRect();
                    if (dot) return [dot.x + dot.width / 2, dot.y + dot.height / 2]; // a slot of a Vue node
                    const [x, y] = app.canvas.ds.convertOffsetToCanvas(place);
                    return [x + view.left, y + view.top];
                }});
            }}""",
            [list(source), class_type, name],
        )
        self.page.mouse.move(*ends[0])
        self.page.mouse.down()
        self.page.mouse.move(*ends[1], steps=12)
        self.page.mouse.up()

    def drop(self, file: Path, name: str, title: str | None = None) -> None:
        """Drop a picture, under a name, onto the node of a title, or beside all nodes."""
        self.show_all()
        self.page.evaluate(
            """async ([data, name, title]) => {
                const node = app.graph.nodes.find(one => one.title === title);
                const at = node ? [node.pos[0] + node.size[0] / 2, node.pos[1] + node.size[1] / 2] : [-9000, -9000];
                const view = app.canvas.canvas.getBoundingClientRect();
                const [x, y] = app.canvas.ds.convertOffsetToCanvas(at);
                const place = node ? [x + view.left, y + view.top] : [view.left + view.width / 2, view.bottom - 5];
                const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
                const dataTransfer = new DataTransfer();
                dataTransfer.items.add(new File([bytes], name, { type: 'image/png' }));
                const told = { clientX: place[0], clientY: place[1], dataTransfer, bubbles: true, cancelable: true };
                const target = document.elementFromPoint(...place);
                for (const type of ['dragenter', 'dragover']) {
                    target.dispatchEvent(new DragEvent(type, told));
                    await new Promise(done => setTimeout(done, 100));
                }
                target.dispatchEvent(new DragEvent('drop', told));
            }""",
            [base64.b64encode(file.read_bytes()).decode(), name, title],
        )

    def wait_for_draft(self, part: str) -> None:
        """Wait until the front end has kept the workflow for the next time: some entry of its storage has the part."""
        held = """part => [localStorage, sessionStorage].some(store =>
            Object.values(store).some(value => value.includes(part)))"""
        self.wait_for(lambda: self.page.evaluate(held, part), "the draft")

    def export_api(self) -> dict[str, Any]:
        """The file that "Export (API)" downloads."""
        with self.page.expect_download() as coming:
            self.command_unawaited("Comfy.ExportWorkflowAPI")
            field = self.page.get_by_role("dialog").locator("input").last
            field.fill("exported")
            field.press("Enter")
        exported: dict[str, Any] = json.loads(Path(coming.value.path()).read_text(encoding="utf-8"))
        return exported

    def on_screen(self, pattern: str) -> None:
        """Wait until words that fit can be read on the page, in the details of an error too."""
        words, more = re.compile(pattern), self.page.get_by_text("View details")
        opened = False

        def read() -> bool:
            nonlocal opened
            button = not opened and more.count()  # asked for first: opening what follows takes the short words away
            if words.search(self.page.evaluate("() => document.body.innerText")):
                return True
            if button:  # the newest front end tells of an error in one line first
                more.first.click()
                opened = True
            return False

        self.wait_for(read, f"{pattern!r} on screen")

    def refused(self) -> bool:
        """Whether the server has refused the workflow before it ran."""
        return bool(self.page.evaluate("() => Object.keys(app.lastNodeErrors ?? {}).length"))

    def failed(self) -> bool:
        """Whether a run has ended with an error since the page was opened."""
        return any(kind == "execution_error" for kind, _ in self.heard)

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

    def ended(self, job: str) -> bool:
        """Whether the page was told that a job has ended well, which it is after all that the job has shown."""
        return any(kind == "execution_success" and data["prompt_id"] == job for kind, data in self.heard)

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
