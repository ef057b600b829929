"""One rule of sizes: the latent's wins, and images and masks are fitted to it as the host crops and resizes."""

from __future__ import annotations

import logging

import comfy.utils
from torch import Tensor

LATENT_SCALE = 8
"""Pixels for each latent pixel of Stable Diffusion 1.5."""


def fit(images: Tensor, height: int, width: int, what: str) -> Tensor:
    """Return images (B, C, H, W) at ``height`` x ``width``, cropped as :func:`crop` does.

    The host's "area" where they shrink, "bilinear" where they grow.
    """
    if images.shape[-2:] == (height, width):
        return images
    shrinks = images.shape[-2] >= height and images.shape[-1] >= width
    images = crop(images, height, width, what)
    return comfy.utils.common_upscale(images, width, height, "area" if shrinks else "bilinear", "disabled")


def stretch(images: Tensor, height: int, width: int) -> Tensor:
    """Return all of images (B, C, H, W) at ``height`` x ``width``, whatever that makes of their aspect ratio.

    A side that shrinks is averaged, one that grows is interpolated.
    """
    lower, narrower = min(height, images.shape[-2]), min(width, images.shape[-1])
    for size, method in (((lower, narrower), "area"), ((height, width), "bilinear")):
        if images.shape[-2:] != size:
            images = comfy.utils.common_upscale(images, size[1], size[0], method, "disabled")
    return images


def crop(images: Tensor, height: int, width: int, what: str) -> Tensor:
    """Return the middle of images (B, C, H, W) in the aspect ratio of ``height`` x ``width``, at their own size.

    A change of aspect ratio is logged, with ``what`` naming the images.
    """
    old_height, old_width = images.shape[-2:]
    if abs(old_width * height - old_height * width) > max(old_width, old_height) * LATENT_SCALE:
        logging.warning(
            "Compose and Conquer: %s is %d x %d pixels, the picture to make is %d x %d; its centre is used. "
            "Give both the same aspect ratio to keep all of it.",
            what, old_width, old_height, width, height,
        )  # fmt: skip
    aspect, old_aspect = width / height, old_width / old_height  # as the host crops, but never to nothing
    x = min(max(0, round((old_width - old_width * (aspect / old_aspect)) / 2)), (old_width - 1) // 2)
    y = min(max(0, round((old_height - old_height * (old_aspect / aspect)) / 2)), (old_height - 1) // 2)
    return images[..., y : old_height - y, x : old_width - x]


def check_batch(tensor: Tensor, batch: int, what: str) -> None:
    """Raise ValueError unless a tensor's batch is 1 or that of the latents."""
    if tensor.shape[0] not in (1, batch):
        raise ValueError(
            f"{what} has a batch of {tensor.shape[0]}, the latents one of {batch}; give one for all or one for each"
        )
