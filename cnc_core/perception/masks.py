"""From a soft salience map to the mask an artist wants: threshold, clean up, grow, soften.

Distances are Euclidean and in pixels, measured exactly whatever the radius, and the picture's border is
not an edge: a mask that touches it is not eaten away from it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .estimator import check_mask
from .opencv import opencv

Binary = np.ndarray
"""(H, W) of bool."""


def refine_mask(
    mask: Tensor,
    *,
    threshold: float = 0.5,
    grow: int = 0,
    fill_holes: bool = False,
    largest_only: bool = False,
    feather: int = 0,
    invert: bool = False,
) -> Tensor:
    """A clean mask from a soft one: (B, H, W) in [0, 1] to (B, H, W) in [0, 1].

    In this order: keep what is above `threshold`; keep only the largest connected part; fill the holes
    in it; grow by `grow` pixels (shrink where negative); turn the edge into a ramp `feather` pixels
    wide, centred on the contour; swap inside and outside. Without feather the result is 0 or 1.
    Raises ValueError for what `check_mask` refuses and for a negative feather.
    """
    check_mask(mask)
    if feather < 0:
        raise ValueError(f"feather is a width in pixels, 0 or more; got {feather}")
    refined = []
    for soft in mask.detach().cpu().float().numpy():
        inside = soft > threshold
        if largest_only:
            inside = largest_part(inside)
        if fill_holes:
            inside = without_holes(inside)
        if grow:
            inside = grown(inside, grow)
        ramp = feathered(inside, feather)
        refined.append(1.0 - ramp if invert else ramp)
    return torch.from_numpy(np.stack(refined)).to(mask)


def largest_part(inside: Binary) -> Binary:
    """The largest connected part alone; pixels that touch at a corner are connected."""
    cv2 = opencv()
    count, labels, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=8)
    if count <= 2:
        return inside
    largest: Binary = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return largest


def without_holes(inside: Binary) -> Binary:
    """With every outside region filled that does not reach the picture's border."""
    cv2 = opencv()
    # Outside regions connect along edges only, as inside ones connect at corners too.
    count, labels = cv2.connectedComponents((~inside).astype(np.uint8), connectivity=4)
    enclosed = np.ones(count, dtype=bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        enclosed[edge] = False
    filled: Binary = inside | enclosed[labels]
    return filled


def grown(inside: Binary, pixels: int) -> Binary:
    """Grown by a disc of this radius, or shrunk where it is negative."""
    if pixels >= 0:
        return distance_to(inside) <= pixels
    return distance_to(~inside) > -pixels


def feathered(inside: Binary, width: int) -> np.ndarray:
    """(H, W) float32: a linear ramp of this width across the contour; 0 and 1 beyond it."""
    if width <= 1 or not inside.any() or inside.all():
        return inside.astype(np.float32)
    signed = np.where(inside, distance_to(~inside) - 0.5, 0.5 - distance_to(inside))
    return np.clip(0.5 + signed / width, 0.0, 1.0).astype(np.float32)


def distance_to(inside: Binary) -> np.ndarray:
    """Each pixel's distance to the nearest inside pixel, between centres; infinite where there is none."""
    cv2 = opencv()
    if not inside.any():
        return np.full(inside.shape, np.inf, dtype=np.float32)
    outside = (~inside).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
