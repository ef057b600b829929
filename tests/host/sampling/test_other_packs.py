"""Beside what other packs put into the same attention layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from .golden_model import GoldenModel, check_equal

STEPS = 2


def added_attention(q: Tensor, heads: int) -> Tensor:
    """What an IP-Adapter adds to a layer's attention: that to keys and values of its own."""
    from comfy.ldm.modules.attention import optimized_attention

    generator = torch.Generator().manual_seed(q.shape[-1])
    k, v = (torch.randn(1, 4, q.shape[-1], generator=generator).expand(q.shape[0], -1, -1) for _ in range(2))
    return 0.5 * optimized_attention(q, k, v, heads)


def image_attention(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
    """An ``attn2_replace`` as IP-Adapter packs write it: plain attention to what it is given, and something more."""
    from comfy.ldm.modules.attention import optimized_attention

    heads = extra_options["n_heads"]
    return optimized_attention(q, k, v, heads) + added_attention(q, heads)


def with_image_attention(model: Any) -> Any:
    """A clone of the model with the other pack's callable at every layer, under the 2-tuple keys that packs use."""
    model = model.clone()
    for block in (*[("input", i) for i in (1, 2, 4, 5, 7, 8)], ("middle", 0), *[("output", i) for i in range(3, 12)]):
        model.set_model_attn2_replace(image_attention, *block)
    return model


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_another_packs_replace_keeps_what_it_adds(one: GoldenModel, first: str) -> None:
    """Text attention counts once, and so do our tokens and their addition, whichever node comes first."""
    model = one.guided(with_image_attention(one.model)) if first == "theirs" else with_image_attention(one.guided())
    run = one.sample(model, one.steered(*one.text()), steps=STEPS)
    core = one.host.core

    def cross_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
        return core.fused_attention(q, k, v, heads, mask) + added_attention(q, heads)

    kernels = core.Kernels(core.fused_attention, cross_attention)
    check_equal(run, one.expected(one.guidance(), steps=STEPS, kernels=kernels))


def columns(like: Tensor) -> Tensor:
    """The key columns of another pack, (B, 5, D)."""
    made = torch.randn(1, 5, like.shape[-1], generator=torch.Generator().manual_seed(3))
    return made.expand(like.shape[0], -1, -1)


def append_columns(n: Tensor, context: Tensor, value: Tensor, extra_options: dict[str, Any]) -> tuple[Tensor, ...]:
    """An ``attn2_patch`` which lets the layers attend to more."""
    return n, torch.cat([context, columns(context)], 1), torch.cat([value, columns(value)], 1)


def patched_by_node(model: Any) -> Any:
    model = model.clone()
    model.set_model_attn2_patch(append_columns)
    return model


def patched_at_each_forward(model: Any) -> Any:
    """As packs do which decide at each step: their patch comes behind all that the model carries."""
    from comfy.patcher_extension import WrappersMP

    def add_patch(
        executor: Any, x: Any, t: Any, context: Any, y: Any, control: Any, options: dict[str, Any], **kwargs: Any
    ) -> Any:
        patches = options.get("patches", {})
        patches = {**patches, "attn2_patch": [*patches.get("attn2_patch", ()), append_columns]}
        return executor(x, t, context, y, control, {**options, "patches": patches}, **kwargs)

    model = model.clone()
    model.add_wrapper(WrappersMP.DIFFUSION_MODEL, add_patch)
    return model


@pytest.mark.parametrize("mode", ["release", "paper"])
@pytest.mark.parametrize("patched", [patched_by_node, patched_at_each_forward])
@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_another_packs_columns_stay_unmasked(
    one: GoldenModel, patched: Callable[[Any], Any], first: str, mode: str
) -> None:
    model = one.guided(patched(one.model), mode=mode) if first == "theirs" else patched(one.guided(mode=mode))
    run = one.sample(model, one.steered(*one.text()), steps=STEPS)
    expected = one.expected(
        one.guidance(mode=mode), steps=STEPS, unet_text=lambda text: torch.cat([text, columns(text)], 1)
    )
    check_equal(run, expected)


def test_an_attention_override_gets_all_but_the_masked_calls(one: GoldenModel) -> None:
    """Masked calls it might answer without the mask, as some kernels do. Everything else is the user's choice."""
    masked: list[bool] = []

    def override(attention: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        masked.append(kwargs.get("mask") is not None)
        return attention(*args, **kwargs)

    def run(model: Any) -> Tensor:
        masked.clear()
        model = model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = override
        return one.sample(model, one.steered(*one.text()), steps=STEPS)

    check_equal(run(one.guided()), one.expected(one.guidance(), steps=STEPS))
    assert masked == [False] * (16 + 7) * STEPS  # the self-attention of the U-Net and of its clone
    check_equal(run(one.model), one.expected(None, steps=STEPS))
    assert masked == [False] * 2 * (16 + 7) * STEPS  # and without guidance the cross-attention too


def test_a_kernel_that_drops_masks_is_not_asked_for_masked_calls(
    one: GoldenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SageAttention does so without a word, where a user has chosen it for the whole host."""
    import comfy.ldm.modules.attention as attention

    calls: list[bool] = []

    def attention_sage(*args: Any, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        calls.append(mask is not None)
        return attention.attention_pytorch(*args, mask=None, **kwargs)

    monkeypatch.setattr(attention, "optimized_attention", attention_sage)
    monkeypatch.setattr(attention, "optimized_attention_masked", attention_sage)
    run = one.sample(one.guided(), one.steered(*one.text()), steps=STEPS)
    check_equal(run, one.expected(one.guidance(), steps=STEPS))
    assert calls == [False] * (16 + 7) * STEPS
