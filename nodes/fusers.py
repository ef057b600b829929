"""Nodes that apply the fusers: depth to the conditioning, exemplars to the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from comfy_api.latest import io

from ..cnc_core.guidance import MODES, RESIZES, WEIGHT_MODES, Guidance, Mode, Region, Resize, Schedule, WeightMode
from ..cnc_core.pictures import check_image, check_mask
from .host.control import apply_local_fuser
from .host.fusers import HostFusers, exemplar_tokens
from .host.fusers import Tokens as TokenPair
from .host.guidance import with_guidance
from .host.pictures import masks, picture
from .host.previews import preview
from .host.schema import ADVANCED, schema
from .host.validation import validated
from .types import CATEGORY, IN_DEPTH, OF_STYLE, Curve, Fusers, Tokens

ABSENT = ("automatic", "left out", "zero embedding")
APPLY_TO = ("both", "positive")
_VIT_L = 768
"""Numbers of an embedding of CLIP ViT-L/14, which the released weights take."""


def percent_input(name: str, default: float, tooltip: str) -> io.Float.Input:
    """A part of the sampling."""
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.001, tooltip=tooltip)


def strength_input() -> io.Float.Input:
    """The weight of the local fuser."""
    return io.Float.Input(
        "strength",
        default=1.0,
        min=0.0,
        max=2.0,
        step=0.01,
        tooltip="Weight of the depth maps; 0 leaves the conditioning as it is.",
    )


def sampler_outputs() -> list[io.Output]:
    """What a sampler takes: model, positive and negative."""
    return [
        io.Model.Output("model_out", display_name="model", tooltip="To the sampler."),
        io.Conditioning.Output("positive_out", display_name="positive", tooltip="To the sampler."),
        io.Conditioning.Output("negative_out", display_name="negative", tooltip="To the sampler."),
    ]


def _lambda(layer: str, words: str) -> io.Float.Input:
    return io.Float.Input(
        f"lambda_{layer}",
        display_name=f"\N{GREEK SMALL LETTER LAMDA} {words}",
        default=1.0,
        min=0.0,
        max=2.0,
        step=0.05,
        display_mode=io.NumberDisplay.slider,
        tooltip=f"How strongly the {words}'s exemplar acts (\N{GREEK SMALL LETTER LAMDA}_{layer} of the "
        "paper). 0 silences its look but its tokens still take attention, as in the released model; to switch an "
        "exemplar off, unplug it.",
    )


LAMBDA_FG, LAMBDA_BG = _lambda("fg", "foreground"), _lambda("bg", "background")


class ApplyLocalFuser(io.ComfyNode):
    """Add the local fuser with its two depth maps to the conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_ApplyLocalFuser",
            display_name="Apply Local Fuser (Compose and Conquer, depth)",
            category=CATEGORY,
            description="Places things in depth: two depth maps, one of the foreground object and one of the "
            "background behind it, steer the picture without ever being fused into one. Works beside "
            "ControlNets, before or after them.",
            search_aliases=["compose and conquer", "cnc depth", "two depth maps", "depth control", "layers", *IN_DEPTH],
            inputs=[
                io.Conditioning.Input("positive", tooltip="The positive prompt."),
                io.Conditioning.Input(
                    "negative",
                    tooltip="The negative prompt. It gets the depth maps as well, as in training; to steer the "
                    "positive alone, take the sampler's negative from before this node.",
                ),
                Fusers.Input("fusers", tooltip="From Load Fusers; the file must hold a local fuser."),
                strength_input(),
                percent_input(
                    "start_percent", 0.0, "When the depth maps begin to act; 0 is the start of the sampling."
                ),
                percent_input("end_percent", 1.0, "When they stop; 1 is the end."),
                io.Float.Input(
                    "fg_depth_scale",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Multiplies the foreground depth map's values (clamped to 0..1): moves the object "
                    "nearer or farther. The depth controller of the authors' demo; not a strength.",
                ),
                io.Float.Input(
                    "bg_depth_scale",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="The same for the background depth map.",
                ),
                io.Image.Input(
                    "fg_depth",
                    optional=True,
                    tooltip="Depth of the foreground object, near is bright, black around it. Without one the "
                    "foreground is left to the text.",
                ),
                io.Image.Input(
                    "bg_depth",
                    optional=True,
                    tooltip="Depth of the background without the object, near is bright. Without one the "
                    "background is left to the text.",
                ),
            ],
            outputs=sampler_outputs()[1:],
        )

    @classmethod
    @validated
    def execute(
        cls,
        positive: Any,
        negative: Any,
        fusers: HostFusers,
        strength: float,
        start_percent: float,
        end_percent: float,
        fg_depth_scale: float,
        bg_depth_scale: float,
        fg_depth: torch.Tensor | None = None,
        bg_depth: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        channels = fusers.config.local_channels
        maps = []
        for name, depth, scale in (("fg_depth", fg_depth, fg_depth_scale), ("bg_depth", bg_depth, bg_depth_scale)):
            if depth is not None:
                check_image(depth := picture(depth, name), name=name)
                depth = (depth.movedim(-1, 1)[:, :channels] * scale).clamp(0, 1)
            maps.append(depth)
        percents = (start_percent, end_percent)
        return io.NodeOutput(*apply_local_fuser(positive, negative, fusers, maps, strength, percents))


def embedding(name: str, style: Any, fusers: HostFusers) -> torch.Tensor | None:
    """The (B, D) embedding of what socket `name` got. Raises ValueError where another CLIP vision model made it."""
    if style is None:
        return None
    embed: torch.Tensor = style["image_embeds"]
    width = fusers.config.context_dim
    if embed.shape[-1] != width:
        model = "CLIP vision ViT-L/14 (clip-vit-large-patch14)" if width == _VIT_L else "the one they were trained with"
        raise ValueError(
            f"{name} comes from a CLIP vision model whose embeddings have {embed.shape[-1]} numbers, and {fusers.name} "
            f"takes {width}: load {model} and connect it to the CLIP Vision Encode of {name}, or to clip_vision of "
            f"Compose and Conquer"
        )
    return embed


class ApplyGlobalFuser(io.ComfyNode):
    """Turn exemplars into tokens."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_ApplyGlobalFuser",
            display_name="Apply Global Fuser (Compose and Conquer, style)",
            category=CATEGORY,
            description="Turns exemplar images, one for the foreground and one for the background, into tokens that "
            "Soft Guidance lets each layer attend to: style transfer, as an IP adapter does it, for each by itself.",
            search_aliases=["compose and conquer", "cnc style", "exemplar", "image prompt", "style tokens", *OF_STYLE],
            inputs=[
                Fusers.Input("fusers", tooltip="From Load Fusers; the file must hold a global fuser."),
                io.Combo.Input(
                    "absent",
                    options=list(ABSENT),
                    default=ABSENT[0],
                    tooltip="What stands for an exemplar that is not connected. automatic: beside another exemplar "
                    "the zero embedding, which training knew; with none connected, no tokens at all. left out: "
                    "never a token for it. zero embedding: always.",
                ),
                io.ClipVisionOutput.Input(
                    "fg_style",
                    optional=True,
                    tooltip="CLIP Vision Encode (crop: center) of the foreground's exemplar, made with the CLIP "
                    "vision model of the training: ViT-L/14 for the released weights.",
                ),
                io.ClipVisionOutput.Input("bg_style", optional=True, tooltip="The same of the background's exemplar."),
            ],
            outputs=[Tokens.Output("tokens", display_name="tokens", tooltip="For Soft Guidance.")],
        )

    @classmethod
    @validated
    def execute(cls, fusers: HostFusers, absent: str, fg_style: Any = None, bg_style: Any = None) -> io.NodeOutput:
        if fg_style is None and bg_style is None and absent != "zero embedding":
            return io.NodeOutput(TokenPair(None, None))
        embeds = [embedding(name, style, fusers) for name, style in (("fg_style", fg_style), ("bg_style", bg_style))]
        if absent != "left out":
            zero = torch.zeros(1, fusers.config.context_dim)
            embeds = [zero if embed is None else embed for embed in embeds]
        return io.NodeOutput(exemplar_tokens(fusers, *embeds))


class ApplySoftGuidance(io.ComfyNode):
    """Patch a model so that each layer attends to its own exemplar only."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_SoftGuidance",
            display_name="Soft Guidance (Compose and Conquer, regional style)",
            category=CATEGORY,
            description="Lets the masked foreground attend to the foreground's exemplar and the rest to the "
            "background's, each as strongly as its \N{GREEK SMALL LETTER LAMDA} says. Several of these may be chained.",
            search_aliases=["compose and conquer", "cnc", "lambda", "regional style", "attention mask", *OF_STYLE],
            inputs=[
                io.Model.Input("model", tooltip="Any Stable Diffusion 1.5 model; LoRAs and other patches stay."),
                io.Mask.Input("mask", tooltip="White where the foreground is. Any size; fitted to the picture."),
                LAMBDA_FG,
                LAMBDA_BG,
                percent_input("start_percent", 0.0, "When in the sampling the exemplars begin to act; 0 is the start."),
                percent_input("end_percent", 1.0, "When they stop; 1 is the end."),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="release",
                    tooltip="release: a token outside its region takes no attention; what the released weights were "
                    "trained with. paper: the equation of the paper, where it still takes some.",
                    **ADVANCED,
                ),
                io.Combo.Input(
                    "resize",
                    options=list(RESIZES),
                    default="area",
                    tooltip="How the mask reaches the attention layers. area: the covered share of each cell. "
                    "release: the authors' bicubic resize, for their very numbers.",
                    **ADVANCED,
                ),
                io.Combo.Input(
                    "apply_to",
                    options=list(APPLY_TO),
                    default="both",
                    tooltip="both: the negative prompt's half sees the exemplars too, as in the release. positive: "
                    "only the positive half does, so that CFG amplifies the exemplars as well.",
                    **ADVANCED,
                ),
                Tokens.Input(
                    "tokens",
                    optional=True,
                    tooltip="From Apply Global Fuser; without them the model passes through unchanged.",
                ),
                io.Combo.Input(
                    "weight_mode",
                    options=list(WEIGHT_MODES),
                    default="scale",
                    optional=True,
                    tooltip="What \N{GREEK SMALL LETTER LAMDA} does. scale: multiplies the exemplar's tokens, as the "
                    "release; at 0 they still take attention. gate: gives them so many times the attention; at 0 they "
                    "are not there.",
                    **ADVANCED,
                ),
                Curve.Input(
                    "curve",
                    optional=True,
                    tooltip="From \N{GREEK SMALL LETTER LAMDA} Curve: both \N{GREEK SMALL LETTER LAMDA} over the "
                    "sampling.",
                ),
            ],
            outputs=sampler_outputs()[:1],
        )

    @classmethod
    @validated
    def execute(
        cls,
        model: Any,
        mask: torch.Tensor,
        lambda_fg: float,
        lambda_bg: float,
        start_percent: float,
        end_percent: float,
        mode: Mode,
        resize: Resize,
        apply_to: str,
        tokens: TokenPair | None = None,
        weight_mode: WeightMode = "scale",
        curve: Schedule | None = None,
    ) -> io.NodeOutput:
        if tokens is None:
            return io.NodeOutput(model)
        check_mask(mask := masks(mask))
        given = tokens.fg if tokens.fg is not None else tokens.bg
        if given is None:
            return io.NodeOutput(model)
        counts = (1 if tokens.fg is None else tokens.fg.shape[0], mask.shape[0])
        if 1 not in counts and counts[0] != counts[1]:
            raise ValueError(
                f"tokens has {counts[0]} exemplars for the foreground and mask has {counts[1]}, which do not go "
                f"together: give one mask for all, or one for each"
            )
        # A layer without exemplar keeps its place, with no tokens: the other's region is not to grow over it.
        none = given[:1, :0]
        schedule = replace(curve or Schedule(), start_percent=start_percent, end_percent=end_percent)
        options: dict[str, Any] = {
            "weight_mode": weight_mode,
            "schedule": schedule,
            "positive_only": apply_to == "positive",
        }
        regions = (
            Region(none if tokens.fg is None else tokens.fg, mask[:, None], lambda_fg, **options),
            Region(none if tokens.bg is None else tokens.bg, None, lambda_bg, **options),
        )
        patched = with_guidance(model, Guidance(regions, mode, resize))
        # Under a name that only the pack's scripts know: on Compose the host would show the mask alone.
        shown = preview(mask, "mask of the guidance", cls)
        return io.NodeOutput(patched, ui={"cnc_layer": shown["images"], "cnc_title": shown["cnc_title"]})


NODES: list[type[io.ComfyNode]] = [ApplyLocalFuser, ApplyGlobalFuser, ApplySoftGuidance]
