"""Nodes from a picture to the mask of what stands out in it."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..cnc_core.perception import PREPROCESSING, Preprocessing, channels_read, estimate, refine_mask
from .host.expansion import COMPOUND, GraphBuilder, links, not_of_lists, salient_mask_parts
from .host.perception import each, estimator_names, saliency_estimator
from .host.pictures import masks, picture
from .host.previews import preview
from .host.schema import ADVANCED, FileChoice, schema
from .host.validation import validated
from .types import CATEGORY

LAYERS = f"{CATEGORY}/layers"


def saliency_input(name: str) -> FileChoice:
    """The choice of a salience estimator."""
    return FileChoice(
        name,
        options=estimator_names("saliency"),
        tooltip="What finds the object. mini comes with the pack and knows the small made-up world of CnC-Mini; "
        "for photographs put the .onnx file of an IS-Net, U2-Net or BiRefNet, or u2net.pth, into models/saliency and "
        "it is listed here, or connect a mask from any background removal node instead. alpha reads the picture's "
        "own alpha channel.",
    )


def preprocessing_input() -> io.Combo.Input:
    """The choice of what an estimator gets to see."""
    return io.Combo.Input(
        "preprocessing",
        options=list(PREPROCESSING),
        default="model",
        tooltip="model: the picture as the estimator was trained to see it. release: raw values without mean and "
        "deviation taken out, as the authors' released weights saw it. mini sees the same either way.",
        **ADVANCED,
    )


def threshold_input() -> io.Float.Input:
    """Where a soft mask becomes a hard one."""
    return io.Float.Input(
        "threshold",
        default=0.5,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="What is above this belongs to the object. Lower takes in more.",
    )


def grow_input() -> io.Int.Input:
    """How far the mask's edge moves."""
    return io.Int.Input(
        "grow",
        default=0,
        min=-1024,
        max=1024,
        tooltip="Pixels by which the mask grows on all sides; negative shrinks it.",
    )


def feather_input() -> io.Int.Input:
    """How soft the mask's edge is."""
    return io.Int.Input(
        "feather",
        default=0,
        min=0,
        max=1024,
        tooltip="Width in pixels of the soft edge, centred on the contour; 0 leaves it hard.",
    )


class SalienceMap(io.ComfyNode):
    """How much each pixel stands out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_SalienceMap",
            display_name="Salience Map (Compose and Conquer)",
            category=LAYERS,
            description="Finds the object that stands out in a picture: a soft map from 0 (background) to 1 "
            "(object). Refine Mask makes a clean mask of it; changing that does not run the estimator again.",
            search_aliases=["saliency", "background removal", "rembg", "segment", "foreground", "u2net"],
            inputs=[
                io.Image.Input("image", tooltip="The picture, or a batch of them. An alpha channel is left out."),
                saliency_input("estimator"),
                preprocessing_input(),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="salience",
                    tooltip="Soft, 0 to 1, of the picture's size, one for each picture.",
                )
            ],
        )

    @classmethod
    @validated
    def execute(cls, image: Tensor, estimator: str, preprocessing: Preprocessing) -> io.NodeOutput:
        hosted = saliency_estimator(estimator)
        image = picture(image, channels=channels_read(hosted.estimator))
        found = [
            estimate(hosted.estimator, image[index : index + 1], preprocessing=preprocessing, run=hosted.run)
            for index in each(image.shape[0])
        ]
        salience = torch.cat(found)
        return io.NodeOutput(salience, ui=preview(salience, "salience", cls))


class RefineMask(io.ComfyNode):
    """Threshold, clean up, grow, soften."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_RefineMask",
            display_name="Refine Mask (Compose and Conquer)",
            category=LAYERS,
            description="Makes a clean mask of a soft one, in this order: threshold, largest part, holes, grow or "
            "shrink, feather, invert.",
            search_aliases=[
                "grow mask",
                "shrink mask",
                "feather",
                "fill holes",
                "threshold",
                "dilate",
                "erode",
            ],
            inputs=[
                io.Mask.Input("mask", tooltip="A mask of any size, soft or hard, or a batch of them."),
                threshold_input(),
                grow_input(),
                io.Boolean.Input(
                    "fill_holes", default=False, tooltip="Fill regions that the mask encloses on all sides."
                ),
                io.Boolean.Input(
                    "largest_only",
                    default=False,
                    tooltip="Keep the largest connected part alone and drop specks beside it.",
                ),
                feather_input(),
                io.Boolean.Input("invert", default=False, tooltip="Swap inside and outside, after all else."),
            ],
            outputs=[io.Mask.Output(display_name="mask", tooltip="The refined mask, 0 to 1, of the same size.")],
        )

    @classmethod
    @validated
    def execute(
        cls,
        mask: Tensor,
        threshold: float,
        grow: int,
        fill_holes: bool,
        largest_only: bool,
        feather: int,
        invert: bool,
    ) -> io.NodeOutput:
        mask = masks(mask)
        refined = torch.cat(
            [
                refine_mask(
                    mask[index : index + 1],
                    threshold=threshold,
                    grow=grow,
                    fill_holes=fill_holes,
                    largest_only=largest_only,
                    feather=feather,
                    invert=invert,
                )
                for index in each(mask.shape[0])
            ]
        )
        return io.NodeOutput(refined, ui=preview(refined, "mask", cls))


class SalientMask(io.ComfyNode):
    """The two above in one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_SalientMask",
            display_name="Salient Mask (Compose and Conquer)",
            category=LAYERS,
            description="The mask of the object that stands out: Salience Map and Refine Mask in one. Changing the "
            "threshold does not run the estimator again.",
            search_aliases=[
                "saliency",
                "background removal",
                "rembg",
                "segment",
                "foreground mask",
                "cut out",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The picture, or a batch of them. An alpha channel is left out."),
                saliency_input("estimator"),
                threshold_input(),
                grow_input(),
                feather_input(),
            ],
            outputs=[
                io.Mask.Output(display_name="mask", tooltip="1 on the object, 0 elsewhere, of the picture's size.")
            ],
            **COMPOUND,
        )

    @classmethod
    @not_of_lists
    @validated
    def execute(cls, image: Tensor, estimator: str, threshold: float, grow: int, feather: int) -> io.NodeOutput:
        graph = GraphBuilder()
        options = {"threshold": threshold, "grow": grow, "feather": feather}
        mask = salient_mask_parts(graph, links(cls)["image"], estimator, **options)
        return io.NodeOutput(mask, expand=graph.finalize())


NODES: list[type[io.ComfyNode]] = [SalienceMap, RefineMask, SalientMask]
