"""Workflows with layers, in the API format, for CnC-Mini on a real server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Prompt = dict[str, dict[str, Any]]

PLAIN = {
    "visible": True,
    "z": 0,
    "nearer": 0.0,
    "x": 0.0,
    "y": 0.0,
    "scale": 1.0,
    "rotation": 0.0,
    "flip": "none",
    "lambda": 1.0,
    "text_weight": 4.0,
    "strength": 1.0,
    "start_percent": 0.0,
    "end_percent": 1.0,
}


_FILES = ("picture", "exemplar", "depth", "mask")


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def sampled(model: str, steps: int = 2) -> Prompt:
    """CnC-Mini with the prompt, and its sampler behind the outputs of the node called ``model``."""
    return {
        "mini": node("CnC_LoadMini"),
        "positive": node("CLIPTextEncode", text="grass, blue sky, noon", clip=["mini", 1]),
        "negative": node("CLIPTextEncode", text="", clip=["mini", 1]),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "sampler": node(
            "KSampler",
            model=[model, 0],
            positive=[model, 1],
            negative=[model, 2],
            latent_image=["latent", 0],
            seed=3,
            steps=steps,
            cfg=2.5,
            sampler_name="ddim",
            scheduler="ddim_uniform",
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["mini", 2]),
        "picture": node("PreviewImage", images=["decode", 0]),
        "save": node("SaveLatent", samples=["sampler", 0], filename_prefix="latent"),
    }


def layered(layers: Iterable[tuple[str, dict[str, Any]]], steps: int = 2, **compose: Any) -> Prompt:
    """Compose Layers over layers, the farthest first, each a name and inputs of Layer that are not at their default.

    A text given as words, and a picture or exemplar given as a file's name, get their own nodes. compose: inputs of
    Compose Layers; None unplugs one.
    """
    prompt = sampled("compose", steps)
    behind: dict[str, Any] = {}
    for name, given in layers:
        given = {key: value for key, value in given.items() if value is not None}
        inputs = {**PLAIN, "name": name, **given}
        for key, value in given.items():
            if key in _FILES and isinstance(value, str):
                loads = ("LoadImageMask", {"channel": "red"}) if key == "mask" else ("LoadImage", {})
                prompt[f"{key} of {name}"] = node(loads[0], image=value, **loads[1])
                inputs[key] = [f"{key} of {name}", 0]
            elif key == "text" and isinstance(value, str):
                prompt[f"text of {name}"] = node("CLIPTextEncode", text=value, clip=["mini", 1])
                inputs[key] = [f"text of {name}", 0]
        prompt[name] = node("CnC_Layer", **inputs, **behind)
        behind = {"layers": [name, 0]}
    given = {
        "model": ["mini", 0],
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "saliency": "mini",
        "depth": "mini",
        "strength": 1.0,
        "fusers": ["mini", 4],
        "clip_vision": ["mini", 3],
        **behind,
        **compose,
    }
    prompt["compose"] = node("CnC_ComposeLayers", **{name: value for name, value in given.items() if value is not None})
    return prompt


SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("meadow", {"picture": "meadow.png"}),
    ("cone", {"picture": "cone.png", "x": 0.16, "y": 0.02, "scale": 1.25, "text": "a yellow cone"}),
    ("cube", {"picture": "cube.png", "x": -0.12, "y": 0.03, "text": "a blue cube"}),
    ("ball", {"picture": "fg_style.png", "x": -0.1, "y": 0.12, "scale": 0.8, "text": "a red sphere"}),
]
"""Three shapes one in front of the other before a meadow, the farthest first, each with its words."""
