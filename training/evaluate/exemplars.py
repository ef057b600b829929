"""Who gives what in a measure of style: layouts, and exemplars that have nothing in common with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from training.mini.render import Layers
from training.mini.scenes import SEEDS, Scene, draw_scene, draw_scenes
from training.mini.world import BACKDROPS

from .layers import chosen, joined, regions, rendered
from .occlusion import SMALLEST

EXEMPLARS = 1_000_000  # exemplars are scenes of the test's seed from here on


@dataclass(frozen=True)
class Cast:
    """Who gives what: layouts, the two exemplars, and an unrelated one for either."""

    layouts: list[Scene]
    indices: list[int]
    fg: list[Scene]
    bg: list[Scene]
    other_fg: list[Scene]
    other_bg: list[Scene]
    drawn: int

    @property
    def of_one_kind(self) -> list[bool]:
        """Whether a layout and the background's exemplar both have a wall, or both a sky."""
        both = zip(self.layouts, self.bg, strict=True)
        return [BACKDROPS[one.backdrop].wall == BACKDROPS[other.backdrop].wall for one, other in both]

    def words(self) -> str:
        """One line on the choice."""
        return (
            f"{len(self.layouts)} scenes of seed {SEEDS['test']}: {self.drawn} drawn, "
            f"{self.drawn - len(self.layouts)} with a region smaller than {100 * SMALLEST:.1f} percent of the picture"
        )


def exemplars_for(layout: Scene, index: int) -> tuple[Scene, Scene, Scene, Scene]:
    """Exemplars for a layout: foreground, background, and unrelated ones for either; all scenes of the test's seed."""
    numbers = np.random.default_rng(np.random.SeedSequence((SEEDS["test"], EXEMPLARS, index)))

    def drawn() -> Iterator[Scene]:
        while True:
            yield draw_scene(SEEDS["test"], EXEMPLARS + int(numbers.integers(1_000_000)))

    used = {layout.front.material, layout.back.material}
    fg = next(s for s in drawn() if s.front.material not in used)
    used |= {fg.front.material, fg.back.material}
    bg = next(
        s for s in drawn()
        if s.back.material not in used
        and s.ground not in (layout.ground, fg.ground) and s.backdrop not in (layout.backdrop, fg.backdrop)
    )  # fmt: skip
    used |= {bg.back.material}
    other_fg = next(s for s in drawn() if s.front.material not in used and s.back.material != fg.front.material)
    other_bg = next(
        s for s in drawn()
        if s.back.material not in used and s.ground not in (layout.ground, bg.ground)
        and s.backdrop not in (layout.backdrop, bg.backdrop)
    )  # fmt: skip
    return fg, bg, other_fg, other_bg


def cast(count: int, device: torch.device | str = "cpu") -> tuple[Cast, Layers]:
    """The first `count` test scenes whose four regions are large enough, with exemplars, and their layers."""
    layouts: list[Scene] = []
    indices: list[int] = []
    parts: list[Layers] = []
    drawn, at_once = 0, 8 if torch.device(device).type == "cpu" else 64
    while len(layouts) < count:
        batch = draw_scenes(SEEDS["test"], range(drawn, drawn + at_once))
        layers = rendered(batch, device)
        large = torch.stack([r.mean((1, 2, 3)) >= SMALLEST for r in regions(layers, batch).values()]).all(0).tolist()
        kept: list[int] = []
        for k, scene in enumerate(batch):
            if len(layouts) == count:
                break
            drawn += 1
            if large[k]:
                layouts.append(scene)
                indices.append(drawn - 1)
                kept.append(k)
        parts.append(chosen(layers, kept))
    given = (exemplars_for(*both) for both in zip(layouts, indices, strict=True))
    fg, bg, other_fg, other_bg = (list(side) for side in zip(*given, strict=True))
    return Cast(layouts, indices, fg, bg, other_fg, other_bg, drawn), joined(parts)


@dataclass(frozen=True)
class Stage:
    """All that is rendered: the layouts, and each exemplar's picture, I_s for the foreground and I_b for the other."""

    cast: Cast
    layers: Layers
    fg: Tensor
    bg: Tensor
    other_fg: Tensor
    other_bg: Tensor

    @classmethod
    def build(cls, count: int, device: torch.device | str = "cpu") -> Stage:
        """Choose and render."""
        found, layers = cast(count, device)
        return cls(
            found, layers, rendered(found.fg, device).image, rendered(found.bg, device).background,
            rendered(found.other_fg, device).image, rendered(found.other_bg, device).background,
        )  # fmt: skip

    def answers(self, other: Literal["fg", "bg"] | None = None) -> Tensor:
        """What is asked for, rendered: each layout in its exemplars' materials and surroundings, (B, 3, H, W).

        other: with the unrelated exemplar in that one's place.
        """
        fg = self.cast.other_fg if other == "fg" else self.cast.fg
        bg = self.cast.other_bg if other == "bg" else self.cast.bg
        dressed = [
            replace(scene := layout.dressed_as(behind), front=replace(scene.front, material=front.front.material))
            for layout, front, behind in zip(self.cast.layouts, fg, bg, strict=True)
        ]
        return rendered(dressed, self.fg.device).image

    def with_one_exemplar(self) -> Stage:
        """The same with I_s of the foreground's exemplar as the background's exemplar, too."""
        return replace(self, cast=replace(self.cast, bg=self.cast.fg), bg=self.fg)
