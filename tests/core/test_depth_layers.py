"""Layers one behind another: the laws of a stack, and its masks, streams and regions against float64 references."""

from __future__ import annotations

import dataclasses
import random
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from cnc_core import (
    FuserConfig,
    Guidance,
    GuidedTokens,
    LocalFuser,
    Region,
    Schedule,
    UNet,
    fused_attention,
    token_mask,
)
from cnc_core.depth_layers import (
    TEXT_WEIGHT,
    DepthLayer,
    depth_map,
    depth_ranges,
    depth_streams,
    reduced,
    regions,
    strength_map,
    visible_masks,
)

from .golden import relative_error

SIZE = (48, 40)
WIDTH = 16


@pytest.fixture()
def draw() -> random.Random:
    seed = random.SystemRandom().randrange(2**31)
    print(f"seed {seed}")  # pytest shows it where a test fails
    torch.manual_seed(seed)
    return random.Random(seed)


def silhouette(draw: random.Random, batch: int = 1, soft: bool = True) -> Tensor:
    """A rectangle, with an edge that may be soft."""
    mask = torch.zeros(batch, 1, *SIZE)
    for picture in mask:
        top, left = draw.randrange(30), draw.randrange(25)
        picture[:, top : top + draw.randint(4, 30), left : left + draw.randint(4, 25)] = 1
    if soft:
        mask = torch.nn.functional.avg_pool2d(mask, 5, stride=1, padding=2)
    return mask


def layer(draw: random.Random, mask: Tensor | None, **options: Any) -> DepthLayer:
    tokens = {name: torch.randn(1, draw.randint(1, 5), WIDTH) for name in ("exemplar", "text")}
    return DepthLayer(mask, torch.rand(1, 1, *SIZE), **{**tokens, **options})


def stack_of(draw: random.Random, count: int, batch: int = 1) -> list[DepthLayer]:
    """Layers that overlap in any way, before a backdrop."""
    layers = [
        layer(draw, silhouette(draw, draw.choice([1, batch])), text_weight=draw.uniform(0.2, 9)) for _ in range(count)
    ]
    return [*layers, layer(draw, None)]


def attended(stack: list[DepthLayer], seed: int = 0, **options: Any) -> Tensor:
    """One attention layer's output for a stack, in float32."""
    guidance = Guidance(regions(stack), **options)
    batch = max(region.tokens.shape[0] for region in guidance.regions)
    batch = max(batch, *(1 if region.mask is None else region.mask.shape[0] for region in guidance.regions))
    tokens = GuidedTokens(guidance)
    generator = torch.Generator().manual_seed(seed)
    text, q = (torch.randn(batch, n, WIDTH, generator=generator) for n in (7, 12 * 10))
    states = tokens.append_to(text)
    return tokens.attend(q, states, states * 0.5, 2, 12, 10, fused_attention)


def check_same(one: list[DepthLayer], other: list[DepthLayer]) -> None:
    """Two stacks are the same to the bit in all that they make."""
    for made, expected in zip(depth_streams(one), depth_streams(other), strict=True):
        assert (made is None and expected is None) or torch.equal(made, expected)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(visible_masks(one), visible_masks(other), strict=True))
    assert torch.equal(attended(one), attended(other))


def test_an_object_before_a_backdrop_is_what_compose_gives(config: FuserConfig, draw: random.Random) -> None:
    """To the bit, in the local fuser and in the U-Net."""
    torch.manual_seed(draw.randrange(99))
    unet, fuser = UNet(config).eval(), LocalFuser(config).eval()
    for network in (unet, fuser):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    mask = torch.rand(1, 1, 64, 64).round()
    fg_depth, bg_depth = torch.rand(2, 1, config.local_channels, 64, 64)
    fg, bg = torch.randn(2, 1, 4, config.context_dim)
    stack = [DepthLayer(mask, fg_depth, fg, exemplar_weight=0.7), DepthLayer(None, bg_depth, bg, exemplar_weight=1.2)]
    x, text, t = torch.randn(2, 4, 8, 8), torch.randn(2, 7, config.context_dim), torch.tensor([700, 700])

    def outputs(guidance: Guidance, maps: tuple[Any, Any]) -> list[Tensor]:
        with torch.no_grad():
            residuals = fuser(x, t, text, *maps, guidance=guidance)
            return [*residuals, unet(x, t, text, residuals=residuals, guidance=guidance)]

    composed = outputs(Guidance((Region(fg, mask, 0.7), Region(bg, None, 1.2))), (fg_depth, bg_depth))
    layered = outputs(Guidance(regions(stack)), depth_streams(stack))
    assert composed[0].any() and all(torch.equal(a, b) for a, b in zip(layered, composed, strict=True))


@pytest.mark.parametrize("place", range(4))
def test_an_empty_or_hidden_layer_changes_nothing(draw: random.Random, place: int) -> None:
    """To the bit, anywhere in the stack; hidden by one nearer layer, by two together, or by a picture-wide one."""
    stack = stack_of(draw, 3, batch=2)
    empty = layer(draw, torch.zeros(2, 1, *SIZE))
    check_same([*stack[:place], empty, *stack[place:]], stack)
    half = silhouette(draw, soft=False)
    hiding = [layer(draw, half), layer(draw, 1 - half), *stack]
    shown = [*hiding[:2]]
    check_same(hiding, shown)
    assert len(reduced(hiding)) == 2
    solid = layer(draw, silhouette(draw, soft=False))
    behind = layer(draw, solid.mask * silhouette(draw))  # type: ignore[operator]
    check_same([solid, *stack[:place], behind, *stack[place:]], [solid, *stack])


def test_exchanging_neighbours_that_do_not_overlap(draw: random.Random) -> None:
    stack = stack_of(draw, 4)
    left = silhouette(draw) * (torch.arange(SIZE[1]) < 20)
    right = silhouette(draw) * (torch.arange(SIZE[1]) >= 20)
    left[..., 10, 3] = right[..., 10, 33] = 1
    pair = [layer(draw, left), layer(draw, right)]
    stacks = [[stack[0], *order, *stack[1:]] for order in (pair, pair[::-1])]
    one, other = (dict(zip(reduced(both), visible_masks(both), strict=True)) for both in stacks)
    assert set(one) == set(other)  # a nearer layer may hide one of the pair
    for shown, mask in one.items():
        assert torch.allclose(mask, other[shown], atol=1e-7)


def test_a_farther_layer_split_in_two_changes_nothing(draw: random.Random) -> None:
    """With the same words, look and near_far, beyond rounding (mode release, resize area)."""
    wide = torch.zeros(1, 1, *SIZE)
    wide[..., 20:26, 3:37] = 1
    near = layer(draw, silhouette(draw) * (torch.arange(SIZE[0]) < 23).float()[:, None])
    whole = layer(draw, torch.nn.functional.avg_pool2d(wide, 5, stride=1, padding=2), near_far=(0.8, 0.3))
    near = dataclasses.replace(near, mask=near.mask.index_fill(3, torch.arange(3), 0.5))  # type: ignore[union-attr]
    assert whole.mask is not None
    side = (torch.arange(SIZE[1]) < draw.randint(5, 35)).float()
    parts = [dataclasses.replace(whole, mask=whole.mask * share) for share in (side, 1 - side)]
    backdrop = layer(draw, None, near_far=(0.2, 0.0))
    one, two = [near, whole, backdrop], [near, *parts, backdrop]
    assert torch.allclose(sum(visible_masks(two)[1:3]), visible_masks(one)[1], atol=1e-7)
    for made, expected in zip(depth_streams(two), depth_streams(one), strict=True):
        assert torch.equal(made, expected)  # type: ignore[arg-type]
    assert relative_error(attended(two), attended(one).double()) < 1e-5


def test_a_gate_at_1_is_the_scale_at_1_and_at_0_the_left_out(draw: random.Random) -> None:
    tokens, mask = torch.randn(1, 3, WIDTH), silhouette(draw)
    other = Region(torch.randn(1, 2, WIDTH), None)

    def out(*of: Region) -> Tensor:
        guided = GuidedTokens(Guidance((*of, other)))
        generator = torch.Generator().manual_seed(1)
        text, q = (torch.randn(1, n, WIDTH, generator=generator) for n in (5, 12 * 10))
        states = guided.append_to(text)
        return guided.attend(q, states, states, 2, 12, 10, fused_attention)

    gated = {weight: out(Region(tokens, mask, weight, "gate")) for weight in (1.0, 0.5, 0.1, 1e-3, 1e-6, 0.0)}
    assert torch.equal(gated[1.0], out(Region(tokens, mask)))
    assert torch.equal(gated[0.0], out(Region(tokens[:, :0], mask)))
    away = [(value - gated[0.0]).norm().item() for value in gated.values()]
    assert all(before > after for before, after in pairwise(away)) and away[-2] < 1e-4 * away[0]


def visible_by_definition(stack: list[DepthLayer], batch: int) -> list[Tensor]:
    """Each layer's visible mask in float64, a pixel at a time."""
    masks = [torch.ones(1, 1, *SIZE) if one.mask is None else one.mask for one in stack]
    expanded = [mask.double().expand(batch, -1, -1, -1) for mask in masks]
    shown = []
    for index, mask in enumerate(expanded):
        product = torch.ones_like(mask)
        for nearer in expanded[:index]:
            product = product * (1 - nearer)
        shown.append(mask * product)
    return shown


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_visible_masks_are_the_formula(draw: random.Random, count: int) -> None:
    stack = stack_of(draw, count, batch=3)
    kept = [one for one, shown in zip(stack, visible_by_definition(stack, 3), strict=True) if shown.any()]
    assert reduced(stack) == tuple(kept)
    for found, expected in zip(visible_masks(stack), visible_by_definition(kept, 3), strict=True):
        assert (found.double() - expected).abs().max() < 1e-6
    total = torch.stack([mask.expand(3, -1, -1, -1) for mask in visible_masks(stack)]).sum(0)
    assert (total - 1).abs().max() < 1e-6  # the backdrop has what is left


@pytest.mark.parametrize("mode", ["release", "paper"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 6e-3)])
def test_attention_over_a_stack_is_the_equation(
    draw: random.Random, mode: Any, dtype: torch.dtype, tolerance: float
) -> None:
    """Scaled exemplars and gated words by layer, complements, batches: the softmax written out in float64."""
    count, batch, heads = draw.randint(1, 5), draw.choice([1, 2]), 2
    stack = stack_of(draw, count, batch)
    masks = [
        torch.nn.functional.interpolate(shown.double(), (12, 10), mode="area")
        .expand(batch, -1, -1, -1)
        .flatten(2)[:, 0]
        for shown in visible_masks(stack)
    ]
    covered = sum(mask for one, mask in zip(reduced(stack), masks, strict=True) if one.mask is not None)
    tokens, weights, gates = [], [], []
    for one, mask in zip(reduced(stack), masks, strict=True):
        place = (1 - covered).clamp(min=0) if one.mask is None else mask
        assert one.exemplar is not None and one.text is not None
        for given, gate in ((one.exemplar * one.exemplar_weight, 1.0), (one.text, one.text_weight)):
            tokens.append(given.double().expand(batch, -1, -1))
            weights.append(place[..., None].expand(-1, -1, given.shape[1]))
            gates += [gate] * given.shape[1]
    text, q = torch.randn(batch, 7, WIDTH), torch.randn(batch, 120, WIDTH)
    states = torch.cat([text.double(), *tokens], 1)
    split = [t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q.double(), states, states * 0.5)]
    logits = split[0] @ split[1].transpose(2, 3) * split[0].shape[-1] ** -0.5
    share = torch.cat([torch.ones(batch, 120, 7), torch.cat(weights, 2)], 2)[:, None]
    gate = torch.tensor([1.0] * 7 + gates)
    mass = (logits * share).exp() * gate if mode == "paper" else logits.exp() * share * gate
    expected = (mass / mass.sum(-1, keepdim=True) @ split[2]).transpose(1, 2).flatten(2)

    guided = GuidedTokens(Guidance(regions(stack), mode=mode))
    states = guided.append_to(text.to(dtype))
    found = guided.attend(q.to(dtype), states, states * 0.5, heads, 12, 10, fused_attention)
    assert found.dtype == dtype and relative_error(found, expected) < tolerance


def test_streams_are_composited_by_order(draw: random.Random) -> None:
    stack = stack_of(draw, 4)
    ranges = {1: (0.9, 0.85), 2: None, 3: (0.4, 0.1), 4: None}
    stack = [dataclasses.replace(one, near_far=ranges.get(index)) for index, one in enumerate(stack)]
    stack[0] = dataclasses.replace(stack[0], mask=torch.ones(1, 1, *SIZE) * 0.3)  # hides nothing wholly
    assert len(reduced(stack)) == 5
    fg_depth, bg_depth = depth_streams(stack)
    assert fg_depth is stack[0].depth and bg_depth is not None
    usual = depth_ranges(4)
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            for index, one in enumerate(stack[1:], start=1):
                if one.mask is None or one.mask[0, 0, y, x] > 0.5:
                    near, far = ranges[index] or usual[index - 1][::-1]
                    assert one.depth is not None
                    expected = far + (near - far) * one.depth[0, 0, y, x].item()
                    assert bg_depth[0, 0, y, x].item() == pytest.approx(expected, abs=1e-6)
                    break


def test_streams_of_few_layers() -> None:
    mask, one, other = torch.ones(1, 1, 8, 8) * 0.5, torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
    assert depth_streams([]) == (None, None)
    assert depth_streams([DepthLayer(mask)]) == (None, None)
    assert depth_streams([DepthLayer(None, one)]) == (None, one)  # a backdrop is never the foreground
    assert depth_streams([DepthLayer(mask, one)]) == (one, None)
    assert depth_streams([DepthLayer(mask), DepthLayer(mask, one), DepthLayer(None, other)]) == (one, other)


def test_one_map_of_all_layers(draw: random.Random) -> None:
    """Each pixel shows the nearest layer that covers it, in its range, its depth scaled up to 1 at most."""
    stack = stack_of(draw, 3)
    scales = [draw.choice([0.5, 1.0, 1.5, 4.0]) for _ in stack]
    stack = [dataclasses.replace(one, depth_scale=scale) for one, scale in zip(stack, scales, strict=True)]
    kept = reduced(stack)
    found = depth_map(stack)
    assert found is not None and 0 <= found.min() and found.max() <= 1
    expected = torch.zeros(1, 1, *SIZE)
    for one, (far, near) in reversed(list(zip(kept, depth_ranges(len(kept)), strict=True))):
        scale = min(one.depth_scale, 1 / near)
        plane = scale * far + scale * (near - far) * one.depth  # type: ignore[operator]
        expected = plane if one.mask is None else torch.where(one.mask > 0.5, plane, expected)
    assert torch.allclose(found, expected, atol=1e-6)
    assert depth_map([DepthLayer(None)]) is None
    alone = DepthLayer(None, torch.rand(1, 1, *SIZE), depth_scale=0.5)
    assert torch.equal(depth_map([alone]), alone.depth * 0.5)  # type: ignore[arg-type,operator]
    assert depth_streams([dataclasses.replace(alone, depth_scale=3.0)])[1] is alone.depth


@pytest.mark.parametrize("count", range(1, 33))
def test_ranges_fall_from_near_to_far(count: int) -> None:
    ranges = depth_ranges(count)
    assert len(ranges) == count
    assert all(0 <= far < near <= 1 for far, near in ranges)
    assert all(a[0] > b[0] and a[1] > b[1] for a, b in pairwise(ranges))


def test_a_layer_without_a_look_keeps_its_place(draw: random.Random) -> None:
    """The backdrop's exemplar does not grow over it, nor over one whose exemplar acts in another part of the run."""
    mask, tokens = silhouette(draw, soft=False), torch.randn(1, 2, WIDTH)
    early = Schedule(0.0, 0.2)
    for nearest in (DepthLayer(mask), DepthLayer(mask, exemplar=tokens, schedule=early)):
        guided = Guidance(regions([nearest, DepthLayer(None, exemplar=tokens)]))
        acts = torch.tensor([[float(region.schedule == Schedule()) for region in guided.regions]])
        backdrop = token_mask(guided, *SIZE, acts)[..., -1]
        assert torch.equal(backdrop[0], 1 - mask.flatten())


def test_strength_scales_where_a_layer_shows(draw: random.Random) -> None:
    stack = [dataclasses.replace(one, strength=draw.uniform(0, 2)) for one in stack_of(draw, 3)]
    expected = sum(one.strength * shown for one, shown in zip(reduced(stack), visible_masks(stack), strict=True))
    found = strength_map(stack)
    assert found is not None and torch.allclose(found, expected, atol=1e-5)
    assert strength_map(stack_of(draw, 3)) is None
    alone = strength_map(
        [DepthLayer(torch.zeros(1, 1, 2, 2), strength=0.5), DepthLayer(torch.ones(1, 1, 2, 2) / 2, strength=0)]
    )
    assert alone is not None and torch.equal(alone, torch.full((1, 1, 2, 2), 0.5))  # what is left keeps 1


def test_words_act_on_the_positive_half(draw: random.Random) -> None:
    made = regions(stack_of(draw, 1))
    words = [region for region in made if region.weight_mode == "gate"]
    assert len(words) == 2 and all(region.positive_only for region in words)
    assert not any(region.positive_only for region in made if region.weight_mode == "scale")
    assert DepthLayer(None).text_weight == TEXT_WEIGHT
    assert regions([DepthLayer(None)]) == ()


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ([{"mask": torch.ones(1, 1, 8, 8)}, {"mask": torch.ones(1, 1, 8, 9)}], "layer 2's mask is 9 x 8 and layer 1's"),
        ([{"mask": torch.ones(1, 1, 8, 8), "depth": torch.ones(1, 3, 4, 8)}], "layer 1's depth is 8 x 4"),
        ([{"mask": torch.ones(2, 1, 8, 8)}, {"mask": torch.ones(3, 1, 8, 8)}], "layer 1's mask has a batch of 2"),
        ([{"mask": torch.ones(8, 8)}], r"mask must be .* got \(8, 8\)"),
        ([{"mask": torch.ones(1, 3, 8, 8)}], r"a mask's C 1, got \(1, 3, 8, 8\)"),
        ([{"mask": None, "text": torch.ones(3, 4)}], r"text must be tokens \(B, N, D\), got \(3, 4\)"),
        ([{"mask": None, "strength": float("nan")}], "must be finite"),
        ([{"mask": None, "text_weight": -1.0}], "0 or more"),
        ([{"mask": None, "near_far": (0.2, 0.8)}], "nearest and the farthest"),
    ],
)
def test_bad_input_is_named(stack: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reduced([DepthLayer(**given) for given in stack])
