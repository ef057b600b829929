"""The one small network behind both CnC-Mini estimators, depth and salience.

Each estimator is a `MiniNet` with weights of its own: a four-level convolutional U-Net for the
procedural world that CnC-Mini is trained on. It is not meant for photographs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

STRIDE = 16
"""`MiniNet.forward` wants a height and a width that are multiples of this."""

_CHANNELS = (24, 40, 64, 96)
_FULL_CHANNELS = 8
_GROUPS = 8


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each after GroupNorm and SiLU, beside a skip."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        self.norm_in = operations.GroupNorm(_GROUPS, channels_in, **made)
        self.conv_in = operations.Conv2d(channels_in, channels_out, 3, padding=1, **made)
        self.norm_out = operations.GroupNorm(_GROUPS, channels_out, **made)
        self.conv_out = operations.Conv2d(channels_out, channels_out, 3, padding=1, **made)
        self.skip = (
            nn.Identity() if channels_in == channels_out else operations.Conv2d(channels_in, channels_out, 1, **made)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, H, W)."""
        hidden = self.conv_in(F.silu(self.norm_in(x)))
        hidden = self.conv_out(F.silu(self.norm_out(hidden)))
        out: Tensor = self.skip(x) + hidden
        return out


class MiniNet(nn.Module):
    """Image in, one raw value a pixel out.

    For depth the raw value is relative disparity (near is large, scale and offset free); for
    salience it is a logit. Four levels at 1/2 to 1/16 of the picture, then a light head at full size
    that sees the picture again, for sharp contours. About 0.47 million parameters. Layers come from
    `operations`, so that a host may build it from its own.
    """

    def __init__(
        self,
        *,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        first, *deeper = _CHANNELS
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        self.stem = operations.Conv2d(3, first, 4, stride=2, padding=1, **made)
        self.encoder = nn.ModuleList(
            ConvBlock(above, below, operations=operations, **made)
            for above, below in zip((first, *_CHANNELS[:-1]), _CHANNELS, strict=True)
        )
        self.decoder = nn.ModuleList(
            ConvBlock(below + above, above, operations=operations, **made)
            for below, above in zip(reversed(deeper), reversed(_CHANNELS[:-1]), strict=True)
        )
        self.norm = operations.GroupNorm(_GROUPS, first, **made)
        self.to_full = operations.Conv2d(first, 4 * _FULL_CHANNELS, 3, padding=1, **made)
        self.refine = operations.Conv2d(_FULL_CHANNELS + 3, 2 * _FULL_CHANNELS, 3, padding=1, **made)
        self.head = operations.Conv2d(2 * _FULL_CHANNELS, 1, 3, padding=1, **made)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], H and W multiples of `STRIDE`, to (B, 1, H, W), raw.

        Raises ValueError for any other shape.
        """
        if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] % STRIDE or image.shape[3] % STRIDE:
            raise ValueError(
                f"MiniNet expects (B, 3, H, W) with H and W multiples of {STRIDE}, got {tuple(image.shape)}"
            )
        centred = image * 2 - 1
        x = self.stem(centred)
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            if level:
                x = F.avg_pool2d(x, 2)
            x = block(x)
            skips.append(x)
        skips.pop()
        for block in self.decoder:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat((x, skips.pop()), dim=1))
        x = F.pixel_shuffle(F.silu(self.to_full(F.silu(self.norm(x)))), 2)  # (B, 8, H, W)
        raw: Tensor = self.head(F.silu(self.refine(torch.cat((x, centred), dim=1))))
        return raw
