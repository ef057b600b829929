"""What docs/choosing.md shows, docs/pictures/NAME.jpg, made by make.py: one input turned, all else left."""

from __future__ import annotations

from typing import Any

from ..workflow import Workflow
from .pictured import PROMPT, Link, Mini, Page, Shown, depths, found, picture


def background_depth(flow: Workflow) -> Shown:
    """What is left of the object in the background's depth, and what comes of it."""
    mini = Mini.of(flow)
    image = picture(flow, "cone")
    mask = found(flow, image)
    placed = flow.add("CnC_PlaceLayer", background=image, foreground=image, mask=mask, x=0.62, y=0.5)
    fg = flow.add("CnC_DepthMap", image=placed.out(0), mask=placed.out(1), version="v2").out()
    backgrounds = {
        "object left in": image,
        "dilation 0": flow.add("CnC_InpaintBackground", image=image, mask=mask, dilation=0).out(),
        "dilation 50": flow.add("CnC_InpaintBackground", image=image, mask=mask, dilation=50).out(),
    }
    behind = {name: flow.add("CnC_DepthMap", image=one, version="v1").out() for name, one in backgrounds.items()}
    words = "yellow cone on grass , blue sky , noon"
    made = [("result", mini.composed((placed.out(1), fg, bg), words=words)) for bg in behind.values()]
    return [*((name, bg) for name, bg in behind.items()), *made]


def foreground_depth(flow: Workflow) -> Shown:
    """The three versions of the foreground's depth."""
    mini = Mini.of(flow)
    mask, _, bg = depths(flow)
    maps = {
        version: flow.add("CnC_DepthMap", image=picture(flow, "cone"), mask=mask, version=version).out()
        for version in ("v2", "v3", "v1")
    }
    made = [("result", mini.composed((mask, fg, bg), words=PROMPT)) for fg in maps.values()]
    return [*maps.items(), *made]


def _turned(flow: Workflow, name: str, values: tuple[float, ...], exemplars: bool = False) -> Shown:
    """Pictures with one input of Apply Local Fuser, or of Soft Guidance, turned."""
    mini, layers = Mini.of(flow), depths(flow)
    styles = {style: mini.style(style) for style in ("fg_style", "bg_style")} if exemplars else {}
    words = "" if exemplars else PROMPT

    def made(value: float) -> Link:
        guidance, local = ({name: value}, {}) if exemplars else ({}, {name: value})
        return mini.composed(layers, styles, words=words, guidance=guidance, local=local)

    return [(f"{name} {value:g}", made(value)) for value in values]


def masks(flow: Workflow) -> Shown:
    """The same exemplars under masks that are too small, right, too large, and all white."""
    mini = Mini.of(flow)
    mask, fg, bg = depths(flow)
    styles = {style: mini.style(style) for style in ("fg_style", "bg_style")}
    given = {
        "shrunk by 14": flow.add("CnC_RefineMask", mask=mask, grow=-14).out(),
        "as found": mask,
        "grown by 14": flow.add("CnC_RefineMask", mask=mask, grow=14).out(),
        "all white": flow.add("SolidMask", value=1.0, width=128, height=128).out(),
    }
    return [*given.items(), *(("result", mini.composed((one, fg, bg), styles)) for one in given.values())]


def words_against_exemplars(flow: Workflow) -> Shown:
    """A prompt that says something else than the exemplars, and what helps."""
    mini, layers = Mini.of(flow), depths(flow)
    styles = {style: mini.style(style) for style in ("fg_style", "bg_style")}

    def made(words: str, **guidance: Any) -> Link:
        return mini.composed(layers, styles, words=words, guidance=guidance)

    return [
        ("no words", made("")),
        ("other words", made(PROMPT)),
        ("both at 2", made(PROMPT, lambda_fg=2.0, lambda_bg=2.0)),
        ("apply_to positive", made(PROMPT, apply_to="positive")),
    ]


PAGES = {
    "background_depth": Page(background_depth, 3),
    "foreground_depth": Page(foreground_depth, 3),
    "strength": Page(lambda flow: _turned(flow, "strength", (0.0, 0.5, 1.0, 1.5)), 4),
    "end_percent": Page(lambda flow: _turned(flow, "end_percent", (0.2, 0.4, 0.6, 1.0)), 4),
    "depth_scale": Page(lambda flow: _turned(flow, "fg_depth_scale", (0.2, 0.4, 1.0, 1.5)), 4),
    "lambda_fg": Page(lambda flow: _turned(flow, "lambda_fg", (0.0, 0.5, 1.0, 2.0), exemplars=True), 4),
    "lambda_bg": Page(lambda flow: _turned(flow, "lambda_bg", (0.0, 0.5, 1.0, 2.0), exemplars=True), 4),
    "masks": Page(masks, 4),
    "words": Page(words_against_exemplars, 4),
}
