"""What travels through the stages: samples in the making, some of one shard at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..prepared import Sample, Skip


@dataclass(frozen=True, eq=False)
class Draft:
    """A sample in the making: pictures (H, W, 3) and planes (H, W), and what networks have made of them, by name."""

    id: str
    captions: tuple[str, ...]
    arrays: dict[str, np.ndarray]

    def having(self, **arrays: np.ndarray) -> Draft:
        """The draft with more arrays."""
        return replace(self, arrays={**self.arrays, **arrays})


@dataclass(frozen=True, eq=False)
class Work:
    """Some items of one shard that go through the networks together."""

    shard: int
    ids: tuple[str, ...]
    drafts: tuple[Draft, ...] = ()
    samples: tuple[Sample, ...] = ()
    skipped: tuple[Skip, ...] = field(default=())

    def stacked(self, name: str) -> Tensor:
        """An array of all drafts, with a batch axis; pictures and masks as floats in [0, 1]."""
        values = torch.from_numpy(np.stack([draft.arrays[name] for draft in self.drafts]))
        return values.float() / 255 if values.dtype == torch.uint8 else values

    def having(self, **arrays: Tensor) -> Work:
        """The work with more arrays, a row for each draft."""
        numpy = {name: value.numpy() for name, value in arrays.items()}
        rows = ({name: value[row] for name, value in numpy.items()} for row in range(len(self.drafts)))
        return replace(self, drafts=tuple(d.having(**row) for d, row in zip(self.drafts, rows, strict=True)))

    def keeping(self, keep: Sequence[bool], reason: str) -> Work:
        """The work without the drafts that are not kept."""
        kept = tuple(draft for draft, good in zip(self.drafts, keep, strict=True) if good)
        gone = tuple(Skip(draft.id, reason) for draft, good in zip(self.drafts, keep, strict=True) if not good)
        return replace(self, drafts=kept, skipped=self.skipped + gone)
