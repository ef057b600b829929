"""What a file of weights seems to be, by the names of its tensors: for telling a user who took the wrong one."""

from __future__ import annotations

import re
from collections.abc import Collection

FUSERS = "Compose and Conquer fusers"

_SIGNATURES: tuple[tuple[str, str], ...] = (
    (r"[._]lora_(up|down|A|B)\b|\.lora\.(up|down)\b|\.hada_w1|\.lokr_w1|^lora_(unet|te)", "a LoRA"),
    (r"^local_adapter\.feature_extractor\.pre_extractor|^global_adapter\.ff1\.", "a Uni-ControlNet"),
    (r"^(local|global)_adapter\.", FUSERS),
    (r"(^|\.)(feature_extractor\.fg_extractor|ff1_fg)\.", "a fuser whose keys lack local_adapter. or global_adapter."),
    (r"^ip_adapter\.|^image_proj\.", "an IP-Adapter"),
    (
        r"^control_model\.|(^|\.)input_hint_block\.|^controlnet_(cond_embedding|down_blocks|blocks|mid_block)\b",
        "a ControlNet",
    ),
    (r"^(adapter\.)?body\.\d+\.|^style_embedding$", "a T2I-Adapter"),
    (r"^conditioner\.embedders\.|^model\.diffusion_model\.label_emb\.", "an SDXL checkpoint"),
    (r"^model\.diffusion_model\.(double_blocks|joint_blocks)\.|^double_blocks\.", "a Flux or SD 3 model"),
    (r"^cond_stage_model\.model\.", "a Stable Diffusion 2 checkpoint"),
    (r"^cond_stage_model\.transformer\.", "a plain Stable Diffusion 1.5 checkpoint, a base model without fusers"),
    (r"^(model\.diffusion_model\.)?input_blocks\.\d+\.|^down_blocks\.\d+\..*attentions\.", "a diffusion U-Net alone"),
    (r"^(first_stage_model\.|vae\.)?(en|de)coder\.(conv_in|mid|down|up|conv_out)\b|^taesd_", "a VAE"),
    (
        r"^(text_model|vision_model|visual|transformer\.resblocks|transformer\.text_model)\.|^(text|visual)_projection\b",
        "a CLIP text or image encoder",
    ),
    (r"^emb_params$|^string_to_param\.|^clip_[lg]$", "a textual inversion embedding"),
)
"""Patterns for any one tensor's name, and the kind of file; the first row with a match decides."""


def seems_to_be(names: Collection[str]) -> str:
    """Return what a file with tensors of these names seems to be, in words; ``FUSERS`` if it has fusers."""
    for pattern, kind in _SIGNATURES:
        if any(re.search(pattern, name) for name in names):
            return kind
    first = ", ".join(list(names)[:3])
    return f"something unknown, of {len(names)} tensors ({first})" if names else "a file without tensors"
