"""The golden run notices mistakes: each of these, planted into the pack, takes it out of its tolerance.

`pytest -s` prints by how much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ...core.golden import relative_error
from .golden_model import TOLERANCE, GoldenModel

Plant = Callable[[GoldenModel, pytest.MonkeyPatch], None]


def unpatched(block: tuple[str, int]) -> Plant:
    """The layers of one block get the tokens, but not their mask."""

    def plant(small: GoldenModel, monkeypatch: pytest.MonkeyPatch) -> None:
        guidance = small.host.pack.part("nodes.host.guidance")
        keys: Callable[[Any], list[tuple[str, int, int]]] = guidance.cross_attention_keys
        assert any(key[:2] == block for key in keys(small.model.model.diffusion_model))
        monkeypatch.setattr(
            guidance, "cross_attention_keys", lambda model: [key for key in keys(model) if key[:2] != block]
        )

    return plant


def depths_swapped(small: GoldenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = small.host.core.LocalFuser.encode_depth
    monkeypatch.setattr(small.host.core.LocalFuser, "encode_depth", lambda self, fg, bg: encode(self, bg, fg))


def lambda_ignored(small: GoldenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    region = small.host.core.Region
    monkeypatch.setattr(
        small.host.pack.part("nodes.fusers"), "Region", lambda tokens, mask, *_, **__: region(tokens, mask)
    )


def clone_unguided(small: GoldenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small.host.pack.part("nodes.host.control"), "tokens_for", lambda *args: None)


def tokens_unmasked(small: GoldenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def everywhere(places: Any, masks: Tensor, acts: Tensor | None) -> Tensor:
        return torch.ones(1, masks.shape[1], len(places.token_masks))

    monkeypatch.setattr(small.host.pack.part("cnc_core.guided_tokens"), "token_columns", everywhere)


def area_for_release(small: GoldenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    guidance = small.host.pack.part("cnc_core.guidance")
    resize = guidance._resize
    monkeypatch.setattr(guidance, "_resize", lambda mask, height, width, _: resize(mask, height, width, "area"))


MISTAKES: dict[str, Plant] = {
    "middle block unpatched": unpatched(("middle", 0)),
    "last output block unpatched": unpatched(("output", 11)),
    "depths swapped": depths_swapped,
    "lambda ignored": lambda_ignored,
    "clone unguided": clone_unguided,
    "tokens unmasked": tokens_unmasked,
    "area instead of the release's resize": area_for_release,
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_golden_run_notices(small: GoldenModel, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    MISTAKES[mistake](small, monkeypatch)
    error = relative_error(small.golden_run(), small.released["out.ddim_pred_x0"])
    print(f"{mistake}: {error:.1e}")
    assert error > 10 * TOLERANCE
