"""From exemplars to tokens: both, one alone, none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from .golden_model import GoldenModel, check_equal


def tokens(one: GoldenModel, absent: str, *layers: str) -> Any:
    """Apply Global Fuser with the golden exemplars of these layers."""
    styles = {f"{layer}_style": {"image_embeds": one.released[f"in.{layer}_emb"]} for layer in layers}
    return one.host.pack.part("nodes.fusers").ApplyGlobalFuser.execute(one.fusers, absent, **styles).args[0]


def of_zeros(one: GoldenModel, layer: str) -> Tensor:
    """What the fuser makes of the zero embedding, which stood for an absent exemplar in training."""
    fuser = one.host.core.load_fusers(one.path).global_fuser
    zeros = torch.zeros(1, one.unet.config.context_dim)
    with torch.no_grad():
        both: tuple[Tensor, Tensor] = fuser(zeros, zeros)
    return both[("fg", "bg").index(layer)]


def test_both(small: GoldenModel) -> None:
    made = tokens(small, "automatic", "fg", "bg")
    check_equal(torch.cat([made.fg, made.bg], 1), small.released["out.global_tokens"])


def test_one_alone_stands_beside_the_zero_embedding(one: GoldenModel) -> None:
    made = tokens(one, "automatic", "bg")
    check_equal(made.fg, of_zeros(one, "fg"))
    check_equal(made.bg, one.tokens.bg)


def test_one_alone_with_the_other_left_out(one: GoldenModel) -> None:
    made = tokens(one, "left out", "fg")
    assert made.bg is None
    check_equal(made.fg, one.tokens.fg)


def test_none_is_no_tokens_unless_zero_embeddings_are_asked_for(one: GoldenModel) -> None:
    for absent in ("automatic", "left out"):
        made = tokens(one, absent)
        assert made.fg is None and made.bg is None
    made = tokens(one, "zero embedding")
    check_equal(made.fg, of_zeros(one, "fg"))
    check_equal(made.bg, of_zeros(one, "bg"))


def test_a_way_that_there_is_not(one: GoldenModel) -> None:
    with pytest.raises(ValueError, match="absent must be automatic, left out or zero embedding, got 'zeros'"):
        tokens(one, "zeros", "fg")


def test_where_an_exemplar_is_left_out_the_text_is_alone(one: GoldenModel) -> None:
    """The background's exemplar does not grow over a foreground that has none."""
    mask = one.released["in.mask"]
    made = tokens(one, "left out", "bg")
    run = one.sample(one.guided(tokens=made, resize="area"), one.steered(*one.text()), steps=2)
    background = one.host.core.Region(one.tokens.bg, 1 - mask, one.released.lambda_bg)
    check_equal(run, one.expected(one.guidance(background, resize="area"), steps=2))
