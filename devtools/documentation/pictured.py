"""Run workflows about CnC-Mini on a real ComfyUI and lay what they make out as one picture, for the documentation."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..demo import PICTURES, SCENES, SIZE, opened
from ..environment import ROOT
from ..server import Server
from ..workflow import Node, Workflow

CELL, MARGIN, TEXT = 192, 8, 17
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#999999")
SEED, STEPS, CFG = 5, 20, 1.5
FUSERS = "cnc_mini.safetensors"
PROMPT = SCENES[0].prompt

Link = list[Any]
Shown = list[tuple[str, Link]]
"""Captions and the outputs, IMAGE or MASK, that stand below them."""


@dataclass(frozen=True)
class Page:
    """One picture of the documentation.

    shown: builds the workflow and says what of it is shown. columns: how many pictures stand side by side.
    drawn: what is drawn onto each picture, by its caption.
    """

    shown: Callable[[Workflow], Shown]
    columns: int
    drawn: Callable[[str, Image.Image], Image.Image] | None = None


@dataclass(frozen=True)
class Mini:
    """A workflow that has CnC-Mini and a prompt."""

    flow: Workflow
    loaded: Node

    @classmethod
    def of(cls, flow: Workflow) -> Mini:
        """Load it."""
        return cls(flow, flow.add("CnC_LoadMini"))

    def text(self, words: str) -> Link:
        """The words as conditioning."""
        return self.flow.add("CLIPTextEncode", clip=self.loaded.out("clip"), text=words).out()

    def style(self, name: str) -> Link:
        """A picture of the demo as an exemplar."""
        encoder = self.loaded.out("clip_vision")
        return self.flow.add(
            "CLIPVisionEncode", clip_vision=encoder, image=picture(self.flow, name), crop="center"
        ).out()

    def sampled(
        self,
        positive: Link,
        negative: Link | None = None,
        model: Link | None = None,
        *,
        seed: int = SEED,
        cfg: float = CFG,
    ) -> Link:
        """The picture that the sampler makes."""
        latent = self.flow.add("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=1)
        sampler = self.flow.add(
            "KSampler",
            model=model or self.loaded.out("model"),
            positive=positive,
            negative=negative or self.text(""),
            latent_image=latent.out(),
            seed=seed,
            steps=STEPS,
            cfg=cfg,
            sampler_name="ddim",
            scheduler="ddim_uniform",
            denoise=1.0,
        )
        return self.flow.add("VAEDecode", samples=sampler.out(), vae=self.loaded.out("vae")).out()

    def composed(
        self,
        layers: tuple[Link, Link, Link],
        styles: Mapping[str, Link] | None = None,
        *,
        words: str = "",
        cfg: float = CFG,
        guidance: Mapping[str, Any] | None = None,
        local: Mapping[str, Any] | None = None,
    ) -> Link:
        """The picture made of mask, fg_depth and bg_depth, with exemplars, and other inputs of the two nodes."""
        mask, fg_depth, bg_depth = layers
        fusers, model = self.loaded.out("fusers"), self.loaded.out("model")
        if styles:
            tokens = self.flow.add("CnC_ApplyGlobalFuser", fusers=fusers, **styles).out()
            model = self.flow.add("CnC_SoftGuidance", model=model, tokens=tokens, mask=mask, **(guidance or {})).out()
        steered = self.flow.add(
            "CnC_ApplyLocalFuser",
            positive=self.text(words),
            negative=self.text(""),
            fusers=fusers,
            fg_depth=fg_depth,
            bg_depth=bg_depth,
            **(local or {}),
        )
        return self.sampled(steered.out(0), steered.out(1), model, cfg=cfg)


def picture(flow: Workflow, name: str) -> Link:
    """A picture of the demo."""
    return flow.add("LoadImage", image=f"{name}.png").out()


def found(flow: Workflow, image: Link) -> Link:
    """The mask of what stands out."""
    return flow.add("CnC_SalientMask", image=image).out()


def depths(flow: Workflow, front: str = "cone", back: str = "cube") -> tuple[Link, Link, Link]:
    """The front object's mask and depth, and the depth of the picture behind it."""
    image = picture(flow, front)
    mask = found(flow, image)
    fg = flow.add("CnC_DepthMap", image=image, mask=mask, version="v2").out()
    bg = flow.add("CnC_DepthMap", image=picture(flow, back), version="v1").out()
    return mask, fg, bg


def make(server: Server, page: Page) -> Image.Image:
    """Run the workflow and lay out what is shown. Raises RuntimeError where it fails."""
    info = server.object_info()
    flow = Workflow(info)
    previews = []
    for caption, link in page.shown(flow):
        kind = info[flow.prompt[link[0]]["class_type"]]["output"][link[1]]
        image = flow.add("MaskToImage", mask=link).out() if kind == "MASK" else link
        previews.append((caption, flow.add("PreviewImage", images=image).id))
    run = server.run(flow.prompt)
    if run.error:
        raise RuntimeError(run.error)
    cells = [(caption, painted([opened(data) for data in run.images(preview)])) for caption, preview in previews]
    if page.drawn is not None:
        cells = [(caption, page.drawn(caption, image)) for caption, image in cells]
    return laid_out(cells, page.columns)


def painted(images: list[Image.Image]) -> Image.Image:
    """One picture of a list of masks, each in a colour of its own; a single picture as it is."""
    if len(images) == 1:
        return images[0]
    sheet = Image.new("RGB", images[0].size)
    for image, colour in zip(images, itertools.cycle(COLOURS), strict=False):
        sheet.paste(Image.new("RGB", image.size, colour), mask=image.convert("L"))
    return sheet


def laid_out(cells: list[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """One picture of all, each under its caption."""
    font = ImageFont.load_default(TEXT)
    step, height = CELL + MARGIN, CELL + TEXT + 2 * MARGIN
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (MARGIN + step * columns, height * rows + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (caption, image) in enumerate(cells):
        left, top = MARGIN + step * (place % columns), height * (place // columns)
        draw.text((left, top + MARGIN // 2), caption, fill="black", font=font)
        fitted = ImageOps.contain(image, (CELL, CELL), Image.Resampling.BICUBIC)
        sheet.paste(fitted, (left, top + TEXT + 2 * MARGIN))
    return sheet


def serve(comfy: Path) -> Server:
    """A server, not yet started, with the demo's pictures and the Mini's fusers where a user puts a file of fusers."""
    server = Server(comfy)
    for path in PICTURES.glob("*.png"):
        shutil.copy(path, server.input)
    (server.models / "cnc").mkdir()
    shutil.copy(ROOT / "models" / "mini" / "fusers.safetensors", server.models / "cnc" / FUSERS)
    return server
