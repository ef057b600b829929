"""The host's attention functions as kernels of ``cnc_core``."""

from __future__ import annotations

from typing import Any

import comfy.ldm.modules.attention as host
from torch import Tensor

from ...cnc_core.attention import Kernel

_TAKE_A_MASK = {
    "attention_basic",
    "attention_sub_quad",
    "attention_split",
    "attention_pytorch",
    "attention_xformers",
}
"""The host's kernels that add a float mask to the logits; SageAttention drops it without a word, flash refuses."""


def masked_kernel(attn_precision: Any = None) -> Kernel:
    """Return the kernel for calls with a mask: the host's own choice where it honours one, else torch's.

    A user's attention override is not asked: it may drop the mask as well.
    """
    chosen = host.optimized_attention
    if chosen.__name__ not in _TAKE_A_MASK:
        chosen = host.attention_pytorch

    def kernel(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
        return chosen(q, k, v, heads, mask=mask, attn_precision=attn_precision)

    return kernel


def plain_kernel(transformer_options: dict[str, Any], attn_precision: Any = None) -> Kernel:
    """Return the kernel for calls without a mask: the host's, with the user's override if there is one."""

    def kernel(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            raise ValueError("a masked call must not go through the user's attention override")
        return host.optimized_attention(
            q, k, v, heads, attn_precision=attn_precision, transformer_options=transformer_options
        )

    return kernel
