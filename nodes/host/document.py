"""The layered document of newer hosts, a LAYERS connection: read, checked, and its layers set onto its canvas."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...cnc_core.pictures import check_image, check_mask
from ...cnc_core.placement import move, object_box
from .layers import MOST_LAYERS
from .pictures import masks, picture
from .sizes import fit, stretch

VERSION = 1
MOST_SIDE = 16384
"""Pixels: as far as the host goes."""
_ROUNDING = 1e-6
"""Of a pixel: no reason for one more on the canvas."""


@dataclass(frozen=True, eq=False)
class DocumentLayer:
    """One layer of a document.

    Args:
        name: what the document calls it, or "".
        label: how errors call it.
        picture: (B, h, w, 3).
        alpha: how opaque its pixels are, (B or 1, h, w) in [0, 1]; None where all are.
        left, top, width, height: the box that its picture is stretched to, in pixels of the canvas.
        rotation: radians, clockwise, around the box's centre.
        flips: the dimensions of (B, C, H, W) that are flipped, before the rotation.
        opacity: multiplies alpha, in [0, 1].
        z: higher is nearer.
        visible: False for one that is switched off.
        blend_mode: how the host would mix its colours with those behind it.
    """

    name: str
    label: str
    picture: Tensor
    alpha: Tensor | None
    left: int
    top: int
    width: int
    height: int
    rotation: float
    flips: tuple[int, ...]
    opacity: float
    z: int
    visible: bool
    blend_mode: str


@dataclass(frozen=True, eq=False)
class Document:
    """canvas: height and width. layers: the farthest first."""

    canvas: tuple[int, int]
    layers: tuple[DocumentLayer, ...]


def read_document(document: Any) -> Document:
    """Read a document of the host's.

    Without a canvas of its own it is as large as its layers reach to the right and down. Layers with the same z_index
    are in the order of the list, its end the nearest.

    Raises ValueError, with a layer's number in the list and its name, for what the format does not have, numbers that
    are not finite, another version, a type other than raster, no layers or too many, and sides above MOST_SIDE.
    """
    if not isinstance(document, dict):
        raise ValueError(f"document is none of the host's layered documents, but a {type(document).__name__}")
    version = document.get("version")
    if version not in (None, VERSION):
        newer = isinstance(version, int) and version > VERSION
        told = f"document has version {_short(version)}, and this pack reads version {VERSION}"
        raise ValueError(f"{told}: update the pack" if newer else told)
    items = document.get("layers") or []
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise ValueError(f"document must have a list of layers, got {_short(items)}")
    if not items:
        raise ValueError("document has no layers: connect the last Add Layer to it")
    if len(items) > MOST_LAYERS:
        raise ValueError(f"document has {len(items)} layers, and a stack has at most {MOST_LAYERS}: merge some")
    layers = []
    for number, item in enumerate(items, start=1):
        label = f"the document's layer {number}"
        if not isinstance(item, dict):
            raise ValueError(f"{label} is no layer, but a {type(item).__name__}")
        name = item.get("name") or ""
        if not isinstance(name, str):
            raise ValueError(f"{label} has a {type(name).__name__} for its name, which must be a text")
        label += f" {name[:60]!r}" if name else ""
        try:
            layers.append(_layer(name, label, item))
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from None
    return Document(_canvas(document.get("canvas"), layers), tuple(sorted(layers, key=lambda layer: layer.z)))


def placed(layer: DocumentLayer, canvas: tuple[int, int], depth: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Set a layer onto the canvas.

    Args:
        layer: the layer.
        canvas: height and width.
        depth: a map (B or 1, H, W, 3) of the layer's own picture, which is set in its place.

    Returns:
        The picture (B, H, W, 3), black around the layer, and its mask (B, H, W). Without rotation and of the size of
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


def _layer(name: str, label: str, item: dict[str, Any]) -> DocumentLayer:
    kind = item.get("type", "raster")
    if kind != "raster":
        raise ValueError(f"it is of the type {_short(kind)}, and this pack reads raster alone: turn it into a picture")
    image, alpha = _pixels(item)
    left, top, z, width, height = (
        math.trunc(_number(item, key, 0)) for key in ("x", "y", "z_index", "w", "h")
    )  # as the host reads them
    width, height = (width if width > 0 else image.shape[2]), (height if height > 0 else image.shape[1])
    if max(width, height) > MOST_SIDE:
        raise ValueError(f"it is {width} x {height} pixels large, and no side may be above {MOST_SIDE}")
    blend_mode = item.get("blend_mode") or "normal"
    if not isinstance(blend_mode, str):
        raise ValueError(f"blend_mode must be a text, got {_short(blend_mode)}")
    return DocumentLayer(
        name=name,
        label=label,
        picture=image,
        alpha=alpha,
        left=left,
        top=top,
        width=width,
        height=height,
        rotation=math.remainder(_number(item, "rotation", 0.0), math.tau),
        flips=tuple(dim for key, dim in (("flip_v", -2), ("flip_h", -1)) if _flag(item, key, False)),
        opacity=min(max(_number(item, "opacity", 1.0), 0.0), 1.0),
        z=z,
        visible=_flag(item, "visible", True),
        blend_mode=blend_mode,
    )


def _pixels(item: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Return a layer's colours and what its alpha channel and its mask, 1 where it is transparent, leave of it."""
    image, mask = item.get("image"), item.get("mask")
    for key, tensor in (("image", image), ("mask", mask)):
        if not isinstance(tensor, Tensor) and not (key == "mask" and tensor is None):
            raise ValueError(f"{key} must be a tensor, got {_short(tensor)}")
    colours = picture(image, "image")
    check_image(colours, name="its image")
    alpha = picture(image, "image", channels=4)[..., 3].clamp(0, 1) if image.shape[-1] == 4 else None
    if mask is not None:
        mask = masks(mask).to(colours)
        check_mask(mask)
        shown = 1 - stretch(mask[:, None], *colours.shape[1:3])[:, 0].clamp(0, 1)
        if not {len(shown), len(colours)} <= {1, max(len(shown), len(colours))}:
            raise ValueError(
                f"it has {len(colours)} pictures and {len(shown)} masks: give one for all, or one for each"
            )
        alpha = shown if alpha is None else alpha * shown
    if alpha is not None:
        check_mask(alpha)
    return colours, alpha


def _canvas(canvas: Any, layers: list[DocumentLayer]) -> tuple[int, int]:
    """Return height and width of a document's canvas, given as width and height."""
    sides = canvas if canvas is not None else (0, 0)
    if not isinstance(sides, Sequence) or isinstance(sides, str) or len(sides) != 2:
        raise ValueError(f"the document's canvas must be a width and a height, got {_short(canvas)}")
    named = dict(zip(("width", "height"), sides, strict=True))
    try:
        width, height = (math.trunc(_number(named, side, 0)) for side in named)
    except ValueError as error:
        raise ValueError(f"the document's canvas: {error}") from None
    if width <= 0 or height <= 0:  # none, for the host as well
        reached = [_reach(layer) for layer in layers]
        width, height = (max(1, *(math.ceil(reach[side] - _ROUNDING) for reach in reached)) for side in (0, 1))
    if max(width, height) > MOST_SIDE:
        raise ValueError(f"the document's canvas is {width} x {height} pixels, and no side may be above {MOST_SIDE}")
    return height, width


def _reach(layer: DocumentLayer) -> tuple[float, float]:
    """Return how far to the right and down a layer reaches."""
    cos, sin = abs(math.cos(layer.rotation)), abs(math.sin(layer.rotation))
    return (
        layer.left + (layer.width + layer.width * cos + layer.height * sin) / 2,
        layer.top + (layer.height + layer.width * sin + layer.height * cos) / 2,
    )


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
    images, masks_ = zip(*parts, strict=True)
    return torch.cat(images), torch.cat(masks_)


def _number(item: dict[str, Any], key: str, default: float) -> float:
    value = item.get(key)
    if value is None:
        return default
    try:
        number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{key} must be a finite number, got {_short(value)}")
    return number


def _flag(item: dict[str, Any], key: str, default: bool) -> bool:
    value = item.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ValueError(f"{key} must be true or false, got {_short(value)}")
    return value


def _short(value: Any, most: int = 60) -> str:
    if isinstance(value, (str, int, float)) or value is None:
        text = repr(value)
        return text if len(text) <= most else f"{text[:most]}..."
    return f"a {type(value).__name__}"
