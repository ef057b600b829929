"""Depth post-processing: normalisation and the release's three versions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cnc_core.perception import PREPROCESSING, depth_map, normalise


class Brightness:
    """A depth estimator that calls bright things near, at half the size."""

    network = None

    def prepare(self, image: Tensor, *, preprocessing: str = "model") -> Tensor:
        assert preprocessing in PREPROCESSING
        return image.movedim(-1, 1)

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        return 3.0 * output.mean(dim=1)[:, :height, :width] - 7.0


def picture(batch: int = 2, height: int = 9, width: int = 14, seed: int = 0) -> Tensor:
    return torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(seed))


def disc(batch: int = 2, height: int = 9, width: int = 14) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (((y - 4) ** 2 + (x - 6) ** 2) <= 9).float().expand(batch, -1, -1).clone()


def test_each_map_reaches_from_zero_to_one_whatever_its_neighbours() -> None:
    raw = torch.randn(3, 8, 11) * torch.tensor([1.0, 40.0, 1e-3]).reshape(-1, 1, 1) + 5
    together = normalise(raw)
    assert torch.equal(together.amin((1, 2)), torch.zeros(3))
    assert torch.equal(together.amax((1, 2)), torch.ones(3))
    for index in range(3):
        assert torch.equal(together[index], normalise(raw[index : index + 1])[0])


def test_scale_and_offset_do_not_matter() -> None:
    raw = torch.randn(2, 8, 11, dtype=torch.float64)
    assert torch.allclose(normalise(raw), normalise(3 * raw - 100))


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("percent", [0.0, 2.0])
def test_a_constant_map_is_zeros(percent: float, invert: bool) -> None:
    raw = torch.stack((torch.full((4, 4), 0.3), torch.arange(16.0).reshape(4, 4)))
    depth = normalise(raw, clip_percent=percent, invert=invert)
    assert not depth[0].any()
    assert depth[1].amax() == 1


def test_clipping_is_by_percentile() -> None:
    raw = torch.randn(2, 20, 30)
    raw[0, 0, 0] = 1e4
    for index, depth in enumerate(normalise(raw, clip_percent=5)):
        low, high = np.percentile(raw[index].numpy(), [5, 95])
        expected = np.clip((raw[index].numpy() - low) / (high - low), 0, 1)
        np.testing.assert_allclose(depth.numpy(), expected, atol=1e-6)
    assert normalise(raw)[0].median() < 0.01 < normalise(raw, clip_percent=5)[0].median()


def test_invert_turns_near_and_far_round() -> None:
    raw = torch.randn(2, 5, 6)
    assert torch.allclose(normalise(raw, invert=True), normalise(-raw), atol=1e-6)


def test_version_1_is_the_whole_picture_and_needs_no_mask() -> None:
    image = picture()
    expected = normalise(image.mean(-1))
    assert torch.allclose(depth_map(Brightness(), image), expected, atol=1e-6)
    assert torch.equal(depth_map(Brightness(), image), depth_map(Brightness(), image, mask=disc()))


def test_version_2_sees_the_cut_out_alone() -> None:
    image, mask = picture(), disc()
    behind = picture(seed=1)
    swapped = torch.where(mask[..., None] > 0, image, behind)
    first = depth_map(Brightness(), image, version="v2", mask=mask)
    assert torch.equal(first, depth_map(Brightness(), swapped, version="v2", mask=mask))
    assert torch.equal(first, depth_map(Brightness(), image * mask[..., None]))


def test_version_3_is_version_1_times_the_mask() -> None:
    image, mask = picture(), disc() * 0.75
    whole = depth_map(Brightness(), image)
    assert torch.equal(depth_map(Brightness(), image, version="v3", mask=mask), whole * mask)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_an_empty_mask_is_no_object_and_a_full_one_the_whole_picture(version: str) -> None:
    image = picture()
    mask = torch.stack((torch.zeros(9, 14), torch.ones(9, 14)))
    depth = depth_map(Brightness(), image, version=version, mask=mask)
    assert not depth[0].any()
    assert torch.equal(depth[1], depth_map(Brightness(), image)[1])


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_a_single_pixel_is_a_constant_map(version: str) -> None:
    depth = depth_map(Brightness(), picture(1, 1, 1), version=version, mask=torch.ones(1, 1, 1))
    assert torch.equal(depth, torch.zeros(1, 1, 1))


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_one_mask_serves_a_batch(version: str) -> None:
    image, mask = picture(), disc()
    one = depth_map(Brightness(), image, version=version, mask=mask[:1])
    assert torch.equal(one, depth_map(Brightness(), image, version=version, mask=mask))


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_a_version_that_needs_a_mask_says_so(version: str) -> None:
    with pytest.raises(ValueError, match=f"{version}.*no mask.*v1"):
        depth_map(Brightness(), picture(), version=version)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (torch.zeros(1, 4, 4, 4), {}, r"\(1, 4, 4, 4\)"),
        (torch.zeros(4, 4, 3), {}, r"\(4, 4, 3\)"),
        (torch.full((1, 2, 2, 3), float("nan")), {}, "12 values"),
        (picture(), {"version": "v4"}, "v4"),
        (picture(), {"preprocessing": "midas"}, "midas"),
        (picture(), {"clip_percent": 50.0}, "clip_percent"),
        (picture(), {"version": "v2", "mask": torch.ones(2, 3, 3)}, r"\(2, 3, 3\).*\(2, 9, 14, 3\)"),
        (picture(), {"version": "v2", "mask": torch.full((2, 9, 14), float("nan"))}, "252 values"),
        (picture(3), {"version": "v2", "mask": disc(2)}, r"\(2, 9, 14\).*\(3, 9, 14, 3\)"),
    ],
)
def test_bad_input_is_named(image: Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        depth_map(Brightness(), image, **options)


def test_a_network_that_overflows_is_told() -> None:
    with pytest.raises(ValueError, match="full precision"):
        normalise(torch.tensor([[[0.0, float("inf")]]]))
