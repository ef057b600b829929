"""The host's attention functions as a kernel of ``cnc_core``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.ldm.modules.attention as host
import comfy.model_management
from comfy.cli_args import args
from torch import Tensor

from ...cnc_core.attention import Kernel


def host_kernel(transformer_options: dict[str, Any] | None = None) -> Kernel:
    """Return a kernel that leaves calls without a mask to the host's choice and does masked ones with torch's.

    SageAttention drops a mask without a word, flash attention refuses it and a user's override may do either; and
    with the few keys of a text and some tokens torch's kernel is the fastest that takes one. With the
    transformer_options of a run, calls without a mask go through the user's override, if there is one.
    """
    options = {} if transformer_options is None else {"transformer_options": transformer_options}
    unmasked = _unmasked()

    def kernel(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return unmasked(q, k, v, heads, **options)
        return host.attention_pytorch(q, k, v, heads, mask=mask)

    return kernel


def _unmasked() -> Callable[..., Tensor]:
    """Return the host's choice; but on a CPU torch's kernel, which is several times as fast there as the
    sub-quadratic one that the host falls back on when the user has chosen none.
    """
    fallback = host.optimized_attention is host.attention_sub_quad and not args.use_quad_cross_attention
    if fallback and comfy.model_management.cpu_mode():
        return host.attention_pytorch
    return host.optimized_attention
