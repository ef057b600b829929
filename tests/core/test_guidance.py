"""Where exemplars act: masks fitted to attention layers of any size, complements, chained guidance."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cnc_core import Guidance, GuidedTokens, Region, Schedule, fused_attention, token_mask
from cnc_core.guidance import BlockGroup, Mode, Resize

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


def test_what_does_not_act_is_left_to_the_rest() -> None:
    """In each picture for itself; of two regions with one mask it is enough that one acts."""
    seed = random.SystemRandom().randrange(2**31)
    print(f"seed {seed}")
    torch.manual_seed(seed)
    masks = [torch.rand(batch, 1, 6, 7) / 2 for batch in (1, 3, 1)]
    own = [0, 1, None, 0, 2, None]
    counts = [2, 1, 3, 0, 1, 1]
    regions = tuple(
        Region(torch.zeros(1, count, 4), None if at is None else masks[at])
        for at, count in zip(own, counts, strict=True)
    )
    acts = torch.randint(0, 2, (3, len(own))).float()
    found = token_mask(Guidance(regions), 6, 7, acts)
    assert found.shape == (3, 42, sum(counts))
    for picture in range(3):
        shown = [mask[min(picture, len(mask) - 1)].flatten().double() for mask in masks]
        covers = [any(acts[picture, index] for index, at in enumerate(own) if at == place) for place in range(3)]
        rest = (1 - sum(mask * cover for mask, cover in zip(shown, covers, strict=True))).clamp(min=0)
        columns = [
            rest if at is None else shown[at] for at, count in zip(own, counts, strict=True) for _ in range(count)
        ]
        assert torch.allclose(found[picture].double(), torch.stack(columns, 1), atol=1e-6)


def test_a_step_of_a_schedule_costs_the_same_operations_for_any_number_of_regions() -> None:
    """On a GPU each is a launch, for each size of layer, at each step."""

    def operations(layers: int, words: bool) -> int:
        masks = [torch.rand(1, 1, 16, 16) / layers for _ in range(layers)]
        regions = [Region(torch.randn(1, 4, 8), mask) for mask in (*masks, None)]
        if words:
            regions += [Region(torch.randn(1, 3, 8), mask, 4.0, "gate") for mask in (*masks, None)]
        run = GuidedTokens(Guidance(tuple(regions)), acts=torch.ones(2, len(regions)))
        text, q = torch.randn(2, 5, 8), torch.randn(2, 64, 8)
        for _ in range(2):  # the first step makes what the run shares
            with _Operations() as counted:
                step = run.at_step(torch.ones(len(regions)), torch.ones(len(regions)))
                states = step.append_to(text)
                step.attend(q, states, states, 2, 8, 8, fused_attention)
        return counted.count

    assert operations(9, False) == operations(1, False)
    assert operations(9, True) == operations(1, True)


class _Operations(TorchDispatchMode):
    """Counts what torch is asked to do."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


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


@pytest.mark.parametrize(
    ("percent", "factor"), [(0.0, 0.5), (0.2, 0.5), (0.3, 1.25), (0.4, 2.0), (0.7, 1.0), (1.0, 0.0)]
)
def test_a_curve_is_piecewise_linear(percent: float, factor: float) -> None:
    assert Schedule(curve=((0.2, 0.5), (0.4, 2.0), (1.0, 0.0))).factor(percent) == pytest.approx(factor)


def test_without_a_curve_nothing_changes() -> None:
    assert Schedule().is_constant and Schedule(curve=((0.0, 1.0), (0.5, 1.0))).is_constant
    assert not Schedule(end_percent=0.9).is_constant and not Schedule(curve=((0.1, 0.0), (0.2, 1.0))).is_constant
    assert not Schedule(curve=((0.5, 2.0),)).is_constant  # twice as much throughout
    assert Schedule().factor(0.3) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"curve": ((0.5, 1.0), (0.5, 2.0))}, "those of a curve rise, got .0.5, 0.5."),
        ({"curve": ((0.0, 1.0), (1.2, 2.0))}, "0, 1. and those"),
        ({"curve": ((0.0, -1.0),)}, "0 or more, got .-1.0"),
        ({"middle": float("nan")}, "finite numbers"),
        ({"start_percent": -0.1}, "from -0.1 to 1.0"),
    ],
)
def test_a_schedule_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(**given)


@pytest.mark.parametrize("mode", ["release", "paper"])
def test_a_step_and_a_group_of_blocks_multiply_the_weights(mode: Mode) -> None:
    """A step's factor and a group's, in a scale and in a gate, and a region that does not act in a step."""
    mask, tokens = torch.rand(1, 1, 32, 32), torch.randn(3, 1, 2, 16)
    schedule = Schedule(input=0.5, middle=2.0, output=1.5)

    def regions(*weights: float) -> tuple[Region, ...]:
        return (
            Region(tokens[0], mask, weights[0], schedule=Schedule() if len(weights) == 2 else schedule),
            Region(tokens[1], mask, weights[1], "gate", Schedule() if len(weights) == 2 else schedule),
            Region(tokens[2], None),
        )

    text, q = torch.randn(2, 5, 16), torch.randn(2, 64, 16)

    def attended(guided: GuidedTokens, group: BlockGroup) -> Tensor:
        states = guided.append_to(text, group)
        return guided.attend(q, states, states, 2, 8, 8, fused_attention, group)

    groups: dict[BlockGroup, float] = {"input": 0.5, "middle": 2.0, "output": 1.5}
    run = GuidedTokens(Guidance(regions(0.8, 3.0, 0), mode=mode))
    step = run.at_step(torch.tensor([0.25, 0.5, 1.0]), torch.ones(3))
    for group, factor in groups.items():
        plain = GuidedTokens(Guidance(regions(0.8 * factor, 3.0 * factor), mode=mode))
        assert torch.allclose(attended(run, group), attended(plain, group), atol=1e-6)
        plain = GuidedTokens(Guidance(regions(0.8 * factor * 0.25, 3.0 * factor * 0.5), mode=mode))
        assert torch.allclose(attended(step, group), attended(plain, group), atol=1e-6)
        off = run.at_step(torch.ones(3), torch.tensor([0.0, 0.0, 1.0]))
        alone = GuidedTokens(Guidance((Region(tokens[2], None),), mode=mode))
        assert torch.allclose(attended(off, group), attended(alone, group), atol=1e-6)


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
