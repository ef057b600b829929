"""The Mini's depth, as the nodes give it, on scenes that it was not trained on: an error of at most 0.06."""

from __future__ import annotations

import pytest
import torch

from cnc_core.perception import depth_map, load_depth
from training.mini.render import Layers, render
from training.mini.scenes import SEEDS, draw_scenes

GOAL = 0.06
"""Mean absolute error of maps in [0, 1]."""


@pytest.fixture(scope="module")
def scenes() -> Layers:
    return render(draw_scenes(SEEDS["test"], range(60)))


def error(image: torch.Tensor, truth: torch.Tensor, *, mask: torch.Tensor | None = None) -> float:
    """Mean absolute error of depth maps of (B, 3, H, W) against (B, 1, H, W)."""
    version = "v1" if mask is None else "v2"
    given = None if mask is None else mask[:, 0]
    found = depth_map(load_depth("mini"), image.movedim(1, -1), version=version, mask=given)
    return float((found - truth[:, 0]).abs().mean())


def test_the_foregrounds_depth_reaches_the_goal(scenes: Layers) -> None:
    assert error(scenes.image, scenes.fg_depth, mask=scenes.mask) <= GOAL


def test_the_backgrounds_depth_reaches_the_goal(scenes: Layers) -> None:
    assert error(scenes.background, scenes.bg_depth) <= GOAL


def test_the_whole_scenes_depth_reaches_the_goal(scenes: Layers) -> None:
    assert error(scenes.image, scenes.depth) <= GOAL
