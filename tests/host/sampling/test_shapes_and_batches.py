"""Text lengths, sizes, batches, areas and chains: the host's run equals the core's, one text at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from .golden_model import Chunks, GoldenModel, check_equal

STEPS = 2


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def text(length: int, seed: int) -> Tensor:
    """A prompt's embedding of so many tokens, (1, length, 64)."""
    return noise(1, length, 64, seed=seed)


def pair(small: GoldenModel, fg: Tensor, bg: Tensor) -> Any:
    return small.host.pack.part("nodes.host.fusers").Tokens(fg, bg)


@pytest.mark.parametrize(
    ("positive", "negative", "mode"),
    [((154,), 77, "release"), ((77,), 154, "paper"), ((77, 154), 77, "release"), ((154,), 231, "release")],
)
def test_texts_of_unequal_length_in_one_batch(
    one: GoldenModel, positive: tuple[int, ...], negative: int, mode: str
) -> None:
    """The host repeats the shorter text to the batch's length; the exemplars' share must not shrink by it."""
    positives, uncond = [text(length, seed) for seed, length in enumerate(positive)], text(negative, 9)
    chunks = Chunks(one.guided(mode=mode))
    steered = one.steered([[embedding, {}] for embedding in positives], [[uncond, {}]])
    run = one.sample(chunks.model, steered, steps=STEPS)
    guidance = one.guidance(mode=mode)
    check_equal(run, one.expected(guidance, steps=STEPS, positive=positives, negative=uncond))
    assert chunks.seen == [[1, *[0] * len(positive)]] * STEPS


@pytest.mark.parametrize("resize", ["area", "release"])
def test_odd_latents_then_another_size_with_the_same_model(one: GoldenModel, resize: str) -> None:
    """21 x 13, then 16 x 16 with the same model and conditioning, as a second pass does, then the first again."""
    scenes = []
    for height, width in ((21, 13), (16, 16)):
        size = (8 * height, 8 * width)
        scenes.append(
            {
                "x": noise(1, 4, height, width),
                "mask": F.interpolate(one.released["in.mask"], size),
                "fg_depth": F.interpolate(one.released["in.fg_depth"], size, mode="area"),
                "bg_depth": F.interpolate(one.released["in.bg_depth"], size, mode="area"),
            }
        )
    odd, square = scenes
    model = one.guided(mask=odd["mask"][:, 0], resize=resize)
    steered = one.steered(*one.text(), **{k: odd[k].movedim(1, -1) for k in ("fg_depth", "bg_depth")})
    first = one.sample(model, steered, x=odd["x"], steps=STEPS)
    guidance = one.guidance(*one.regions(odd["mask"]), resize=resize)
    maps = {name: odd[name] for name in ("fg_depth", "bg_depth")}
    check_equal(first, one.expected(guidance, x=odd["x"], steps=STEPS, **maps))
    second = one.sample(model, steered, x=square["x"], steps=STEPS)
    check_equal(second, one.sample(model.clone(), steered, x=square["x"], steps=STEPS))
    assert torch.equal(first, one.sample(model, steered, x=odd["x"], steps=STEPS))


def test_maps_of_another_size_are_averaged_to_the_latents(small: GoldenModel) -> None:
    """Twice the size here: each pixel that the latent asks for is the mean of four."""
    large = {
        name: F.interpolate(small.released[f"in.{name}"], scale_factor=2) + 0.2 * noise(2, 1, 256, 256, seed=3).abs()
        for name in ("fg_depth", "bg_depth", "mask")
    }
    large = {name: values.clamp(0, 1) for name, values in large.items()}
    model = small.guided(mask=large["mask"][:, 0], resize="area")
    steered = small.steered(*small.text(), **{k: large[k].movedim(1, -1) for k in ("fg_depth", "bg_depth")})
    run = small.sample(model, steered, steps=STEPS)
    fitted = {name: F.avg_pool2d(values, 2) for name, values in large.items()}
    guidance = small.guidance(*small.regions(fitted.pop("mask")), resize="area")
    check_equal(run, small.expected(guidance, steps=STEPS, **fitted))


@pytest.mark.parametrize(
    ("tokens", "masks", "fg_depths", "bg_depths"), [(1, 2, 1, 2), (2, 1, 2, 1), (1, 1, 1, 1), (2, 2, 1, 1)]
)
def test_one_for_all_or_one_for_each(
    small: GoldenModel, tokens: int, masks: int, fg_depths: int, bg_depths: int
) -> None:
    """A batch of two pictures, with as many sets of tokens, masks and depth maps as given."""
    mask = small.released["in.mask"][:1]
    mask = torch.cat([mask, mask.roll(40, 3)])[:masks]  # the golden ones are alike
    regions = small.regions()
    fg, bg = (region.tokens[:tokens] for region in regions)
    maps = {"fg_depth": fg_depths, "bg_depth": bg_depths}
    model = small.guided(tokens=pair(small, fg, bg), mask=mask[:, 0])
    steered = small.steered(*small.text(), **{name: small.image(name)[:count] for name, count in maps.items()})
    run = small.sample(model, steered, steps=STEPS)
    region = small.host.core.Region
    guidance = small.guidance(region(fg, mask, regions[0].weight), region(bg, None, regions[1].weight))
    given = {name: small.released[f"in.{name}"][:count].expand(2, -1, -1, -1) for name, count in maps.items()}
    check_equal(run, small.expected(guidance, steps=STEPS, **given))


def test_two_chained_guidances_are_one_with_all_regions(one: GoldenModel) -> None:
    other_mask = torch.zeros(1, 1, 128, 128)
    other_mask[..., 40:90, :50] = 0.7
    other = [noise(1, 4, 64, seed=5), noise(1, 3, 64, seed=6)]
    first = one.guided()
    both = one.guided(first, tokens=pair(one, *other), mask=other_mask[:, 0], lambda_fg=1.5, lambda_bg=0.25)
    run = one.sample(both, one.steered(*one.text()), steps=STEPS)
    region = one.host.core.Region
    regions = [*one.regions(), region(other[0], other_mask, 1.5), region(other[1], None, 0.25)]
    check_equal(run, one.expected(one.guidance(*regions), steps=STEPS))


def in_area(one: GoldenModel, conditioning: Any) -> Any:
    """The conditioning for the latent's rows 4 to 14 and columns 0 to 12 alone, by the host's node."""
    node = one.host.nodes.ConditioningSetArea()
    return node.append(conditioning, width=12 * 8, height=10 * 8, x=0, y=4 * 8, strength=1.0)[0]


def test_an_area_is_sampled_as_a_picture_of_its_own(one: GoldenModel) -> None:
    """As the host's ControlNet: inside an area, maps and mask are fitted to the area."""
    x, model, steered = one.released["in.x"], one.guided(), one.steered(*one.text())
    inside = one.sample(model, tuple(in_area(one, side) for side in steered), x=x, steps=STEPS)
    alone = one.sample(model, steered, x=x[..., 4:14, :12], steps=STEPS)
    check_equal(inside[..., 4:14, :12], alone)


@pytest.mark.parametrize("apply_to", ["both", "positive"])
def test_an_area_on_the_positive_alone(one: GoldenModel, apply_to: str) -> None:
    """The host then makes the negative of that area; it is a negative, and as long as the negative text."""
    model = one.guided(apply_to=apply_to)
    positive, negative = one.steered([[text(77, 0), {}]], [[text(154, 1), {}]])
    made = one.sample(model, (in_area(one, positive), negative), steps=STEPS)
    given = [*negative, *in_area(one, negative)]
    check_equal(made, one.sample(model, (in_area(one, positive), given), steps=STEPS))


def test_a_text_for_controls_alone(one: GoldenModel) -> None:
    """The host lets a conditioning carry another text for ControlNets: the local fuser reads it, batched or not."""
    texts = {"positive": (text(77, 0), text(154, 1)), "negative": (text(77, 2), text(77, 3))}
    sides = [[[own, {"cross_attn_controlnet": other}]] for own, other in texts.values()]
    run = one.sample(one.guided(), one.steered(*sides), steps=STEPS)
    read_by_unet = {id(other): own for own, other in texts.values()}
    expected = one.expected(
        one.guidance(),
        steps=STEPS,
        positive=[texts["positive"][1]],
        negative=texts["negative"][1],
        unet_text=lambda other: read_by_unet[id(other)],
    )
    check_equal(run, expected)


def test_what_only_the_positive_sees_covers_nothing_of_the_negative(one: GoldenModel) -> None:
    """A guidance for both prompts after one for the positive alone: the negative is guided as by the second."""
    halves = [torch.zeros(1, 128, 128) for _ in range(2)]
    halves[0][:, :64], halves[1][:, :, 64:] = 1, 1
    first = one.guided(mask=halves[0], apply_to="positive")
    both = one.guided(first, mask=halves[1])
    steered = one.steered(*one.text())
    one_side = [one.sample(model, steered, steps=STEPS, cfg=0.0) for model in (both, one.guided(mask=halves[1]))]
    check_equal(*one_side)
