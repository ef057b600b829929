"""Laws of the local fuser on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from .golden_model import GoldenModel, check_equal


@pytest.mark.parametrize(
    "inputs", [{"strength": 0.0}, {"fg_depth": None, "bg_depth": None}], ids=["strength 0", "no depth maps"]
)
def test_without_effect_the_inputs_come_back(one: GoldenModel, inputs: dict[str, Any]) -> None:
    positive, negative = one.text()
    steered = one.steered(positive, negative, **inputs)
    assert steered[0] is positive and steered[1] is negative


def test_the_inputs_are_left_as_they_were(one: GoldenModel) -> None:
    sides = one.text()
    one.steered(*sides)
    assert [set(options) for side in sides for _, options in side] == [set(), set()]


@pytest.mark.parametrize("absent", ["fg_depth", "bg_depth"])
def test_an_absent_map_is_a_map_of_zeros(one: GoldenModel, absent: str) -> None:
    runs = [
        one.sample(one.guided(), one.steered(*one.text(), **{absent: depth}), steps=2)
        for depth in (None, torch.zeros_like(one.image(absent)))
    ]
    assert torch.equal(*runs)


def test_a_depth_scale_multiplies_its_map_up_to_white(one: GoldenModel) -> None:
    run = one.sample(one.model, one.steered(*one.text(), fg_depth_scale=1.5, bg_depth_scale=0.4), steps=2)
    fg, bg = one.released["in.fg_depth"], one.released["in.bg_depth"]
    check_equal(run, one.expected(None, steps=2, fg_depth=(1.5 * fg).clamp(max=1), bg_depth=0.4 * bg))


@pytest.mark.parametrize(
    ("start", "end", "acts"),
    [(0.0, 0.5, lambda t: t > 500), (0.5, 1.0, lambda t: t < 500), (0.0, 0.0, lambda t: False)],
)
def test_the_maps_act_in_their_part_of_the_schedule(
    one: GoldenModel, start: float, end: float, acts: Callable[[int], bool]
) -> None:
    """Timesteps 751, 501, 251 and 1."""
    steered = one.steered(*one.text(), start_percent=start, end_percent=end)
    check_equal(one.sample(one.guided(), steered, steps=4), one.expected(one.guidance(), steps=4, steered=acts))


def test_alpha_is_left_out_and_grey_is_depth(one: GoldenModel) -> None:
    """Loaders give pictures of 4 channels, depth estimators of 1."""
    image = one.image("fg_depth")
    fg = {4: torch.cat([image, torch.rand(*image.shape[:3], 1)], -1), 3: image}
    grey = {1: image[..., :1], 3: image[..., :1].expand(-1, -1, -1, 3)}
    for variants in (fg, grey):
        runs = [one.sample(one.model, one.steered(*one.text(), fg_depth=depth), steps=2) for depth in variants.values()]
        check_equal(*runs)


def test_an_interrupted_run_leaves_nothing_to_the_next(small: GoldenModel) -> None:
    """Its depth encoding was for two pictures: for one picture, two maps are an error as ever."""
    from comfy.model_management import InterruptProcessingException
    from comfy.patcher_extension import WrappersMP

    def interrupt(executor: Any, *args: Any, **kwargs: Any) -> Any:
        raise InterruptProcessingException

    steered = small.steered(*small.text())
    model = small.model.clone()
    model.add_wrapper(WrappersMP.APPLY_MODEL, interrupt)
    with pytest.raises(InterruptProcessingException):
        small.sample(model, steered, steps=1)
    with pytest.raises(ValueError, match="batch of 2, the latents one of 1"):
        small.sample(small.model, steered, x=small.released["in.x"][:1], steps=1)
