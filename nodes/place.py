"""The node that sets a cut-out onto another picture."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..cnc_core.placement import FLIPS, Flip, object_box, place
from .host.perception import each
from .host.pictures import pair, picture
from .host.previews import preview
from .host.schema import schema
from .host.validation import validated
from .masks import LAYERS


def turn_inputs(whose: str) -> list[io.Input]:
    """How an object is turned and flipped; ``whose`` centre it is turned around, for the tooltip."""
    return [
        io.Float.Input(
            "rotation",
            default=0.0,
            min=-360.0,
            max=360.0,
            step=0.5,
            tooltip=f"Degrees, clockwise, around {whose} centre.",
        ),
        io.Combo.Input(
            "flip",
            options=list(FLIPS),
            default="none",
            tooltip="horizontal swaps left and right, vertical top and bottom; before the rotation.",
        ),
    ]


class PlaceLayer(io.ComfyNode):
    """A cut-out on a background, its mask with it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_PlaceLayer",
            display_name="Place Layer (Compose and Conquer)",
            category=LAYERS,
            description="Sets the masked object of one picture onto another: moved, scaled, turned, flipped. The "
            "mask that comes out marks it in the new picture.",
            search_aliases=["paste", "composite", "move", "scale", "rotate", "transform", "collage", "overlay"],
            inputs=[
                io.Image.Input("background", tooltip="The picture to set it onto, or a batch of them."),
                io.Image.Input("foreground", tooltip="The picture with the object, of any size, or a batch of them."),
                io.Mask.Input(
                    "mask",
                    tooltip="The object in the foreground picture; a soft edge stays soft. The box around all above "
                    "0.5 is what is placed. Load Image's mask of a transparent picture is 1 where it is "
                    "transparent: invert it first.",
                ),
                io.Float.Input(
                    "x",
                    default=0.5,
                    min=-1.0,
                    max=2.0,
                    step=0.001,
                    tooltip="Where the object's centre goes, from the background's left edge (0) to its right (1).",
                ),
                io.Float.Input(
                    "y",
                    default=0.5,
                    min=-1.0,
                    max=2.0,
                    step=0.001,
                    tooltip="Where the object's centre goes, from the background's top (0) to its bottom (1).",
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.01,
                    max=20.0,
                    step=0.01,
                    tooltip="1 gives the object the share of the picture's height that it has in its own picture, "
                    "whatever the two sizes are; 0.5 half of that.",
                ),
                *turn_inputs("the object's"),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The background with the object on it."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="The object in that picture, 0 to 1; empty where it lies wholly outside.",
                ),
            ],
        )

    @classmethod
    @validated
    def execute(
        cls,
        background: Tensor,
        foreground: Tensor,
        mask: Tensor,
        x: float,
        y: float,
        scale: float,
        rotation: float,
        flip: Flip,
    ) -> io.NodeOutput:
        background = picture(background, "background")
        foreground, mask = pair(foreground, mask, "foreground")
        batch = max(background.shape[0], foreground.shape[0])
        if not {background.shape[0], foreground.shape[0]} <= {1, batch}:
            raise ValueError(
                f"{background.shape[0]} backgrounds and {foreground.shape[0]} foregrounds do not go together: give "
                f"one for all, or one for each"
            )
        layers = [given.expand(batch, *given.shape[1:]) for given in (background, foreground, mask)]
        placed = [
            place(
                *(layer[index : index + 1] for layer in layers),
                x=x,
                y=y,
                scale=scale,
                rotation=rotation,
                flip=flip,
            )
            for index in each(batch)
        ]
        image = torch.cat([composed for composed, _ in placed])
        shown = {**preview(image, "placed", cls), "cnc_place": [_parts(*layers, cls)]}
        return io.NodeOutput(image, torch.cat([covered for _, covered in placed]), ui=shown)


def _parts(background: Tensor, foreground: Tensor, mask: Tensor, cls: type[io.ComfyNode]) -> dict[str, Any]:
    """For the handles that the pack's scripts put on the node: pictures of the first background and its cut-out.

    width, height: of the cut-out at scale 1, in fractions of the background's.
    """
    left, top, right, bottom = object_box(mask[0] > 0.5)
    window = (slice(0, 1), slice(top, bottom), slice(left, right))
    cut = torch.cat((foreground[window], mask[window][..., None].to(foreground)), dim=-1)
    height = (bottom - top) / foreground.shape[1]
    width = (right - left) / foreground.shape[1] * background.shape[1] / background.shape[2]
    files = {name: preview(of, name, cls)["images"][0] for name, of in (("background", background[:1]), ("cut", cut))}
    return {**files, "width": width, "height": height}


NODES: list[type[io.ComfyNode]] = [PlaceLayer]
