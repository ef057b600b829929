"""The whole method in one node, which expands into the others."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from .depth import depth_input
from .fusers import ABSENT, LAMBDA_BG, LAMBDA_FG, sampler_outputs, strength_input
from .host.early_expansion import early
from .host.expansion import (
    COMPOUND,
    GraphBuilder,
    depth_part,
    exemplar_part,
    links,
    marked_words,
    not_of_lists,
    ready_layer,
    salient_mask_parts,
)
from .host.pictures import optional_mask, picture
from .host.schema import schema
from .host.validation import validated
from .inpaint import DILATION, inpainter_input
from .masks import saliency_input
from .types import CATEGORY, IN_DEPTH, OF_STYLE, Fusers


class Compose(io.ComfyNode):
    """Pictures in, conditioned model and prompts out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_Compose",
            display_name="Compose and Conquer (depth, layers, style)",
            category=CATEGORY,
            description="The whole method in one node: finds the object in the foreground picture, takes depth maps "
            "of what is in front and what is behind it (occlusion), and gives each layer the look of its exemplar "
            "(regional style transfer). It expands into the pack's other nodes, which ComfyUI caches one by one: "
            "turning a "
            "\N{GREEK SMALL LETTER LAMDA} runs the sampler again and nothing before it.",
            search_aliases=[
                "cnc",
                "compose in depth",
                "foreground background",
                "two layers",
                "depth composition",
                "regional prompt",
                *IN_DEPTH,
                *OF_STYLE,
            ],
            inputs=[
                io.Model.Input("model", tooltip="Any Stable Diffusion 1.5 model; LoRAs and other patches stay."),
                io.Conditioning.Input("positive", tooltip="The positive prompt."),
                io.Conditioning.Input("negative", tooltip="The negative prompt."),
                Fusers.Input("fusers", tooltip="From Load Fusers."),
                io.ClipVision.Input(
                    "clip_vision",
                    tooltip="The CLIP vision model that the fusers were trained with: ViT-L/14 for the released "
                    "weights. Used for the exemplars alone.",
                ),
                io.Image.Input(
                    "foreground",
                    tooltip="The picture with the object to put in front. Without a background picture, what is "
                    "behind the object is taken from here as well.",
                ),
                saliency_input("saliency"),
                inpainter_input(),
                depth_input("depth"),
                LAMBDA_FG,
                LAMBDA_BG,
                strength_input(),
                io.Image.Input(
                    "background",
                    optional=True,
                    tooltip="A picture of the background. Without it the foreground picture is inpainted.",
                ),
                io.Image.Input(
                    "fg_style",
                    optional=True,
                    tooltip="Exemplar for the look of the foreground. Without one, and with one for the background, "
                    "the foreground's look is left to the text.",
                ),
                io.Image.Input("bg_style", optional=True, tooltip="Exemplar for the look of the background."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The object's mask, where you have it: saliency is not used then. Load Image's empty "
                    "mask counts as none.",
                ),
                io.Conditioning.Input(
                    "fg_text",
                    optional=True,
                    tooltip="CLIP Text Encode of the object's own words: they act where it is, beside the prompt, so "
                    "that a colour goes to the one and not to the other.",
                ),
                io.Conditioning.Input("bg_text", optional=True, tooltip="The same of the background."),
            ],
            outputs=[
                *sampler_outputs(),
                io.Mask.Output("mask_out", display_name="mask", tooltip="The object's mask that was used."),
                io.Image.Output("fg_depth", display_name="fg_depth", tooltip="Depth of the object, near is bright."),
                io.Image.Output("bg_depth", display_name="bg_depth", tooltip="Depth of the background."),
            ],
            **COMPOUND,
        )

    @classmethod
    @not_of_lists
    @validated
    def execute(cls, foreground: Tensor, mask: Tensor | None = None, **_: Any) -> io.NodeOutput:
        linked = links(cls)
        given = optional_mask(mask, picture(foreground, "foreground"))
        graph, outputs = _expansion(cls, linked, None if given is None else linked["mask"])
        # The host gives outputs by value or by link, and wants a link only for what this graph makes.
        if given is not None:
            outputs[3] = mask
        return io.NodeOutput(*outputs, expand=graph.finalize())


def _expansion(node: type[io.ComfyNode], linked: dict[str, Any], mask_link: Any) -> tuple[GraphBuilder, list[Any]]:
    """Return the parts and the links to the outputs of a running Compose. Numbers order their pictures on the node.

    Args:
        node: the running node.
        linked: its inputs as the graph has them.
        mask_link: the link to the object's mask, or None for one that is to be found.
    """
    graph = GraphBuilder()
    if mask_link is None:
        mask_link = salient_mask_parts(graph, linked["foreground"], linked["saliency"], parts=("1_salience", "2_mask"))
    background = linked.get("background")
    if background is None:
        inpainted = graph.node(
            "CnC_InpaintBackground",
            "3_background",
            image=linked["foreground"],
            mask=mask_link,
            inpainter=linked["inpainter"],
            dilation=DILATION,
        )
        background = inpainted.out(0)

    fg_depth = depth_part(graph, linked["foreground"], linked["depth"], mask_link, "4_fg_depth")
    bg_depth = depth_part(graph, background, linked["depth"], part="5_bg_depth")
    styles = {
        name: exemplar_part(graph, linked[name], linked["clip_vision"], name)
        for name in ("fg_style", "bg_style")
        if linked.get(name) is not None
    }
    depths = {"fg_depth": fg_depth, "bg_depth": bg_depth}
    if linked.get("fg_text") is None and linked.get("bg_text") is None:
        applied = _without_words(graph, linked, styles, mask_link, depths)
    else:
        texts = {name: marked_words(node, graph, linked.get(name), name) for name in ("fg_text", "bg_text")}
        applied = _with_words(graph, linked, styles, mask_link, depths, texts)
    return graph, [*applied, mask_link, fg_depth, bg_depth]


def _announced(node: type[io.ComfyNode], linked: dict[str, Any]) -> list[GraphBuilder]:
    """Return what a running Compose may expand into: with the mask that is connected, and without, if it is empty."""
    masks = [None] if linked.get("mask") is None else [None, linked["mask"]]
    return [_expansion(node, linked, mask)[0] for mask in masks]


def _without_words(
    graph: GraphBuilder, linked: dict[str, Any], styles: dict[str, Any], mask_link: Any, depths: dict[str, Any]
) -> list[Any]:
    """Return model, positive and negative with one text for both layers."""
    tokens = graph.node("CnC_ApplyGlobalFuser", "tokens", fusers=linked["fusers"], absent=ABSENT[0], **styles)
    model = graph.node(
        "CnC_SoftGuidance",
        "6_guidance",
        model=linked["model"],
        tokens=tokens.out(0),
        mask=mask_link,
        lambda_fg=linked["lambda_fg"],
        lambda_bg=linked["lambda_bg"],
        start_percent=0.0,
        end_percent=1.0,
        mode="release",
        resize="area",
        apply_to="both",
    )
    steered = graph.node(
        "CnC_ApplyLocalFuser",
        "local",
        positive=linked["positive"],
        negative=linked["negative"],
        fusers=linked["fusers"],
        strength=linked["strength"],
        start_percent=0.0,
        end_percent=1.0,
        fg_depth_scale=1.0,
        bg_depth_scale=1.0,
        **depths,
    )
    return [model.out(0), steered.out(0), steered.out(1)]


def _with_words(
    graph: GraphBuilder,
    linked: dict[str, Any],
    styles: dict[str, Any],
    mask_link: Any,
    depths: dict[str, Any],
    texts: dict[str, Any],
) -> list[Any]:
    """Return model, positive and negative with words for each layer."""
    chain = None
    for layer, name, mask in (("bg", "background", None), ("fg", "foreground", mask_link)):
        chain = ready_layer(
            graph,
            f"{layer}_layer",
            name,
            mask=mask,
            depth=depths[f"{layer}_depth"],
            exemplar=styles.get(f"{layer}_style"),
            text=texts[f"{layer}_text"],
            layers=chain,
            **{"lambda": linked[f"lambda_{layer}"]},
        )
    given = {name: linked[name] for name in ("model", "positive", "negative", "strength", "fusers")}
    applied = graph.node("CnC_ApplyLayers", "apply", layers=chain, **given)
    return [applied.out(index) for index in range(3)]


NODES: list[type[io.ComfyNode]] = early(Compose, _announced)
