"""Where exemplars act: masks fitted to attention layers of any size, complements, chained guidance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cnc_core import Guidance, Region, token_mask
from cnc_core.guidance import Resize

SIZES = [(16, 16), (9, 16), (21, 13), (3, 2), (1, 1), (96, 40)]


def one_mask(mask: Tensor, height: int, width: int, resize: Resize = "area") -> Tensor:
    """Return a mask as a layer of ``height`` x ``width`` sees it, (B, height, width), through one token."""
    guidance = Guidance((Region(torch.zeros(1, 1, 4), mask),), resize=resize)
    return token_mask(guidance, height, width).squeeze(2).unflatten(1, (height, width))


def test_area_is_the_share_of_the_cell_that_the_mask_covers() -> None:
    mask = torch.zeros(1, 1, 64, 96)
    mask[..., 8:24, 30:70] = 1
    cells = one_mask(mask, 4, 6)
    expected = mask.reshape(4, 16, 6, 16).mean(dim=(1, 3))
    assert torch.allclose(cells[0], expected)
    assert cells[0, 0, 2] == 0.5  # rows 8 to 15 of 0 to 15


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_area_keeps_thin_lines(height: int, width: int) -> None:
    """A line of one pixel reaches every cell that it crosses, however small the layer."""
    mask = torch.zeros(1, 1, 768, 512)
    mask[..., 333, :] = 1
    assert (one_mask(mask, height, width)[0].amax(0) > 0).all()
    assert (one_mask(mask.transpose(2, 3), height, width)[0].amax(1) > 0).all()


@pytest.mark.parametrize("resize", ["area", "release"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_nothing_stays_nothing_and_all_stays_all(height: int, width: int, resize: Resize) -> None:
    for value in (0.0, 1.0):
        cells = one_mask(torch.full((1, 1, 173, 91), value), height, width, resize)
        assert torch.equal(cells, torch.full_like(cells, value))


@pytest.mark.parametrize("resize", ["area", "release"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_complement_is_what_the_others_leave(height: int, width: int, resize: Resize) -> None:
    torch.manual_seed(0)
    masks = [F.interpolate(torch.rand(n, 1, 6, 7), (75, 110)).round() for n in (1, 2)]
    regions = (
        Region(torch.zeros(1, 2, 4), masks[0]),
        Region(torch.zeros(1, 3, 4), None),
        Region(torch.zeros(2, 1, 4), masks[1]),
    )
    cells = token_mask(Guidance(regions, resize=resize), height, width)
    assert cells.shape == (2, height * width, 6)
    first, rest, second = cells[..., :1], cells[..., 2:3], cells[..., 5:]
    assert torch.equal(cells, torch.cat([first, first, rest, rest, rest, second], dim=2))
    assert torch.allclose(rest, (1 - first - second).clamp(min=0), atol=1e-6)
    for mask, column in zip(masks, (first, second), strict=True):
        alone = one_mask(mask, height, width, resize).flatten(1).unsqueeze(2)
        assert torch.equal(column, alone.expand(2, -1, -1))


def test_without_any_mask_every_token_acts_everywhere() -> None:
    regions = (Region(torch.zeros(1, 2, 4), None), Region(torch.zeros(1, 3, 4), None))
    assert torch.equal(token_mask(Guidance(regions), 3, 5), torch.ones(1, 15, 5))


def test_release_counts_the_ringing_of_its_bicubic_kernel() -> None:
    """Beside an edge the kernel gives small values of either sign; all of them count as foreground."""
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8, :] = 1
    ringing = F.interpolate(mask, (24, 24), mode="bicubic", align_corners=False)
    assert (ringing < 0).any()
    cells = one_mask(mask, 24, 24, "release")
    assert torch.equal(cells[0], (ringing[0, 0] != 0).float())
    assert cells.sum() > one_mask(mask, 24, 24).sum()


def test_release_loses_thin_lines_which_area_keeps() -> None:
    mask = torch.zeros(1, 1, 512, 512)
    mask[..., 3, :] = 1
    assert one_mask(mask, 16, 16, "release").sum() == 0
    assert one_mask(mask, 16, 16).sum() > 0


def test_extended_appends_and_changes_neither() -> None:
    first = Guidance((Region(torch.ones(1, 2, 4), torch.ones(1, 1, 8, 8)),), mode="paper")
    second = Guidance((Region(torch.ones(1, 3, 4), None, 0.5),), mode="paper")
    both = first.extended(second)
    assert both.regions == (*first.regions, *second.regions)
    assert (both.mode, both.resize) == ("paper", "area")
    assert len(first.regions) == len(second.regions) == 1
    assert torch.equal(both.tokens()[0, 2:], torch.full((3, 4), 0.5))
    assert token_mask(both, 2, 2)[..., 2:].sum() == 0  # the first covers all, so its complement is empty


def test_extended_refuses_another_mode_or_resize() -> None:
    regions = (Region(torch.ones(1, 2, 4), None),)
    with pytest.raises(ValueError, match="release/area and paper/area"):
        Guidance(regions).extended(Guidance(regions, mode="paper"))
    with pytest.raises(ValueError, match="release/area and release/release"):
        Guidance(regions).extended(Guidance(regions, resize="release"))


def test_errors_say_what_was_given() -> None:
    tokens = torch.zeros(2, 4, 8)
    with pytest.raises(ValueError, match=r"\(2, 8\)"):
        Region(tokens[:, 0], None)
    with pytest.raises(ValueError, match=r"\(1, 64, 64\)"):
        Region(tokens, torch.ones(1, 64, 64))
    with pytest.raises(ValueError, match="2 sets of tokens and 3 masks"):
        Region(tokens, torch.ones(3, 1, 64, 64))
    with pytest.raises(ValueError, match="at least one region"):
        Guidance(())
    with pytest.raises(ValueError, match="'soft'"):
        Guidance((Region(tokens, None),), mode="soft")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'nearest'"):
        Guidance((Region(tokens, None),), resize="nearest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        Guidance((Region(tokens, None), Region(torch.zeros(3, 4, 8), None))).tokens()
