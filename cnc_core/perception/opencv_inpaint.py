"""OpenCV's two classical inpainting methods: no model, and no idea of what they fill."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .inpaint import stack, unstack
from .opencv import opencv

METHODS = ("telea", "navier-stokes")
"""OpenCV's methods, by the names that they are chosen by."""


class OpenCVInpainter:
    """Grows the hole's surroundings into it.

    method: "telea" (fast marching, Telea 2004) or "navier-stokes" (Bertalmio 2001). radius: how far around a
    pixel they look. Pictures longer than `max_side` are filled at that size: what these methods make is
    smooth anyway, and their time grows with the hole's area.
    """

    network = None

    def __init__(self, method: str, *, radius: float = 5.0, max_side: int = 1024) -> None:
        if method not in METHODS:
            raise ValueError(f"OpenCV's methods are {' and '.join(METHODS)}; got {method!r}")
        self.method = method
        self.radius = radius
        self.max_side = max_side

    def prepare(self, image: Tensor, hole: Tensor) -> Tensor:
        """(B, H, W, 3) and (B, H, W) to (B, 4, h, w): the picture and its hole, at working size."""
        return stack(image, hole, max_side=self.max_side)

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """What `prepare` returned, filled, to (B, height, width, 3)."""
        cv2 = opencv()
        flag = cv2.INPAINT_TELEA if self.method == "telea" else cv2.INPAINT_NS
        filled = []
        for stacked in output.cpu().numpy():
            colours = np.rint(stacked[:3].clip(0, 1) * 255).astype(np.uint8)
            picture = np.ascontiguousarray(colours.transpose(1, 2, 0))
            hole = (stacked[3] > 0).astype(np.uint8)
            filled.append(cv2.inpaint(picture, hole, self.radius, flag).transpose(2, 0, 1))
        return unstack(torch.from_numpy(np.stack(filled)).to(output) / 255, height, width)
