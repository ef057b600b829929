"""MiDaS v2.1 small: a light depth network for photographs, from the authors' file `midas_v21_small_256.pt`.

The encoder is timm's EfficientNet-Lite3, the decoder is written here. Keys and shapes are those of the public
definition (isl-org/MiDaS, `midas_net_custom.py` and `blocks.py`), so the file loads as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..command_lines import pip_install
from .estimator import PerceptionError, Preprocessing
from .strict_loading import load_strictly

SIDE = 256
"""The longer side, in pixels, of what the network sees, as its authors run it."""

STRIDE = 32
"""Both sides are multiples of this."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_ENCODER_CHANNELS = (32, 48, 136, 384)  # at 1/4, 1/8, 1/16 and 1/32 of the picture
_CHANNELS = (64, 128, 256, 512)
_HEAD_CHANNELS = 32


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, beside a skip."""

    def __init__(self, channels: int, *, operations: Any, **made: Any) -> None:
        super().__init__()
        self.conv1 = operations.Conv2d(channels, channels, 3, padding=1, **made)
        self.conv2 = operations.Conv2d(channels, channels, 3, padding=1, **made)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same."""
        out: Tensor = x + self.conv2(F.relu(self.conv1(F.relu(x))))
        return out


class Fusion(nn.Module):
    """One step up: add the encoder's features to what comes from below, refine, double the size."""

    def __init__(self, channels: int, channels_out: int, *, operations: Any, **made: Any) -> None:
        super().__init__()
        self.resConfUnit1 = ResidualUnit(channels, operations=operations, **made)
        self.resConfUnit2 = ResidualUnit(channels, operations=operations, **made)
        self.out_conv = operations.Conv2d(channels, channels_out, 1, **made)

    def forward(self, features: Tensor, below: Tensor | None = None) -> Tensor:
        """(B, channels, h, w), twice, to (B, channels_out, 2h, 2w). The lowest step has nothing below it."""
        x = features if below is None else below + self.resConfUnit1(features)
        x = F.interpolate(self.resConfUnit2(x), scale_factor=2, mode="bilinear", align_corners=True)
        out: Tensor = self.out_conv(x)
        return out


class MidasSmall(nn.Module):
    """The network of MiDaS v2.1 small.

    The decoder's layers come from `operations`; the encoder's are timm's own, which take no others. Raises
    PerceptionError where timm cannot be imported.
    """

    def __init__(
        self,
        *,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        self.pretrained = _encoder(torch.device(device or "cpu")).to(dtype=dtype)
        self.scratch = nn.ModuleDict()
        for level, (encoded, channels) in enumerate(zip(_ENCODER_CHANNELS, _CHANNELS, strict=True), start=1):
            narrowed = operations.Conv2d(encoded, channels, 3, padding=1, bias=False, **made)
            self.scratch[f"layer{level}_rn"] = narrowed
            above = channels if level == 1 else channels // 2
            self.scratch[f"refinenet{level}"] = Fusion(channels, above, operations=operations, **made)
        self.scratch["output_conv"] = nn.Sequential(
            operations.Conv2d(_CHANNELS[0], _CHANNELS[0] // 2, 3, padding=1, **made),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            operations.Conv2d(_CHANNELS[0] // 2, _HEAD_CHANNELS, 3, padding=1, **made),
            nn.ReLU(),
            operations.Conv2d(_HEAD_CHANNELS, 1, 1, **made),
            nn.ReLU(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W), H and W multiples of 32, to disparity (B, H, W), at least 0, near is large."""
        x = image.to(next(self.pretrained.parameters()).dtype)
        features = [x := part(x) for part in self.pretrained.values()]
        x = self._fused(4, features)
        for level in (3, 2, 1):
            x = self._fused(level, features, x)
        out: Tensor = self.scratch["output_conv"](x)
        return out[:, 0]

    def _fused(self, level: int, features: list[Tensor], *below: Tensor) -> Tensor:
        """The decoder's step at a level: of the encoder's features there, and of what the level below gave."""
        narrowed = self.scratch[f"layer{level}_rn"](features[level - 1])
        out: Tensor = self.scratch[f"refinenet{level}"](narrowed, *below)
        return out


def _encoder(device: torch.device) -> nn.ModuleDict:
    """EfficientNet-Lite3 without its head, in the four parts that the public definition cuts it into."""
    try:
        import timm
    except ImportError as error:
        raise PerceptionError(
            f"MiDaS v2.1 small needs timm, which cannot be imported ({error}): install it with `{pip_install('timm')}`"
        ) from error
    with device:
        network = timm.create_model("tf_efficientnet_lite3", pretrained=False)
    return nn.ModuleDict(
        {
            # The third place is the activation's; timm's normalisation does that as well.
            "layer1": nn.Sequential(network.conv_stem, network.bn1, nn.Identity(), *network.blocks[0:2]),
            "layer2": nn.Sequential(*network.blocks[2:3]),
            "layer3": nn.Sequential(*network.blocks[3:5]),
            "layer4": nn.Sequential(*network.blocks[5:7]),
        }
    )


class MidasEstimator:
    """MiDaS v2.1 small behind the boundary of `estimator`."""

    def __init__(self, network: MidasSmall) -> None:
        self.network: nn.Module = network

    def prepare(self, image: Tensor, *, preprocessing: Preprocessing = "model") -> Tensor:
        """(B, H, W, 3) in [0, 1] to (B, 3, h, w): the longer side becomes 256, both multiples of 32.

        "model" takes ImageNet's mean and deviation out, "release" does not.
        """
        picture = image.movedim(-1, 1).float().clamp(0.0, 1.0)
        size = network_size(image.shape[1], image.shape[2])
        picture = F.interpolate(picture, size=size, mode="bicubic", align_corners=False)
        if preprocessing == "release":
            return picture
        mean, deviation = (torch.tensor(values).reshape(3, 1, 1).to(picture) for values in (_MEAN, _DEVIATION))
        return (picture - mean) / deviation

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """(B, h, w) to disparity (B, height, width), near is large."""
        resized = F.interpolate(output.float()[:, None], size=(height, width), mode="bicubic", align_corners=False)
        return resized[:, 0]


def network_size(height: int, width: int) -> tuple[int, int]:
    """The size at which the network sees a picture: the longer side 256, the other the nearest multiple of 32."""
    scale = SIDE / max(height, width)
    return STRIDE * max(1, round(height * scale / STRIDE)), STRIDE * max(1, round(width * scale / STRIDE))


def load_midas(
    path: Path,
    *,
    operations: Any = nn,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> MidasEstimator:
    """MiDaS v2.1 small from its file.

    dtype: float32 where not given. Raises PerceptionError where timm is missing, or the file holds something else.
    """
    network = MidasSmall(operations=operations, device="meta")
    load_strictly(network, path, "MiDaS v2.1 small (midas_v21_small_256.pt)")
    network = network.to(dtype=dtype or torch.float32, device=device)
    return MidasEstimator(network.eval().requires_grad_(False))


def find_midas(folders: list[Path]) -> dict[str, Path]:
    """Files that may be MiDaS, by their path relative to the folder that holds them.

    Those beside a `config.json` belong to a model of the transformers library. The first of two same names wins.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            single = path.suffix.lower() in (".pt", ".pth", ".safetensors") and path.is_file()
            if single and not (path.parent / "config.json").exists():
                found.setdefault(path.relative_to(folder).as_posix(), path)
    return found
