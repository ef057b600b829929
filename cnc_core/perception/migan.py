"""MI-GAN (Sargsyan et al., ICCV 2023) in an ONNX file with its authors' pipeline around it.

The pipeline cuts the hole and its surroundings out, fills them at 512 pixels or 256 and pastes them back:
`image` uint8 (1, 3, H, W) and `mask` uint8 (1, 1, H, W), 255 where the picture is known, give uint8
(1, 3, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .estimator import PerceptionError
from .inpaint import stack, unstack, working_size
from .onnx import Array, OnnxNetwork, described

_INPUTS = {"image": 3, "mask": 1}
"""Its inputs and their channels."""

_SMALLEST = 16
"""The pipeline fails below 3 pixels a side; smaller pictures are padded to this."""

_NETWORK_SIDE = 256
"""The smaller of the two sizes that the network itself comes in."""

_BLUR = 3
"""The pipeline blends the hole's last pixels with the picture: so many, with a bit to spare."""


class MIGAN:
    """Fills holes with MI-GAN's pipeline.

    network: the pipeline. Pictures longer than `max_side` are filled at that size, which bounds the memory;
    the network itself sees no more than 512 x 512.
    """

    def __init__(self, network: OnnxNetwork, *, max_side: int = 4096) -> None:
        self.network = network
        self.max_side = max_side

    def prepare(self, image: Tensor, hole: Tensor) -> Tensor:
        """(B, H, W, 3) and (B, H, W) to (B, 4, h, w): the picture and the hole that the pipeline gets.

        That hole is wider than the one to fill. The pipeline blends its rim with what was there, and shrinks
        large crops over the rim: both would bring in what the hole hides.
        """
        stacked = stack(image, hole, max_side=self.max_side)
        margin = _BLUR + math.ceil(max(stacked.shape[2:]) / _NETWORK_SIDE)
        for brush, padding in (((2 * margin + 1, 1), (margin, 0)), ((1, 2 * margin + 1), (0, margin))):
            stacked[:, 3] = F.max_pool2d(stacked[:, 3], brush, stride=1, padding=padding)
        height, width = stacked.shape[2:]
        missing = (0, max(0, _SMALLEST - width), 0, max(0, _SMALLEST - height))
        return F.pad(stacked, missing, mode="replicate")

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """(B, 3, h, w) in [0, 255] to (B, height, width, 3)."""
        h, w = working_size(height, width, self.max_side)
        return unstack(output[..., :h, :w] / 255, height, width)


def load_migan(path: Path, *, device: torch.device | str | None = None) -> MIGAN:
    """MI-GAN from its pipeline's file.

    device: what it computes on. Raises PerceptionError where onnxruntime is missing, or the file is no such
    pipeline.
    """
    network = OnnxNetwork(path, device=device, feed=_feed, one_by_one=True)
    given = {name: (entry.type, *entry.shape[1:2]) for name, entry in network.inputs.items()}
    if given != {name: ("tensor(uint8)", channels) for name, channels in _INPUTS.items()}:
        raise PerceptionError(
            f"{path} is no inpainting model that is known here: it takes {described(network.inputs)}; expected "
            f"MI-GAN with its pipeline (migan_pipeline_v2.onnx), which takes an image and a mask of uint8"
        )
    return MIGAN(network)


def _feed(stacked: Array) -> Mapping[str, Array]:
    colours = np.rint(stacked[:, :3].clip(0, 1) * 255).astype(np.uint8)
    known = np.where(stacked[:, 3:] > 0, 0, 255).astype(np.uint8)
    return {"image": colours, "mask": known}
