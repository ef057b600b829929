"""A cut-out on another picture: laws of the placement, and an independent reference in float64."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnc_core.placement import move, place


def picture(height: int, width: int, seed: int = 0, batch: int = 1) -> Tensor:
    return torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(seed))


def rectangle(height: int, width: int, box: tuple[int, int, int, int]) -> Tensor:
    """(1, H, W) of zeros with ones from left, top to right, bottom."""
    left, top, right, bottom = box
    mask = torch.zeros(1, height, width)
    mask[:, top:bottom, left:right] = 1
    return mask


def pasted(background: Tensor, patch: Tensor, left: int, top: int) -> Tensor:
    expected = background.clone()
    expected[:, top : top + patch.shape[1], left : left + patch.shape[2]] = patch
    return expected


def test_in_its_own_place_it_comes_back_to_the_bit() -> None:
    foreground, background = picture(37, 53), picture(37, 53, seed=1)
    mask = torch.rand(1, 37, 53, generator=torch.Generator().manual_seed(2))
    mask[:, :, :5] = 0
    mask[:, 3, 7] = mask[:, 30, 44] = 1
    rows, columns = (mask[0] > 0.5).any(1).nonzero(), (mask[0] > 0.5).any(0).nonzero()
    x = (columns[0].item() + columns[-1].item() + 1) / 2 / 53
    y = (rows[0].item() + rows[-1].item() + 1) / 2 / 37
    image, placed = place(background, foreground, mask, x=x, y=y)
    assert torch.equal(placed, mask)
    assert torch.equal(image[mask == 0], background[mask == 0])
    assert torch.equal(image[mask == 1], foreground[mask == 1])
    expected = foreground * mask[..., None] + background * (1 - mask[..., None])
    assert torch.allclose(image, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({}, lambda patch: patch),
        ({"flip": "horizontal"}, lambda patch: patch.flip(2)),
        ({"flip": "vertical"}, lambda patch: patch.flip(1)),
        ({"rotation": 90.0}, lambda patch: patch.rot90(-1, (1, 2))),
        ({"rotation": -180.0}, lambda patch: patch.rot90(2, (1, 2))),
        ({"rotation": 90.0, "flip": "horizontal"}, lambda patch: patch.flip(2).rot90(-1, (1, 2))),
    ],
)
def test_turns_and_flips_are_around_the_objects_own_middle(change: dict[str, Any], moved: Any) -> None:
    foreground, background = picture(40, 40), picture(40, 60, seed=1)
    mask = rectangle(40, 40, (2, 3, 14, 23))
    image, placed = place(background, foreground, mask, x=0.5, y=0.5, **change)
    patch = moved(foreground[:, 3:23, 2:14])
    left, top = 30 - patch.shape[2] // 2, 20 - patch.shape[1] // 2
    assert torch.allclose(image, pasted(background, patch, left, top), atol=1e-6)
    assert torch.equal(placed.round(), rectangle(40, 60, (left, top, left + patch.shape[2], top + patch.shape[1])))


def test_scale_1_keeps_the_objects_share_of_the_height_and_shrinking_averages() -> None:
    """An object half as high as its picture of 120 is half as high on one of 40: each pixel is the mean of 9."""
    foreground, background = picture(120, 90), picture(40, 100, seed=1)
    mask = rectangle(120, 90, (6, 3, 36, 63))
    image, placed = place(background, foreground, mask, x=0.25, y=0.5)
    patch = foreground[:, 3:63, 6:36].reshape(1, 20, 3, 10, 3, 3).mean((2, 4))
    assert torch.allclose(image, pasted(background, patch, 20, 10), atol=1e-6)
    assert torch.allclose(placed, rectangle(40, 100, (20, 10, 30, 30)), atol=1e-6)


@pytest.mark.parametrize(
    ("scale", "rotation", "flip"), [(1.0, 30.0, "none"), (2.3, -77.0, "horizontal"), (0.4, 200.0, "vertical")]
)
def test_any_placement_is_the_formula(scale: float, rotation: float, flip: str) -> None:
    foreground, background = picture(30, 26, seed=3), picture(24, 31, seed=4)
    mask = torch.rand(1, 30, 26, generator=torch.Generator().manual_seed(5))
    image, placed = place(background, foreground, mask, x=0.45, y=0.6, scale=scale, rotation=rotation, flip=flip)

    layer = np.zeros((32, 28, 4))  # premultiplied, with a rim of nothing
    layer[1:-1, 1:-1, 3] = mask[0]
    layer[1:-1, 1:-1, :3] = foreground[0].double() * mask[0, ..., None]
    on = np.argwhere(mask[0].numpy() > 0.5)
    middle_y, middle_x = (on.min(0) + on.max(0) + 1) / 2
    factor, angle = scale * 24 / 30, math.radians(rotation)
    fine = math.ceil(1 / factor)
    for row in range(24):
        for column in range(31):
            total = np.zeros(4)
            for index in range(fine * fine):
                dx = column + (index % fine + 0.5) / fine - 0.45 * 31
                dy = row + (index // fine + 0.5) / fine - 0.6 * 24
                u = (math.cos(angle) * dx + math.sin(angle) * dy) / factor
                v = (-math.sin(angle) * dx + math.cos(angle) * dy) / factor
                u, v = (-u if flip == "horizontal" else u), (-v if flip == "vertical" else v)
                u, v = u + middle_x + 0.5, v + middle_y + 0.5  # in pixel indices of the layer with its rim
                left, top = math.floor(u), math.floor(v)
                for tap_y, tap_x in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                    if 0 <= tap_y < 32 and 0 <= tap_x < 28:
                        total += (1 - abs(v - tap_y)) * (1 - abs(u - tap_x)) * layer[tap_y, tap_x]
            total /= fine * fine
            expected = total[:3] + (1 - total[3]) * background[0, row, column].double().numpy()
            np.testing.assert_allclose(image[0, row, column].numpy(), expected, atol=1e-5)
            np.testing.assert_allclose(placed[0, row, column].item(), total[3], atol=1e-6)


@pytest.mark.parametrize("scale", [0.15, 0.5, 0.85])
def test_no_dark_rim(scale: float) -> None:
    """White on white stays white, whatever is beside the object in its own picture."""
    mask = rectangle(50, 50, (10, 10, 40, 35))
    foreground = mask[..., None].expand(-1, -1, -1, 3).contiguous()
    image, placed = place(torch.ones(1, 120, 120, 3), foreground, mask, scale=scale, rotation=33)
    assert torch.allclose(image, torch.ones_like(image), atol=1e-6)
    assert placed.sum().item() == pytest.approx(30 * 25 * (scale * 120 / 50) ** 2, rel=0.02)


@pytest.mark.parametrize(("scale", "side"), [(0.3, 5), (0.06, 5), (0.02, 7)])
def test_a_great_cut_out_made_tiny_covers_what_it_covers(scale: float, side: int) -> None:
    """Each pixel holds the share of it that the object's outline covers, also where 1024 samples are too few."""
    mask = rectangle(2500, 2400, (3, 101, 2304, 2399))
    colour = torch.tensor([0.2, 0.9, 0.5])
    image, placed = place(
        torch.zeros(1, side, side, 3), colour.expand(1, 2500, 2400, 3), mask, x=0.43, y=0.56, scale=scale
    )
    factor = scale * side / 2500
    edges = torch.arange(side + 1, dtype=torch.float64)

    def covered(centre: float, extent: int) -> Tensor:
        low, high = centre * side - extent * factor / 2, centre * side + extent * factor / 2
        return (edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0)

    expected = covered(0.56, 2399 - 101)[:, None] * covered(0.43, 2304 - 3)
    assert expected.sum() == pytest.approx((2399 - 101) * (2304 - 3) * factor**2)
    assert torch.allclose(placed[0].double(), expected, atol=1e-3)
    assert torch.allclose(image[0], placed[0, ..., None] * colour, atol=1e-6)


@pytest.mark.parametrize("size", [(37, 53), (74, 106), (60, 53)])
def test_a_layer_moves_from_where_its_picture_has_it(size: tuple[int, int]) -> None:
    """As placing it where its own centre is, on black, with nothing of the black in its colours."""
    layer, mask = picture(37, 53, batch=2), rectangle(37, 53, (8, 6, 30, 20))
    mask = F.avg_pool2d(mask[None], 3, stride=1, padding=1)[0]
    goal: dict[str, Any] = {"scale": 0.7, "rotation": 25.0, "flip": "horizontal"}
    moved, covered = move(layer, mask, size, x=0.2, y=-0.1, **goal)
    assert moved.shape == (2, *size, 3) and covered.shape == (2, *size)
    black = torch.zeros(1, *size, 3)
    image, alpha = place(black, layer, mask, x=19 / 53 + 0.2, y=13 / 37 - 0.1, **goal)
    assert torch.equal(covered, alpha)
    assert torch.allclose(moved * covered[..., None], image, atol=1e-6) and not moved[covered == 0].any()
    white, _ = move(torch.ones(1, 37, 53, 3), mask, size, x=0.2, y=-0.1, **goal)
    assert torch.allclose(white[covered[:1] > 0], torch.ones(()), atol=1e-5)


def test_a_layer_that_is_not_moved_stays() -> None:
    layer, mask = picture(37, 53), rectangle(37, 53, (8, 6, 30, 20))
    moved, covered = move(layer, mask, (37, 53))
    assert torch.equal(covered, mask) and torch.allclose(moved, layer * mask[..., None], atol=1e-6)
    empty = move(layer, 0.4 * mask, (37, 53), x=0.1)
    assert not empty[0].any() and not empty[1].any()
    with pytest.raises(ValueError, match="2 pictures and 3 masks"):
        move(picture(37, 53, batch=2), mask.repeat(3, 1, 1), (37, 53))


def test_less_than_can_be_seen_is_nothing() -> None:
    background = picture(9, 9)
    image, placed = place(background, picture(40, 40), torch.ones(1, 40, 40), scale=1e-300)
    assert torch.equal(image, background) and not placed.any()


MEASURED = """
import sys, torch
from benchmarks.memory import peak
from cnc_core.placement import move, place
side, scale, rotation, small = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
foreground, mask, background = torch.rand(1, side, side, 3), torch.rand(1, side, side), torch.rand(1, small, small, 3)
before = peak()
made = place(background, foreground, mask, scale=scale, rotation=rotation)
print(peak() - before - sum(each.nbytes for each in made))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "rotation", "background"),
    [(0.05, 33.0, 4096), (0.97, 33.0, 4096), (20.0, 10.0, 4096), (0.01, 0.0, 64)],
)
def test_memory_is_bounded_at_any_scale(root: Path, scale: float, rotation: float, background: int) -> None:
    given = [str(value) for value in (4096, scale, rotation, background)]
    run = subprocess.run([sys.executable, "-c", MEASURED, *given], cwd=root, stdout=subprocess.PIPE, check=True)
    extra = int(run.stdout)
    assert extra < 1e9, f"{extra / 1e6:.0f} MB above inputs and outputs"


def test_what_is_outside_is_cut_off() -> None:
    foreground, background = picture(20, 20), picture(20, 20, seed=1)
    mask = rectangle(20, 20, (4, 4, 14, 14))
    image, placed = place(background, foreground, mask, x=0.0, y=1.0)
    assert torch.allclose(image[:, 15:, :5], foreground[:, 4:9, 9:14], atol=1e-6)
    assert torch.equal(placed.round(), rectangle(20, 20, (0, 15, 5, 20)))
    image, placed = place(background, foreground, mask, x=3.0)
    assert torch.equal(image, background) and not placed.any()


def test_one_serves_many() -> None:
    backgrounds, foregrounds = picture(20, 30, seed=1, batch=3), picture(16, 16, batch=3)
    mask = rectangle(16, 16, (2, 3, 9, 12))
    single = [place(backgrounds[i : i + 1], foregrounds[:1], mask, rotation=20) for i in range(3)]
    image, placed = place(backgrounds, foregrounds[:1], mask, rotation=20)
    assert torch.equal(image, torch.cat([one for one, _ in single]))
    assert torch.equal(placed, torch.cat([one for _, one in single]))
    untouched = backgrounds.clone()
    image, placed = place(backgrounds[:1], foregrounds, mask.expand(3, -1, -1))
    assert image.shape == (3, 20, 30, 3) and placed.shape == (3, 20, 30)
    assert torch.equal(backgrounds, untouched)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.zeros(1, 9, 8)}, "nothing above 0.5"),
        ({"mask": torch.ones(1, 8, 9)}, r"\(1, 8, 9\) for \(1, 9, 8, 3\)"),
        ({"mask": torch.ones(3, 9, 8), "background": torch.rand(2, 5, 5, 3)}, "2 backgrounds, 1 foregrounds, 3 masks"),
        ({"background": torch.rand(1, 5, 5, 4)}, r"\(1, 5, 5, 4\)"),
        ({"foreground": torch.full((1, 9, 8, 3), float("nan"))}, "216 values"),
        ({"scale": 0.0}, "scale is above 0"),
        ({"x": float("inf")}, "finite"),
        ({"x": 1e308, "scale": 1e308}, "too far out"),
        ({"flip": "both"}, "none, horizontal, vertical; got 'both'"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    given = {"background": torch.rand(1, 5, 5, 3), "foreground": torch.rand(1, 9, 8, 3), "mask": torch.ones(1, 9, 8)}
    with pytest.raises(ValueError, match=message):
        place(**{**given, **change})
