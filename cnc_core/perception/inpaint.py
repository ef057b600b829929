"""The background with the object gone: grow the mask, fill the hole, leave the rest alone."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .estimator import Inpainter, Run, apply_network, check_image, check_mask
from .opencv import opencv

DILATION = 50
"""The release's brush: 50 x 50 pixels at 512."""

FEATHER = 16
"""Width in pixels at 512 of the rim, just inside the hole, in which known pixels pass into filled ones.

Of the 25 that the default dilation leaves beside the object the inner 9 are wholly filled, for a mask that is a
little too small.
"""

REFERENCE_SIDE = 512
"""The shorter side of the picture that these widths are meant for; other pictures scale them."""


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
    come back bit for bit; just inside its edge they pass over a rim of `FEATHER`, or of what the dilation
    leaves beside the object where that is less. The inpainter sees black in place of the hole. Pictures
    whose mask is empty come back whole. run: see `estimate`.

    Raises ValueError where the dilated mask covers a whole picture, the shapes do not fit, or the inpainter
    returns something else than numbers.
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
    hidden = image.masked_fill(hole[..., None] > 0, 0.0)
    output = apply_network(inpainter.network, inpainter.prepare(hidden, hole), run)
    filled = inpainter.finish(output, image.shape[1], image.shape[2]).to(image).clamp(0.0, 1.0)
    inside = hole[..., None] > 0
    if not torch.isfinite(filled.masked_fill(~inside, 0.0)).all():
        raise ValueError("the inpainter returned values that are not numbers: its file is damaged, get it again")
    weight = _feather(hole, dilation)[..., None].to(image)
    return torch.where(inside, image.lerp(filled, weight), image)


def dilate(mask: Tensor, dilation: float = DILATION) -> Tensor:
    """The hole to fill: (B, H, W) in [0, 1] to (B, H, W) in {0, 1}.

    What is above 0.5 is grown by a square brush, as in the release. `dilation` is the brush's width in
    pixels of a picture whose shorter side is 512, scaled to this one: 50 grows the mask by 25 pixels on
    each side there. Raises ValueError for a dilation that is negative or not finite.
    """
    if not (math.isfinite(dilation) and dilation >= 0):
        raise ValueError(f"dilation is a width in pixels, 0 or more; got {dilation:g}")
    cv2 = opencv()
    radius = _pixels(dilation / 2, mask)
    # How much of the mask is under the brush, by running sums: as fast with a wide brush as with a narrow one.
    size = (2 * radius + 1, 2 * radius + 1)
    inside = (mask > 0.5).cpu().numpy().astype(np.uint8)
    under = [cv2.boxFilter(one, cv2.CV_32S, size, normalize=False, borderType=cv2.BORDER_CONSTANT) for one in inside]
    return torch.from_numpy(np.stack(under) > 0).to(mask)


def stack(image: Tensor, hole: Tensor, *, max_side: int) -> Tensor:
    """What inpainters work on: (B, H, W, 3) and (B, H, W) to float32 (B, 4, h, w), colours and then the hole.

    Pictures longer than `max_side` shrink to it; a pixel that has any of the hole in it is the hole then.
    """
    stacked = torch.cat((image, hole[..., None].to(image)), dim=-1).movedim(-1, 1).float()
    size = working_size(image.shape[1], image.shape[2], max_side)
    if stacked.shape[2:] != size:
        stacked = F.interpolate(stacked, size=size, mode="area")
        stacked[:, 3] = (stacked[:, 3] > 0).float()
    return stacked


def working_size(height: int, width: int, max_side: int) -> tuple[int, int]:
    """Height and width at which pictures no longer than `max_side` are filled."""
    scale = min(1.0, max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def unstack(filled: Tensor, height: int, width: int) -> Tensor:
    """Back from the working size: (B, 3, h, w) to (B, height, width, 3)."""
    if filled.shape[2:] != (height, width):
        filled = F.interpolate(filled, size=(height, width), mode="bilinear", align_corners=False)
    return filled.movedim(1, -1)


def _feather(hole: Tensor, dilation: float) -> Tensor:
    """How much of each pixel is filled: (B, H, W) in {0, 1} to (B, H, W) in [0, 1], rising from the hole's edge.

    The ramp is at most as wide as the dilation on one side, so that it ends before the object begins.
    """
    width = min(_pixels(FEATHER, hole), _pixels(dilation / 2, hole))
    if width == 0:
        return hole
    cv2 = opencv()
    inside = hole.cpu().numpy().astype(np.uint8)
    depth = np.stack([cv2.distanceTransform(each, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for each in inside])
    return (torch.from_numpy(depth).to(hole) / (width + 1)).clamp(max=1.0)


def _pixels(width: float, picture: Tensor) -> int:
    """A width at 512 in whole pixels of these pictures (B, H, W): at most their longer side, which is all of them."""
    return round(min(width * min(picture.shape[1:]) / REFERENCE_SIDE, max(picture.shape[1:])))
