"""An artist's IMAGE and MASK inputs, of whatever shape, as our functions want them."""

from __future__ import annotations

from torch import Tensor

from .sizes import fit

_EMPTY_SIDE = 64
"""LoadImage gives a picture without alpha a mask of zeros of this width and height."""


def picture(image: Tensor, name: str = "image", *, channels: int = 3) -> Tensor:
    """An IMAGE as (B, H, W, 3) in single precision: alpha is left out, grey is repeated.

    name: the socket, for errors. channels: 4 for (B, H, W, 4), which needs an alpha. Raises ValueError for a picture
    without one then, and for other numbers of channels or dimensions.
    """
    if image.ndim == 3:
        image = image[None]
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"{name} must be a picture, (B, H, W, 1, 3 or 4 channels), and got {tuple(image.shape)}: the node that "
            f"it comes from does not give pictures"
        )
    if channels == 4 and image.shape[-1] != 4:
        raise ValueError(
            f"{name} is {tuple(image.shape)} and has no alpha channel to read. Load Image gives a file's alpha as "
            f"its mask, 1 where the file is transparent: invert that mask and use it, or join it to the image"
        )
    if image.is_floating_point():  # in half precision where the host keeps all pictures so
        image = image.float()
    return image.expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image[..., :channels]


def optional_mask(mask: Tensor | None, image: Tensor) -> Tensor | None:
    """The MASK, or None where there is none; LoadImage's empty 64 x 64 mask is none.

    For a picture (B, H, W, C) that is itself 64 x 64 that mask is taken as it is.
    """
    if mask is None:
        return None
    side = (_EMPTY_SIDE, _EMPTY_SIDE)
    stands_for_none = mask.shape[-2:] == side and image.shape[1:3] != side and not mask.any()
    return None if stands_for_none else mask


def masks(mask: Tensor) -> Tensor:
    """A MASK (H, W), (B, H, W) or (B, 1, H, W) as (B, H, W) in single precision.

    Raises ValueError for what has no height and width.
    """
    if mask.ndim < 2:
        raise ValueError(
            f"mask must be (B, H, W), and got {tuple(mask.shape)}: the node that it comes from does not give masks"
        )
    return mask.reshape(-1, mask.shape[-2], mask.shape[-1]).float()


def pair(image: Tensor, mask: Tensor, name: str = "image") -> tuple[Tensor, Tensor]:
    """Picture and mask of one batch and size: (B, H, W, 3) and (B, H, W); name is the picture's socket, for errors.

    The mask is fitted to the picture by the host's crop and resize. One picture serves many masks and
    one mask many pictures; raises ValueError, with both sizes, where neither is one and they differ.
    """
    image, mask = picture(image, name), masks(mask)
    height, width = image.shape[1:3]
    mask = fit(mask[:, None], height, width, "the mask")[:, 0].to(image.device)
    batch = max(image.shape[0], mask.shape[0])
    if not {image.shape[0], mask.shape[0]} <= {1, batch}:
        raise ValueError(
            f"{name} has {image.shape[0]} pictures and mask has {mask.shape[0]}, which do not go together: give one "
            f"mask for all, or one for each"
        )
    return image.expand(batch, -1, -1, -1), mask.expand(batch, -1, -1)
