"""Sheets drawn in the real front end, on the host's own version of it, as it saves them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..demo import PICTURES
from ..server import Server
from .chromium import ANSWER, PAGE_READY, chromium
from .sheet import Sheet

if TYPE_CHECKING:
    from playwright.sync_api import Page

FILES = (
    "checkpoints/v1-5-pruned-emaonly-fp16.safetensors",
    "checkpoints/sd-v1-5-inpainting.ckpt",
    "clip_vision/clip-vit-large-patch14.safetensors",
    "cnc/cnc_v1.ckpt",
    "controlnet/control_v11p_sd15_scribble_fp16.safetensors",
    "loras/your_lora.safetensors",
    "saliency/u2net.onnx",
    "saliency/isnet.onnx",
    "depth_estimation/dpt-large/config.json",
    "depth_estimation/Depth-Anything-V2-Small-hf/config.json",
)
"""What the templates name: here they are empty, so that the loaders list them while they are drawn."""

FOLDER = ("cone", "cube", "fg_style")
"""The pictures in the folder that one of them reads."""

DRAWING = Path(__file__).with_name("drawing.js").read_text(encoding="utf-8")
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.VueNodes.Enabled": False,
    "Comfy.Workflow.Persist": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # words on every node, however small it is shown
}


def provide(server: Server) -> None:
    """Give a server the pictures that the templates begin with."""
    folder = server.input / "cnc_pictures"
    folder.mkdir(exist_ok=True)
    for path in PICTURES.glob("*.png"):
        shutil.copy(path, server.input / f"cnc_{path.name}")
    for name in FOLDER:
        shutil.copy(PICTURES / f"{name}.png", folder)


@contextmanager
def page(comfy: Path) -> Iterator[Page]:
    """The front end, open in a browser, with all that the templates name at hand."""
    server = Server(comfy)
    for file in FILES:
        path = server.models / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}" if path.suffix == ".json" else "")
    user = server.base / "user" / "default"
    user.mkdir(parents=True)
    (user / "comfy.settings.json").write_text(json.dumps(SETTINGS))
    with server, chromium() as browser:
        provide(server)
        opened = browser.new_page(viewport={"width": 1920, "height": 1080})
        opened.goto(server.url, timeout=ANSWER)
        yield opened


def draw(opened: Page, sheet: Sheet) -> dict[str, Any]:
    """The sheet as the front end saves it; it is on the page then."""
    opened.reload(timeout=ANSWER)  # pictures of a workflow before would stay with their nodes' ids
    opened.wait_for_function(PAGE_READY, timeout=ANSWER)
    opened.evaluate("() => app.graph.clear()")
    return tidied(json.loads(opened.evaluate(DRAWING, sheet.described())))


def tidied(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """Without what says nothing of the workflow, so that drawing it again changes little."""
    kept = dict(workflow)
    kept.pop("id", None)
    kept["extra"] = {name: value for name, value in workflow.get("extra", {}).items() if name == "ds"}
    return kept
