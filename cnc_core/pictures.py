"""What a picture and a mask are: pictures (B, H, W, 3) in [0, 1], masks (B, H, W) in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def check_image(image: Tensor, channels: int = 3, name: str = "the picture") -> None:
    """Raises ValueError, about `name`, unless it is a (B, H, W, channels) floating tensor without NaN or infinity."""
    if image.ndim != 4 or image.shape[-1] != channels or not image.is_floating_point() or image.numel() == 0:
        alpha = ", the last of them its alpha," if channels == 4 else ""
        raise ValueError(
            f"{name} must be a floating tensor (B, H, W, {channels}){alpha} with at least one pixel; "
            f"got {image.dtype} {tuple(image.shape)}"
        )
    broken = int((~torch.isfinite(image)).sum())
    if broken:
        raise ValueError(
            f"{name} has {broken} values that are not a number or infinite: the node that made it went wrong, often "
            f"a VAE in half precision (ComfyUI: start it with --fp32-vae)"
        )


def check_mask(mask: Tensor) -> None:
    """Raises ValueError unless `mask` is a (B, H, W) floating tensor without NaN or infinity."""
    if mask.ndim != 3 or not mask.is_floating_point() or mask.numel() == 0:
        raise ValueError(
            f"a mask is a floating tensor (B, H, W) with at least one pixel; got {mask.dtype} {tuple(mask.shape)}"
        )
    broken = int((~torch.isfinite(mask)).sum())
    if broken:
        raise ValueError(
            f"the mask has {broken} values that are not a number or infinite: the node that made it went wrong"
        )
