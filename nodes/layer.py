"""The node that says what one layer is."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..cnc_core.depth_layers import TEXT_WEIGHT
from .fusers import percent_input
from .host.layers import MOST_LAYERS, Layer, title
from .host.schema import schema
from .host.validation import validated
from .place import turn_inputs
from .types import CATEGORY, IN_DEPTH, Curve, Layers


def move_inputs(least_scale: float = 0.01, most_scale: float = 20.0) -> list[io.Input]:
    """Where a layer goes from where its picture has it."""
    return [
        io.Float.Input(
            "x",
            default=0.0,
            min=-2.0,
            max=2.0,
            step=0.001,
            tooltip="How far the layer is moved to the right, in widths of the canvas; 0 leaves it where its picture "
            "has it.",
        ),
        io.Float.Input(
            "y", default=0.0, min=-2.0, max=2.0, step=0.001, tooltip="How far it is moved down, in heights."
        ),
        io.Float.Input(
            "scale",
            default=1.0,
            min=least_scale,
            max=most_scale,
            step=0.01,
            tooltip="How large it is, around its own centre: 1 as in its picture.",
        ),
        *turn_inputs("its own"),
    ]


class LayerNode(io.ComfyNode):
    """One thing in the picture: its place in depth, its look and its words."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_Layer",
            display_name="Layer (Compose and Conquer)",
            category=CATEGORY,
            description="One thing in the picture: where it is, how near, and what it looks like, by a picture, an "
            "exemplar or words of its own. Chain one Layer for each thing, from the backdrop to the nearest, and give "
            "the last to Compose Layers.",
            search_aliases=["cnc layer", "regional prompt", "object", "depth layer", "region", "plane", *IN_DEPTH],
            inputs=[
                io.String.Input("name", default="", tooltip="What you call it; errors call it so too."),
                io.Boolean.Input("visible", default=True, tooltip="A layer that is off is as if it were not there."),
                io.Int.Input(
                    "z",
                    default=0,
                    min=-1000,
                    max=1000,
                    tooltip="Its place in depth: higher is nearer and hides what is behind. Layers with the same z are "
                    "in the order of the chain, its end the nearest.",
                ),
                io.Float.Input(
                    "nearer",
                    default=0.0,
                    min=-4.0,
                    max=4.0,
                    step=0.05,
                    tooltip="Moves it towards you or away: each 1 doubles its size and its nearness in the depth map, "
                    "each -1 halves both. What hides what stays as z says.",
                ),
                *move_inputs(),
                io.Float.Input(
                    "lambda",
                    display_name="\N{GREEK SMALL LETTER LAMDA}",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="How strongly its exemplar acts.",
                ),
                io.Float.Input(
                    "text_weight",
                    default=TEXT_WEIGHT,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="How many times its attention the layer's own text gets beside the picture's prompt; 0 "
                    "leaves it out.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Weight of the depth maps where this layer shows, times that of Compose Layers.",
                ),
                percent_input("start_percent", 0.0, "When in the sampling exemplar and text begin to act."),
                percent_input("end_percent", 1.0, "When they stop; 1 is the end."),
                io.Image.Input(
                    "picture",
                    optional=True,
                    tooltip="A picture with the object, or of the backdrop. Its depth is estimated unless depth is "
                    "connected.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The whole object, also where nearer layers hide it. Without one the object that stands "
                    "out in picture is found; the farthest layer without one is the backdrop. Load Image's empty mask "
                    "counts as none.",
                ),
                io.Image.Input("depth", optional=True, tooltip="Depth of the layer alone, near is bright."),
                io.MultiType.Input(
                    io.Image.Input(
                        "exemplar",
                        optional=True,
                        tooltip="A picture with the look that the layer is to have. Needs fusers and clip_vision on "
                        "Compose Layers.",
                    ),
                    types=[io.ClipVisionOutput],
                ),
                io.Conditioning.Input(
                    "text",
                    optional=True,
                    tooltip="CLIP Text Encode of the layer's own words: they act where it shows, beside the prompt.",
                ),
                Curve.Input(
                    "curve",
                    optional=True,
                    tooltip="From \N{GREEK SMALL LETTER LAMDA} Curve: \N{GREEK SMALL LETTER LAMDA} and text_weight "
                    "over the sampling.",
                ),
                Layers.Input("layers", optional=True, tooltip="The layers behind this one."),
            ],
            outputs=[
                Layers.Output("layers_out", display_name="layers", tooltip="To the next Layer, or to Compose Layers.")
            ],
        )

    @classmethod
    @validated
    def execute(cls, layers: tuple[Layer, ...] = (), **inputs: Any) -> io.NodeOutput:
        layer = Layer(exemplar_weight=inputs.pop("lambda"), **inputs)
        stack = (*(layers or ()), layer)
        if len(stack) > MOST_LAYERS:
            raise ValueError(f"{title(len(stack), layer)} is one too many: a stack has at most {MOST_LAYERS} layers")
        return io.NodeOutput(stack)


NODES: list[type[io.ComfyNode]] = [LayerNode]
