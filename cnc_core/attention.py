"""Attention in one fused call, with soft guidance over the exemplars' tokens."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .guidance import Mode

_ALIGNMENT = 16
"""Fused kernels on a GPU copy a mask whose rows do not start at a multiple of this many elements."""


class Kernel(Protocol):
    """Multi-head attention on projected inputs: q (B, Lq, C), k and v (B, Lk, C) -> (B, Lq, C).

    ``mask`` is additive, in q's dtype, (B or 1, 1 or heads, Lq, Lk).
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
        """Attend."""
        ...


def fused_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attend with torch's fused kernel; shapes as in :class:`Kernel`."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class Kernels(NamedTuple):
    """The kernels of self-attention and of cross-attention."""

    self_attention: Kernel = fused_attention
    cross_attention: Kernel = fused_attention


FUSED = Kernels()


def guided_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    token_mask: Tensor,
    mode: Mode,
    *,
    token_bias: Tensor | None = None,
    kernel: Kernel = fused_attention,
) -> Tensor:
    """Attend to the text and, where the mask lets a query, to the exemplars' tokens.

    q (B, Lq, C); k and v (B, T + N, C), the last N columns being the tokens', T at least 1; all projected
    already. token_mask (B or 1, Lq, N) in [0, 1]. With S = q k^T / sqrt(d):

    - release: softmax weights exp(S) of the tokens are multiplied by the mask before normalising;
    - paper (section 3.3): the tokens' S is multiplied by the mask, so that a masked token keeps logit 0.

    token_bias (B or 1, 1, N) is added to the tokens' logits in either mode. Returns (B, Lq, C). Differentiable
    in every input but the mask. Raises ValueError where the shapes do not fit.
    """
    tokens, text = token_mask.shape[-1], k.shape[1] - token_mask.shape[-1]
    if text < 1:
        raise ValueError(f"attention over {k.shape[1]} keys, {tokens} of them tokens, leaves no text key")
    if token_mask.shape[0] not in (1, q.shape[0]) or token_mask.shape[1] != q.shape[1]:
        raise ValueError(
            f"token_mask must be (1 or {q.shape[0]}, {q.shape[1]}, N), got shape {tuple(token_mask.shape)}"
        )
    if mode == "release":
        mask = release_mask(token_mask, text, q.dtype, token_bias)
    elif mode == "paper":
        mask = _paper_mask(q, k[:, text:], heads, token_mask, text, token_bias)
    else:
        raise ValueError(f"mode must be 'release' or 'paper', got {mode!r}")
    return kernel(q, k, v, heads, mask=mask)


def release_mask(token_mask: Tensor, text: int, dtype: torch.dtype, token_bias: Tensor | None = None) -> Tensor:
    """Return the additive mask (B or 1, 1, Lq, text + N) of the release mode; it does not depend on q."""
    logits = _wide(token_mask, dtype).log()  # 0 becomes -inf, which _with_text makes finite
    if token_bias is not None:
        logits = logits + token_bias
    return _with_text(logits.unsqueeze(1), text, dtype)


def _paper_mask(q: Tensor, k: Tensor, heads: int, token_mask: Tensor, text: int, token_bias: Tensor | None) -> Tensor:
    """Return the additive mask (B, heads, Lq, text + N) which turns the tokens' logits S into S * mask."""
    dtype = q.dtype
    # q.k overflows fp16 where S does not, and infinity times a mask of 1 - 1 is NaN.
    q, k = (_wide(t, dtype).unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
    logits = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    logits = logits * (_wide(token_mask, dtype) - 1).unsqueeze(1)
    if token_bias is not None:
        logits = logits + token_bias.unsqueeze(1)
    return _with_text(logits, text, dtype)


def _wide(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the values in ``dtype``, or in fp32 where that is wider."""
    return values.to(torch.promote_types(dtype, torch.float32))


def _with_text(logits: Tensor, text: int, dtype: torch.dtype) -> Tensor:
    """Put ``text`` columns of zeros before the tokens' logits, in ``dtype`` and finite."""
    logits = logits.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max).to(dtype)
    tokens = logits.shape[-1]
    after = -(text + tokens) % _ALIGNMENT
    return F.pad(logits, (text, after))[..., : text + tokens]
