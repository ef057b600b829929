"""The background with the object gone: grow the mask, fill the hole, leave the rest alone."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .estimator import Inpainter, Run, apply_network, check_image, check_mask
from .opencv import opencv

DILATION = 50
"""The release's brush: 50 x 50 pixels at 512."""

REFERENCE_SIDE = 512
"""The shorter side of the picture that a dilation is meant for; other pictures scale it."""


METHODS = ("telea", "navier-stokes")
"""OpenCV's methods, by the names that they are chosen by."""


def inpaint(
    inpainter: Inpainter,
    image: Tensor,
    mask: Tensor,
    *,
    dilation: float = DILATION,
    run: Run | None = None,
) -> Tensor:
    """The picture with the masked object gone: (B, H, W, 3) in [0, 1] to the same.

    mask: (B, H, W), above 0.5 inside the object. dilation: see `dilate`. Pixels outside the dilated mask
    come back bit for bit. Pictures whose mask is empty come back whole. run: see `estimate`.
    Raises ValueError where the dilated mask covers a whole picture, or the shapes do not fit.
    """
    check_image(image)
    check_mask(mask)
    if mask.shape != image.shape[:3]:
        raise ValueError(
            f"the mask must be (B, H, W) for the picture's (B, H, W, 3); "
            f"got {tuple(mask.shape)} for {tuple(image.shape)}"
        )
    hole = dilate(mask, dilation)
    if (hole.flatten(1).amin(dim=1) > 0).any():
        raise ValueError(
            f"the mask, grown by a dilation of {dilation:g}, covers a whole picture of "
            f"{image.shape[2]} x {image.shape[1]} pixels: nothing is left to fill it from. Lower the "
            f"dilation, or use a smaller mask"
        )
    if not hole.any():
        return image
    output = apply_network(inpainter.network, inpainter.prepare(image, hole), run)
    filled = inpainter.finish(output, image.shape[1], image.shape[2])
    return torch.where(hole[..., None] > 0, filled.to(image).clamp(0.0, 1.0), image)


def dilate(mask: Tensor, dilation: float = DILATION) -> Tensor:
    """The hole to fill: (B, H, W) in [0, 1] to (B, H, W) in {0, 1}.

    What is above 0.5 is grown by a square brush, as in the release. `dilation` is the brush's width in
    pixels of a picture whose shorter side is 512, scaled to this one: 50 grows the mask by 25 pixels on
    each side there. Raises ValueError for a negative dilation.
    """
    if dilation < 0:
        raise ValueError(f"dilation is a width in pixels, 0 or more; got {dilation}")
    cv2 = opencv()
    radius = round(dilation * min(mask.shape[1:]) / REFERENCE_SIDE / 2)
    brush = np.ones((2 * radius + 1, 2 * radius + 1), dtype=np.uint8)
    grown = [cv2.dilate(inside, brush) for inside in (mask > 0.5).cpu().numpy().astype(np.uint8)]
    return torch.from_numpy(np.stack(grown)).to(mask)


class OpenCVInpainter:
    """OpenCV's two classical methods; no model, and no idea of what it fills.

    method: "telea" (fast marching, Telea 2004) or "navier-stokes" (Bertalmio 2001). Pictures longer than
    `max_side` are filled at that size: what these methods make is smooth anyway, and their time grows
    with the hole's area.
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
        stacked = torch.cat((image, hole[..., None].to(image)), dim=-1).movedim(-1, 1).float()
        longest = max(stacked.shape[2:])
        if longest <= self.max_side:
            return stacked
        size = [max(1, round(side * self.max_side / longest)) for side in stacked.shape[2:]]
        return F.interpolate(stacked, size=size, mode="area")

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
        result = torch.from_numpy(np.stack(filled)).to(output) / 255
        if result.shape[2:] != (height, width):
            result = F.interpolate(result, size=(height, width), mode="bilinear", align_corners=False)
        return result.movedim(1, -1)
