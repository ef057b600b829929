"""Salience networks of public families, behind the boundary of `estimator`.

A family is what a network's authors do to a picture before it and to a map after it. One thing is left out on
purpose: the U2-Net and IS-Net demos stretch each map to its full range, which makes an object of noise where a
picture has none, and means another threshold for every picture. The released Compose and Conquer does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .estimator import PerceptionError, Preprocessing

Triple = tuple[float, float, float]

_IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
_IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Family:
    """How the authors of a salience network use it.

    side: height and width of its input in pixels, where the file leaves them open. mean, std: taken out of a
    picture in [0, 1]. by_maximum: the picture is divided by its largest value before that. logits: the network
    ends before its sigmoid.
    """

    name: str
    side: int
    mean: Triple
    std: Triple
    by_maximum: bool = False
    logits: bool = False


U2NET = Family("U2-Net", 320, _IMAGENET_MEAN, _IMAGENET_STD, by_maximum=True)
"""xuebinqin/U-2-Net, data_loader.py and u2net_test.py."""

ISNET = Family("IS-Net", 1024, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
"""xuebinqin/DIS, IS-Net/Inference.py."""

ISNET_ANIME = Family("IS-Net for anime", 1024, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""SkyTNT/anime-segmentation, inference.py; a picture is squeezed here, not padded, to a square."""

BIREFNET = Family("BiRefNet", 1024, _IMAGENET_MEAN, _IMAGENET_STD, logits=True)
"""ZhengPeng7/BiRefNet, tutorials/BiRefNet_inference.ipynb."""


class SalienceEstimator:
    """A salience network of a known family, for pictures of any size.

    network: (B, 3, h, w) to (B, 1, h, w). size: its (height, width); the family's where not given.
    """

    def __init__(self, network: nn.Module, family: Family, size: tuple[int, int] | None = None) -> None:
        self.network: nn.Module = network
        self.family = family
        self.size = size or (family.side, family.side)

    def prepare(self, image: Tensor, *, preprocessing: Preprocessing = "model") -> Tensor:
        """(B, H, W, 3) in [0, 1] to (B, 3, h, w): squeezed to the network's size, antialiased.

        "release" is raw [0, 1], as the release's U2-Net at 320 x 320 saw it.
        """
        picture = image.movedim(-1, 1).float().clamp(0.0, 1.0)
        if picture.shape[2:] != self.size:
            picture = F.interpolate(picture, size=self.size, mode="bilinear", align_corners=False, antialias=True)
        if preprocessing == "release":
            return picture
        if self.family.by_maximum:
            picture = picture / picture.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
        mean, std = (picture.new_tensor(value).reshape(3, 1, 1) for value in (self.family.mean, self.family.std))
        return (picture - mean) / std

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """(B, 1, h, w) to salience (B, height, width) in [0, 1].

        Raises PerceptionError for values that this family's networks do not give.
        """
        value = output.float().sigmoid() if self.family.logits else output.float()
        low, high = (float(bound) for bound in torch.aminmax(value))
        if not (low >= -0.01 and high <= 1.01):
            raise PerceptionError(
                f"the salience model gave values from {low:.3g} to {high:.3g}; a {self.family.name} gives 0 to 1, "
                f"so its file is of another family, was exported without its last sigmoid, or overflowed: take the one "
                f"that its authors give"
            )
        if value.shape[2:] != (height, width):
            value = F.interpolate(value, size=(height, width), mode="bilinear", align_corners=False)
        return value[:, 0].clamp(0.0, 1.0)
