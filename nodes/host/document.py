"""The layered document of newer hosts, which a LAYERS connection carries: read and checked."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...cnc_core.pictures import check_image, check_mask
from .layers import MOST_LAYERS
from .pictures import masks, picture
from .sizes import stretch

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
    """canvas: height and width. layers: the farthest first. has_canvas: False where the layers make its size."""

    canvas: tuple[int, int]
    layers: tuple[DocumentLayer, ...]
    has_canvas: bool


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
    canvas = _canvas(document.get("canvas"))
    size = _reached(layers) if canvas is None else canvas
    if max(size) > MOST_SIDE:
        raise ValueError(f"the document's canvas is {size[1]} x {size[0]} pixels, and no side may be above {MOST_SIDE}")
    return Document(size, tuple(sorted(layers, key=lambda layer: layer.z)), canvas is not None)


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


def _canvas(canvas: Any) -> tuple[int, int] | None:
    """Return height and width of a canvas, given as width and height; None for none, as the host reads it."""
    sides = canvas if canvas is not None else (0, 0)
    if not isinstance(sides, Sequence) or isinstance(sides, str) or len(sides) != 2:
        raise ValueError(f"the document's canvas must be a width and a height, got {_short(canvas)}")
    named = dict(zip(("width", "height"), sides, strict=True))
    try:
        width, height = (math.trunc(_number(named, side, 0)) for side in named)
    except ValueError as error:
        raise ValueError(f"the document's canvas: {error}") from None
    return (height, width) if width > 0 and height > 0 else None


def _reached(layers: list[DocumentLayer]) -> tuple[int, int]:
    """Return how far down and to the right layers reach, at least a pixel."""
    downs, rights = [1], [1]
    for layer in layers:
        cos, sin = abs(math.cos(layer.rotation)), abs(math.sin(layer.rotation))
        down = layer.top + (layer.height + layer.width * sin + layer.height * cos) / 2
        right = layer.left + (layer.width + layer.width * cos + layer.height * sin) / 2
        downs.append(math.ceil(down - _ROUNDING))
        rights.append(math.ceil(right - _ROUNDING))
    return max(downs), max(rights)


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
