"""The node that splits a picture into foreground, background and mask."""

from __future__ import annotations

from functools import partial

import torch
from comfy_api.latest import io
from torch import Tensor

from ..cnc_core.perception import inpaint
from ..cnc_core.triplet import make_triplet
from .host.expansion import COMPOUND, GraphBuilder, links, not_of_lists, salient_mask_parts
from .host.perception import each
from .host.perception import inpainter as hosted_inpainter
from .host.pictures import optional_mask, pair, picture
from .host.previews import preview
from .host.schema import schema
from .host.validation import validated
from .inpaint import dilation_input, inpainter_input
from .masks import LAYERS, saliency_input, threshold_input

_UNUSED = {"saliency": "mini", "threshold": 0.5}
"""What the inputs that a mask makes meaningless are set to."""


class SplitLayers(io.ComfyNode):
    """Foreground, background and mask of one picture.

    Without a mask it expands into Salience Map, Refine Mask and itself with that mask. With one it makes the triplet;
    saliency and threshold mean nothing then, and where they are not at `_UNUSED` it expands into itself with these, so
    that the host finds the triplet again when only they have changed.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_SplitLayers",
            display_name="Split Layers (Compose and Conquer)",
            category=LAYERS,
            description="Splits a picture into the object that stands out, the background with the object gone, "
            "and the mask between them: the triplet that Compose and Conquer is trained on.",
            search_aliases=[
                "layers",
                "triplet",
                "foreground background",
                "separate",
                "cut out",
                "salient object",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The picture, or a batch of them. An alpha channel is left out."),
                saliency_input("saliency"),
                inpainter_input(),
                threshold_input(),
                dilation_input(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The object, where you have its mask already: saliency and threshold are not used "
                    "then. Fitted to the picture; Load Image's empty mask counts as none.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="foreground", tooltip="The object alone, on black."),
                io.Image.Output(display_name="background", tooltip="The picture with the object gone."),
                io.Mask.Output(display_name="mask", tooltip="1 on the object, 0 elsewhere, of the picture's size."),
            ],
            **COMPOUND,
        )

    @classmethod
    @not_of_lists
    @validated
    def execute(
        cls,
        image: Tensor,
        saliency: str,
        inpainter: str,
        threshold: float,
        dilation: int,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        linked = links(cls)
        mask = optional_mask(mask, picture(image))
        unused = {"saliency": saliency, "threshold": threshold}
        if mask is None or unused != _UNUSED:
            graph = GraphBuilder()
            mask_link = linked.get("mask")
            if mask is None:
                mask_link = salient_mask_parts(
                    graph, linked["image"], saliency, threshold=threshold, parts=("1_salience", "2_mask")
                )
            split = graph.node(
                "CnC_SplitLayers",
                "3_split",
                image=linked["image"],
                inpainter=inpainter,
                dilation=dilation,
                mask=mask_link,
                **_UNUSED,
            )
            return io.NodeOutput(split.out(0), split.out(1), split.out(2), expand=graph.finalize())
        image, mask = pair(image, mask)
        hosted = hosted_inpainter(inpainter)
        fill = partial(inpaint, hosted.estimator, dilation=dilation, run=hosted.run)
        triplets = [
            make_triplet(image[index : index + 1], mask[index : index + 1], fill) for index in each(image.shape[0])
        ]
        foreground = torch.cat([triplet.foreground for triplet in triplets])
        background = torch.cat([triplet.background for triplet in triplets])
        shown = preview(torch.cat((foreground, background)), "layers", cls)
        return io.NodeOutput(foreground, background, mask.contiguous(), ui=shown)


NODES: list[type[io.ComfyNode]] = [SplitLayers]
