"""Which kind of map a local fuser gets: depth, or edges."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

DEPTH, CANNY = "depth", "canny"
KINDS = (DEPTH, CANNY)

_BLACK = 0.1
_WIDTH = 64
"""A square of this share of the shorter side is wider than any line."""
_LINES, _SURFACES = 0.02, 0.2


def kind_of_map(maps: Tensor) -> str | None:
    """Tell maps of edges from depth maps by what is in them: thin lines, or surfaces; None where neither is sure.

    maps: (B, C, H, W) in [0, 1]. Of all that is not black, edges leave next to nothing where the black around them is
    grown by a 64th of the shorter side, and depth leaves most. An empty map says nothing.
    """
    bright = (maps.amax(1, keepdim=True) > _BLACK).float()
    if not bright.any():
        return None
    reach = max(2, min(bright.shape[-2:]) // _WIDTH // 2)
    inside = 1 - F.max_pool2d(1 - bright, 2 * reach + 1, stride=1, padding=reach)
    left = float(inside.sum() / bright.sum())
    if left < _LINES:
        return CANNY
    return DEPTH if left > _SURFACES else None
