"""U2-Net and U2-Net-p, the salience networks of the paper's data, from their authors' `.pth` files.

"U^2-Net: Going Deeper with Nested U-Structure for Salient Object Detection", Qin et al., 2020; state-dict keys
are those of xuebinqin/U-2-Net, model/u2net.py. A U-Net whose every stage is a small U-Net itself (an RSU).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..weight_files import CheckpointError, open_weights
from .salience import U2NET, SalienceEstimator
from .strict_loading import load_strictly

Widths = tuple[int, int, int]
"""Channels of a stage: in, inside, out."""

DEPTHS = (7, 6, 5, 4, 0, 0)
"""Layers of each stage's small U-Net; 0 for the two deepest, which dilate where the others pool."""

U2NET_WIDTHS: tuple[Widths, ...] = (
    *((3, 32, 64), (64, 32, 128), (128, 64, 256), (256, 128, 512), (512, 256, 512), (512, 256, 512)),
    *((1024, 256, 512), (1024, 128, 256), (512, 64, 128), (256, 32, 64), (128, 16, 64)),
)
"""Six encoder stages, then five decoder stages from the deepest up."""

U2NETP_WIDTHS: tuple[Widths, ...] = ((3, 16, 64), *((64, 16, 64),) * 5, *((128, 16, 64),) * 5)


class ConvNormReLU(nn.Module):
    """A 3x3 convolution with a dilation, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, dilation: int, operations: Any, **made: Any) -> None:
        super().__init__()
        self.conv_s1 = operations.Conv2d(channels_in, channels_out, 3, padding=dilation, dilation=dilation, **made)
        self.bn_s1 = nn.BatchNorm2d(channels_out, **made)  # a host has no layer of its own for it

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, H, W)."""
        return F.relu(self.bn_s1(self.conv_s1(x)))


class RSU(nn.Module):
    """A residual U-block: a small U-Net added to its own input layer's output.

    depth: its layers down, the last without pooling and dilated by 2; 0 for the four-layer block that does not
    pool and dilates by 1, 2, 4 and 8 instead.
    """

    def __init__(self, depth: int, widths: Widths, operations: Any, **made: Any) -> None:
        super().__init__()
        channels_in, inside, channels_out = widths
        self.pools = depth > 0
        dilations = [1] * (depth - 1) + [2] if self.pools else [1, 2, 4, 8]
        self.rebnconvin = ConvNormReLU(channels_in, channels_out, 1, operations, **made)
        self.down: list[str] = []
        self.up: list[str] = []
        for level, dilation in enumerate(dilations, start=1):
            self.down.append(f"rebnconv{level}")
            given = channels_out if level == 1 else inside
            self.add_module(self.down[-1], ConvNormReLU(given, inside, dilation, operations, **made))
        for level in range(len(dilations) - 1, 0, -1):
            self.up.append(f"rebnconv{level}d")
            made_channels = channels_out if level == 1 else inside
            dilation = 1 if self.pools else dilations[level - 1]
            self.add_module(self.up[-1], ConvNormReLU(2 * inside, made_channels, dilation, operations, **made))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H, W)."""
        x = start = self.rebnconvin(x)
        skips: list[Tensor] = []
        for level, name in enumerate(self.down):
            if self.pools and 0 < level < len(self.down) - 1:
                x = _halved(x)
            x = self.get_submodule(name)(x)
            skips.append(x)
        skips.pop()
        for name in self.up:
            skip = skips.pop()
            x = self.get_submodule(name)(torch.cat((_resized(x, skip), skip), dim=1))
        return x + start


class U2Net(nn.Module):
    """A picture in, salience in [0, 1] out: the fused map, first of the authors' seven outputs.

    widths: `U2NET_WIDTHS` (44.0 million parameters) or `U2NETP_WIDTHS` (1.1 million). Layers come from
    `operations`, so that a host may build it from its own.
    """

    def __init__(
        self,
        widths: tuple[Widths, ...] = U2NET_WIDTHS,
        *,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.dtype = dtype or torch.float32
        made: dict[str, Any] = {"dtype": self.dtype, "device": device}
        levels = len(DEPTHS)
        encoder, decoder = widths[:levels], widths[levels:]
        for level, (depth, stage) in enumerate(zip(DEPTHS, encoder, strict=True), start=1):
            self.add_module(f"stage{level}", RSU(depth, stage, operations, **made))
        for level, stage in zip(range(levels - 1, 0, -1), decoder, strict=True):
            self.add_module(f"stage{level}d", RSU(DEPTHS[level - 1], stage, operations, **made))
        for level, stage in enumerate((*reversed(decoder), encoder[-1]), start=1):
            self.add_module(f"side{level}", operations.Conv2d(stage[-1], 1, 3, padding=1, **made))
        self.outconv = operations.Conv2d(levels, 1, 1, **made)

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W), normalised or raw, to (B, 1, H, W) in [0, 1]."""
        x = picture.to(self.dtype)
        skips: list[Tensor] = []
        for level in range(1, len(DEPTHS) + 1):
            x = self.get_submodule(f"stage{level}")(_halved(x) if skips else x)
            skips.append(x)
        logits = [self.get_submodule(f"side{len(DEPTHS)}")(skips.pop())]
        for level in range(len(DEPTHS) - 1, 0, -1):
            skip = skips.pop()
            x = self.get_submodule(f"stage{level}d")(torch.cat((_resized(x, skip), skip), dim=1))
            logits.insert(0, self.get_submodule(f"side{level}")(x))
        fused: Tensor = self.outconv(torch.cat([_resized(logit, logits[0]) for logit in logits], dim=1))
        return fused.sigmoid()


def load_u2net(
    path: Path,
    *,
    operations: Any = nn,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> SalienceEstimator:
    """The salience estimator in an authors' u2net.pth, u2netp.pth or u2net_human_seg.pth.

    Which of the two networks it is follows from the shapes. dtype: float32 where not given. Raises
    PerceptionError, with the weights that are off, for any other file.
    """
    name, widths = ("U2-Net-p", U2NETP_WIDTHS) if _is_small(path) else ("U2-Net", U2NET_WIDTHS)
    network = U2Net(widths, operations=operations, dtype=dtype, device="meta")
    load_strictly(network, path, f"the {name} of xuebinqin/U-2-Net ({name.replace('-', '').lower()}.pth)")
    network = network.to(dtype=network.dtype, device=device)
    return SalienceEstimator(network.eval().requires_grad_(False), U2NET)


def _is_small(path: Path) -> bool:
    inside = "stage1.rebnconv1.conv_s1.weight"
    try:
        weight = open_weights(path, (inside,)).shapes.get(inside)
    except CheckpointError:
        return False  # loading it will say what is wrong with it
    return weight is not None and weight.shape[:1] == (U2NETP_WIDTHS[0][1],)


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, stride=2, ceil_mode=True)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
