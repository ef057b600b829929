"""Laws of soft guidance, at the layers where it acts and in the latent."""

from __future__ import annotations

import dataclasses
import gc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .golden_model import GoldenModel, check_equal

STEPS = 4
"""Timesteps 751, 501, 251 and 1: half of a schedule is between the second and the third."""


def pair(one: GoldenModel, fg: Tensor | None, bg: Tensor | None) -> Any:
    """What Apply Global Fuser gives."""
    return one.host.pack.part("nodes.host.fusers").Tokens(fg, bg)


def layers(one: GoldenModel, model: Any) -> dict[tuple[str, int], Tensor]:
    """What each cross-attention layer returns in one forward of cond and uncond, seen by the host's own patch."""
    seen: dict[tuple[str, int], Tensor] = {}
    fired: Counter[tuple[str, int]] = Counter()

    def note(out: Tensor, extra_options: dict[str, Any]) -> Tensor:
        fired[extra_options["block"]] += 1
        seen[extra_options["block"]] = out.clone()
        return out

    model = model.clone()
    model.set_model_attn2_output_patch(note)
    one.sample(model, one.text(), steps=1)
    assert set(fired.values()) == {1} and len(fired) == 16
    return seen


def check_same_guidance(one: GoldenModel, first: Any, second: Any) -> None:
    """Two guided models do the same in every layer of the U-Net, and in the latent with the local fuser too."""
    other_layers = layers(one, second)
    for block, out in layers(one, first).items():
        check_equal(out, other_layers[block])
    steered = one.steered(*one.text())
    check_equal(one.sample(first, steered, steps=2), one.sample(second, steered, steps=2))


@pytest.mark.parametrize("resize", ["area", "release"])
def test_an_all_zero_mask_is_a_region_never_given(one: GoldenModel, resize: str) -> None:
    fg, bg = one.tokens.fg, one.tokens.bg
    empty = torch.zeros(1, 64, 64)
    check_same_guidance(
        one,
        one.guided(tokens=pair(one, fg, bg), mask=empty, resize=resize),
        one.guided(tokens=pair(one, None, bg), mask=empty, resize=resize),
    )


@pytest.mark.parametrize("resize", ["area", "release"])
def test_an_all_one_mask_is_unmasked(one: GoldenModel, resize: str) -> None:
    """Unmasked: the tokens are more text, here put there by an ``attn2_patch`` in plain sight."""
    fg = one.tokens.fg
    run = one.sample(
        one.guided(tokens=pair(one, fg, None), mask=torch.ones(1, 64, 64), resize=resize, lambda_fg=0.8),
        one.text(),
        steps=2,
    )

    def append(n: Tensor, context: Tensor, value: Tensor, extra_options: dict[str, Any]) -> tuple[Tensor, ...]:
        longer = torch.cat([context, 0.8 * fg.expand(context.shape[0], -1, -1)], 1)
        return n, longer, longer

    plain = one.model.clone()
    plain.set_model_attn2_patch(append)
    check_equal(run, one.sample(plain, one.text(), steps=2))


def test_paper_mode_is_the_papers_equation(one: GoldenModel) -> None:
    """In float64, at the first layer: the logits of the tokens are multiplied by the mask, then softmax."""
    entering: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def note(n: Tensor, context: Tensor, value: Tensor, extra_options: dict[str, Any]) -> tuple[Tensor, ...]:
        entering[extra_options["block"]] = n.clone(), context.clone()
        return n, context, value

    mask = torch.rand(1, 128, 128, generator=torch.Generator().manual_seed(0))
    model = one.model.clone()
    model.set_model_attn2_patch(note)
    found = layers(one, one.guided(model, mode="paper", resize="area", mask=mask))
    block = ("input", 1)
    attention = one.model.model.diffusion_model.input_blocks[1][1].transformer_blocks[0].attn2
    weights = {name: weight.double() for name, weight in attention.state_dict().items()}
    x, text = (tensor.double() for tensor in entering[block])
    tokens = torch.cat([one.released.lambda_fg * one.tokens.fg, one.released.lambda_bg * one.tokens.bg], 1).double()
    states = torch.cat([text, tokens.expand(x.shape[0], -1, -1)], 1)
    q, k, v = (
        (inputs @ weights[f"{name}.weight"].T).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for name, inputs in (("to_q", x), ("to_k", states), ("to_v", states))
    )
    cells = torch.nn.functional.avg_pool2d(mask[:, None].double(), 8).flatten()[:, None]  # one for each query
    share = torch.cat([torch.ones(256, text.shape[1]), cells.expand(-1, 4), (1 - cells).expand(-1, 4)], 1)
    logits = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    out = ((logits * share).softmax(-1) @ v).transpose(1, 2).flatten(2)
    check_equal(found[block], out @ weights["to_out.0.weight"].T + weights["to_out.0.bias"])


@pytest.mark.parametrize("side", [61, 123, 128, 512])
def test_the_releases_resize_takes_a_mask_of_any_size(one: GoldenModel, side: int) -> None:
    """Straight to each layer, also where thin lines would be lost or doubled on the way."""
    mask = torch.zeros(1, 1, side, side)
    mask[..., side // 3, :] = mask[..., :, side // 5 : side // 5 + 3] = 1
    mask[..., side // 2 :, side // 2 : side // 2 + 2] = 1
    run = one.sample(one.guided(mask=mask[:, 0]), one.steered(*one.text()), steps=2)
    check_equal(run, one.expected(one.guidance(*one.regions(mask)), steps=2))


@pytest.mark.parametrize("resize", ["area", "release"])
@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1)])
def test_a_mask_of_one_row(one: GoldenModel, size: tuple[int, int], resize: str) -> None:
    masks = (torch.ones(1, *size), torch.ones(1, 128, 128))
    check_equal(*(one.sample(one.guided(mask=mask, resize=resize), one.text(), steps=1) for mask in masks))


def test_every_layer_is_guided_once_a_forward(one: GoldenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 masked calls in the U-Net, one at each cross-attention layer, and 7 in the local fuser's clone."""
    import comfy.ldm.modules.attention as attention

    masked: list[int] = []
    kernel = attention.attention_pytorch

    def counted(*args: Any, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        if mask is not None:
            masked.append(mask.shape[-1])
        return kernel(*args, mask=mask, **kwargs)

    monkeypatch.setattr(attention, "attention_pytorch", counted)
    layers(one, one.guided())
    assert masked == [77 + 8] * 16
    masked.clear()
    one.sample(one.guided(), one.steered(*one.text()), steps=STEPS)
    assert masked == [77 + 8] * (16 + 7) * STEPS


def test_no_tokens_are_no_guidance(one: GoldenModel) -> None:
    assert one.guided(tokens=pair(one, None, None)) is one.model


def test_lambda_multiplies_the_tokens(one: GoldenModel) -> None:
    scaled = pair(one, 0.5 * one.tokens.fg, 2 * one.tokens.bg)
    by_lambda = one.sample(one.guided(lambda_fg=0.5, lambda_bg=2.0), one.text(), steps=2)
    assert torch.equal(by_lambda, one.sample(one.guided(tokens=scaled, lambda_fg=1, lambda_bg=1), one.text(), steps=2))


def test_cfg_1_keeps_the_lambdas(one: GoldenModel) -> None:
    """The host leaves uncond out then. The release dropped the lambdas there."""
    run = one.sample(one.guided(), one.steered(*one.text()), steps=2, cfg=1.0)
    check_equal(run, one.expected(one.guidance(), steps=2, cfg=1.0))


def test_applied_to_the_positive_alone(one: GoldenModel) -> None:
    """The negative's half is that of no guidance, in the U-Net and in the local fuser's clone."""
    run = one.sample(one.guided(apply_to="positive"), one.steered(*one.text()), steps=2)
    check_equal(run, one.expected(one.guidance(), steps=2, guide_negative=False))


@pytest.mark.parametrize(
    ("start", "end", "acts"),
    [(0.0, 0.5, lambda t: t > 500), (0.5, 1.0, lambda t: t < 500), (0.0, 0.0, lambda t: False)],
)
def test_the_exemplars_act_in_their_part_of_the_schedule(
    one: GoldenModel, start: float, end: float, acts: Callable[[int], bool]
) -> None:
    """In the U-Net and in the local fuser's clone alike."""
    model = one.guided(start_percent=start, end_percent=end)
    run = one.sample(model, one.steered(*one.text()), steps=STEPS)
    guidance = one.guidance()
    check_equal(run, one.expected(lambda t: guidance if acts(t) else None, steps=STEPS))


def scheduled(one: GoldenModel, mask: Tensor, schedule: Any) -> Any:
    """The model with a gated foreground that follows a schedule, and the golden background."""
    fg, bg = one.regions(mask)
    fg = dataclasses.replace(fg, weight=2.0, weight_mode="gate", schedule=schedule)
    return one.host.pack.part("nodes.host.guidance").with_guidance(one.model, one.guidance(fg, bg, resize="area"))


def test_a_weight_follows_its_curve(one: GoldenModel) -> None:
    """At the percent that each timestep has, in every group of blocks by its own factor."""
    schedule = one.host.core.Schedule(curve=((0.1, 0.2), (0.6, 1.5), (0.9, 0.5)), input=0.5, middle=2.0, output=1.25)
    mask = torch.rand(1, 1, 128, 128)
    run = one.sample(scheduled(one, mask, schedule), one.steered(*one.text()), steps=STEPS)
    fg, bg = one.regions(mask)

    def guidance(t: int) -> Any:
        factors = one.host.core.Schedule(input=0.5, middle=2.0, output=1.25)
        weight = 2.0 * schedule.factor(1 - t / 999)
        gated = dataclasses.replace(fg, weight=weight, weight_mode="gate", schedule=factors)
        return one.guidance(gated, bg, resize="area")

    check_equal(run, one.expected(guidance, steps=STEPS))


class Waits(TorchDispatchMode):
    """Counts the values that a program takes off a device, for each of which it would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = ("item", "_local_scalar_dense", "is_nonzero", "nonzero", "equal")
        self.count += func._schema.name.removeprefix("aten::") in names
        return func(*args, **(kwargs or {}))


def test_a_step_waits_for_no_device(one: GoldenModel) -> None:
    """With schedules and gates too: what is looked up by sigma stays where it is. The first step makes what is kept."""
    from comfy.patcher_extension import WrappersMP

    waits: list[int] = []

    def counted(executor: Any, *args: Any, **kwargs: Any) -> Any:
        with Waits() as seen:
            out = executor(*args, **kwargs)
        waits.append(seen.count)
        return out

    model = scheduled(one, torch.rand(1, 1, 128, 128), one.host.core.Schedule(0.1, 0.9, ((0.0, 0.5), (1.0, 2.0))))
    outer = one.model.clone()
    outer.add_wrapper(WrappersMP.DIFFUSION_MODEL, counted)
    for kind, wrappers in model.wrappers.items():
        for key, own in wrappers.items():
            for wrapper in own:
                outer.add_wrapper_with_key(kind, key, wrapper)
    outer.model_options["transformer_options"].update(model.model_options["transformer_options"])
    one.sample(outer, one.text(), steps=STEPS)
    assert len(waits) == STEPS and waits[1:] == [0] * (STEPS - 1)


def test_a_region_that_does_not_act_covers_nothing(one: GoldenModel) -> None:
    """Two guidances, one for each half of the run: in each, the other's mask takes nothing from the background."""
    early, late = (torch.zeros(1, 1, 128, 128) for _ in range(2))
    early[..., :64], late[..., 32:, :] = 1, 1
    model = one.guided(one.guided(mask=early[:, 0], end_percent=0.5), mask=late[:, 0], start_percent=0.5)
    run = one.sample(model, one.steered(*one.text()), steps=STEPS)
    guidance = [one.guidance(*one.regions(mask)) for mask in (early, late)]
    check_equal(run, one.expected(lambda t: guidance[0] if t > 500 else guidance[1], steps=STEPS))


def kept(one: GoldenModel) -> int:
    """How many of what only a run has are alive in this process: tokens with their masks, depth features."""
    kinds = one.host.core.GuidedTokens, one.host.core.DepthEncoding
    return sum(type(thing) in kinds for thing in gc.get_objects())


def test_nothing_of_a_run_is_kept(one: GoldenModel) -> None:
    """Nor is there a trace of it in the model's options."""
    model, steered = one.guided(), one.steered(*one.text())
    options, before = set(model.model_options["transformer_options"]), kept(one)
    one.sample(model, steered, steps=1)
    assert set(model.model_options["transformer_options"]) == options
    assert kept(one) == before
