"""The node from a picture to its depth map."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..cnc_core.perception import VERSIONS, Preprocessing, Version, depth_map
from .host.perception import depth_estimator, estimator_names, pieces
from .host.pictures import optional_mask, pair, picture
from .host.previews import preview
from .host.schema import ADVANCED, FileChoice, schema
from .host.validation import validated
from .masks import LAYERS, preprocessing_input


def depth_input(name: str) -> FileChoice:
    """The choice of a depth estimator."""
    return FileChoice(
        name,
        options=estimator_names("depth"),
        tooltip="What gives depth. mini comes with the pack and knows the small made-up world of CnC-Mini. "
        "mask-and-ground-plane measures nothing, it is for hand-made compositions: the foreground (v2, v3) is the mask "
        "as a rounded relief, brightest in its middle, the whole picture (v1) a flat ground that fades out at a "
        "horizon at half the height. For photographs put the folder of a transformers depth model (Depth Anything V2, "
        "DPT-Large) or MiDaS's midas_v21_small_256.pt into models/depth_estimation and it is listed here.",
    )


class DepthMap(io.ComfyNode):
    """Depth, near is bright."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_DepthMap",
            display_name="Depth Map (Compose and Conquer)",
            category=LAYERS,
            description="The depth map of a picture, or of the object in it, as the local fuser wants it: near is "
            "bright, each picture from 0 to 1 for itself, of the picture's size.",
            search_aliases=[
                "depth",
                "midas",
                "depth anything",
                "dpt",
                "depth preprocessor",
                "depth estimation",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The picture, or a batch of them. An alpha channel is left out."),
                depth_input("estimator"),
                io.Combo.Input(
                    "version",
                    options=list(VERSIONS),
                    default="v2",
                    tooltip="v1: depth of the whole picture; take it for a background. v2: depth of the masked "
                    "object cut out on black, which the released weights were trained with for a foreground. "
                    "v3: depth of the whole picture, with all but the object blacked out afterwards. v2 and v3 "
                    "need a mask.",
                ),
                preprocessing_input(),
                io.Float.Input(
                    "clip_percent",
                    default=0.0,
                    min=0.0,
                    max=49.0,
                    step=0.1,
                    tooltip="Cuts off so many percent of the nearest and of the farthest pixels, where a few "
                    "outliers take up the whole range.",
                    **ADVANCED,
                ),
                io.Boolean.Input(
                    "invert",
                    default=False,
                    tooltip="Turns near and far round, for an estimator that gives distance.",
                    **ADVANCED,
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The object, for v2 and v3; fitted to the picture. Load Image's empty mask counts as none.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="depth", tooltip="Near is bright, grey, 0 to 1, of the picture's size.")
            ],
        )

    @classmethod
    @validated
    def execute(
        cls,
        image: Tensor,
        estimator: str,
        version: Version,
        preprocessing: Preprocessing,
        clip_percent: float,
        invert: bool,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        image = picture(image)
        mask = optional_mask(mask, image)
        if mask is not None:
            image, mask = pair(image, mask)
        hosted = depth_estimator(estimator)
        maps = [
            depth_map(
                hosted.estimator,
                image[piece],
                version=version,
                mask=None if mask is None else mask[piece],
                preprocessing=preprocessing,
                clip_percent=clip_percent,
                invert=invert,
                run=hosted.run,
            )
            for piece in pieces(image.shape[0])
        ]
        depth = torch.cat(maps)[..., None].expand(-1, -1, -1, 3).contiguous()
        return io.NodeOutput(depth, ui=preview(depth, "depth" if mask is None else "depth of the object", cls))


NODES: list[type[io.ComfyNode]] = [DepthMap]
