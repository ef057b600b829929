"""The blueprints that are drawn: subgraphs that the host offers among its nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .sheet import Sheet

CATEGORY = "Compose and Conquer"


def split_layers() -> Sheet:
    """A picture into its two layers, with a depth map of each."""
    name = "Split an Image into Layers"
    inside = Sheet(name)
    with inside.group(""):
        salient = inside.node("CnC_SalientMask", estimator="mini")
        inside.column()
        split = inside.node("CnC_SplitLayers", mask=salient["mask"])
        inside.column()
        front = inside.node("CnC_DepthMap", "Depth of the object", mask=salient["mask"], version="v2", estimator="mini")
        back = inside.node(
            "CnC_DepthMap", "Depth of the background", image=split["background"], version="v1", estimator="mini"
        )
    sheet = Sheet(name)
    sheet.subgraph(
        inside,
        inputs={
            "image": [salient["image"], split["image"], front["image"]],
            "saliency": salient["estimator"],
            "threshold": salient["threshold"],
            "inpainter": split["inpainter"],
            "depth": [front["estimator"], back["estimator"]],
        },
        outputs={
            "foreground": split["foreground"],
            "background": split["background"],
            "mask": split["mask"],
            "fg_depth": front["depth"],
            "bg_depth": back["depth"],
        },
        category=f"{CATEGORY}/layers",
        description="The object, the background without it, the mask between them, and a depth map of each layer.",
    )
    with sheet.group(""):
        sheet.node(name)
    return sheet


def compose_two_layers() -> Sheet:
    """Two pictures and two exemplars into a latent, every part of the method in view."""
    name = "Compose Two Layers"
    inside = Sheet(name)
    with inside.group(""):
        salient = inside.node("CnC_SalientMask", estimator="mini")
        front = inside.node("CnC_DepthMap", "Depth of the object", mask=salient["mask"], version="v2", estimator="mini")
        back = inside.node("CnC_DepthMap", "Depth of the background", version="v1", estimator="mini")
        inside.column()
        styles = [
            inside.node("CLIPVisionEncode", title, crop="center")
            for title in ("Foreground's exemplar", "Background's exemplar")
        ]
        outputs: dict[str, Any] = {
            slot: style["CLIP_VISION_OUTPUT"] for slot, style in zip(("fg_style", "bg_style"), styles, strict=True)
        }
        tokens = inside.node("CnC_ApplyGlobalFuser", **outputs)
        inside.column()
        guided = inside.node("CnC_SoftGuidance", tokens=tokens["tokens"], mask=salient["mask"])
        local = inside.node("CnC_ApplyLocalFuser", fg_depth=front["depth"], bg_depth=back["depth"])
    sheet = Sheet(name)
    sheet.subgraph(
        inside,
        inputs={
            "model": guided["model"],
            "positive": local["positive"],
            "negative": local["negative"],
            "fusers": [tokens["fusers"], local["fusers"]],
            "clip_vision": [style["clip_vision"] for style in styles],
            "foreground": [salient["image"], front["image"]],
            "background": back["image"],
            "fg_style": styles[0]["image"],
            "bg_style": styles[1]["image"],
            "saliency": salient["estimator"],
            "depth": [front["estimator"], back["estimator"]],
            "lambda_fg": guided["lambda_fg"],
            "lambda_bg": guided["lambda_bg"],
            "strength": local["strength"],
        },
        outputs={
            "model": guided["model"],
            "positive": local["positive"],
            "negative": local["negative"],
            "mask": salient["mask"],
        },
        category=CATEGORY,
        description="What Compose and Conquer does in one node, with every part in view: mask, depth of each layer, "
        "exemplars, soft guidance. Between pictures and sampler.",
    )
    with sheet.group(""):
        sheet.node(name)
    return sheet


BLUEPRINTS: tuple[Callable[[], Sheet], ...] = (split_layers, compose_two_layers)
"""All that are drawn. `Inpaint Background with Stable Diffusion` is not among them."""
