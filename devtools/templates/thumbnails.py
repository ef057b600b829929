"""Each template run on a real server, CnC-Mini in Stable Diffusion's place, and its thumbnail made of the result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from ..demo import PICTURES, opened
from ..environment import say
from ..saved import Prompt, flat
from ..server import Server
from . import stand_ins
from .drawing import FOLDER, provide

SIDE, SMALL, EDGE = 512, 128, 8
"""Pixels: the thumbnail, a picture that went in, the gap between pictures."""
GROUND = (38, 38, 38)


def make(comfy: Path, workflows: Sequence[Path]) -> None:
    """Run each and write the thumbnail beside it, under its name with .jpg."""
    server = Server(comfy)
    stand_ins.provide(server)
    with server:
        provide(server)
        for path in workflows:
            prompt = stand_ins.stand_ins(flat(json.loads(path.read_text(encoding="utf-8"))))
            run = server.run(prompt)
            if run.error:
                raise RuntimeError(f"{path.stem}: {run.error}")
            results = [
                opened(data)
                for key, node in prompt.items()
                if node["class_type"] == "SaveImage"
                for data in run.images(key)
            ]
            given = [Image.open(PICTURES / name).convert("RGB") for name in _loaded(prompt)]
            thumbnail(results, given).save(path.with_suffix(".jpg"), quality=88, optimize=True)
            say(f"{path.stem}: {run.seconds:.1f} s")


def _loaded(prompt: Prompt) -> list[str]:
    """The names in PICTURES of what a workflow loads."""
    names = []
    for node in prompt.values():
        if node["class_type"] == "LoadImage":
            names.append(node["inputs"]["image"].removeprefix("cnc_"))
        elif node["class_type"] == "LoadImageDataSetFromFolder":
            names.extend(f"{name}.png" for name in FOLDER)
    return names


def thumbnail(results: Sequence[Image.Image], given: Sequence[Image.Image]) -> Image.Image:
    """The results side by side in a square, and along its lower edge what went in, four at the most."""
    page = Image.new("RGB", (SIDE, SIDE), GROUND)
    width = SIDE // len(results)
    for index, result in enumerate(results):
        _put(page, result, (index * width, 0), (width, SIDE - SMALL))
    for index, picture in enumerate(given[:4]):
        _put(page, picture, (index * SMALL, SIDE - SMALL), (SMALL, SMALL))
    return page


def _put(page: Image.Image, picture: Image.Image, corner: tuple[int, int], place: tuple[int, int]) -> None:
    """A picture in the middle of a place, as large as fits."""
    room = place[0] - EDGE, place[1] - EDGE
    fitted = ImageOps.contain(picture, room, Image.Resampling.LANCZOS)
    page.paste(fitted, (corner[0] + (place[0] - fitted.width) // 2, corner[1] + (place[1] - fitted.height) // 2))
