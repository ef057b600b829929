"""The pack's scripts in a real browser: the pad, run-on-release, swap, the grid, and what a workflow keeps."""

from __future__ import annotations

import re
import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from devtools.server import Server

from .editor import OURS, Editor, example

pytestmark = pytest.mark.slow

LATENCY, LOAD = 300, 50  # milliseconds
LOADS = 7


@pytest.fixture(scope="module")
def prompt(server: Server) -> dict[str, Any]:
    """The demo's workflow with an exemplar for each layer."""
    return example(server.object_info())


def id_of(prompt: dict[str, Any], class_type: str) -> str:
    return next(key for key, node in prompt.items() if node["class_type"] == class_type)


def test_the_pad_and_the_sliders_are_one(renderer: str, editor: Editor, prompt: dict[str, Any]) -> None:
    """Dragged, with the keyboard, and from the sliders' side."""
    editor.load(prompt)
    assert editor.lambdas() == (1, 1)
    editor.drag_pad((0.5, 0.5), (0.75, 0.25))
    assert editor.lambdas() == (1.5, 0.5)
    assert editor.pad.get_attribute("aria-valuetext") == "foreground 1.50, background 0.50"
    assert editor.pad.evaluate("pad => pad === document.activeElement")
    for key, now in {
        "ArrowRight": (1.55, 0.5),
        "ArrowUp": (1.55, 0.55),
        "Shift+ArrowLeft": (1.54, 0.55),
        "Shift+ArrowDown": (1.54, 0.54),
        "End": (2, 0.54),
        "Home": (0, 0.54),
        "PageUp": (0, 2),
        "PageDown": (0, 0),
        "ArrowDown": (0, 0),
        "Enter": (1, 1),
    }.items():
        editor.page.keyboard.press(key)
        assert editor.lambdas() == now, key
    editor.drag_pad((0.5, 0.5), (-0.5, 1.5))
    assert editor.lambdas() == (0, 2)
    editor.screenshot(f"pad {renderer} {editor.version}")
    editor.pad.locator(".cnc-pad-plot").dblclick()
    assert editor.lambdas() == (1, 1)
    editor.drag_slider("lambda_bg", 0.5, 0.1)
    foreground, background = editor.lambdas()
    assert foreground == 1 and background < 0.4
    assert f"background {background:.2f}" in str(editor.pad.get_attribute("aria-valuetext"))


def test_letting_go_runs_the_patch_and_the_sampler_once(
    releasing: None, renderer: str, editor: Editor, prompt: dict[str, Any]
) -> None:
    editor.load(prompt)
    compose = id_of(prompt, "CnC_Compose")
    with editor.run():
        editor.command("Comfy.QueuePrompt")
    # The sampler's seed is a new one after each run unless it is fixed; the demo's is left as it is here.
    for act in (
        lambda: editor.drag_pad((0.5, 0.5), (0.8, 0.5), (0.8, 0.2)),
        lambda: editor.drag_slider("lambda_fg", 0.8, 0.3),
        lambda: editor.pad.press("ArrowUp"),
    ):
        before = editor.starts()
        with editor.run() as told:
            act()
        parts = {node for node in told["executed"] if node.startswith(f"{compose}.")}
        assert {part.rpartition(".")[2] for part in parts} - {"values"} == {"6_guidance"}  # newer: Compose itself
        # The host runs again all that hangs on Compose, the pictures of mask and depth too: nothing before it.
        again = {prompt[node]["class_type"] for node in told["executed"] - parts}
        assert again == {"CnC_Compose", "KSampler", "VAEDecode", "MaskToImage", "PreviewImage"}
        editor.page.wait_for_timeout(500)
        assert editor.starts() == before + 1
    before = editor.starts()
    editor.drag_pad((0.9, 0.9), (0.4, 0.4), drop=False)
    editor.page.wait_for_timeout(500)
    assert editor.starts() == before  # not while it is held
    with editor.run():
        editor.page.mouse.up()
    editor.drag_pad((0.4, 0.4), (0.6, 0.6), (0.4, 0.4))
    editor.page.mouse.click(5, 500)
    editor.page.wait_for_timeout(500)
    assert editor.starts() == before + 1  # back where it was


def test_nothing_runs_by_itself_unless_it_is_asked_to(editor: Editor, prompt: dict[str, Any]) -> None:
    editor.load(prompt)
    editor.drag_pad((0.5, 0.5), (0.8, 0.2))
    editor.pad.press("ArrowUp")
    editor.page.wait_for_timeout(700)
    assert editor.starts() == 0


def test_a_workflow_is_the_same_with_our_scripts_and_without(
    renderer: str, editor: Editor, prompt: dict[str, Any]
) -> None:
    """In both formats, so that it opens anywhere; and what is saved comes back."""
    editor.load(prompt)
    plain = Editor(editor.context, editor.server, scripts=False)
    plain.load(prompt)
    assert editor.pad.count() == 1 and plain.pad.count() == 0
    assert editor.api_format() == plain.api_format()
    assert _values(editor.workflow()) == _values(plain.workflow())

    editor.drag_pad((0.5, 0.5), (0.25, 0.75))
    saved, exported = editor.workflow(), editor.api_format()
    plain.page.evaluate("saved => app.loadGraphData(saved)", saved)
    assert plain.lambdas() == (0.5, 1.5)
    assert plain.api_format() == exported
    with ThreadPoolExecutor(1) as thread:  # a loop of its own: this thread's is Playwright's
        run = thread.submit(editor.server.run, exported).result()
    assert run.error is None and exported[id_of(prompt, "CnC_Compose")]["inputs"]["lambda_bg"] == 1.5


def test_a_reload_and_a_second_tab_find_everything_as_it_was(editor: Editor, prompt: dict[str, Any]) -> None:
    editor.load(prompt)
    editor.drag_pad((0.5, 0.5), (0.25, 0.75))
    before = _values(editor.workflow())
    editor.wait_for_draft("0.5,1.5")
    editor.open()
    editor.page.wait_for_function("() => app.canvas.graph.nodes.some(node => node.comfyClass === 'CnC_Compose')")
    assert editor.lambdas() == (0.5, 1.5) and _values(editor.workflow()) == before
    editor.look_at("CnC_Compose")
    assert editor.pad.get_attribute("aria-valuetext") == "foreground 0.50, background 1.50"

    editor.save("shared")
    second = Editor(editor.context, editor.server)
    second.open_saved("shared")
    assert second.lambdas() == (0.5, 1.5) and _values(second.workflow()) == before
    assert not second.complaints


def test_swap_layers_exchanges_links_and_lambdas_in_one_step(editor: Editor, prompt: dict[str, Any]) -> None:
    editor.load(prompt)
    editor.drag_pad((0.5, 0.5), (0.25, 0.75))
    before = editor.links()
    editor.choose_from_menu("CnC_Compose", "Swap layers")
    swapped = {"foreground": "background", "background": "foreground", "fg_style": "bg_style", "bg_style": "fg_style"}
    wanted = {name: before[swapped.get(name, name)] for name in before}
    editor.wait_for(lambda: editor.links() == wanted, "the swap")
    assert editor.lambdas() == (1.5, 0.5)
    editor.page.keyboard.press("Control+z")
    editor.wait_for(lambda: editor.links() == before, "undo")
    assert editor.lambdas() == (0.5, 1.5)


def test_swap_layers_says_when_there_is_nothing_to_exchange(editor: Editor, prompt: dict[str, Any]) -> None:
    compose = id_of(prompt, "CnC_Compose")
    inputs = {name: value for name, value in prompt[compose]["inputs"].items() if name != "background"}
    editor.load({**prompt, compose: {**prompt[compose], "inputs": inputs}})
    before = editor.links()
    editor.command("ComposeAndConquer.SwapLayers")
    editor.page.get_by_text("Connect a foreground and a background picture first").first.wait_for()
    assert editor.links() == before


def test_the_grid_is_a_table_of_pictures(editor: Editor, prompt: dict[str, Any]) -> None:
    editor.load(prompt)
    editor.drag_pad((0.5, 0.5), (0.25, 0.75))
    compose, before = id_of(prompt, "CnC_Compose"), editor.lambdas()
    editor.command("ComposeAndConquer.LambdaGrid")
    dialog = editor.page.get_by_role("dialog", name="\u03bb grid")
    columns, rows = dialog.get_by_label("columns"), dialog.get_by_label("rows")
    columns.fill("0, 3")
    dialog.get_by_role("button", name="Run").click()
    dialog.get_by_text("numbers from 0 to 2").wait_for()
    columns.fill("0, 2")
    rows.fill("0.5, 1, 1.5")
    dialog.get_by_role("button", name="Run").click()
    dialog.get_by_text("6 of 6 pictures").wait_for()
    assert dialog.locator("th").all_text_contents() == ["0", "2", "0.5", "1", "1.5"]
    images = dialog.locator("td img")
    wanted = [f"\u03bb foreground {fg}, background {bg}" for bg in ("0.5", "1", "1.5") for fg in ("0", "2")]
    assert [image.get_attribute("alt") for image in images.all()] == wanted
    editor.page.wait_for_function("() => [...document.images].every(image => image.complete)")
    editor.screenshot(f"grid {editor.version}")
    ran = [record["prompt"][2][compose]["inputs"] for record in editor.server.get("/history?max_items=6").values()]
    assert {(one["lambda_fg"], one["lambda_bg"]) for one in ran} == {(f, b) for f in (0, 2) for b in (0.5, 1, 1.5)}
    assert len({image.get_attribute("src") for image in images.all()}) == 6
    assert editor.lambdas() == before
    rows.fill("0, 0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4, 1.6, 1.8, 2")
    dialog.get_by_role("button", name="Run").click()
    dialog.get_by_text(re.compile(r"^[1-9]\d* of 22 pictures$")).wait_for()
    dialog.get_by_role("button", name="Cancel").click()
    dialog.get_by_text("Cancelled after").wait_for()
    editor.wait_for(lambda: not any(editor.server.get("/queue").values()), "an empty queue")
    assert dialog.locator("td img").count() < 22 and editor.lambdas() == before
    editor.page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


def test_in_a_subgraph(renderer: str, editor: Editor, prompt: dict[str, Any]) -> None:
    """The pad is there, and the grid finds the node's place in the workflow."""
    editor.load(prompt)
    editor.put_into_subgraph("CnC_Compose")
    editor.drag_pad((0.5, 0.5), (0.75, 0.25))
    assert editor.lambdas() == (1.5, 0.5)
    (inner,) = [node for node in editor.api_format().values() if node["class_type"] == "CnC_Compose"]
    assert (inner["inputs"]["lambda_fg"], inner["inputs"]["lambda_bg"]) == (1.5, 0.5)
    editor.screenshot(f"subgraph {renderer} {editor.version}")
    before = editor.links()
    editor.command("ComposeAndConquer.SwapLayers")
    editor.wait_for(lambda: editor.links()["foreground"] == before["background"], "the swap")
    assert editor.links()["bg_style"] == before["fg_style"]
    editor.command("ComposeAndConquer.LambdaGrid")
    dialog = editor.page.get_by_role("dialog", name="\u03bb grid")
    dialog.get_by_label("columns").fill("1")
    dialog.get_by_label("rows").fill("2")
    dialog.get_by_role("button", name="Run").click()
    dialog.get_by_text("1 of 1 pictures").wait_for()


def test_the_layers_mask_and_depth_last_used_appear_on_the_node(
    renderer: str, editor: Editor, prompt: dict[str, Any]
) -> None:
    """As small pictures: 512 pixels at the most reach the page, whatever was put in."""
    # Another picture for each renderer: the host says nothing of parts that are still at hand from the run before.
    with Image.open(editor.server.input / f"{'cone' if renderer == 'Vue nodes' else 'cube'}.png") as small:
        small.resize((1280, 960)).save(editor.server.input / "large.png")
    compose = id_of(prompt, "CnC_Compose")
    inputs = {name: value for name, value in prompt[compose]["inputs"].items() if name != "background"}
    loader = inputs["foreground"][0]
    editor.load(
        {
            **prompt,
            loader: {**prompt[loader], "inputs": {"image": "large.png"}},
            compose: {**prompt[compose], "inputs": inputs},
        }
    )
    with editor.run():
        editor.command("Comfy.QueuePrompt")
    strip = editor.page.get_by_role("group", name="Layers, mask and depth last used")
    wanted = {"mask", "background", "depth", "depth of the object", "mask of the guidance"}
    editor.wait_for(lambda: wanted <= {one.get_attribute("alt") for one in strip.locator("img").all()}, "the strip")
    editor.page.wait_for_function("() => [...document.querySelectorAll('.cnc-strip img')].every(one => one.complete)")
    shown = strip.locator("img").evaluate_all("images => images.map(one => one.alt)")
    order = ["salience", "mask", "background", "depth of the object", "depth", "mask of the guidance"]
    assert [one for one in shown if one in order] == order
    sizes = strip.locator("img").evaluate_all("images => images.map(one => [one.naturalWidth, one.naturalHeight])")
    print(f"\n{editor.version}: pictures on the node, in pixels: {sizes}")
    assert all(size == [512, 384] for size in sizes)
    ours = [
        data["output"] for kind, data in editor.heard if kind == "executed" and "cnc_title" in (data["output"] or {})
    ]
    for file in (file for output in ours for file in [*output.get("images", []), *output.get("cnc_layer", [])]):
        with Image.open(editor.server.base / "temp" / file["subfolder"] / file["filename"]) as picture:
            assert max(picture.size) <= 512
    editor.screenshot(f"strip {renderer} {editor.version}")


def test_the_panel_at_the_side_leaves_the_pad_in_the_node(
    settings: dict[str, Any], renderer: str, request: pytest.FixtureRequest, prompt: dict[str, Any]
) -> None:
    """The newest front end lists a selected node's widgets there, where the host has such a panel."""
    settings["Comfy.RightSidePanel.IsOpen"] = True
    editor: Editor = request.getfixturevalue("editor")
    editor.load(prompt)
    editor.drag_slider("lambda_bg", 0.5, 0.1)
    editor.drag_pad((0.5, 0.5), (0.75, 0.25))
    assert editor.lambdas() == (1.5, 0.5)
    assert editor.page.get_by_text("lambda_pad").count() == 0
    plot = editor.pad.locator(".cnc-pad-plot").bounding_box()
    width = editor.page.evaluate("() => app.canvas.graph.nodes.find(n => n.comfyClass === 'CnC_Compose').size[0]")
    assert plot is not None and plot["width"] > 0.8 * width
    editor.screenshot(f"side panel {renderer} {editor.version}")


@pytest.mark.parametrize("palette", ["light", "dark"])
def test_a_light_and_a_dark_page(
    palette: str, settings: dict[str, Any], renderer: str, request: pytest.FixtureRequest, prompt: dict[str, Any]
) -> None:
    """The caption can be read on either: contrast of at least 4.5 to 1."""
    settings["Comfy.ColorPalette"] = palette
    editor: Editor = request.getfixturevalue("editor")
    editor.load(prompt)
    colours = "pad => [getComputedStyle(pad).color, getComputedStyle(pad.firstChild).backgroundColor]"
    words, ground = (luminance(colour) for colour in editor.pad.evaluate(colours))
    lighter, darker = max(words, ground), min(words, ground)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5
    assert (ground > 0.5) == (palette == "light")
    editor.screenshot(f"{palette} {renderer} {editor.version}")


def test_from_pointer_up_to_the_start_of_the_run(releasing: None, editor: Editor, prompt: dict[str, Any]) -> None:
    editor.load(prompt)
    with editor.run():
        editor.command("Comfy.QueuePrompt")
    editor.page.evaluate(
        """() => {
            window.times = [];
            let up = 0;
            addEventListener('pointerup', () => { up = performance.now(); }, true);
            app.api.addEventListener('execution_start', () => times.push(performance.now() - up));
        }"""
    )
    for turn in range(10):
        with editor.run():
            editor.drag_slider("lambda_fg", 0.5, (0.2, 0.8)[turn % 2])
    times = editor.page.evaluate("() => times")
    median = statistics.median(times)
    print(f"\n{editor.version}: pointer-up to execution_start {median:.0f} ms, median of {len(times)}")
    assert len(times) == 10 and median <= LATENCY


def test_loading_the_page_takes_no_longer(editor: Editor) -> None:
    """What the host waits for is our one script, by itself and without a cache; the rest comes when the page stands."""
    tools = editor.context.new_cdp_session(editor.page)
    tools.send("Network.enable")
    tools.send("Network.setCacheDisabled", {"cacheDisabled": True})
    spent = []
    for _ in range(LOADS):
        editor.open()
        (script, *others) = editor.page.evaluate(
            f"""() => performance.getEntriesByType('resource').filter(one => one.name.includes('{OURS}'))
                .map(one => [one.name, one.startTime, one.responseEnd]).sort((one, other) => one[1] - other[1])"""
        )
        assert script[0].endswith("compose_and_conquer.js") and others
        spent.append(script[2] - script[1])
    median = statistics.median(spent)
    print(f"\n{editor.version}: our script takes {median:.0f} ms of the page's load, median of {LOADS}")
    assert 0 < median <= LOAD


def luminance(colour: str) -> float:
    """Relative luminance, in [0, 1], of a CSS colour rgb(r, g, b); WCAG's definition."""
    red, green, blue = (float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3])
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _values(workflow: dict[str, Any]) -> dict[str, Any]:
    return {str(node["id"]): node.get("widgets_values") or None for node in workflow["nodes"]}
