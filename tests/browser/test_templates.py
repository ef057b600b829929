"""The templates as an artist meets them: found among the host's, opened, changed, run, kept, handed on."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from devtools.environment import ROOT
from devtools.saved import flat
from devtools.server import Run, Server
from devtools.templates.drawing import FOLDER

from .editor import Editor

pytestmark = pytest.mark.slow

FILES = sorted((ROOT / "example_workflows").glob("*.json"))
MINI = ("01", "04", "06", "07", "11")
"""Those that need no download."""
QUICK_START = FILES[0].stem


def saved(name: str) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    return workflow


def posted(server: Server, prompt: dict[str, Any]) -> Run:
    """Run it from another thread: this one's event loop is Playwright's."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(server.run, prompt).result()


def alike(exported: dict[str, Any]) -> dict[str, Any]:
    """What is run: without the titles."""
    return {key: {part: node[part] for part in ("class_type", "inputs")} for key, node in exported.items()}


def test_each_is_found_opened_and_run(editor: Editor) -> None:
    """All in one page, as an artist goes through them. Those that need no download are run, in two steps."""
    editor.browse_templates()
    cards = editor.page.locator("[data-testid^='template-workflow-']")
    editor.wait_for(lambda: cards.count() == len(FILES), "all templates in the list")
    pictures = cards.locator("img")
    loaded = "images => images.length && images.every(image => image.naturalWidth === 512)"
    editor.wait_for(lambda: pictures.evaluate_all(loaded), "the thumbnails")
    editor.screenshot(f"template browser {editor.version}")
    for path in FILES:
        workflow = saved(path.stem)
        editor.open_template(path.stem, len(workflow["nodes"]))
        exported = editor.api_format()
        assert alike(exported) == alike(flat(workflow)), path.stem
        editor.show_all()
        editor.screenshot(f"template {path.stem} {editor.version}")
        if path.stem[:2] in MINI:
            editor.set_steps(2)
            with editor.run():
                editor.command("Comfy.QueuePrompt")
            expected = {"07": 2, "11": len(FOLDER)}.get(path.stem[:2], 1)
            editor.wait_for(lambda: editor.pictures("SaveImage") == expected, f"the pictures of {path.stem}")  # noqa: B023
            editor.screenshot(f"template {path.stem} ran {editor.version}")


@pytest.mark.parametrize("path", sorted((ROOT / "subgraphs").glob("*.json")), ids=lambda path: path.stem)
def test_blueprints_open_on_hosts_without_their_newest_inputs(editor: Editor, path: Path) -> None:
    """What is run is what is saved, less the inputs that this host does not know."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    editor.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    editor.wait_for(lambda: editor.count() == len(workflow["nodes"]), "the blueprint")
    known = editor.server.object_info()
    expected = alike(flat(workflow))
    for node in expected.values():
        inputs = {name for kind in known[node["class_type"]]["input"].values() for name in kind}
        node["inputs"] = {name: value for name, value in node["inputs"].items() if name in inputs}
    assert alike(editor.api_format()) == expected


def test_the_pictures_come_with_the_template(editor: Editor) -> None:
    """A server that has none of them gets them when a template is opened, once, and none are overwritten."""
    folder = editor.server.input
    for file in folder.glob("cnc_*.png"):
        file.unlink()
    editor.open_template(QUICK_START, len(saved(QUICK_START)["nodes"]))
    wanted = {f"cnc_{name}.png" for name in ("cone", "cube", "fg_style", "bg_style")}
    assert {file.name for file in folder.glob("cnc_*.png")} == wanted
    for name in wanted:
        assert (folder / name).read_bytes() == (ROOT / "web" / "pictures" / name.removeprefix("cnc_")).read_bytes()
    choices = "() => app.graph.nodes.find(node => node.type === 'LoadImage').widgets[0].options.values"
    editor.wait_for(lambda: wanted <= set(editor.page.evaluate(choices)), "the pictures in the loaders' lists")
    kept = folder / "cnc_cone.png"
    kept.write_bytes((ROOT / "web" / "pictures" / "cube.png").read_bytes())
    before = kept.stat().st_mtime_ns
    editor.open_template(QUICK_START, len(saved(QUICK_START)["nodes"]))
    assert kept.stat().st_mtime_ns == before
    kept.unlink()


def test_from_template_to_a_file_that_opens_anywhere(renderer: str, editor: Editor) -> None:
    """Connect, drag, run, reload, save, a second tab, the API format: the way of a whole sitting."""
    count = len(saved(QUICK_START)["nodes"])
    editor.open_template(QUICK_START, count)
    editor.set_steps(2)
    editor.look_at("CnC_Compose")
    before = editor.links()
    style = before["fg_style"]
    editor.disconnect("CnC_Compose", "fg_style")
    assert "fg_style" not in editor.links()
    editor.drag_link(style, "CnC_Compose", "fg_style")
    editor.wait_for(lambda: editor.links() == before, "the link")
    editor.look_at("CnC_Compose")
    editor.drag_slider("lambda_fg", 0.5, 0.75)
    editor.drag_pad((0.75, 0.5), (0.75, 0.25))
    foreground, background = editor.lambdas()
    assert (foreground, background) == (1.5, 0.5)
    with editor.run():
        editor.command("Comfy.QueuePrompt")
    editor.wait_for(lambda: editor.pictures("SaveImage") == 1, "the picture")
    editor.show_all()
    editor.screenshot(f"sitting {renderer} {editor.version}")

    kept, exported = _values(editor.workflow()), editor.api_format()
    editor.wait_for_draft("1.5,0.5")
    editor.open()
    editor.wait_for(lambda: editor.count() == count, "the workflow after the reload")
    assert _values(editor.workflow()) == kept and editor.links() == before and editor.api_format() == exported

    name = f"sitting-{renderer.split()[0]}"
    editor.save(name)
    second = Editor(editor.context, editor.server)
    second.open_saved(name)
    assert _values(second.workflow()) == kept and second.api_format() == exported
    assert not second.complaints
    downloaded = editor.export_api()
    assert alike(downloaded) == alike(exported)
    run = posted(editor.server, downloaded)
    assert run.error is None and run.images(next(k for k, n in downloaded.items() if n["class_type"] == "SaveImage"))


def test_pictures_dropped_and_handed_on(renderer: str, editor: Editor) -> None:
    """One dropped onto a loader is what it loads; one that was saved, dropped beside all nodes, brings its workflow."""
    workflow = saved(QUICK_START)
    editor.open_template(QUICK_START, len(workflow["nodes"]))
    editor.set_steps(2)
    loader = next(node for node in workflow["nodes"] if node["type"] == "LoadImage")
    name = f"own {renderer} {editor.version}.png"
    editor.drop(ROOT / "web" / "pictures" / "cube.png", name, loader["title"])
    chosen = "title => app.graph.nodes.find(node => node.title === title).widgets[0].value"
    editor.wait_for(lambda: editor.page.evaluate(chosen, loader["title"]) == name, "the dropped picture's name")
    assert (editor.server.input / name).read_bytes() == (ROOT / "web" / "pictures" / "cube.png").read_bytes()
    with editor.run():
        editor.command("Comfy.QueuePrompt")
    editor.wait_for(lambda: editor.pictures("SaveImage") == 1, "the picture")

    kept = _values(editor.workflow())
    newest = max(editor.server.output.glob("**/*.png"), key=lambda file: file.stat().st_mtime_ns)
    editor.page.evaluate("() => app.graph.clear()")
    editor.drop(newest, newest.name)
    editor.wait_for(lambda: editor.count() == len(workflow["nodes"]), "the workflow in the picture")
    assert _values(editor.workflow()) == kept


def _values(workflow: dict[str, Any]) -> dict[str, Any]:
    return {str(node["id"]): node.get("widgets_values") or None for node in workflow["nodes"]}
