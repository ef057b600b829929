"""A picture's own alpha as its salience."""

from __future__ import annotations

import pytest
import torch

from cnc_core.perception import available, estimate, load_saliency


def test_salience_is_alpha() -> None:
    image = torch.rand(2, 5, 7, 4, dtype=torch.float64)
    assert "alpha" in available("saliency")
    assert torch.equal(estimate(load_saliency("alpha"), image), image[..., 3])


def test_alpha_beyond_its_range_is_cut_off() -> None:
    image = torch.zeros(1, 1, 2, 4)
    image[..., 3] = torch.tensor([-0.5, 1.5])
    assert estimate(load_saliency("alpha"), image).tolist() == [[[0.0, 1.0]]]


@pytest.mark.parametrize("shape", [(1, 4, 4, 3), (1, 4, 4, 1), (4, 4, 4)])
def test_a_picture_without_alpha_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, H, W, 4\), the last of them its alpha"):
        estimate(load_saliency("alpha"), torch.rand(shape))


def test_others_still_refuse_alpha() -> None:
    with pytest.raises(ValueError, match=r"\(B, H, W, 3\)"):
        estimate(load_saliency("mini"), torch.rand(1, 8, 8, 4))
