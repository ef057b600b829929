"""Soft guidance: which tokens each place of the image may attend to, how strongly and when (paper section 3.3)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Mode = Literal["release", "paper"]
Resize = Literal["area", "release"]
WeightMode = Literal["scale", "gate"]
BlockGroup = Literal["input", "middle", "output"]

MODES: tuple[Mode, ...] = ("release", "paper")
RESIZES: tuple[Resize, ...] = ("area", "release")
WEIGHT_MODES: tuple[WeightMode, ...] = ("scale", "gate")
BLOCK_GROUPS: tuple[BlockGroup, ...] = ("input", "middle", "output")


@dataclass(frozen=True)
class Schedule:
    """When in the sampling a region acts, and how its weight changes over it.

    Args:
        start_percent, end_percent: the part of the sampling in which it acts, 0 being the start and 1 the end.
        curve: points (percent, factor), their percents rising; the weight is multiplied by the piecewise linear
            function through them, constant before the first and after the last. Empty for 1.
        input, middle, output: factors of the weight in these groups of the U-Net's blocks.

    Raises ValueError for a factor that is negative or not finite, and for percents that do not rise within [0, 1].
    """

    start_percent: float = 0.0
    end_percent: float = 1.0
    curve: tuple[tuple[float, float], ...] = ()
    input: float = 1.0
    middle: float = 1.0
    output: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "curve", tuple((float(at), float(factor)) for at, factor in self.curve))
        factors = [*(factor for _, factor in self.curve), *self.block_factors]
        if not all(math.isfinite(factor) and factor >= 0 for factor in factors):
            raise ValueError(f"a schedule's factors must be finite numbers, 0 or more, got {factors}")
        percents = [at for at, _ in self.curve]
        rising = all(before < after for before, after in pairwise(percents))
        if not rising or not all(0 <= at <= 1 for at in [*percents, self.start_percent, self.end_percent]):
            raise ValueError(
                f"a schedule's percents must be in [0, 1] and those of a curve rise, got {percents} from "
                f"{self.start_percent} to {self.end_percent}"
            )

    @property
    def block_factors(self) -> tuple[float, float, float]:
        """The factors of the groups, in the order of BLOCK_GROUPS."""
        return self.input, self.middle, self.output

    @property
    def is_constant(self) -> bool:
        """Whether it acts all the time, and its curve changes nothing."""
        return (self.start_percent, self.end_percent) == (0.0, 1.0) and all(factor == 1 for _, factor in self.curve)

    def factor(self, percent: float) -> float:
        """Return the curve's factor at a percent of the sampling in [0, 1]."""
        if not self.curve:
            return 1.0
        after = bisect_right(self.curve, percent, key=lambda point: point[0])
        if after in (0, len(self.curve)):
            return self.curve[min(after, len(self.curve) - 1)][1]
        (left, low), (right, high) = self.curve[after - 1 : after + 1]
        return low + (high - low) * (percent - left) / (right - left)


@dataclass(frozen=True, eq=False)
class Region:
    """The tokens of one exemplar, or of a text, and where, how strongly and when they act.

    Args:
        tokens: (B, N, D), before the weight. None of them (N = 0) keeps the region's place free of others.
        mask: (B or 1, 1, H, W) in [0, 1] at any resolution, or None for all that no other region covers, after
            resizing. Regions that are given the same tensor cover it once.
        weight: lambda, 0 or more.
        weight_mode: "scale" multiplies the tokens, as the release does. "gate" gives them weight times the
            attention, by adding log(weight) to their logits; at 0 they are not there.
        schedule: when it acts.
        positive_only: whether it acts on the positive prompt's half alone.
    """

    tokens: Tensor
    mask: Tensor | None
    weight: float = 1.0
    weight_mode: WeightMode = "scale"
    schedule: Schedule = field(default_factory=Schedule)
    positive_only: bool = False

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3:
            raise ValueError(f"region tokens must be (B, N, D), got shape {tuple(self.tokens.shape)}")
        if self.weight_mode not in WEIGHT_MODES:
            raise ValueError(f"weight_mode must be 'scale' or 'gate', got {self.weight_mode!r}")
        if self.weight_mode == "gate" and not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"a gate's weight must be a finite number, 0 or more, got {self.weight}")
        if self.mask is None:
            return
        if self.mask.ndim != 4 or self.mask.shape[1] != 1:
            raise ValueError(f"a region's mask must be (B or 1, 1, H, W), got shape {tuple(self.mask.shape)}")
        if self.mask.shape[0] not in (1, self.tokens.shape[0]) and self.tokens.shape[0] != 1:
            raise ValueError(
                f"a region has {self.tokens.shape[0]} sets of tokens and {self.mask.shape[0]} masks; "
                "give as many masks as sets of tokens, or one for all"
            )

    @property
    def is_closed(self) -> bool:
        """Whether it is a gate whose weight is 0 throughout."""
        schedule = self.schedule
        weights = (self.weight, max(schedule.block_factors), max((f for _, f in schedule.curve), default=1.0))
        return self.weight_mode == "gate" and 0.0 in weights


@dataclass(frozen=True, eq=False)
class Guidance:
    """The regions of one sampling run and how their masks act.

    mode: "release" multiplies a token's unnormalised attention weight by the mask, as the released weights
    were trained (0 removes the token, 1 leaves it); "paper" multiplies the token's logit, the equation of
    section 3.3. resize: "area" is the share of each attention cell that the mask covers; "release" is the
    released code's bicubic resize, of which every non-zero value counts as 1.
    """

    regions: tuple[Region, ...]
    mode: Mode = "release"
    resize: Resize = "area"

    def __post_init__(self) -> None:
        object.__setattr__(self, "regions", tuple(self.regions))
        if not self.regions:
            raise ValueError("guidance needs at least one region; without regions pass no guidance")
        if self.mode not in MODES:
            raise ValueError(f"mode must be 'release' or 'paper', got {self.mode!r}")
        if self.resize not in RESIZES:
            raise ValueError(f"resize must be 'area' or 'release', got {self.resize!r}")

    def __deepcopy__(self, memo: dict[int, Any]) -> Guidance:
        """Return itself: nothing of it changes, and its tensors are large."""
        return self

    def extended(self, other: Guidance) -> Guidance:
        """Return a new guidance with the regions of ``other`` appended; both must agree on mode and resize."""
        if (self.mode, self.resize) != (other.mode, other.resize):
            raise ValueError(
                f"a run has one mode and one resize for all regions: got {self.mode}/{self.resize} and "
                f"{other.mode}/{other.resize}; set them alike"
            )
        return Guidance((*self.regions, *other.regions), self.mode, self.resize)

    def tokens(self, factors: Sequence[float | None] | None = None) -> Tensor:
        """Return all regions' tokens, (B, sum of N, D), those of "scale" times weight and factor.

        factors: one for each region, 1 without it; None leaves the region's tokens as they are.
        """
        factors = [1.0] * len(self.regions) if factors is None else factors
        scaled = [
            region.tokens
            if factor is None or region.weight_mode == "gate"
            else region.tokens * (region.weight * factor)
            for region, factor in zip(self.regions, factors, strict=True)
        ]
        return torch.cat(broadcast_batch(scaled), dim=1)

    def without_closed_gates(self) -> Guidance:
        """Return the guidance without the tokens of gates that are never open; their regions keep their places."""
        closed = [region for region in self.regions if region.is_closed and region.tokens.shape[1]]
        if not closed:
            return self
        regions = [
            replace(region, tokens=region.tokens[:, :0]) if region.is_closed else region for region in self.regions
        ]
        return replace(self, regions=tuple(regions))


class MaskIndex(NamedTuple):
    """Which of a guidance's distinct masks each region has, as tensors on the tokens' device.

    Args:
        masks: the M distinct ones.
        region_masks: (R, M) of 0 and 1.
        token_masks: (N,), the index of the mask of each token's region, M where it has none.
    """

    masks: tuple[Tensor, ...]
    region_masks: Tensor
    token_masks: Tensor


def mask_index(guidance: Guidance) -> MaskIndex:
    """Return which masks the regions have; those that are given the same tensor have one."""
    regions, device = guidance.regions, guidance.regions[0].tokens.device
    distinct = {id(region.mask): region.mask for region in regions if region.mask is not None}
    order = {mask: index for index, mask in enumerate(distinct)}
    indices = [order.get(id(region.mask), len(order)) for region in regions]
    region_masks = torch.tensor([[float(index == at) for at in range(len(order))] for index in indices])
    tokens = [index for index, region in zip(indices, regions, strict=True) for _ in range(region.tokens.shape[1])]
    token_masks = torch.tensor(tokens, dtype=torch.long)
    on_device = [tensor.to(device, non_blocking=True) for tensor in (region_masks, token_masks)]
    return MaskIndex(tuple(distinct.values()), *on_device)


def token_mask(guidance: Guidance, height: int, width: int, acts: Tensor | None = None) -> Tensor:
    """Return the mask over all tokens for an attention layer of ``height`` x ``width`` queries.

    acts: (B or 1, R) of 0 and 1, which regions act in which picture; one that does not covers nothing. Without
    it all do. The result is (B or 1, height * width, sum of N) in [0, 1], in the order of the regions.
    """
    index = mask_index(guidance)
    return token_columns(index, resized_masks(index, height, width, guidance.resize), acts)


def resized_masks(index: MaskIndex, height: int, width: int, how: Resize) -> Tensor:
    """Return the distinct masks at a layer's size, (B or 1, height * width, M), in fp32."""
    if not index.masks:
        return torch.zeros(1, height * width, 0, device=index.token_masks.device)
    resized = [_resize(mask, height, width, how).flatten(2).transpose(1, 2) for mask in index.masks]
    return torch.cat(broadcast_batch(resized), dim=2)


def token_columns(index: MaskIndex, masks: Tensor, acts: Tensor | None = None) -> Tensor:
    """Return :func:`token_mask` from what :func:`resized_masks` gave: a few operations, whatever the regions' number.

    A schedule needs it at each step, for each size.
    """
    covered = masks
    if acts is not None:  # what no region of a mask acts on is left to others
        covered = masks * (acts @ index.region_masks).clamp(max=1)[:, None]
    rest = (1 - covered.sum(2, keepdim=True)).clamp(min=0)
    return torch.cat(broadcast_batch([masks, rest]), dim=2).index_select(2, index.token_masks)


def _resize(mask: Tensor, height: int, width: int, how: Resize) -> Tensor:
    """Fit a mask (B, 1, H, W) to an attention layer's size, in fp32."""
    mask = mask.float()
    if how == "area":
        return F.interpolate(mask, (height, width), mode="area").clamp(0, 1)
    # As the release: no antialiasing, and the ringing of the bicubic kernel, negative too, counts as 1.
    return (F.interpolate(mask, (height, width), mode="bicubic", align_corners=False) != 0).float()


def broadcast_batch(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Expand tensors whose first dimension is 1 to the batch of the others."""
    batch = max(t.shape[0] for t in tensors)
    if any(t.shape[0] not in (1, batch) for t in tensors):
        raise ValueError(f"batches must be equal or 1, got {[t.shape[0] for t in tensors]}")
    return [t if t.shape[0] == batch else t.expand(batch, *t.shape[1:]) for t in tensors]
