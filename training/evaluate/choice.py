"""The scenes on which order is measured, chosen by their true renders before anything is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from training.mini.render import Layers
from training.mini.scenes import SEEDS, Scene, draw_scenes

from .layers import SIZE, chosen, joined, rendered
from .occlusion import Outlines, large_enough


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How many scenes were drawn until enough of them counted, and why others did not."""

    drawn: int
    too_small: int
    misread: int  # large enough, but the measures misread a true render

    @property
    def large(self) -> int:
        """How many were large enough."""
        return self.drawn - self.too_small

    @property
    def ceiling(self) -> float:
        """The share of the scenes large enough whose true renders are read right in both orders."""
        return 1 - self.misread / self.large

    def counts(self) -> str:
        """These in words."""
        return (
            f"{self.drawn} drawn, {self.too_small} with too small regions, {self.misread} of {self.large} discarded "
            f"since a true render was misread"
        )


@dataclass(frozen=True)
class Chosen(Selection):
    """The scenes that count, in both orders, and how they were found."""

    scenes: list[Scene]
    indices: list[int]
    layers: Layers  # as asked
    exchanged: Layers

    @cached_property
    def outlines(self) -> Outlines:
        """Where to look: A is the object that is in front as asked."""
        return Outlines.of(self.layers.mask[:, 0], self.layers.back_mask[:, 0]).to(self.layers.mask.device)

    def words(self) -> str:
        """One line on the choice."""
        return (
            f"{len(self.scenes)} scenes of seed {SEEDS['test']}: {self.counts()} "
            f"(ceiling of the measure {self.ceiling:.3f})"
        )


def choose(count: int, size: int = SIZE, device: torch.device | str = "cpu") -> Chosen:
    """The first `count` test scenes that are large enough and whose true renders pass in both orders."""
    scenes: list[Scene] = []
    indices: list[int] = []
    parts: list[tuple[Layers, Layers]] = []
    drawn = too_small = misread = 0
    at_once = 8 if torch.device(device).type == "cpu" else 64
    while len(scenes) < count:
        batch = draw_scenes(SEEDS["test"], range(drawn, drawn + at_once))
        layers = rendered(batch, device, size)
        a, b = layers.mask[:, 0].cpu(), layers.back_mask[:, 0].cpu()
        large = [k for k in range(at_once) if large_enough(a[k], b[k])]
        if not large:
            drawn, too_small = drawn + at_once, too_small + at_once
            continue
        exchanged = rendered([batch[k].exchanged() for k in large], device, size)
        outlines = Outlines.of(a[large], b[large]).to(device)
        verdicts = zip(outlines.verdicts(layers.image[large]), outlines.verdicts(exchanged.image), strict=True)
        read = {k: one.says(True) and other.says(False) for k, (one, other) in zip(large, verdicts, strict=True)}
        kept: list[int] = []
        for k, scene in enumerate(batch):
            if len(scenes) == count:
                break
            drawn += 1
            too_small += k not in read
            misread += read.get(k) is False
            if read.get(k):
                scenes.append(scene)
                indices.append(drawn - 1)
                kept.append(k)
        parts.append((chosen(layers, kept), chosen(exchanged, [large.index(k) for k in kept])))
    both = [joined(side) for side in zip(*parts, strict=True)]
    return Chosen(scenes, indices, both[0], both[1], drawn=drawn, too_small=too_small, misread=misread)
