"""Soft guidance: which exemplar's tokens each place of the image may attend to (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Mode = Literal["release", "paper"]
Resize = Literal["area", "release"]


@dataclass(frozen=True, eq=False)
class Region:
    """The tokens of one exemplar and where they act.

    tokens: (B, N, D), before lambda. mask: (B or 1, 1, H, W) in [0, 1] at any resolution, or None for all
    that no other region covers, after resizing. weight: lambda, which multiplies the tokens.
    """

    tokens: Tensor
    mask: Tensor | None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3:
            raise ValueError(f"region tokens must be (B, N, D), got shape {tuple(self.tokens.shape)}")
        if self.mask is None:
            return
        if self.mask.ndim != 4 or self.mask.shape[1] != 1:
            raise ValueError(f"a region's mask must be (B or 1, 1, H, W), got shape {tuple(self.mask.shape)}")
        if self.mask.shape[0] not in (1, self.tokens.shape[0]) and self.tokens.shape[0] != 1:
            raise ValueError(
                f"a region has {self.tokens.shape[0]} sets of tokens and {self.mask.shape[0]} masks; "
                "give as many masks as sets of tokens, or one for all"
            )


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
    _masks: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regions", tuple(self.regions))
        if not self.regions:
            raise ValueError("guidance needs at least one region; without regions pass no guidance")
        if self.mode not in ("release", "paper"):
            raise ValueError(f"mode must be 'release' or 'paper', got {self.mode!r}")
        if self.resize not in ("area", "release"):
            raise ValueError(f"resize must be 'area' or 'release', got {self.resize!r}")

    def extended(self, other: Guidance) -> Guidance:
        """Return a new guidance with the regions of ``other`` appended; both must agree on mode and resize."""
        if (self.mode, self.resize) != (other.mode, other.resize):
            raise ValueError(
                f"a run has one mode and one resize for all regions: got {self.mode}/{self.resize} and "
                f"{other.mode}/{other.resize}; set them alike"
            )
        return Guidance((*self.regions, *other.regions), self.mode, self.resize)

    def tokens(self) -> Tensor:
        """Return all regions' tokens times their weights, (B, sum of N, D)."""
        return torch.cat(broadcast_batch([region.tokens * region.weight for region in self.regions]), dim=1)


def token_mask(guidance: Guidance, height: int, width: int) -> Tensor:
    """Return the mask over all tokens for an attention layer of ``height`` x ``width`` queries.

    The result is (B or 1, height * width, sum of N) in [0, 1], in the order of the regions. It is computed
    once for each size and kept on the guidance.
    """
    cached = guidance._masks.get((height, width))
    if cached is not None:
        return cached
    given = [None if r.mask is None else _resize(r.mask, height, width, guidance.resize) for r in guidance.regions]
    present = [mask for mask in given if mask is not None]
    if present:
        rest = (1 - torch.stack(broadcast_batch(present)).sum(0)).clamp(min=0)
    else:
        tokens = guidance.regions[0].tokens
        rest = torch.ones(1, 1, height, width, dtype=torch.float32, device=tokens.device)
    columns = [
        (rest if mask is None else mask).flatten(2).transpose(1, 2).expand(-1, -1, region.tokens.shape[1])
        for region, mask in zip(guidance.regions, given, strict=True)
    ]
    result = torch.cat(broadcast_batch(columns), dim=2)
    guidance._masks[height, width] = result
    return result


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
