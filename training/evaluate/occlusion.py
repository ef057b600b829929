"""Who stands in front, read from a picture: two measures that need no training and no caption.

Both know the silhouettes of two objects A and B (as if each stood alone) and look where they overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

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


def large_enough(a: Tensor, b: Tensor, hidden: Tensor | None = None) -> bool:
    """Whether all three regions, where nothing is `hidden`, have the smallest share of the picture."""
    counted = torch.ones_like(a, dtype=torch.bool) if hidden is None else hidden < 0.5
    return all(float((region & counted).float().mean()) >= SMALLEST for region in regions(a, b))


@dataclass(frozen=True)
class Outlines:
    """Where the measures look in each of B pairs of silhouettes, found once for any number of pictures."""

    overlap: Tensor  # (B, _SAMPLES), places of pixels in a flat picture; -1 fills up
    alone: Tensor  # (B, 2 * _SAMPLES): as many places where only A is as where only B is
    along_a: Tensor  # (B, H, W) in {0, 1}: A's contour inside B
    along_b: Tensor

    @classmethod
    def of(cls, a: Tensor, b: Tensor, hidden: Tensor | None = None) -> Outlines:
        """Of silhouettes (B, H, W) in {0, 1}; pixels where `hidden`, of the same shape, is 1 do not count."""
        hidden = torch.zeros_like(a) if hidden is None else hidden
        found = [_outlines(*three) for three in zip(a.cpu(), b.cpu(), hidden.cpu(), strict=True)]
        return cls(*(torch.stack(parts) for parts in zip(*found, strict=True)))

    def to(self, device: torch.device | str) -> Outlines:
        """These on a device."""
        return Outlines(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __getitem__(self, rows: slice) -> Outlines:
        """Those of some of the pairs."""
        return Outlines(*(getattr(self, field.name)[rows] for field in fields(self)))

    def colour_share(self, pictures: Tensor) -> Tensor:
        """The share of the overlap's pixels whose nearest colours are A's, (B,): pictures (B, 3, H, W) in [0, 1]."""
        flat = pictures.flatten(2).mT  # (B, pixels, 3)
        overlap, alone = (_gathered(flat, places) for places in (self.overlap, self.alone))
        distance = torch.cdist(overlap, alone, compute_mode="donot_use_mm_for_euclid_dist")
        distance = distance.masked_fill(self.alone[:, None] < 0, torch.inf)
        nearest = distance.topk(NEIGHBOURS, largest=False)
        voting = nearest.values.isfinite()
        for_a = ((nearest.indices < _SAMPLES) & voting).sum(-1) / voting.sum(-1).clamp(min=1)
        counts = (self.overlap >= 0).float()
        return ((for_a > 0.5) * counts).sum(-1) / counts.sum(-1).clamp(min=1)

    def edge_excess(self, pictures: Tensor) -> Tensor:
        """Mean gradient along A's contour inside B, less that along B's contour inside A, (B,); 0 without either."""
        gradient = _gradient(pictures)
        a_length, b_length = self.along_a.sum((1, 2)), self.along_b.sum((1, 2))
        a_mean = (gradient * self.along_a).sum((1, 2)) / a_length.clamp(min=1)
        b_mean = (gradient * self.along_b).sum((1, 2)) / b_length.clamp(min=1)
        return torch.where((a_length > 0) & (b_length > 0), a_mean - b_mean, 0.0)

    def verdicts(self, pictures: Tensor) -> list[Verdict]:
        """Both measures on pictures (B, 3, H, W) in [0, 1]."""
        colour, edge = self.colour_share(pictures) > 0.5, self.edge_excess(pictures) > 0
        return [Verdict(*both) for both in zip(colour.tolist(), edge.tolist(), strict=True)]


def verdict(picture: Tensor, a: Tensor, b: Tensor) -> Verdict:
    """Both measures on a picture (3, H, W) in [0, 1] with silhouettes a, b (H, W)."""
    return Outlines.of(a[None], b[None]).to(picture.device).verdicts(picture[None])[0]


def _outlines(a: Tensor, b: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found = (region & (hidden < 0.5) for region in regions(a, b))
    overlap, only_a, only_b = (_thinned(_inner(region).flatten().nonzero()[:, 0]) for region in found)
    count = min(len(only_a), len(only_b))
    alone = torch.cat((_filled(_evenly(only_a, count)), _filled(_evenly(only_b, count))))
    a_contour, b_contour = _contour(a), _contour(b)
    near_both = a_contour & b_contour  # where the outlines cross, an edge tells nothing
    uncounted = near_both | (F.max_pool2d(hidden[None, None].float(), 3, 1, 1)[0, 0] > 0.5)
    along_a, along_b = a_contour & (b > 0.5) & ~uncounted, b_contour & (a > 0.5) & ~uncounted
    return _filled(overlap), alone, along_a.float(), along_b.float()


def _inner(region: Tensor) -> Tensor:
    """The region without its border pixels, or all of it where nothing is left."""
    eroded = -F.max_pool2d(-region[None, None].float(), 3, 1, 1)[0, 0] > 0.5
    return eroded if eroded.any() else region


def _thinned(places: Tensor) -> Tensor:
    step = max(1, len(places) // _SAMPLES)
    return places[::step][:_SAMPLES]


def _evenly(places: Tensor, count: int) -> Tensor:
    return places[torch.linspace(0, len(places) - 1, count).round().long()]


def _filled(places: Tensor) -> Tensor:
    return F.pad(places, (0, _SAMPLES - len(places)), value=-1)


def _gathered(flat: Tensor, places: Tensor) -> Tensor:
    return flat.gather(1, places.clamp(min=0)[..., None].expand(-1, -1, flat.shape[-1]))


def _gradient(pictures: Tensor) -> Tensor:
    """Length of the colour gradient (B, H, W)."""
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    return (across.square() + down.square()).sum(1).sqrt()


def _contour(shape: Tensor) -> Tensor:
    """Pixels within one of the border of a silhouette (H, W)."""
    solid = shape[None, None].float()
    grown, shrunk = F.max_pool2d(solid, 3, 1, 1), -F.max_pool2d(-solid, 3, 1, 1)
    return (grown - shrunk)[0, 0] > 0.5
