"""Maps of edges and depth maps are told apart, at any size they come in."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cnc_core.condition_maps import CANNY, DEPTH, kind_of_map
from training.mini.render import render
from training.mini.scenes import SEEDS, draw_scenes


def edges(picture: np.ndarray) -> torch.Tensor:
    """(H, W, 3) of bytes to (1, 3, H, W)."""
    found = cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 100, 200)
    return (torch.from_numpy(found).float() / 255).expand(1, 3, -1, -1)


@pytest.mark.parametrize("side", [128, 384, 512, 1000])
def test_photographs_edges_are_edges(side: int) -> None:
    folder = Path(pytest.importorskip("skimage.data", reason="scikit-image is not installed").__file__).parent
    for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"):
        picture = cv2.cvtColor(cv2.imread(str(folder / name)), cv2.COLOR_BGR2RGB)
        picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        assert kind_of_map(edges(picture)) == CANNY, name
        resized = F.interpolate(edges(picture), (512, 512), mode="area" if side > 512 else "bilinear")
        assert kind_of_map(resized) in (CANNY, None), name


def test_scenes_depth_is_depth_and_their_edges_are_edges() -> None:
    layers = render(draw_scenes(SEEDS["test"], range(24)), 128)
    for row in range(24):
        for depth in (layers.fg_depth, layers.bg_depth, layers.depth):
            assert kind_of_map(depth[row].reshape(1, 1, 128, 128)) == DEPTH
        picture = (layers.image[row].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        assert kind_of_map(edges(np.ascontiguousarray(picture))) == CANNY


def test_an_empty_map_says_nothing() -> None:
    assert kind_of_map(torch.zeros(1, 3, 64, 64)) is None
