"""How good a depth map is against a true disparity, where scale and offset mean nothing.

Two measures, since relative depth is known up to scale and shift alone: the error that is left after the best
alignment (as MiDaS and its successors are judged, Ranftl et al. 2020), and how often the nearer of two pixels is
named right (as in depth in the wild, Chen et al. 2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DepthQuality:
    """error: mean absolute, as a share of the truth's range, 0 is perfect. order: share of pixel pairs in the right
    order, 1 is perfect and 0.5 is chance. pairs: how many were compared.
    """

    error: float
    order: float
    pairs: int


def depth_quality(
    depth: Tensor, truth: Tensor, *, pairs: int = 100_000, margin: float = 0.02, seed: int = 0
) -> DepthQuality:
    """Measure a depth map (H, W) against a true disparity (H, W); near is large in both.

    What is not finite in the truth is unknown there and left out. pairs: how many pixel pairs are drawn, by `seed`;
    those whose truth differs by less than `margin` of its range are dropped. Raises ValueError for two sizes, for
    values of the depth map that are not finite, and for a truth with fewer than two different values.
    """
    if depth.shape != truth.shape or depth.ndim != 2:
        raise ValueError(f"depth and truth must be (H, W) alike; got {tuple(depth.shape)} and {tuple(truth.shape)}")
    known = torch.isfinite(truth)
    found, true = depth[known].cpu().double(), truth[known].cpu().double()
    if not torch.isfinite(found).all():
        raise ValueError("the depth map has values that are not finite")
    if true.numel() < 2 or true.amax() == true.amin():
        raise ValueError("the true disparity needs two different values at least")
    extent = true.amax() - true.amin()
    error = (aligned(found, true) - true).abs().mean() / extent
    right, compared = _in_order(found, true, pairs, float(margin * extent), seed)
    return DepthQuality(float(error), right, compared)


def aligned(found: Tensor, true: Tensor) -> Tensor:
    """scale * found + shift, (N,), as near to `true`, (N,), as least squares bring it.

    The scale is at least 0: a map that takes near for far must not be turned round for it.
    """
    offset = found - found.mean()
    spread = offset.square().sum()
    scale = (offset * true).sum().div(spread).clamp(min=0.0) if spread > 0 else spread
    return scale * offset + true.mean()


def _in_order(found: Tensor, true: Tensor, pairs: int, margin: float, seed: int) -> tuple[float, int]:
    """The share of drawn pairs that `found` orders as `true` does, a tie counting half, and how many counted."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(found.numel(), (2, pairs), generator=generator)
    wanted = true[first] - true[second]
    counts = wanted.abs() >= margin
    agreement = (wanted.sign() * (found[first] - found[second]).sign())[counts]
    return float((agreement.mean() + 1) / 2), int(counts.sum())
