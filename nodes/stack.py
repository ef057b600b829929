"""The parts that Compose Layers expands into: a layer moved, the stack seen, the stack applied, words marked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..cnc_core.depth_layers import DepthLayer, depth_map, depth_streams, reduced, regions, strength_map, visible_masks
from ..cnc_core.guidance import Guidance
from ..cnc_core.placement import Flip, move
from .fusers import embedding, sampler_outputs, strength_input
from .host import pictures
from .host.control import apply_local_fuser
from .host.fusers import HostFusers, exemplar_tokens
from .host.guidance import text_width, with_guidance
from .host.layers import Layer, depth_layers, mark_words, nearest_first, title, with_words
from .host.previews import preview
from .host.schema import schema
from .host.sizes import fit
from .host.validation import validated
from .layer import move_inputs
from .masks import LAYERS
from .types import Fusers, Layers, MaskList

_CHANNELS = 3
_MOST_PIXELS = 16384


def _placed_layers() -> io.Input:
    return Layers.Input(
        "layers", tooltip="Layers that lie where they are to be; x, y, scale and the like are not used."
    )


class MoveLayer(io.ComfyNode):
    """A layer's picture, mask and depth, moved together."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side = {"min": 1, "max": _MOST_PIXELS, "tooltip": "Pixels of the canvas that it is moved to."}
        return schema(
            node_id="CnC_MoveLayer",
            display_name="Move Layer (Compose and Conquer)",
            category=LAYERS,
            description="Moves a layer's picture, mask and depth together onto a canvas of any size. Compose Layers "
            "does it for each layer that is moved.",
            search_aliases=["transform layer", "shift", "scale mask", "move depth"],
            inputs=[
                io.Int.Input("width", default=512, **side),
                io.Int.Input("height", default=512, **side),
                *move_inputs(least_scale=0.0001, most_scale=320.0),
                io.Mask.Input("mask", optional=True, tooltip="The object; without one the whole picture is moved."),
                io.Image.Input("picture", optional=True, tooltip="The object's picture."),
                io.Image.Input("depth", optional=True, tooltip="The object's depth."),
            ],
            outputs=[
                io.Mask.Output("mask_out", display_name="mask", tooltip="The object where it is now."),
                io.Image.Output("picture_out", display_name="picture", tooltip="Its picture, on black."),
                io.Image.Output("depth_out", display_name="depth", tooltip="Its depth, on black."),
            ],
        )

    @classmethod
    @validated
    def execute(
        cls,
        width: int,
        height: int,
        x: float,
        y: float,
        scale: float,
        rotation: float,
        flip: Flip,
        mask: Tensor | None = None,
        picture: Tensor | None = None,
        depth: Tensor | None = None,
    ) -> io.NodeOutput:
        images = [
            None if image is None else pictures.picture(image, name).movedim(-1, 1)
            for name, image in (("picture", picture), ("depth", depth))
        ]
        inside = None if mask is None else pictures.masks(mask)[:, None]
        reference = next((given for given in (*images, inside) if given is not None), None)
        if reference is None:
            raise ValueError("there is nothing to move: connect mask, picture or depth")
        size = (reference.shape[-2], reference.shape[-1])
        inside = reference.new_ones(1, 1, *size) if inside is None else fit(inside, *size, "the mask")
        images = [None if image is None else fit(image, *size, "the depth map") for image in images]
        goal = {"x": x, "y": y, "scale": scale, "rotation": rotation, "flip": flip}
        moved = [
            None if image is None else move(image.movedim(1, -1), inside[:, 0], (height, width), **goal)
            for image in images
        ]
        covered = next((one[1] for one in moved if one is not None), None)
        if covered is None:
            _, covered = move(inside.new_zeros(1, *size, 3), inside[:, 0], (height, width), **goal)
        return io.NodeOutput(covered, *(None if one is None else one[0] for one in moved))


class StackLayers(io.ComfyNode):
    """What a stack of layers looks like."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_StackLayers",
            display_name="Stack Layers (Compose and Conquer)",
            category=LAYERS,
            description="Shows layers of one size one in front of the other: their pictures as one, where each shows, "
            "and the depth maps that they make.",
            search_aliases=["flatten layers", "z-buffer", "merge layers", "composite", "layer masks"],
            inputs=[_placed_layers()],
            outputs=stack_outputs(MaskList.Output),
        )

    @classmethod
    @validated
    def execute(cls, layers: tuple[Layer, ...]) -> io.NodeOutput:
        nearest = [layers[place] for place in nearest_first(layers)]
        stack = depth_layers(nearest, _CHANNELS)
        shown = visible_masks(stack)
        size = next(given.shape[-2:] for layer in stack for given in (layer.mask, layer.depth) if given is not None)
        seen = torch.zeros(1, *size, 3)
        for (_, layer), mask in zip(_acting(stack, nearest), shown, strict=True):
            if layer.picture is not None:
                flat = fit(pictures.picture(layer.picture, "picture").movedim(-1, 1), *size, "a layer's picture")
                seen = seen + (flat * mask).movedim(1, -1)
        maps = [
            torch.zeros(1, *size, 3) if depth is None else depth.expand(-1, 3, -1, -1).movedim(1, -1).contiguous()
            for depth in (*depth_streams(stack), depth_map(stack))
        ]
        if all(layer.mask is not None for layer in stack):
            logging.info(
                "Compose and Conquer: each layer has a mask, so that none is the backdrop: what they leave free is "
                "left to the prompt."
            )
        seen = seen.clamp(0, 1)
        return io.NodeOutput(seen, [mask[:, 0] for mask in shown], *maps, ui=preview(seen, "layers", cls))


def stack_outputs(masks: Callable[..., io.Output]) -> list[io.Output]:
    """What a stack looks like, in the order in which Stack Layers gives it; masks: the output that these have.

    The host gives what a node expands into one by one, so that a list there would move all outputs after it: Stack
    Layers gives it as one value, and Compose Layers as a list.
    """
    return [
        io.Image.Output("picture", display_name="picture", tooltip="The layers' pictures, one in front of the other."),
        masks(
            "masks",
            display_name="masks",
            tooltip="Where each layer shows, a list, the nearest first, without those that are hidden wholly.",
        ),
        io.Image.Output(
            "fg_depth", display_name="fg_depth", tooltip="The local fuser's foreground map: the nearest layer's depth."
        ),
        io.Image.Output(
            "bg_depth",
            display_name="bg_depth",
            tooltip="Its background map: all other layers, whole, each in a range of depth of its own.",
        ),
        io.Image.Output(
            "depth_map",
            display_name="depth_map",
            tooltip="One map of all layers, for a depth ControlNet; it knows nothing of what is hidden.",
        ),
    ]


class ApplyLayers(io.ComfyNode):
    """Layers that are placed: depth to the conditioning, exemplars and words to the model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_ApplyLayers",
            display_name="Apply Layers (Compose and Conquer)",
            category=LAYERS,
            description="Gives a model layers of one size: the local fuser their depths, and each layer its exemplar "
            "and its words where it shows. Compose Layers makes them ready for it.",
            search_aliases=["regional prompt", "layers", "soft guidance", "words by layer"],
            inputs=[
                io.Model.Input("model", tooltip="A model with a U-Net; Stable Diffusion 1.5 where fusers are given."),
                io.Conditioning.Input("positive", tooltip="The positive prompt, of the whole picture."),
                io.Conditioning.Input("negative", tooltip="The negative prompt."),
                _placed_layers(),
                strength_input(),
                Fusers.Input("fusers", optional=True, tooltip="From Load Fusers; without them words alone act."),
                Layers.Input(
                    "looks",
                    optional=True,
                    tooltip="The same layers again, whose exemplars, words, weights and percents are taken; without "
                    "it those of layers. So a change of one weight changes no depth map.",
                ),
            ],
            outputs=sampler_outputs(),
        )

    @classmethod
    @validated
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        layers: tuple[Layer, ...],
        strength: float,
        fusers: HostFusers | None = None,
        looks: tuple[Layer, ...] | None = None,
    ) -> io.NodeOutput:
        width = text_width(model)
        if fusers is not None and fusers.config.context_dim != width:
            raise ValueError(
                f"{fusers.name} was trained for a model whose texts are {fusers.config.context_dim} wide, and those of "
                f"{type(model.model).__name__} are {width}: connect that model, or unplug fusers for words alone"
            )
        looks = layers if looks is None else looks
        if len(looks) != len(layers):
            raise ValueError(f"looks are of {len(looks)} layers and layers has {len(layers)}: give the same layers")
        order = nearest_first(layers)
        channels = _CHANNELS if fusers is None else fusers.config.local_channels
        stack = depth_layers([layers[place] for place in order], channels)
        nearest = [looks[place] for place in order]
        labels = {look: title(number, look) for number, look in enumerate(nearest, start=1)}
        worded = []
        for layer, look in _acting(stack, nearest):
            try:
                worded.append((with_words(layer, look, width), look))
            except ValueError as error:
                raise ValueError(f"{labels[look]}: {error}") from None
        dressed = _with_exemplars(worded, fusers, labels)
        found = regions(dressed)
        if found:
            model = with_guidance(model, Guidance(found))
        if fusers is not None:
            maps = depth_streams(dressed)
            positive, negative = apply_local_fuser(
                positive, negative, fusers, maps, strength, strength_map=strength_map(dressed)
            )
        return io.NodeOutput(model, positive, negative)


def _with_exemplars(
    layers: list[tuple[DepthLayer, Layer]], fusers: HostFusers | None, labels: dict[Layer, str]
) -> list[DepthLayer]:
    """Return the layers with their exemplars' tokens; beside one that has any, the zero embedding stands for none."""
    given = [look for _, look in layers if look.exemplar is not None]
    if not given:
        return [layer for layer, _ in layers]
    if fusers is None:
        raise ValueError(
            f"{labels[given[0]]} has an exemplar, which needs fusers: connect Load Fusers, or unplug the exemplar"
        )
    dressed = []
    for layer, look in layers:
        embed = embedding(f"the exemplar of {labels[look]}", look.exemplar, fusers)
        if embed is None:
            embed = torch.zeros(1, fusers.config.context_dim)
        if layer.mask is None:
            tokens = exemplar_tokens(fusers, None, embed).bg
        else:
            tokens = exemplar_tokens(fusers, embed, None).fg
        dressed.append(replace(layer, exemplar=tokens))
    return dressed


def _acting(stack: list[DepthLayer], layers: list[Layer]) -> list[tuple[DepthLayer, Layer]]:
    """Return the core's layers that can act, each with ours."""
    ours = dict(zip(stack, layers, strict=True))
    return [(layer, ours[layer]) for layer in reduced(stack)]


class MarkWords(io.ComfyNode):
    """Say where a text's words end."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_MarkWords",
            display_name="Mark Words (Compose and Conquer)",
            category=LAYERS,
            description="Marks which part of an encoded text is words, so that a layer takes these alone and not the "
            "padding after them. Compose Layers does it for each CLIP Text Encode that is connected to a layer.",
            search_aliases=["prompt tokens", "padding", "word tokens"],
            inputs=[
                io.Conditioning.Input("text", tooltip="The encoded text."),
                io.Clip.Input("clip", tooltip="The CLIP that encoded it."),
                io.String.Input("words", multiline=True, tooltip="The text that was encoded."),
            ],
            outputs=[io.Conditioning.Output("text_out", display_name="text", tooltip="To text of Layer.")],
        )

    @classmethod
    @validated
    def execute(cls, text: Any, clip: Any, words: str) -> io.NodeOutput:
        return io.NodeOutput(mark_words(text, clip, words))


NODES: list[type[io.ComfyNode]] = [MoveLayer, StackLayers, ApplyLayers, MarkWords]
