"""Bypassing a node, as Ctrl+B does."""

from __future__ import annotations

import json

import pytest

from devtools.environment import ROOT

from .editor import Editor

pytestmark = pytest.mark.slow

TEMPLATE = ROOT / "example_workflows" / "11 A folder of pictures.json"
OPACITY = """pad => {
    let whole = 1;
    for (let one = pad; one; one = one.parentElement) whole *= Number(getComputedStyle(one).opacity);
    return whole;
}"""


def press(editor: Editor, class_type: str, keys: str) -> None:
    """Select the node of a type and press keys on the canvas."""
    editor.look_at(class_type)
    editor.page.evaluate(
        """type => {
            document.activeElement.blur();
            app.canvas.deselectAll();
            app.canvas.selectItems([app.canvas.graph.nodes.find(one => one.comfyClass === type)]);
            app.canvas.canvas.focus();
        }""",
        class_type,
    )
    editor.page.keyboard.press(keys)
    editor.settle()


def test_a_graph_with_exemplars_bypassed_runs(renderer: str, editor: Editor) -> None:
    """And the panel of a node that is bypassed or muted is dimmed with it."""
    editor.open_workflow(json.loads(TEMPLATE.read_text(encoding="utf-8")))
    editor.set_steps(2)
    press(editor, "CnC_ApplyGlobalFuser", "Control+b")
    assert all(node["class_type"] != "CnC_ApplyGlobalFuser" for node in editor.api_format().values())
    with editor.run():
        editor.command("Comfy.QueuePrompt")
    editor.look_at("CnC_SoftGuidance")
    assert editor.pad.evaluate(OPACITY) == 1
    for keys in ("Control+b", "Control+m"):
        press(editor, "CnC_SoftGuidance", keys)
        assert editor.pad.evaluate(OPACITY) <= 0.5, keys
        editor.screenshot(f"{keys} {renderer} {editor.version}")
        press(editor, "CnC_SoftGuidance", keys)
        assert editor.pad.evaluate(OPACITY) == 1
