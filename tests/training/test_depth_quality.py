"""The measure of depth: its laws, and on a real stereo pair that it ranks named corruptions by how bad they are."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from training.depth_quality import aligned, depth_quality


@pytest.fixture(scope="module")
def disparity() -> Tensor:
    """The true disparity of the Middlebury motorcycle, (500, 741), which scikit-image brings; unknown is not finite."""
    data = pytest.importorskip("skimage.data", reason="scikit-image, of the dev extra, is not installed")
    return torch.from_numpy(data.stereo_motorcycle()[2])


def blurred(depth: Tensor) -> Tensor:
    """Contours washed out over about 25 pixels."""
    return torch.from_numpy(cv2.GaussianBlur(depth.numpy(), (0, 0), 8.0))


def noisy(depth: Tensor) -> Tensor:
    """Noise of 0.2 of the range."""
    generator = torch.Generator().manual_seed(0)
    return depth + 0.2 * (depth.amax() - depth.amin()) * torch.randn(depth.shape, generator=generator)


def inverted(depth: Tensor) -> Tensor:
    """Near for far."""
    return -depth


def filled(truth: Tensor) -> Tensor:
    """The truth as a depth map, which has a value everywhere: the farthest where nothing is known."""
    known = torch.isfinite(truth)
    return torch.where(known, truth, truth[known].amin())


def test_a_real_disparity_is_above_its_corruptions_in_their_order(disparity: Tensor) -> None:
    whole = filled(disparity)
    found = [depth_quality(make(whole), disparity) for make in (lambda x: x, blurred, noisy, inverted)]
    errors, orders = [quality.error for quality in found], [quality.order for quality in found]
    assert errors[0] < 1e-6 and orders[0] == 1
    assert all(better < worse - 0.01 for better, worse in pairwise(errors)), errors
    assert all(better > worse + 0.01 for better, worse in pairwise(orders)), orders
    assert orders[3] == 0


def test_scale_and_shift_do_not_matter_and_a_negative_scale_does(disparity: Tensor) -> None:
    whole = blurred(filled(disparity))
    plain, moved = depth_quality(whole, disparity), depth_quality(0.003 * whole + 40, disparity)
    assert abs(plain.error - moved.error) < 1e-5
    assert abs(plain.order - moved.order) < 1e-3
    assert depth_quality(-whole, disparity).error > 3 * plain.error


def test_alignment_is_the_least_squares_solution() -> None:
    generator = torch.Generator().manual_seed(3)
    true = torch.randn(500, generator=generator, dtype=torch.float64)
    found = 0.4 * true + torch.randn(500, generator=generator, dtype=torch.float64) - 7
    matrix = np.stack((found.numpy(), np.ones(500)), axis=1)
    solution = np.linalg.lstsq(matrix, true.numpy(), rcond=None)[0]
    assert solution[0] > 0
    np.testing.assert_allclose(aligned(found, true).numpy(), matrix @ solution, atol=1e-10)


def test_a_constant_map_is_chance() -> None:
    truth = torch.rand(40, 50, generator=torch.Generator().manual_seed(1))
    quality = depth_quality(torch.full((40, 50), 0.3), truth)
    expected = (truth - truth.mean()).abs().mean() / (truth.amax() - truth.amin())
    assert quality.order == 0.5
    assert abs(quality.error - expected) < 1e-6


def test_what_is_unknown_is_left_out_and_a_seed_repeats() -> None:
    truth = torch.rand(40, 50, generator=torch.Generator().manual_seed(1))
    holes = torch.where(torch.rand(40, 50) < 0.3, torch.inf, truth)
    garbage = torch.where(torch.isfinite(holes), truth, torch.full_like(truth, 99.0))
    assert depth_quality(garbage, holes).order == 1
    noise = truth + torch.randn(40, 50)
    assert depth_quality(noise, truth, seed=5) == depth_quality(noise, truth, seed=5)
    assert 0.5 < depth_quality(noise, truth, seed=5).order < 1


@pytest.mark.parametrize(
    ("depth", "truth", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(4, 3), r"\(3, 4\) and \(4, 3\)"),
        (torch.full((3, 4), torch.nan), torch.arange(12.0).reshape(3, 4), "not finite"),
        (torch.zeros(3, 4), torch.zeros(3, 4), "two different values"),
    ],
)
def test_bad_input_is_told(depth: Tensor, truth: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        depth_quality(depth, truth)
