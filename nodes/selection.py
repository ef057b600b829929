"""The node that picks one object of a crowded picture."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..cnc_core.perception import parse_box, parse_points, select
from .host.perception import each, estimator_names, selector
from .host.pictures import picture
from .host.previews import preview
from .host.schema import FileChoice, schema
from .host.validation import validated
from .masks import LAYERS


class SelectObject(io.ComfyNode):
    """The mask of the object under some points or in a box."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_SelectObject",
            display_name="Select Object (Compose and Conquer)",
            category=LAYERS,
            description="The mask of one object that you point at, for pictures with several: by points on it, points "
            "beside it that leave something out, a box around it, or all of these.",
            search_aliases=["sam", "sam2", "segment anything", "points", "click", "box", "segment"],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The picture, or a batch of them, to each of which the same points and box apply. An alpha "
                    "channel is left out.",
                ),
                FileChoice(
                    "estimator",
                    options=estimator_names("selection"),
                    tooltip="What finds the object's outline. Put the folder of a SAM 2 in the transformers format, "
                    "such as that of facebook/sam2.1-hiera-tiny, into models/sam2 and it is listed here.",
                ),
                io.String.Input(
                    "points",
                    default="",
                    multiline=True,
                    tooltip="Points in pixels of the picture, x to the right and y down, as x,y; x,y; -x,y. Each shows "
                    "a place on the object; with a minus in front, a place that does not belong to it. Semicolons "
                    "or new lines between them. May be empty where there is a box.",
                ),
                io.String.Input(
                    "box",
                    default="",
                    optional=True,
                    tooltip="A box around the object in pixels of the picture, as x1,y1,x2,y2: left, top, right, "
                    "bottom. Empty for none.",
                ),
            ],
            outputs=[
                io.Mask.Output(display_name="mask", tooltip="1 on the object, 0 elsewhere, of the picture's size.")
            ],
        )

    @classmethod
    @validated
    def execute(cls, image: Tensor, estimator: str, points: str, box: str = "") -> io.NodeOutput:
        image = picture(image)
        shown, around = parse_points(points), parse_box(box)
        hosted = selector(estimator)
        mask = torch.cat(
            [
                select(hosted.estimator, image[index : index + 1], shown, around, run=hosted.run)
                for index in each(image.shape[0])
            ]
        )
        return io.NodeOutput(mask, ui=preview(mask, "mask", cls))


NODES: list[type[io.ComfyNode]] = [SelectObject]
"""One node."""
