"""The small pictures that a node shows of what it made."""

from __future__ import annotations

from typing import Any

import comfy.utils
from comfy_api.latest import io, ui
from torch import Tensor

SIDE = 512
"""Pixels that no side of a preview exceeds."""


def preview(picture: Tensor, title: str, cls: type[io.ComfyNode]) -> dict[str, Any]:
    """For NodeOutput's ``ui``: an IMAGE (B, H, W, 3) or a MASK (B, H, W), [0, 1], one PNG each in the temp folder.

    With them goes the title, in a word or two, for the pack's own strip of pictures.

    Larger ones than SIDE are shrunk, each pixel the mean of those that it covers: what the node hands on stays as
    it is. ``cls`` is the running node, whose prompt the host writes into the file.
    """
    image = picture[..., None].expand(-1, -1, -1, 3) if picture.ndim == 3 else picture
    height, width = image.shape[1:3]
    scale = SIDE / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = comfy.utils.common_upscale(image.movedim(-1, 1), *size, "area", "disabled").movedim(1, -1)
    return {**ui.PreviewImage(image, cls=cls).as_dict(), "cnc_title": [title]}
