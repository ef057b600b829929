"""One rule of sizes: the latent's wins, and images and masks are fitted to it by the host's crop and resize."""

from __future__ import annotations

import logging

import comfy.utils
from torch import Tensor

LATENT_SCALE = 8
"""Pixels for each latent pixel of Stable Diffusion 1.5."""


def fit(images: Tensor, height: int, width: int, what: str, *, method: str | None = None) -> Tensor:
    """Return images (B, C, H, W) at ``height`` x ``width``, cropped around the centre to that aspect ratio.

    method is the host's name of a resize; without one, "area" where the images shrink and "bilinear" where
    they grow. A change of aspect ratio is logged, with ``what`` naming the images.
    """
    old_height, old_width = images.shape[-2:]
    if (old_height, old_width) == (height, width):
        return images
    if abs(old_width * height - old_height * width) > max(old_width, old_height) * LATENT_SCALE:
        logging.warning(
            "Compose and Conquer: %s is %d x %d pixels, the picture to make is %d x %d; its centre is used. "
            "Give both the same aspect ratio to keep all of it.",
            what, old_width, old_height, width, height,
        )  # fmt: skip
    if method is None:
        method = "area" if old_height >= height and old_width >= width else "bilinear"
    return comfy.utils.common_upscale(images, width, height, method, "center")


def check_batch(tensor: Tensor, batch: int, what: str) -> None:
    """Raise ValueError unless a tensor's batch is 1 or that of the latents."""
    if tensor.shape[0] not in (1, batch):
        raise ValueError(
            f"{what} has a batch of {tensor.shape[0]}, the latents one of {batch}; give one for all or one for each"
        )
