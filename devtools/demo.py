"""The demo: a real ComfyUI composes two pictures in both orders; everything it saw goes on one sheet.

    python -m devtools.demo PATH_TO_COMFYUI [--cpu] [--steps 20] [--seed 5]
    python -m devtools.demo PATH_TO_COMFYUI --picture FILE [--background FILE] [--prompt TEXT] [--models FOLDER]

The model is CnC-Mini, so nothing is downloaded and no GPU is needed. Three runs: the cone in front of the
cube, the same two pictures with their roles exchanged, and the first again with an exemplar for each layer.
With --picture it is one run on a picture of yours (devtools/demo_picture.py).
"""

from __future__ import annotations

import argparse
import io
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageOps

from .environment import ROOT, SetupError, say
from .server import Server
from .workflow import Workflow

PICTURES = ROOT / "web" / "pictures"
OUTPUT = ROOT / "demo_output"
SIZE = 128  # what the Mini was trained at
CELL, MARGIN, CAPTION = 192, 8, 24


@dataclass(frozen=True)
class Scene:
    """What one run is given: names of pictures, and the prompt in the Mini's words."""

    title: str
    foreground: str
    background: str
    prompt: str
    fg_style: str | None = None
    bg_style: str | None = None


SCENES = (
    Scene(
        "the cone in front",
        foreground="cone",
        background="cube",
        prompt="yellow cone in front of blue cube on grass , blue sky , noon",
    ),
    Scene(
        "the same two pictures, roles exchanged",
        foreground="cube",
        background="cone",
        prompt="blue cube in front of yellow cone on grass , blue sky , noon",
    ),
    Scene(
        "the cone in front, each layer with the look of its exemplar",
        foreground="cone",
        background="cube",
        prompt="",
        fg_style="fg_style",
        bg_style="bg_style",
    ),
)
INPUTS = ("foreground", "background", "fg_style", "bg_style")
COLUMNS = (*INPUTS, "mask", "fg_depth", "bg_depth", "result")


def workflow(object_info: dict[str, Any], scene: Scene, steps: int, seed: int) -> tuple[Workflow, dict[str, str]]:
    """The scene's workflow, and the id of the node that shows each of mask, depth maps and result."""
    flow = Workflow(object_info)
    mini = flow.add("CnC_LoadMini")
    positive = flow.add("CLIPTextEncode", clip=mini.out("clip"), text=scene.prompt)
    negative = flow.add("CLIPTextEncode", clip=mini.out("clip"), text="")
    pictures = {name: flow.add("LoadImage", image=f"{file}.png").out() for name, file in _files(scene).items()}
    composed = flow.add(
        "CnC_Compose",
        **{name: mini.out(name) for name in ("model", "fusers", "clip_vision")},
        positive=positive.out(),
        negative=negative.out(),
        saliency="mini",
        depth="mini",
        **pictures,
    )
    latent = flow.add("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=1)
    sampled = flow.add(
        "KSampler",
        **{name: composed.out(name) for name in ("model", "positive", "negative")},
        latent_image=latent.out(),
        seed=seed,
        steps=steps,
        cfg=1.5,
        sampler_name="ddim",
        scheduler="ddim_uniform",
        denoise=1.0,
    )
    result = flow.add("VAEDecode", samples=sampled.out(), vae=mini.out("vae"))
    mask = flow.add("MaskToImage", mask=composed.out("mask"))
    shown = {"mask": mask.out(), "result": result.out()}
    shown |= {name: composed.out(name) for name in ("fg_depth", "bg_depth")}
    return flow, {name: flow.add("PreviewImage", images=link).id for name, link in shown.items()}


def run(comfy: Path, arguments: Sequence[str], steps: int, seed: int, output: Path = OUTPUT) -> Path:
    """Run all scenes on one server, write every picture and the sheet into `output`, return the sheet's path."""
    output.mkdir(exist_ok=True)
    say(f"starting the ComfyUI in {comfy}")
    rows = []
    with Server(comfy, extra_args=arguments) as server:
        for picture in PICTURES.glob("*.png"):
            shutil.copy(picture, server.input)
        info = server.object_info()
        for number, scene in enumerate(SCENES, start=1):
            flow, shown = workflow(info, scene, steps, seed)
            done = server.run(flow.prompt)
            if done.error:
                raise RuntimeError(f"{scene.title}: {done.error}")
            say(f"{scene.title}: {done.seconds:.1f} s")
            cells = {name: opened((PICTURES / f"{file}.png").read_bytes()) for name, file in _files(scene).items()}
            cells |= {name: opened(done.images(node_id)[0]) for name, node_id in shown.items()}
            for name, image in cells.items():
                image.save(output / f"{number}_{name}.png")
            rows.append((scene.title, cells))
    path = output / "sheet.png"
    sheet(rows).save(path)
    return path


def sheet(rows: Sequence[tuple[str, dict[str, Image.Image]]], columns: Sequence[str] = COLUMNS) -> Image.Image:
    """One picture: a row for each run, a column for each of `columns`, empty where there is nothing."""
    step = CELL + MARGIN
    width, height = MARGIN + step * len(columns), CAPTION + (step + CAPTION) * len(rows)
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    for column, name in enumerate(columns):
        draw.text((MARGIN + step * column, MARGIN), name, fill="black")
    for row, (title, cells) in enumerate(rows):
        top = CAPTION + (step + CAPTION) * row
        draw.text((MARGIN, top + MARGIN), title, fill="black")
        for name, image in cells.items():
            fitted = ImageOps.contain(image, (CELL, CELL), Image.Resampling.BICUBIC)
            page.paste(fitted, (MARGIN + step * columns.index(name), top + CAPTION))
    return page


def _files(scene: Scene) -> dict[str, str]:
    return {name: file for name in INPUTS if (file := getattr(scene, name))}


def opened(data: bytes) -> Image.Image:
    """A picture that the server sent."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def main() -> None:
    """Run the demo; what is not an option of its own goes to ComfyUI."""
    parser = argparse.ArgumentParser(prog="dev.py demo", allow_abbrev=False)
    parser.add_argument("comfy", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--picture", type=Path, help="a picture of yours instead of the three scenes")
    parser.add_argument("--background", type=Path, help="put its object in front of this one")
    parser.add_argument("--prompt", default="", help="in the Mini's words, such as: red ball on grass")
    parser.add_argument("--models", type=Path, help="a models folder; the ComfyUI's own where not given")
    options, rest = parser.parse_known_args()
    began = time.monotonic()
    if options.picture:
        from . import demo_picture

        chosen = (options.picture, options.background, options.prompt, options.steps, options.seed, options.models)
        try:
            path = demo_picture.run(options.comfy, rest, *chosen)
        except SetupError as error:
            parser.error(str(error))
    elif options.background or options.prompt or options.models:
        parser.error("--background, --prompt and --models go with --picture")
    else:
        path = run(options.comfy, rest, options.steps, options.seed)
    say(f"the demo took {time.monotonic() - began:.0f} s; look at {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
