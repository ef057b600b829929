"""A layer of the host's layered document set onto the canvas: stretched, flipped, turned, its mask with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...cnc_core.placement import move, object_box
from .document import DocumentLayer
from .sizes import fit, stretch


def placed(layer: DocumentLayer, canvas: tuple[int, int], depth: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Set a layer onto the canvas.

    Args:
        layer: the layer.
        canvas: height and width.
        depth: a map (B or 1, H, W, 3) of the layer's own picture, which is set in its place.

    Returns:
        The picture (B, H, W, 3), black around its box, and its mask (B, H, W). Without rotation and of the size of
        its box, the layer's pixels are in them as they are. Colours are not mixed with black at a soft edge.

    Raises ValueError for a depth that does not go together with the layer's batch.
    """
    image = layer.picture.movedim(-1, 1)
    if depth is not None:
        image = fit(depth.movedim(-1, 1).to(image), *image.shape[-2:], f"the depth map of {layer.label}")
    alpha = None if layer.alpha is None else layer.alpha[:, None]
    batches = (len(image), 1 if alpha is None else len(alpha))
    if not {*batches} <= {1, max(batches)}:
        raise ValueError(
            f"{layer.label} has {batches[0]} depth maps and {batches[1]} masks: give one for all, or one for each"
        )
    image, alpha = _stretched(image, alpha, layer.height, layer.width)
    image = image.flip(layer.flips)
    alpha = image.new_ones(1, 1, layer.height, layer.width) if alpha is None else alpha.flip(layer.flips)
    if layer.rotation:
        seen, mask = _turned(layer, image.movedim(1, -1), alpha[:, 0], canvas)
    else:
        seen, mask = _pasted(layer, image, canvas).movedim(1, -1).contiguous(), _pasted(layer, alpha, canvas)[:, 0]
    return seen, mask * layer.opacity


def _stretched(image: Tensor, alpha: Tensor | None, height: int, width: int) -> tuple[Tensor, Tensor | None]:
    """Return (B, C, H, W) at a size, nothing of what is transparent mixed into what is not."""
    if alpha is None or image.shape[-2:] == (height, width):
        return stretch(image, height, width), alpha
    colours, alpha = stretch(image * alpha, height, width), stretch(alpha, height, width)
    return (colours / alpha.clamp(min=torch.finfo(alpha.dtype).tiny)).where(alpha > 0, 0.0), alpha


def _pasted(layer: DocumentLayer, image: Tensor, canvas: tuple[int, int]) -> Tensor:
    """Return (B, C, H, W) on an empty canvas, in the layer's box."""
    sheet = image.new_zeros(*image.shape[:2], *canvas)
    goal, source = [], []
    for first, length, side in ((layer.top, layer.height, canvas[0]), (layer.left, layer.width, canvas[1])):
        start, stop = (min(max(0, end), side) for end in (first, first + length))
        goal.append(slice(start, stop))
        source.append(slice(start - first, stop - first) if stop > start else slice(0, 0))
    sheet[..., goal[0], goal[1]] = image[..., source[0], source[1]]
    return sheet


def _turned(layer: DocumentLayer, image: Tensor, alpha: Tensor, canvas: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return a layer's picture and mask on an empty canvas, turned around the centre of its box."""
    cos, sin = math.cos(layer.rotation), math.sin(layer.rotation)
    batch = max(len(image), len(alpha))
    parts = []
    for colours, inside in zip(image.expand(batch, -1, -1, -1), alpha.expand(batch, -1, -1), strict=True):
        peak = inside.max()
        if peak == 0:
            parts.append((colours.new_zeros(1, *canvas, 3), inside.new_zeros(1, *canvas)))
            continue
        solid = inside / peak  # `move` finds the object by what is above 0.5, and turns it around its own centre
        left, top, right, bottom = object_box(solid > 0.5)
        middle = ((left + right) / 2, (top + bottom) / 2)
        across, down = middle[0] - layer.width / 2, middle[1] - layer.height / 2
        goal = (
            layer.left + layer.width / 2 + across * cos - down * sin,
            layer.top + layer.height / 2 + across * sin + down * cos,
        )
        seen, mask = move(
            colours[None],
            solid[None],
            canvas,
            x=goal[0] / canvas[1] - middle[0] / layer.width,
            y=goal[1] / canvas[0] - middle[1] / layer.height,
            scale=layer.height / canvas[0] * (1 + 1e-12),  # below 1 pixel a pixel, if by rounding, it would average
            rotation=math.degrees(layer.rotation),
        )
        parts.append((seen, mask * peak))
    images, covered = zip(*parts, strict=True)
    return torch.cat(images), torch.cat(covered)
