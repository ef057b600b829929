"""The node that takes the object out of a picture."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..cnc_core.perception import DILATION, inpaint
from .host.perception import each, estimator_names
from .host.perception import inpainter as hosted_inpainter
from .host.pictures import pair
from .host.previews import preview
from .host.schema import FileChoice, schema
from .host.validation import validated
from .masks import LAYERS


def inpainter_input() -> FileChoice:
    """The choice of an inpainter."""
    return FileChoice(
        "inpainter",
        options=estimator_names("inpainting"),
        tooltip="What fills the hole. telea and navier-stokes are OpenCV's: quick, with no model, and smooth. For "
        "photographs put LaMa (big-lama.pt) or MI-GAN (migan_pipeline_v2.onnx) into models/inpaint and it is listed "
        "here; or connect a background from any inpainting model, such as the pack's blueprint with Stable Diffusion.",
    )


def dilation_input() -> io.Int.Input:
    """How far beyond the mask is filled."""
    return io.Int.Input(
        "dilation",
        default=DILATION,
        min=0,
        max=512,
        tooltip="Width of the brush that widens the mask before it is filled, in pixels of a picture whose "
        "shorter side is 512, scaled to yours. 50, as in the authors' release, adds 25 on each side: the object's "
        "outline must go as well, or the background's depth still shows it.",
    )


class InpaintBackground(io.ComfyNode):
    """The background with the object gone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_InpaintBackground",
            display_name="Inpaint Background (Compose and Conquer)",
            category=LAYERS,
            description="Takes the masked object out of a picture and fills what was behind it. Pixels outside "
            "the widened mask stay exactly as they are.",
            search_aliases=["inpaint", "remove object", "erase", "fill", "telea", "clean plate"],
            inputs=[
                io.Image.Input("image", tooltip="The picture, or a batch of them. An alpha channel is left out."),
                io.Mask.Input(
                    "mask",
                    tooltip="The object to take out: what is above 0.5, fitted to the picture. An empty mask "
                    "leaves the picture as it is.",
                ),
                inpainter_input(),
                dilation_input(),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture without the object.")],
        )

    @classmethod
    @validated
    def execute(cls, image: Tensor, mask: Tensor, inpainter: str, dilation: int) -> io.NodeOutput:
        image, mask = pair(image, mask)
        hosted = hosted_inpainter(inpainter)
        filled = torch.cat(
            [
                inpaint(
                    hosted.estimator,
                    image[index : index + 1],
                    mask[index : index + 1],
                    dilation=dilation,
                    run=hosted.run,
                )
                for index in each(image.shape[0])
            ]
        )
        return io.NodeOutput(filled, ui=preview(filled, "background", cls))


NODES: list[type[io.ComfyNode]] = [InpaintBackground]
