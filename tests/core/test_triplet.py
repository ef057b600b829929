"""The triplet: what training learns from and what the nodes hand on."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch
from torch import Tensor

from cnc_core.perception import dilate, inpaint, load_inpainter
from cnc_core.triplet import make_triplet


def pictures(batch: int = 2, height: int = 24, width: int = 40) -> Tensor:
    return torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(0))


def disc(height: int = 24, width: int = 40) -> Tensor:
    """(1, H, W), soft at its rim."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (5 - ((y - 12) ** 2 + (x - 15) ** 2).sqrt()).div(4).add(0.5).clamp(0, 1)[None]


def test_the_layers_are_the_papers_formula() -> None:
    image, mask = pictures(), disc()
    fill = partial(inpaint, load_inpainter("telea"), dilation=100)
    triplet = make_triplet(image, mask, fill)
    assert torch.equal(triplet.source, image)
    assert torch.equal(triplet.mask, mask.expand(2, -1, -1))
    expected = image.double().numpy() * mask.double().numpy()[..., None]
    assert torch.allclose(triplet.foreground.double(), torch.from_numpy(expected), atol=1e-7)
    assert torch.equal(triplet.background, fill(image, mask.expand(2, -1, -1)))
    known = dilate(mask, 100)[0] == 0
    assert torch.equal(triplet.background[:, known], image[:, known])
    # What is inside the object comes back in the foreground alone.
    other = torch.where(mask[..., None] > 0.5, 1 - image, image)
    assert torch.equal(make_triplet(other, mask, fill).background, triplet.background)


def test_pictures_of_a_batch_have_masks_of_their_own() -> None:
    image, masks = pictures(), torch.cat((disc(), disc().flip(2)))
    fill = partial(inpaint, load_inpainter("navier-stokes"))
    together = make_triplet(image, masks, fill)
    for index in range(2):
        alone = make_triplet(image[index : index + 1], masks[index : index + 1], fill)
        for field in dataclasses.fields(alone):
            assert torch.equal(getattr(together, field.name)[index : index + 1], getattr(alone, field.name))


def test_a_triplet_is_not_changed_afterwards() -> None:
    triplet = make_triplet(pictures(), disc(), lambda image, _: image)
    with pytest.raises(dataclasses.FrozenInstanceError):
        triplet.mask = disc()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (pictures(), disc(12, 40), r"\(1, 12, 40\) for \(2, 24, 40, 3\)"),
        (pictures(3), disc().expand(2, -1, -1), r"\(2, 24, 40\) for \(3, 24, 40, 3\)"),
        (pictures()[..., :1], disc(), r"\(2, 24, 40, 1\)"),
        (pictures(), disc()[0], r"\(24, 40\)"),
        (pictures(), disc() * float("nan"), "960 values"),
        (pictures().log().log(), disc(), "not a number"),
    ],
)
def test_bad_input_is_named(image: Tensor, mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_triplet(image, mask, lambda image, _: image)


def test_an_inpainter_that_changes_the_size_is_caught() -> None:
    with pytest.raises(ValueError, match=r"\(2, 24, 40, 3\); got \(2, 23, 40, 3\)"):
        make_triplet(pictures(), disc(), lambda image, _: image[:, 1:])
