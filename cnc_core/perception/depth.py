"""From what a depth estimator returns to the depth map that the local fuser takes.

Near is bright, in [0, 1], normalised for each picture alone: the release normalises over the whole
batch, which makes a picture's map depend on its neighbours, and gives NaN for a constant map.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..triplet import cut_out
from .estimator import MapEstimator, Preprocessing, Run, check_image, check_mask, estimate
from .mask_depth import MaskAndGroundPlane

Version = Literal["v1", "v2", "v3"]

VERSIONS: tuple[Version, ...] = ("v1", "v2", "v3")
"""The release's three foreground depth maps, of a picture I with mask M.

v1 is depth(I); v2 is depth(I * M), the cut-out alone, which the released weights were trained with;
v3 is depth(I) * M, as the release's demo has it; the paper's appendix A.4 can be read as depth(I * M) * M.
"""


def depth_map(
    estimator: MapEstimator,
    image: Tensor,
    *,
    version: Version = "v1",
    mask: Tensor | None = None,
    preprocessing: Preprocessing = "model",
    clip_percent: float = 0.0,
    invert: bool = False,
    run: Run | None = None,
) -> Tensor:
    """A picture's depth map: (B, H, W, 3) in [0, 1] to (B, H, W) in [0, 1], near is bright.

    mask: (B or 1, H, W) in [0, 1], for v2 and v3; where it is empty there is no object and the map is zeros, as
    the release has it. clip_percent and invert: see `normalise`. run: see `estimate`. Raises ValueError for a
    version that needs a mask and has none, for a mask of another size, and for what `check_image` refuses.
    """
    check_image(image)
    if version not in VERSIONS:
        raise ValueError(f"the depth version is one of {', '.join(VERSIONS)}; got {version!r}")
    if version == "v1":
        raw = estimate(estimator, image, preprocessing=preprocessing, run=run)
        return normalise(raw, clip_percent=clip_percent, invert=invert)
    mask = _object(mask, image, version)
    if isinstance(estimator, MaskAndGroundPlane):
        raw = estimator.foreground(mask).expand(image.shape[0], -1, -1)
        return normalise(raw, clip_percent=clip_percent, invert=invert)
    seen = cut_out(image, mask) if version == "v2" else image
    raw = estimate(estimator, seen, preprocessing=preprocessing, run=run)
    depth = normalise(raw, clip_percent=clip_percent, invert=invert)
    return depth * (mask if version == "v3" else mask.amax((1, 2), keepdim=True) > 0)


def _object(mask: Tensor | None, image: Tensor, version: Version) -> Tensor:
    """The mask that a version needs. Raises ValueError where it is not there, or not the picture's."""
    if mask is None:
        raise ValueError(
            f"depth version {version} is about a masked object and got no mask: connect one, or choose v1 for the "
            f"whole picture"
        )
    check_mask(mask)
    if mask.shape[1:] != image.shape[1:3] or mask.shape[0] not in (1, image.shape[0]):
        raise ValueError(
            f"the mask must be (B or 1, H, W) for the picture's (B, H, W, 3); "
            f"got {tuple(mask.shape)} for {tuple(image.shape)}"
        )
    return mask


def normalise(raw: Tensor, *, clip_percent: float = 0.0, invert: bool = False) -> Tensor:
    """Each map's own minimum to 0 and maximum to 1: (B, H, W) of any range to (B, H, W) in [0, 1].

    clip_percent: so many percent of the pixels at either end are cut off first, against outliers; in
    [0, 50). invert: turns near and far round, for an estimator that gives distance. A constant map
    becomes zeros either way. Raises ValueError for non-finite values and a clip_percent out of range.
    """
    if raw.ndim != 3:
        raise ValueError(f"depth must be (B, H, W); got {tuple(raw.shape)}")
    if not 0.0 <= clip_percent < 50.0:
        raise ValueError(f"clip_percent is in [0, 50); got {clip_percent}")
    if not torch.isfinite(raw).all():
        raise ValueError(
            "the depth estimator returned values that are not numbers; if it ran in half precision, run it in full "
            "precision (ComfyUI: start it with --force-fp32), else get its file again"
        )
    if clip_percent:
        low, high = _percentiles(raw, clip_percent)
    else:
        low, high = raw.amin((1, 2), keepdim=True), raw.amax((1, 2), keepdim=True)
    extent = high - low
    constant = extent <= 0
    scaled = ((raw - low) / extent.masked_fill(constant, 1.0)).clamp(0.0, 1.0)
    if invert:
        scaled = 1.0 - scaled
    return scaled.masked_fill(constant, 0.0)


def _percentiles(raw: Tensor, percent: float) -> tuple[Tensor, Tensor]:
    """Two percentiles of each map, (B, 1, 1) each; by numpy, as torch.quantile refuses large pictures."""
    flat = raw.detach().cpu().float().numpy().reshape(raw.shape[0], -1)
    both = torch.from_numpy(np.percentile(flat, (percent, 100.0 - percent), axis=1)).to(raw)  # (2, B)
    return both[0].reshape(-1, 1, 1), both[1].reshape(-1, 1, 1)
