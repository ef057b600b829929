"""The node that splits a picture into foreground, background and mask."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..cnc_core.triplet import cut_out
from .host.expansion import HIDDEN, GraphBuilder, links
from .host.pictures import optional_mask, pair, picture
from .host.schema import schema
from .inpaint import dilation_input, inpainter_input
from .masks import LAYERS, saliency_input, threshold_input


class SplitLayers(io.ComfyNode):
    """Foreground, background and mask of one picture.

    Without a mask it expands into Salient Mask and itself with that mask; with one, into Inpaint Background.
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
            hidden=HIDDEN,
            enable_expand=True,
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        saliency: str,
        inpainter: str,
        threshold: float,
        dilation: int,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        graph = GraphBuilder()
        linked = links(cls)
        mask = optional_mask(mask, picture(image))
        if mask is None:
            found = graph.node(
                "CnC_SalientMask",
                image=linked["image"],
                estimator=saliency,
                threshold=threshold,
                grow=0,
                feather=0,
            )
            split = graph.node(
                "CnC_SplitLayers",
                image=linked["image"],
                saliency=saliency,
                inpainter=inpainter,
                threshold=threshold,
                dilation=dilation,
                mask=found.out(0),
            )
            return io.NodeOutput(split.out(0), split.out(1), split.out(2), expand=graph.finalize())
        background = graph.node(
            "CnC_InpaintBackground",
            image=linked["image"],
            mask=linked["mask"],
            inpainter=inpainter,
            dilation=dilation,
        )
        image, mask = pair(image, mask)
        return io.NodeOutput(cut_out(image, mask), background.out(0), mask, expand=graph.finalize())


NODES: list[type[io.ComfyNode]] = [SplitLayers]
