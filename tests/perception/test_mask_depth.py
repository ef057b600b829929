"""Depth without a model: the laws of the inflated mask and of the ground."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cnc_core.perception import depth_map, load_depth
from cnc_core.perception.mask_depth import HORIZON, MASK_AND_GROUND_PLANE, RIM, ground_plane, inflate


def disc(height: int, width: int, row: int, column: int, radius: float) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (((y - row) ** 2 + (x - column) ** 2).sqrt() < radius).float()[None]


def depth(mask: Tensor, version: str = "v2", batch: int = 1) -> Tensor:
    image = torch.rand(batch, *mask.shape[1:], 3)
    return depth_map(load_depth(MASK_AND_GROUND_PLANE), image, version=version, mask=mask)


def test_a_disc_becomes_the_half_of_an_ellipsoid() -> None:
    radius = 60.0
    found = inflate(disc(150, 170, 70, 80, radius))[0]
    for off in (0, 10, 20, 30, 40, 50):
        expected = RIM + (1 - RIM) * math.sqrt(1 - (off / radius) ** 2)
        for row, column in ((70 + off, 80), (70 - off, 80), (70, 80 + off), (70, 80 - off)):
            assert abs(found[row, column] - expected) < 0.02


def test_the_object_stands_off_from_what_is_around_it_and_its_middle_is_nearest() -> None:
    mask = disc(64, 64, 30, 33, 20)
    found = depth(mask)
    assert not found[mask == 0].any()
    assert found[mask > 0].min() > RIM
    assert found[0, 30, 33] == found.max() == 1
    rows = found[0, 30:50, 33]
    assert (rows[1:] <= rows[:-1]).all()


def test_what_the_picture_shows_does_not_matter_nor_whether_v2_or_v3_is_asked() -> None:
    mask = disc(20, 30, 9, 12, 6)
    assert torch.equal(depth(mask, "v2"), depth(mask, "v3"))
    assert torch.equal(depth(mask, batch=3), depth(mask).expand(3, -1, -1))


def test_thinner_parts_are_less_near() -> None:
    both = torch.maximum(disc(80, 200, 40, 40, 30), disc(80, 200, 40, 150, 10))
    found = inflate(both)[0]
    assert found[40, 40] == 1
    assert RIM < found[40, 150] < 0.9


def test_an_object_that_goes_on_beyond_the_frame_has_no_outline_there() -> None:
    mask = torch.zeros(1, 40, 60)
    mask[:, :, :20] = 1
    found = inflate(mask)[0]
    assert torch.equal(found[0], found[20])
    assert found[5, 0] == 1 and (found[5, 1:20] <= found[5, :19]).all()


def test_a_mask_of_everything_is_inflated_from_the_frame_and_an_empty_one_is_zeros() -> None:
    full = depth(torch.ones(1, 31, 31))
    assert full.min() == 0 and full.max() == full[0, 15, 15] == 1
    assert not depth(torch.zeros(1, 31, 31)).any()
    assert not depth(torch.full((1, 31, 31), 0.5)).any()


def test_the_ground_is_a_plane_in_perspective() -> None:
    """At twice the distance a level camera sees the ground half as far below the horizon."""
    height, camera = 400, 1.6
    ground = ground_plane(height, 3)
    assert not ground[: round(height * HORIZON)].any()
    assert ground[-1].eq(1).all() and torch.equal(ground[:, 0], ground[:, 2])
    for distance in (1.0, 2.0, 4.0, 8.0):  # in units of the distance at the lower edge
        below = (height * (1 - HORIZON)) * camera / (camera * distance)
        row = round(height * HORIZON + below) - 1
        assert abs(ground[row, 0] - 1 / distance) < 1e-6


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (64, 48)])
def test_the_whole_picture_is_the_ground_at_any_size(size: tuple[int, int]) -> None:
    found = depth_map(load_depth(MASK_AND_GROUND_PLANE), torch.rand(2, *size, 3))
    assert found.shape == (2, *size)
    assert found.min() == 0 and torch.isfinite(found).all()
    assert size[0] == 1 or found.max() == 1
