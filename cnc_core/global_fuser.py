"""The global fuser: CLIP embeddings of exemplar images become tokens beside the text's (paper section 3.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .blocks import FeedForward, Operations
from .config import FuserConfig


class GlobalFuser(nn.Module):
    """Two streams of LayerNorm and GEGLU feed-forward, foreground and background, each with its own weights.

    Keys of the state dict are the released ones without ``global_adapter.``.
    """

    def __init__(
        self,
        config: FuserConfig,
        *,
        operations: Operations = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        factory: dict[str, Any] = {"dtype": dtype, "device": device}
        dim = config.context_dim
        for layer in ("fg", "bg"):
            first = FeedForward(dim, 2 * dim, operations, dropout=0.1, **factory)
            second = FeedForward(2 * dim, config.global_tokens * dim, operations, dropout=0.3, **factory)
            self.add_module(f"ff1_{layer}", first)
            self.add_module(f"ff2_{layer}", second)
            self.add_module(f"norm1_{layer}", operations.LayerNorm(dim, **factory))
            self.add_module(f"norm2_{layer}", operations.LayerNorm(2 * dim, **factory))

    def forward(self, fg_embed: Tensor | None, bg_embed: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Map CLIP image embeddings (B, D), projected and not normalised, to tokens (B, N, D), before lambda.

        None, an exemplar that is left out, stays None; zeros are the absent exemplar of the training.
        """
        return self._stream("fg", fg_embed), self._stream("bg", bg_embed)

    def _stream(self, layer: str, embed: Tensor | None) -> Tensor | None:
        if embed is None:
            return None
        dim = self.config.context_dim
        if embed.ndim != 2 or embed.shape[1] != dim:
            raise ValueError(
                f"the {layer} exemplar's embedding must be (B, {dim}), got shape {tuple(embed.shape)}; "
                "it comes from another CLIP vision model than these fusers were trained with"
            )
        h = self.get_submodule(f"ff1_{layer}")(self.get_submodule(f"norm1_{layer}")(embed))
        h = self.get_submodule(f"ff2_{layer}")(self.get_submodule(f"norm2_{layer}")(h))
        return h.unflatten(1, (self.config.global_tokens, dim))
