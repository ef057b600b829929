"""Depth without a model, for hand-made compositions: the mask inflated, over a flat ground.

It measures nothing. The foreground's depth follows from the mask alone, the background's from nothing but the
picture's size.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .estimator import Preprocessing
from .opencv import opencv

MASK_AND_GROUND_PLANE = "mask-and-ground-plane"
"""Its name among the depth estimators."""

RIM = 0.5
"""How near the object's outline is, where its middle is 1 and all around it 0."""

HORIZON = 0.5
"""Where the ground ends, as a fraction of the picture's height from its top."""


class MaskAndGroundPlane:
    """Depth drawn from a mask, or the ground without one. It has no network and does not look at the picture."""

    network = None

    def prepare(self, image: Tensor, *, preprocessing: Preprocessing = "model") -> Tensor:
        """(B, H, W, 3) to an empty (B, 0): only the number of pictures matters."""
        del preprocessing
        return image.new_zeros(image.shape[0], 0)

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """(B, 0) to the ground's disparity (B, height, width)."""
        return ground_plane(height, width).to(output).expand(output.shape[0], -1, -1)

    def foreground(self, mask: Tensor) -> Tensor:
        """A mask (B, H, W) in [0, 1] to the object's disparity (B, H, W)."""
        return inflate(mask)


def ground_plane(height: int, width: int) -> Tensor:
    """A flat ground seen by a level camera: (height, width) in [0, 1], near is large.

    What stands on the ground y pixels below the horizon is at a distance proportional to 1 / y, so disparity grows
    linearly from 0 at the horizon to 1 at the picture's lower edge. Above the horizon it is 0.
    """
    rows = torch.arange(1, height + 1, dtype=torch.float32) / height
    return ((rows - HORIZON) / (1 - HORIZON)).clamp(min=0.0)[:, None].expand(height, width)


def inflate(mask: Tensor) -> Tensor:
    """The object as a rounded relief: (B, H, W) in [0, 1] to the same.

    With d the distance in pixels to the object's outline and R the greatest of them in this mask, the object is
    RIM + (1 - RIM) * sqrt(1 - (1 - d / R)^2): for a disc the half of an ellipsoid, on a rim that stands off from
    the 0 around it. Above 0.5 the mask is object. The picture's frame is not an outline, unless all is object. A
    mask without object gives zeros. Raises PerceptionError where there is no OpenCV.
    """
    return torch.stack([torch.from_numpy(_inflated(one.cpu().numpy() > 0.5)) for one in mask]).to(mask)


def _inflated(inside: np.ndarray) -> np.ndarray:
    if not inside.any():
        return np.zeros(inside.shape, np.float32)
    cv2 = opencv()
    framed = np.pad(inside, 1, constant_values=not inside.all()).astype(np.uint8)
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    rounded = np.sqrt(1.0 - (1.0 - distance / distance.max()) ** 2)
    return np.where(inside, RIM + (1.0 - RIM) * rounded, 0.0).astype(np.float32)
