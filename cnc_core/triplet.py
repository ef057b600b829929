"""One picture's triplet {I_f, I_b, M}: the object, what was behind it, and the mask between them (section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .pictures import check_image, check_mask


@dataclass(frozen=True, eq=False)
class Triplet:
    """Pictures and their layers, all of one batch and size.

    source I_s, foreground I_f and background I_b: (B, H, W, 3) in [0, 1]. mask M: (B, H, W) in [0, 1], 1 on
    the object.
    """

    source: Tensor
    foreground: Tensor
    background: Tensor
    mask: Tensor


def make_triplet(image: Tensor, mask: Tensor, inpaint: Callable[[Tensor, Tensor], Tensor]) -> Triplet:
    """Split pictures into their layers: I_f = I_s * M, I_b = inpaint(I_s * (1 - dilated M)).

    image: (B, H, W, 3) in [0, 1]. mask: (B or 1, H, W) in [0, 1]; a soft edge stays soft in the foreground,
    while for the background all above 0.5 is the object. inpaint: takes both, with the mask expanded to B,
    and gives the pictures without the object; hiding and dilating are its own (`perception.inpaint`).

    Raises ValueError for pictures and masks that do not go together, and for an inpainted picture of
    another shape.
    """
    check_image(image)
    check_mask(mask)
    if mask.shape[1:] != image.shape[1:3] or mask.shape[0] not in (1, image.shape[0]):
        raise ValueError(
            f"the mask must be (B or 1, H, W) for the picture's (B, H, W, 3); "
            f"got {tuple(mask.shape)} for {tuple(image.shape)}"
        )
    mask = mask.expand(image.shape[:3])
    background = inpaint(image, mask)
    if background.shape != image.shape:
        raise ValueError(
            f"the inpainted picture must have the picture's shape {tuple(image.shape)}; got {tuple(background.shape)}"
        )
    return Triplet(image, cut_out(image, mask), background, mask)


def cut_out(image: Tensor, mask: Tensor) -> Tensor:
    """The masked object on black: (B, H, W, 3) and (B or 1, H, W) to (B, H, W, 3)."""
    return image * mask[..., None]
