"""Scenes of several solids on which layers are measured, selected by their true renders before anything is sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from training.mini.layered import LayeredPictures, LayeredScene, draw_layered_scene, render_layered
from training.mini.scenes import Scene, draw_scene

from .choice import Selection
from .judge import Judge, shares
from .layers import rendered
from .occlusion import SMALLEST, Outlines, large_enough

EXEMPLARS = 2_000_000  # exemplars are two-solid scenes of the same seed from here on
_BATCH = {"cpu": 4}  # small batches stay in a processor's cache


def render_scenes(scenes: Sequence[LayeredScene], device: torch.device | str = "cpu") -> LayeredPictures:
    """Render any number of scenes on a device."""
    batch = _BATCH.get(torch.device(device).type, 32)
    with torch.device(device):
        parts = [render_layered(scenes[first : first + batch]) for first in range(0, len(scenes), batch)]
    return LayeredPictures.joined(parts)


def hidden_before(pictures: LayeredPictures, solid: int) -> Tensor:
    """Where solids nearer than this one stand, (B, H, W) in {0, 1}."""
    nearer = pictures.masks[:, :solid]
    return nearer.amax(1) if solid else torch.zeros_like(pictures.masks[:, 0])


def outlines(pictures: LayeredPictures) -> list[Outlines]:
    """Where to look for the order of each neighbouring pair; pixels that a nearer solid hides do not count."""
    return [
        Outlines.of(pictures.masks[:, k], pictures.masks[:, k + 1], hidden_before(pictures, k)).to(
            pictures.masks.device
        )
        for k in range(pictures.masks.shape[1] - 1)
    ]


def in_order(found: list[Outlines], images: Tensor) -> list[list[bool]]:
    """Of each image whether both measures of `occlusion` see the nearer solid in front, a neighbouring pair each."""
    verdicts = [pair.verdicts(images) for pair in found]
    return [[one.says(True) for one in image] for image in zip(*verdicts, strict=True)]


def materials(scenes: Sequence[LayeredScene], device: torch.device | str = "cpu") -> Tensor:
    """The material of each solid, (B, N), as an index into `layers.CLASSES`."""
    return torch.tensor([[solid.material for solid in scene.solids] for scene in scenes], device=device)


def shown_materials(judge: Judge, images: Tensor, visible: Tensor) -> Tensor:
    """The class of most pixels in each layer's visible part, (B, N)."""
    named = judge(images)
    return torch.stack([shares(named, visible[:, k : k + 1]).argmax(1) for k in range(visible.shape[1])], 1)


@dataclass(frozen=True)
class LayeredTrials(Selection):
    """The scenes that count, in both orders, and how they were found."""

    seed: int
    scenes: list[LayeredScene]
    indices: list[int]
    pictures: LayeredPictures  # as asked
    reversed: LayeredPictures

    def words(self) -> str:
        """One line on the selection."""
        return (
            f"{len(self.scenes)} scenes of {len(self.scenes[0].solids)} solids, seed {self.seed}: {self.counts()} "
            f"(ceiling of the measures {self.ceiling:.3f})"
        )

    @cached_property
    def exemplars(self) -> list[list[Scene]]:
        """For each solid of each scene a two-solid scene whose front solid has its material; that scene's other
        material is none of this scene's."""
        return [_exemplars(self.seed, *both) for both in zip(self.indices, self.scenes, strict=True)]

    def exemplar_pictures(self, places: Sequence[int]) -> Tensor:
        """The exemplars of some scenes, (B, N, 3, H, W)."""
        chosen = [self.exemplars[place] for place in places]
        flat = rendered([one for scene in chosen for one in scene], self.pictures.image.device).image
        return flat.unflatten(0, (len(chosen), -1))


def _exemplars(seed: int, index: int, scene: LayeredScene) -> list[Scene]:
    numbers = np.random.default_rng(np.random.SeedSequence((seed, EXEMPLARS, index)))
    own = {solid.material for solid in scene.solids}
    found: list[Scene] = []
    while len(found) < len(scene.solids):
        drawn = draw_scene(seed, EXEMPLARS + int(numbers.integers(1_000_000)))
        if drawn.front.material == scene.solids[len(found)].material and drawn.back.material not in own:
            found.append(drawn)
    return found


def select(
    count: int, solids: int, seed: int, judge: Judge, device: torch.device | str = "cpu", at_once: int = 16
) -> LayeredTrials:
    """Find scenes that are large enough and whose true renders are read right in both orders.

    Args:
        count: How many.
        solids: Of each scene.
        seed: Of the scenes; the first that count are taken.
        judge: Names the material of a layer.
        device: Where to render.
        at_once: Scenes drawn at a time.
    """
    scenes: list[LayeredScene] = []
    indices: list[int] = []
    parts: list[tuple[LayeredPictures, LayeredPictures]] = []
    drawn = too_small = misread = 0
    while len(scenes) < count:
        batch = [draw_layered_scene(seed, index, solids) for index in range(drawn, drawn + at_once)]
        asked = render_scenes(batch, device)
        large = [k for k, is_large in enumerate(_large_enough(asked)) if is_large]
        turned = [batch[k].reversed() for k in large]
        other = render_scenes(turned, device) if turned else asked[[]]
        large_both = {k for k, is_large in zip(large, _large_enough(other), strict=True) if is_large}
        right = [_read_right(judge, *one) for one in (([batch[k] for k in large], asked[large]), (turned, other))]
        read = {k for k, *both in zip(large, *right, strict=True) if all(both)}
        kept: list[int] = []
        for k, scene in enumerate(batch):
            if len(scenes) == count:
                break
            drawn += 1
            too_small += k not in large_both
            misread += k in large_both - read
            if k in large_both & read:
                scenes.append(scene)
                indices.append(drawn - 1)
                kept.append(k)
        parts.append((asked[kept], other[[large.index(k) for k in kept]]))
    both = [LayeredPictures.joined(side) for side in zip(*parts, strict=True)]
    counts = {"drawn": drawn, "too_small": too_small, "misread": misread}
    return LayeredTrials(seed, scenes, indices, both[0], both[1], **counts)


def _large_enough(pictures: LayeredPictures) -> list[bool]:
    """Whether each neighbouring pair overlaps with visible parts, and each layer shows."""
    shown = (pictures.visible.mean((2, 3)) >= SMALLEST).all(1).tolist()
    pairs = []
    for k in range(pictures.masks.shape[1] - 1):
        three = (pictures.masks[:, k].cpu(), pictures.masks[:, k + 1].cpu(), hidden_before(pictures, k).cpu())
        pairs.append([large_enough(*one) for one in zip(*three, strict=True)])
    return [all((one, *pair)) for one, *pair in zip(shown, *pairs, strict=True)]


def _read_right(judge: Judge, scenes: Sequence[LayeredScene], pictures: LayeredPictures) -> list[bool]:
    """Whether the measures see the order and the materials of true renders."""
    if not scenes:
        return []
    ordered = in_order(outlines(pictures), pictures.image)
    named = shown_materials(judge, pictures.image, pictures.visible) == materials(scenes, pictures.image.device)
    return [all(pairs) and all(layers) for pairs, layers in zip(ordered, named.tolist(), strict=True)]
