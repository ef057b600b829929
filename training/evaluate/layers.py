"""Rendered scenes for measuring: on any device, in batches, with the class of every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from training.mini.render import Layers, render
from training.mini.scenes import Scene
from training.mini.world import BACKDROPS, GROUNDS, MATERIALS

SIZE = 128
CLASSES = (*(m.name for m in MATERIALS), *(g.name for g in GROUNDS), *(b.name for b in BACKDROPS))
"""What a pixel can show: an object of a material, a ground or a backdrop."""
GROUND, BACKDROP = len(MATERIALS), len(MATERIALS) + len(GROUNDS)  # where they begin in CLASSES
_BATCH = {"cpu": 4}  # small batches stay in a processor's cache
_FAR = 5e3


def rendered(scenes: Sequence[Scene], device: torch.device | str = "cpu", size: int = SIZE) -> Layers:
    """Render any number of scenes on a device."""
    batch = _BATCH.get(torch.device(device).type, 32)
    parts = []
    with torch.device(device):
        for first in range(0, len(scenes), batch):
            parts.append(render(list(scenes[first : first + batch]), size))
    return joined(parts)


def joined(parts: Sequence[Layers]) -> Layers:
    """Batches one after another."""
    return Layers(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Layers)})


def chosen(layers: Layers, rows: slice | Tensor | list[int]) -> Layers:
    """Some scenes of a batch."""
    return Layers(**{f.name: getattr(layers, f.name)[rows] for f in fields(Layers)})


def ground_mask(scenes: Sequence[Scene], size: int = SIZE) -> Tensor:
    """1 where the surroundings are ground, else 0 (a wall or the sky): (B, 1, size, size), as `render` draws it."""
    line = (torch.arange(size, dtype=torch.float32) + 0.5) / size - 0.5
    rows = []
    for scene in scenes:
        below = line + scene.horizon  # downwards from the horizon
        far = scene.wall if BACKDROPS[scene.backdrop].wall else _FAR
        rows.append((below > 1e-4) & (scene.height / below.clamp(min=1e-4) < far))
    return torch.stack(rows)[:, None, :, None].expand(-1, -1, -1, size).float()


def regions(layers: Layers, scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """The regions of which style is asked, each (B, 1, H, W) in {0, 1}: they cover the picture without overlap."""
    ground = ground_mask(scenes, layers.mask.shape[-1]).to(layers.mask.device)
    back = layers.back_mask * (1 - layers.mask)
    rest = (1 - layers.mask) * (1 - layers.back_mask)
    return {"foreground": layers.mask, "background object": back, "ground": rest * ground, "sky": rest * (1 - ground)}


def classes(scene: Scene, exemplar_fg: Scene | None = None, exemplar_bg: Scene | None = None) -> dict[str, int]:
    """The index in CLASSES that each region is to show: the scene's own, or its exemplars'."""
    front, behind = exemplar_fg or scene, exemplar_bg or scene
    return {
        "foreground": front.front.material,
        "background object": behind.back.material,
        "ground": GROUND + behind.ground,
        "sky": BACKDROP + behind.backdrop,
    }


def class_map(layers: Layers, scenes: Sequence[Scene]) -> Tensor:
    """The class of every pixel, (B, H, W), as an index into CLASSES."""
    found = torch.zeros_like(layers.mask[:, 0], dtype=torch.long)
    wanted = [classes(scene) for scene in scenes]
    for name, region in regions(layers, scenes).items():
        values = torch.tensor([row[name] for row in wanted], device=found.device)
        found = torch.where(region[:, 0] > 0, values[:, None, None], found)
    return found
