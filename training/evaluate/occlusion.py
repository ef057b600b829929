"""Who stands in front, read from a picture: two measures that need no training and no caption.

Both know the silhouettes of two objects A and B (as if each stood alone) and look where they overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 0.014  # share of the picture that overlap, A alone and B alone each need
NEIGHBOURS = 5
_SAMPLES = 200  # pixels of each region that vote


@dataclass(frozen=True)
class Verdict:
    """Which object each measure sees in front: True for A."""

    colour: bool  # "kNN" of the reports
    edge: bool

    def says(self, a_in_front: bool) -> bool:
        """Whether both name that object; where they disagree, neither does."""
        return self.colour == a_in_front and self.edge == a_in_front


def regions(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Overlap, A alone and B alone of two silhouettes (H, W) in {0, 1}, as booleans."""
    a, b = a > 0.5, b > 0.5
    return a & b, a & ~b, b & ~a


def large_enough(a: Tensor, b: Tensor) -> bool:
    """Whether all three regions have the smallest share of the picture."""
    return all(float(region.float().mean()) >= SMALLEST for region in regions(a, b))


def _inner(region: Tensor) -> Tensor:
    """The region without its border pixels, or all of it where nothing is left."""
    eroded = -F.max_pool2d(-region[None, None].float(), 3, 1, 1)[0, 0] > 0.5
    return eroded if eroded.any() else region


def _thinned(colours: Tensor) -> Tensor:
    step = max(1, len(colours) // _SAMPLES)
    return colours[::step][:_SAMPLES]


def colour_share(picture: Tensor, a: Tensor, b: Tensor) -> float:
    """The share of the overlap's pixels whose nearest colours are A's: picture (3, H, W) in [0, 1]."""
    overlap, only_a, only_b = (_thinned(picture[:, _inner(region)].T) for region in regions(a, b))
    count = min(len(only_a), len(only_b))
    known = torch.cat((_evenly(only_a, count), _evenly(only_b, count)))
    nearest = torch.cdist(overlap, known).topk(min(NEIGHBOURS, 2 * count), largest=False).indices
    votes = (nearest < count).float().mean(1)
    return float((votes > 0.5).float().mean())


def _evenly(colours: Tensor, count: int) -> Tensor:
    return colours[torch.linspace(0, len(colours) - 1, count).round().long()]


def _gradient(picture: Tensor) -> Tensor:
    """Length of the colour gradient (H, W)."""
    padded = F.pad(picture[None], (1, 1, 1, 1), mode="replicate")[0]
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    return (across.square() + down.square()).sum(0).sqrt()


def _contour(shape: Tensor) -> Tensor:
    """Pixels within one of the border of a silhouette (H, W)."""
    solid = shape[None, None].float()
    grown, shrunk = F.max_pool2d(solid, 3, 1, 1), -F.max_pool2d(-solid, 3, 1, 1)
    return (grown - shrunk)[0, 0] > 0.5


def edge_excess(picture: Tensor, a: Tensor, b: Tensor) -> float:
    """Mean gradient along A's contour inside B, less that along B's contour inside A."""
    gradient = _gradient(picture)
    a_contour, b_contour = _contour(a), _contour(b)
    near_both = a_contour & b_contour  # where the outlines cross, an edge tells nothing
    along_a, along_b = a_contour & (b > 0.5) & ~near_both, b_contour & (a > 0.5) & ~near_both
    if not along_a.any() or not along_b.any():
        return 0.0
    return float(gradient[along_a].mean() - gradient[along_b].mean())


def verdict(picture: Tensor, a: Tensor, b: Tensor) -> Verdict:
    """Both measures on a picture (3, H, W) in [0, 1] with silhouettes a, b (H, W)."""
    return Verdict(colour_share(picture, a, b) > 0.5, edge_excess(picture, a, b) > 0)
