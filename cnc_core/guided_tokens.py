"""What attention layers get of a guidance: its tokens behind the text, and the mask over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .attention import Kernel, guided_attention, release_mask
from .guidance import BLOCK_GROUPS, BlockGroup, Guidance, mask_index, resized_masks, token_columns


class GuidedTokens:
    """The tokens of a guidance as attention layers take them: weighted, and with a mask made once a layer size.

    Keep one over the steps of a run that share guidance, batch, dtype and device. count: how many tokens there are, N.

    Args:
        guidance: the regions, all tensors on one device.
        token_bias: (B or 1, 1, N), added to the tokens' logits.
        acts: (B or 1, R) of 0 and 1, which regions act in which picture; without it all do.
    """

    def __init__(self, guidance: Guidance, token_bias: Tensor | None = None, acts: Tensor | None = None) -> None:
        self.guidance = guidance.without_closed_gates()
        regions = self.guidance.regions
        self.count = sum(region.tokens.shape[1] for region in regions)
        by_group = zip(*(region.schedule.block_factors for region in regions), strict=True)
        self._block_factors = dict(zip(BLOCK_GROUPS, by_group, strict=True))
        self._token_bias = token_bias
        self._acts = acts
        self._factors: Tensor | None = None
        self._cache: dict[Any, Any] = {}
        self._run_cache: dict[Any, Any] = {}

    def at_step(self, factors: Tensor, acts: Tensor) -> GuidedTokens:
        """Return the tokens of one step of a schedule: factors of the regions' weights, and which act, both (R,).

        They may depend on the step's sigma on a device, and nothing waits for it.
        """
        step = GuidedTokens(self.guidance, self._token_bias, acts[None] if self._acts is None else self._acts * acts)
        step._factors = factors
        step._run_cache = self._run_cache
        return step

    @property
    def by_group(self) -> bool:
        """Whether a group of blocks gets other weights than another; groups with the same share what is cached."""
        return len(set(self._block_factors.values())) > 1

    def append_to(self, text: Tensor, group: BlockGroup = "input") -> Tensor:
        """Return text (B, T, D) with the tokens after it, (B, T + N, D), in the text's dtype."""
        key = ("tokens", self._block_factors[group], text.dtype, text.device)
        tokens: Tensor = _cached(self._cache, key, lambda: self._tokens(group).to(text))
        if tokens.shape[-1] != text.shape[-1] or tokens.shape[0] not in (1, text.shape[0]):
            raise ValueError(f"tokens of shape {tuple(tokens.shape)} do not fit text of shape {tuple(text.shape)}")
        return torch.cat([text, tokens.expand(text.shape[0], -1, -1)], dim=1)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        height: int,
        width: int,
        kernel: Kernel,
        group: BlockGroup = "input",
    ) -> Tensor:
        """Do :func:`guided_attention` for a layer of ``height`` x ``width`` queries in a group of blocks."""
        text = k.shape[1] - self.count
        size = (height, width)
        bias = _cached(self._cache, ("bias", self._block_factors[group]), lambda: self._bias(group))
        if self.guidance.mode != "release":
            mask = _cached(self._cache, ("columns", size), lambda: self._columns(*size))
            return guided_attention(q, k, v, heads, mask, self.guidance.mode, token_bias=bias, kernel=kernel)
        mask = _cached(
            self._cache,
            ("mask", self._block_factors[group], size, text, q.dtype),
            lambda: release_mask(self._columns(*size), text, q.dtype, bias),
        )
        return kernel(q, k, v, heads, mask=mask)

    def _columns(self, height: int, width: int) -> Tensor:
        index = _cached(self._run_cache, "mask index", lambda: mask_index(self.guidance))
        how = self.guidance.resize
        masks = _cached(self._run_cache, (height, width), lambda: resized_masks(index, height, width, how))
        return token_columns(index, masks, self._acts)

    def _tokens(self, group: BlockGroup) -> Tensor:
        factors = self._block_factors[group]
        if self._factors is None:
            return self.guidance.tokens(factors)
        tokens = _cached(self._run_cache, "tokens", lambda: self.guidance.tokens([None] * len(factors)))
        weights, gates, region_of = self._weights(group)
        scales: Tensor = torch.where(gates, 1.0, weights * self._factors)
        return tokens * scales[region_of][:, None]

    def _bias(self, group: BlockGroup) -> Tensor | None:
        """Return what is added to the tokens' logits, (B or 1, 1, N): a gate's log(weight), -inf where none acts."""
        bias = self._token_bias
        gated = any(region.weight_mode == "gate" for region in self.guidance.regions)
        if not gated and self._acts is None:
            return bias
        weights, gates, region_of = self._weights(group)
        if gated:
            weights = weights if self._factors is None else weights * self._factors
            opened = torch.where(gates, weights, 1.0).log()[region_of].reshape(1, 1, -1)
            bias = opened if bias is None else bias + opened
        if self._acts is not None:
            there = self._acts.log()[:, None, region_of]
            bias = there if bias is None else bias + there
        return bias

    def _weights(self, group: BlockGroup) -> tuple[Tensor, Tensor, Tensor]:
        """Return the regions' weights in a group and which are gates, both (R,), and each token's region, (N,)."""
        factors = self._block_factors[group]

        def made() -> tuple[Tensor, Tensor, Tensor]:
            regions, device = self.guidance.regions, self.guidance.regions[0].tokens.device
            weights = [region.weight * factor for region, factor in zip(regions, factors, strict=True)]
            counts = torch.tensor([region.tokens.shape[1] for region in regions])
            return (
                torch.tensor(weights).to(device, non_blocking=True),
                torch.tensor([region.weight_mode == "gate" for region in regions]).to(device, non_blocking=True),
                torch.arange(len(regions)).repeat_interleave(counts).to(device, non_blocking=True),
            )

        weights: tuple[Tensor, Tensor, Tensor] = _cached(self._run_cache, ("weights", factors), made)
        return weights


def _cached(cache: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    """Return the cache's entry, made at the first time."""
    if key not in cache:
        cache[key] = make()
    return cache[key]


class GuidedContext:
    """What the cross-attention layers of a group of blocks attend to: the text and, with guidance, the tokens.

    text: (B, T, D). guidance: a Guidance, or the GuidedTokens made of one.
    """

    def __init__(
        self, text: Tensor, guidance: Guidance | GuidedTokens | None = None, group: BlockGroup = "input"
    ) -> None:
        self.tokens = GuidedTokens(guidance) if isinstance(guidance, Guidance) else guidance
        self.states = text if self.tokens is None else self.tokens.append_to(text, group)
        self._text = text
        self._group = group

    def of(self, group: BlockGroup) -> GuidedContext:
        """Return the context of another group of blocks."""
        if self.tokens is None or not self.tokens.by_group:
            return self
        return GuidedContext(self._text, self.tokens, group)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, height: int, width: int, kernel: Kernel) -> Tensor:
        """Attend from q, the queries of a layer of ``height`` x ``width``, to the projections of ``states``."""
        if self.tokens is None:
            return kernel(q, k, v, heads)
        return self.tokens.attend(q, k, v, heads, height, width, kernel, self._group)
