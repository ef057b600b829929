"""What a panel edits is the node whose widgets are sent, however often the front end makes that node anew."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from devtools.server import Server
from devtools.workflow import Workflow

from .conftest import configure, open_page
from .editor import Editor

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ElementHandle

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prompt")]

NODE = """const node = app.canvas.graph.nodes.filter(one => one.comfyClass === type)
    .sort((one, other) => one.id - other.id)[index];"""
"""The `index`-th of its type by id: the graph has the one last touched at the end."""
PANEL = f"""([type, index, selector]) => {{
    {NODE}
    const whole = document.querySelector(`[data-node-id="${{node.id}}"]`); // with Vue nodes
    if (whole) return whole.querySelector(selector);
    const view = app.canvas.canvas.getBoundingClientRect();
    const ends = [node.pos, [node.pos[0] + node.size[0], node.pos[1] + node.size[1]]];
    const [[left, top], [right, bottom]] = ends.map(end => app.canvas.ds.convertOffsetToCanvas(end));
    return [...document.querySelectorAll(selector)].find(one => {{
        const {{ x, y, width, height }} = one.getBoundingClientRect();
        const [across, down] = [x + width / 2 - view.left, y + height / 2 - view.top];
        return width && across > left && across < right && down > top && down < bottom;
    }});
}}"""
"""The panel that lies on a node on the screen."""
HELD = f"""([type, index, names]) => {{
    {NODE}
    return [String(node?.id), node ? names.map(name => node.widgets.find(one => one.name === name).value) : []];
}}"""


@dataclass(frozen=True)
class Panel:
    """A panel of the `index`-th node of a type, and the ordinary widgets that it stands for."""

    class_type: str
    selector: str
    stage: str
    inputs: tuple[str, ...]
    index: int = 0

    def look_at(self, editor: Editor) -> None:
        """Bring the node to the middle of the window, at full size."""
        look = f"""([type, index]) => {{
            {NODE}
            const view = () => JSON.stringify([app.canvas.ds.scale, ...app.canvas.ds.offset].map(Math.round));
            const before = view();
            app.canvas.ds.scale = 1;
            app.canvas.centerOnNode(node);
            app.canvas.setDirty(true, true);
            return view() !== before;
        }}"""
        if editor.page.evaluate(look, [self.class_type, self.index]):
            editor.settle(still=100, frames=3)

    def on_page(self, editor: Editor) -> ElementHandle:
        """What can be seen on the node."""
        found = editor.page.evaluate_handle(PANEL, [self.class_type, self.index, self.selector]).as_element()
        assert found, f"no {self.selector} on {self.class_type}"
        return found

    def shown(self, editor: Editor) -> list[float]:
        """What the panel says, to two decimals."""
        return [float(one) for one in re.findall(r"-?\d+(?:\.\d+)?", self.on_page(editor).inner_text())]

    def held(self, editor: Editor) -> list[float]:
        """What the node's widgets hold; empty while there is no such node."""
        return list(editor.page.evaluate(HELD, [self.class_type, self.index, list(self.inputs)])[1])

    def values(self, editor: Editor) -> list[float]:
        """What the node's widgets hold; the panel must show it, and the prompt that is sent must say it."""
        node, held = editor.page.evaluate(HELD, [self.class_type, self.index, list(self.inputs)])
        assert self.shown(editor) == pytest.approx(held, abs=0.0051), "shown and held"
        (sent,) = (
            [one["inputs"][name] for name in self.inputs]
            for key, one in editor.api_format().items()
            if one["class_type"] == self.class_type and key.rpartition(":")[2] == node
        )
        assert sent == held, "sent and held"
        return list(held)

    def drag(self, editor: Editor, across: float, down: float) -> list[float]:
        """Drag from the middle by shares of the width and height."""
        self.look_at(editor)
        stage = self.on_page(editor).query_selector(self.stage)
        box = stage and stage.bounding_box()
        assert box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        editor.page.mouse.move(x, y)
        editor.page.mouse.down()
        editor.page.mouse.move(x + across * box["width"], y + down * box["height"], steps=4)
        editor.page.mouse.up()
        return self.values(editor)

    def use(self, editor: Editor, across: float = -0.2, down: float = -0.1) -> list[float]:
        """Drag and press a key: either changes what the node holds. Gives what it held after the drag."""
        before = self.held(editor)
        dragged = self.drag(editor, across, down)
        assert dragged != before, "after a drag"
        self.on_page(editor).press("ArrowLeft")
        pressed = self.values(editor)
        assert pressed[0] < dragged[0] and pressed[1:] == dragged[1:], "after a key"
        return dragged


PAD = Panel("CnC_Compose", ".cnc-pad", ".cnc-pad-plot", ("lambda_fg", "lambda_bg"))
HANDLES = Panel("CnC_PlaceLayer", ".cnc-place", ".cnc-place-stage", ("x", "y", "scale", "rotation"))


@pytest.fixture(scope="module", params=["classic canvas", "Vue nodes"])
def editor(request: pytest.FixtureRequest, server: Server, browser: Browser) -> Iterator[Editor]:
    """One page for all tests of a renderer: each of them opens a workflow of its own."""
    configure(server, {"Comfy.VueNodes.Enabled": request.param == "Vue nodes"})
    with open_page(browser, server) as page:
        yield page


@pytest.fixture(params=[PAD, HANDLES], ids=["pad", "handles"])
def panel(request: pytest.FixtureRequest) -> Panel:
    """Each test runs with both."""
    shown: Panel = request.param
    return shown


@pytest.fixture
def prompt(server: Server, editor: Editor, panel: Panel) -> dict[str, Any]:
    """The panel's node by itself, just opened: it is not to be run, and nothing lies over it."""
    flow = Workflow(server.object_info())
    flow.add(panel.class_type)
    editor.load(flow.prompt, panel.class_type, uuid.uuid4().hex)
    return flow.prompt


def after(editor: Editor, panel: Panel, act: str, held: list[float]) -> None:
    """Run a command, until the node holds this; the panel and the prompt must say it too."""
    editor.settle(still=100, frames=3)  # the front end records a step a moment after it was made
    editor.command(act)
    editor.wait_for(lambda: panel.held(editor) == held, f"{held} after {act}, not {panel.held(editor)}", 20)
    panel.look_at(editor)
    editor.settle(still=100, frames=3)  # the nodes are new
    assert panel.values(editor) == held


def test_undo_and_redo(editor: Editor, panel: Panel) -> None:
    """Which make all nodes anew, with the same ids."""
    first = panel.held(editor)
    second = panel.drag(editor, 0.3, 0.2)
    assert second != first
    after(editor, panel, "Comfy.Undo", first)
    after(editor, panel, "Comfy.Redo", second)
    dragged = panel.use(editor)
    after(editor, panel, "Comfy.Undo", dragged)
    panel.use(editor, 0.1, 0.3)


def test_another_tab(editor: Editor, panel: Panel, prompt: dict[str, Any]) -> None:
    """Whose nodes have the same ids."""
    here = panel.drag(editor, 0.3, 0.2)
    editor.load(prompt, panel.class_type, uuid.uuid4().hex)
    there = panel.drag(editor, -0.1, 0.1)
    assert here != there
    after(editor, panel, "Workspace.PreviousOpenedWorkflow", here)
    panel.use(editor)
    here = panel.held(editor)
    after(editor, panel, "Workspace.NextOpenedWorkflow", there)
    after(editor, panel, "Workspace.PreviousOpenedWorkflow", here)


def test_copy_and_paste(editor: Editor, panel: Panel) -> None:
    """The copy has a panel of its own."""
    kept = panel.drag(editor, 0.3, 0.2)
    select(editor, panel)
    editor.page.mouse.move(1200, 200)  # beside the node: it is pasted there
    editor.page.evaluate("() => { app.canvas.copyToClipboard(); app.canvas.pasteFromClipboard(); }")
    copy = replace(panel, index=1)
    editor.wait_for(lambda: copy.held(editor) == kept, "the copy", 20)
    copy.use(editor)
    panel.look_at(editor)
    assert panel.values(editor) == kept
    copied = copy.held(editor)
    panel.use(editor)
    copy.look_at(editor)
    assert copy.values(editor) == copied


def test_a_subgraph_and_back(editor: Editor, panel: Panel) -> None:
    """Made of the node, entered, left, and taken back by an undo."""
    kept = panel.drag(editor, 0.3, 0.2)
    select(editor, panel)
    editor.command("Comfy.Graph.ConvertToSubgraph")
    editor.wait_for(lambda: not panel.held(editor), "the subgraph in the node's place", 20)
    enter = "() => app.canvas.setGraph(app.graph.nodes.find(one => one.isSubgraphNode()).subgraph)"
    editor.page.evaluate(enter)
    assert panel.held(editor) == kept
    panel.use(editor)
    inside = panel.values(editor)
    panel.drag(editor, 0.1, 0.1)
    after(editor, panel, "Comfy.Undo", inside)
    panel.use(editor)
    editor.page.evaluate("() => app.canvas.setGraph(app.graph)")
    while not panel.held(editor):
        editor.command("Comfy.Undo")
        editor.settle(still=100, frames=3)
    assert panel.held(editor) == kept
    panel.use(editor)


def test_a_subgraph_taken_apart(editor: Editor, panel: Panel) -> None:
    kept = panel.drag(editor, 0.3, 0.2)
    select(editor, panel)
    editor.command("Comfy.Graph.ConvertToSubgraph")
    editor.wait_for(lambda: not panel.held(editor), "the subgraph in the node's place", 20)
    editor.page.evaluate("() => app.canvas.selectItems([app.graph.nodes.find(one => one.isSubgraphNode())])")
    after(editor, panel, "Comfy.Graph.UnpackSubgraph", kept)
    panel.use(editor)


def select(editor: Editor, panel: Panel) -> None:
    """Select its node alone."""
    editor.page.evaluate(
        """type => {
            app.canvas.selectItems([app.canvas.graph.nodes.find(one => one.comfyClass === type)]);
        }""",
        panel.class_type,
    )
