"""Mask refinement, against brute force over all pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cnc_core.perception import refine_mask
from cnc_core.perception.masks import distance_to, grown, largest_part, without_holes


def blobs(seed: int, height: int = 23, width: int = 31, share: float = 0.4) -> np.ndarray:
    """A random mask of some connected blobs."""
    noise = np.random.default_rng(seed).random((height, width))
    smooth = sum(np.roll(noise, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    return smooth > np.quantile(smooth, 1 - share)


def nearest(inside: np.ndarray) -> np.ndarray:
    """Distance to the nearest inside pixel, by looking at all of them."""
    ys, xs = np.nonzero(inside)
    grid_y, grid_x = np.mgrid[: inside.shape[0], : inside.shape[1]]
    return np.sqrt((grid_y[..., None] - ys) ** 2 + (grid_x[..., None] - xs) ** 2).min(axis=-1)


def parts(inside: np.ndarray, *, corners: bool) -> list[set[tuple[int, int]]]:
    """Connected parts by flood fill."""
    steps = [(-1, 0), (1, 0), (0, -1), (0, 1)] + ([(-1, -1), (-1, 1), (1, -1), (1, 1)] if corners else [])
    todo = {(int(y), int(x)) for y, x in zip(*np.nonzero(inside), strict=True)}
    found = []
    while todo:
        front = [todo.pop()]
        part = set(front)
        while front:
            y, x = front.pop()
            for dy, dx in steps:
                if (y + dy, x + dx) in todo:
                    todo.remove((y + dy, x + dx))
                    part.add((y + dy, x + dx))
                    front.append((y + dy, x + dx))
        found.append(part)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_distances_are_euclidean(seed: int) -> None:
    inside = blobs(seed, share=0.1)
    np.testing.assert_allclose(distance_to(inside), nearest(inside), atol=1e-4)


@pytest.mark.parametrize("pixels", [1, 2, 5, 60])
def test_growing_is_a_disc_and_shrinking_is_growing_the_outside(pixels: int) -> None:
    inside = blobs(1)
    np.testing.assert_array_equal(grown(inside, pixels), nearest(inside) <= pixels)
    np.testing.assert_array_equal(grown(inside, -pixels), ~(nearest(~inside) <= pixels))


def test_a_mask_at_the_border_is_not_eaten_from_the_border() -> None:
    inside = np.zeros((8, 8), dtype=bool)
    inside[:, :4] = True
    shrunk = grown(inside, -2)
    assert shrunk[:, :2].all() and not shrunk[:, 2:].any()
    assert grown(np.ones((4, 4), dtype=bool), -3).all()
    assert not grown(np.zeros((4, 4), dtype=bool), 3).any()


@pytest.mark.parametrize("seed", range(4))
def test_largest_part(seed: int) -> None:
    inside = blobs(seed, share=0.25)
    largest = max(parts(inside, corners=True), key=len)
    kept = largest_part(inside)
    assert kept.sum() == len(largest)
    assert len(parts(kept, corners=True)) == 1
    assert not (kept & ~inside).any()


@pytest.mark.parametrize("seed", range(4))
def test_holes_are_the_outside_that_does_not_reach_the_border(seed: int) -> None:
    inside = blobs(seed, share=0.6)
    expected = inside.copy()
    for part in parts(~inside, corners=False):
        if not any(y in (0, inside.shape[0] - 1) or x in (0, inside.shape[1] - 1) for y, x in part):
            expected[tuple(np.array(sorted(part)).T)] = True
    np.testing.assert_array_equal(without_holes(inside), expected)


def test_feather_is_a_ramp_of_its_width_centred_on_the_contour() -> None:
    mask = torch.zeros(1, 20, 40)
    mask[:, :, 20:] = 1
    row = refine_mask(mask, feather=8)[0, 10]
    assert torch.allclose(row[16:24], torch.arange(8) / 8 + 1 / 16)
    assert not row[:16].any() and bool((row[24:] == 1).all())
    assert torch.equal(refine_mask(mask, feather=8)[0, 10].flip(0), 1 - row)


@pytest.mark.parametrize("pixels", [1, 3, 7])
def test_growing_and_shrinking_back_only_adds_and_the_other_way_only_takes_away(pixels: int) -> None:
    inside = blobs(2, share=0.5)
    closed, opened = grown(grown(inside, pixels), -pixels), grown(grown(inside, -pixels), pixels)
    assert (closed >= inside).all() and (opened <= inside).all()
    np.testing.assert_array_equal(grown(grown(closed, pixels), -pixels), closed)
    np.testing.assert_array_equal(grown(grown(opened, -pixels), pixels), opened)


def test_a_straight_edge_moves_by_as_many_pixels() -> None:
    mask = torch.zeros(1, 6, 40)
    mask[:, :, 20:] = 1
    for pixels in range(-8, 9):
        assert int(refine_mask(mask, grow=pixels)[0, 3].argmax()) == 20 - pixels


@pytest.mark.parametrize("options", [{}, {"grow": 2}, {"grow": -2, "fill_holes": True, "largest_only": True}])
def test_without_feather_the_mask_is_hard_and_with_it_stays_the_same_at_one_half(options: dict[str, int]) -> None:
    soft = torch.rand(2, 19, 27, generator=torch.Generator().manual_seed(0))
    hard = refine_mask(soft, **options)
    assert set(hard.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal((refine_mask(soft, feather=6, **options) > 0.5).float(), hard)


def test_threshold_is_exclusive_and_invert_comes_last() -> None:
    soft = torch.tensor([[[0.0, 0.5, 0.6, 1.0]]])
    assert refine_mask(soft).tolist() == [[[0, 0, 1, 1]]]
    assert refine_mask(soft, threshold=0.0).tolist() == [[[0, 1, 1, 1]]]
    assert refine_mask(soft, invert=True).tolist() == [[[1, 1, 0, 0]]]
    assert refine_mask(soft, grow=1, invert=True).tolist() == [[[1, 0, 0, 0]]]


def test_each_picture_of_a_batch_is_alone() -> None:
    batch = torch.from_numpy(np.stack([blobs(seed) for seed in range(3)])).float()
    options = {"largest_only": True, "fill_holes": True, "grow": -1, "feather": 3}
    together = refine_mask(batch, **options)
    for index in range(3):
        assert torch.equal(together[index : index + 1], refine_mask(batch[index : index + 1], **options))


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 5)])
def test_empty_and_full_masks_stay_so(value: float, size: tuple[int, int]) -> None:
    mask = torch.full((1, *size), value)
    assert torch.equal(refine_mask(mask, grow=3, fill_holes=True, largest_only=True, feather=4), mask)
    assert torch.equal(refine_mask(mask, grow=-3, feather=4), mask)


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        (torch.zeros(4, 4), {}, r"\(4, 4\)"),
        (torch.zeros(1, 4, 4, dtype=torch.long), {}, "int64"),
        (torch.full((1, 2, 2), float("nan")), {}, "4 values"),
        (torch.zeros(1, 4, 4), {"feather": -1}, "feather"),
    ],
)
def test_bad_input_is_named(mask: torch.Tensor, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refine_mask(mask, **options)
