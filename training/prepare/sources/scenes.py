"""Procedural scenes of CnC-Mini's world, with their exact layers and depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from training.mini.render import render
from training.mini.scenes import SEEDS, draw_scene

from .base import Raw

_LAYOUTS = 3


class SceneSource:
    """The first `count` scenes of a split, rendered at `size` pixels; all layers are given, exact."""

    def __init__(self, count: int, size: int, split: str = "train") -> None:
        self.count, self.size, self.split = count, size, split

    def ids(self) -> list[str]:
        return [f"{self.split}-{index:08d}" for index in range(self.count)]

    def read(self, item: str) -> Raw:
        scene = draw_scene(SEEDS[self.split], int(item.rpartition("-")[2]))
        layers = render([scene], self.size)

        def plane(value: torch.Tensor) -> np.ndarray:
            return value[0, 0].numpy()

        def picture(value: torch.Tensor) -> np.ndarray:
            return np.rint(value[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)

        given = {
            "mask": (plane(layers.mask) > 0.5).astype(np.uint8) * 255,
            "background": picture(layers.background),
            "fg_depth": plane(layers.fg_depth),
            "bg_depth": plane(layers.bg_depth),
            "source_depth": plane(layers.depth),
        }
        others = (scene.attributes.caption(scene.layout + k) for k in range(1, _LAYOUTS))
        return Raw(picture(layers.image), (scene.caption, *others), dict(given))

    def notes(self) -> list[str]:
        return []

    def facts(self) -> dict[str, Any]:
        return {"kind": "scenes", "split": self.split, "seed": SEEDS[self.split], "size": self.size}
