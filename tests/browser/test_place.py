"""The handles on the picture of Place Layer: what they set, and that they show what the node makes."""

from __future__ import annotations

import io
import urllib.parse
import urllib.request
from typing import Any

import numpy as np
import pytest
from PIL import Image

from devtools.server import Server
from devtools.workflow import Workflow

from .editor import Editor

pytestmark = pytest.mark.slow

NODE = "CnC_PlaceLayer"
STAGE = ".cnc-place:visible .cnc-place-stage"


@pytest.fixture(scope="module")
def prompt(server: Server) -> dict[str, Any]:
    """The cone over a large picture, and the mask of where it came to lie."""
    with Image.open(server.input / "cube.png") as small:
        small.resize((1280, 960)).save(server.input / "wide.png")
    flow = Workflow(server.object_info())
    cone = flow.add("LoadImage", image="cone.png")
    mask = flow.add("CnC_SalientMask", image=cone.out("IMAGE"), estimator="mini")
    behind = flow.add("LoadImage", image="wide.png")
    placed = flow.add(NODE, background=behind.out("IMAGE"), foreground=cone.out("IMAGE"), mask=mask.out(), scale=0.8)
    flow.add("PreviewImage", images=flow.add("MaskToImage", mask=placed.out("mask")).out())
    return flow.prompt


def values(editor: Editor) -> dict[str, Any]:
    names = ["x", "y", "scale", "rotation", "flip"]
    return dict(zip(names, editor.widgets(NODE, names), strict=True))


def drag(editor: Editor, part: str, across: float, down: float) -> None:
    """Drag the middle of a part by shares of the stage's width and height."""
    stage = editor.page.locator(STAGE).first.bounding_box()
    box = editor.page.locator(f".cnc-place:visible {part}").first.bounding_box()
    assert stage and box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    editor.page.mouse.move(x, y)
    editor.page.mouse.down()
    editor.page.mouse.move(x + across * stage["width"], y + down * stage["height"], steps=5)
    editor.page.mouse.up()


def ran(editor: Editor) -> None:
    with editor.run():
        editor.command("Comfy.QueuePrompt")
    editor.page.locator(".cnc-place.cnc-known:visible").wait_for()
    loaded = "() => [...document.querySelectorAll('.cnc-place img')].every(one => one.complete && one.naturalWidth)"
    editor.page.wait_for_function(loaded)
    editor.settle()


def lies(editor: Editor) -> list[float]:
    """Left, top, right and bottom of the cut-out's box on the page, in shares of the stage."""
    stage = editor.page.locator(STAGE).first.bounding_box()
    box = editor.page.locator(".cnc-place:visible .cnc-place-box").first.bounding_box()
    assert stage and box
    left, top = (box["x"] - stage["x"]) / stage["width"], (box["y"] - stage["y"]) / stage["height"]
    return [left, top, left + box["width"] / stage["width"], top + box["height"] / stage["height"]]


def made(editor: Editor) -> list[float]:
    """The same of the mask that the server made last."""
    file = next(
        data["output"]["images"][0]
        for kind, data in reversed(editor.heard)
        if kind == "executed" and "cnc_title" not in data["output"]
    )
    with urllib.request.urlopen(f"{editor.server.url}/view?{urllib.parse.urlencode(file)}", timeout=30) as reply:
        mask = np.asarray(Image.open(io.BytesIO(reply.read())).convert("L")) > 127
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return [columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height]


def test_dragging_moves_scales_and_turns(renderer: str, editor: Editor, prompt: dict[str, Any]) -> None:
    """And the box on the page is where the node puts the object."""
    editor.load(prompt, NODE)
    ran(editor)
    np.testing.assert_allclose(lies(editor), made(editor), atol=0.02)
    drag(editor, ".cnc-place-box", 0.2, -0.1)
    now = values(editor)
    assert now["x"] == pytest.approx(0.7, abs=0.02) and now["y"] == pytest.approx(0.4, abs=0.02)
    assert (now["scale"], now["rotation"]) == (0.8, 0)
    left, top, right, bottom = lies(editor)
    drag(editor, ".cnc-se", 0.25 * (right - left), 0.25 * (bottom - top))
    now = values(editor)
    assert now["scale"] == pytest.approx(1.2, abs=0.05)
    editor.screenshot(f"place {renderer} {editor.version}")
    ran(editor)
    np.testing.assert_allclose(lies(editor), made(editor), atol=0.02)
    drag(editor, ".cnc-place-knob", 0.3, 0.3)
    assert 20 < values(editor)["rotation"] < 160
    assert {name: value for name, value in values(editor).items() if name in ("x", "y", "scale")} == {
        name: now[name] for name in ("x", "y", "scale")
    }
    editor.screenshot(f"place turned {renderer} {editor.version}")
    editor.page.locator(STAGE).first.dblclick()
    assert values(editor) == {"x": 0.5, "y": 0.5, "scale": 1, "rotation": 0, "flip": "none"}


def test_the_keyboard_does_the_same(editor: Editor, prompt: dict[str, Any]) -> None:
    editor.load(prompt, NODE)
    place = editor.page.get_by_role("application", name="Place of the object")
    place.focus()
    for key, name, wanted in (
        ("ArrowRight", "x", 0.51),
        ("Shift+ArrowLeft", "x", 0.509),
        ("ArrowUp", "y", 0.49),
        ("Shift+ArrowDown", "y", 0.491),
        ("+", "scale", 0.88),
        ("-", "scale", 0.8),
        (".", "rotation", 5),
        (",", "rotation", 0),
    ):
        place.press(key)
        assert values(editor)[name] == pytest.approx(wanted), key
    caption = editor.page.locator(".cnc-place-caption:visible").first
    assert caption.inner_text() == "x 0.51, y 0.49, scale 0.80, 0\N{DEGREE SIGN}"
    assert place.get_attribute("aria-describedby") == caption.get_attribute("id")
    place.press("Enter")
    assert values(editor) == {"x": 0.5, "y": 0.5, "scale": 1, "rotation": 0, "flip": "none"}


KEYS = (
    ("Equal", "=", "+", "scale", 1.1, 1.02),
    ("NumpadAdd", "+", "+", "scale", 1.1, 1.02),
    ("BracketRight", "+", "*", "scale", 1.1, 1.02),  # German
    ("Minus", "+", "?", "scale", 1.1, 1.02),  # Swedish
    ("Minus", "-", "_", "scale", 1 / 1.1, 1 / 1.02),
    ("Minus", "-", "=", "scale", 1 / 1.1, 1 / 1.02),  # Japanese
    ("Slash", "-", "_", "scale", 1 / 1.1, 1 / 1.02),  # German
    ("Comma", ",", ";", "rotation", -5, -0.5),  # German
    ("Period", ".", ">", "rotation", 5, 0.5),
    ("Digit8", "8", "*", "scale", 1, 1),
    ("BracketRight", "]", "}", "scale", 1, 1),
    ("Minus", "\N{LATIN SMALL LETTER SHARP S}", "?", "scale", 1, 1),  # German
    ("Semicolon", ";", "+", "scale", 1, 1.1),  # Japanese: plus itself needs Shift
)
"""Where a key is, what it gives without Shift and with it, and what they do to a value."""


def test_shift_makes_fine_steps_on_every_keyboard(editor: Editor, prompt: dict[str, Any]) -> None:
    """Whatever character a key gives with Shift; keys that mean something else do nothing."""
    editor.load(prompt, NODE)
    place = editor.page.get_by_role("application", name="Place of the object")
    for key, name, wanted in (("Shift+Minus", "scale", 0.98), ("Shift+Equal", "scale", 1.02)):
        place.press("Enter")
        place.press(key)
        assert values(editor)[name] == pytest.approx(wanted), key
    for code, plain, shifted, name, coarse, fine in KEYS:
        for key, shift, change in ((plain, False, coarse), (shifted, True, fine)):
            place.press("Enter")
            place.dispatch_event("keydown", {"code": code, "key": key, "shiftKey": shift})
            assert values(editor)[name] == pytest.approx(change, abs=0.0051), (code, key)


def test_what_comes_over_a_link_stays(editor: Editor, prompt: dict[str, Any]) -> None:
    """A value from another node is shown as linked and not moved; the others are."""
    placed = next(key for key, node in prompt.items() if node["class_type"] == NODE)
    linked = {
        **prompt,
        "20": {"class_type": "PrimitiveFloat", "inputs": {"value": 0.25}},
        placed: {"class_type": NODE, "inputs": {**prompt[placed]["inputs"], "x": ["20", 0]}},
    }
    editor.load(linked, NODE)
    before = values(editor)
    drag(editor, ".cnc-place-box", 0.1, 0.1)
    now = values(editor)
    assert now["x"] == before["x"] and now["y"] == pytest.approx(before["y"] + 0.1, abs=0.02)
    assert "linked: x" in editor.page.locator(".cnc-place-caption:visible").first.inner_text()
    assert editor.api_format()[placed]["inputs"]["x"] == ["20", 0]


def test_in_a_subgraph_and_the_same_without_scripts(renderer: str, editor: Editor, prompt: dict[str, Any]) -> None:
    editor.load(prompt, NODE)
    # Elsewhere in each renderer: the host says nothing of a node that is at hand from a run before.
    drag(editor, ".cnc-place-box", 0.2, 0.1 if renderer == "Vue nodes" else 0.15)
    moved = values(editor)
    plain = Editor(editor.context, editor.server, scripts=False)
    plain.open_workflow(editor.workflow())
    assert plain.page.locator(".cnc-place").count() == 0
    assert plain.api_format() == editor.api_format() and values(plain) == moved
    plain.page.close()
    editor.put_into_subgraph(NODE)
    ran(editor)
    np.testing.assert_allclose(lies(editor), made(editor), atol=0.02)
    drag(editor, ".cnc-place-box", -0.2, 0)
    assert values(editor)["x"] == pytest.approx(moved["x"] - 0.2, abs=0.02)


def test_a_reload_finds_the_pictures(editor: Editor, prompt: dict[str, Any]) -> None:
    """And another workflow, whose nodes have the same ids, does not."""
    editor.load(prompt, NODE)
    drag(editor, ".cnc-place-box", 0.12, -0.12)
    ran(editor)
    before = lies(editor)
    draft = ",".join(str(values(editor)[name]) for name in ("x", "y"))
    editor.wait_for_draft(draft)
    editor.open()
    editor.page.locator(".cnc-place.cnc-known").wait_for(state="attached")
    editor.look_at(NODE)
    np.testing.assert_allclose(lies(editor), before, atol=0.01)
    editor.load(prompt, NODE)
    assert editor.page.locator(".cnc-place:visible").count() == 1
    assert editor.page.locator(".cnc-place.cnc-known:visible").count() == 0


def test_its_pictures_are_small_on_the_wire(editor: Editor, prompt: dict[str, Any]) -> None:
    editor.load(prompt, NODE)
    editor.page.get_by_role("application", name="Place of the object").press("ArrowUp")
    ran(editor)
    measure = "all => all.map(one => [one.naturalWidth, one.naturalHeight])"
    sizes = editor.page.locator(".cnc-place img").evaluate_all(measure)
    print(f"\n{editor.version}: pictures with handles, in pixels: {sizes}")
    assert max(max(size) for size in sizes) <= 512 and [512, 384] in sizes
