"""Any number of layers one behind another: what each shows, where it acts, and the two depth streams they make.

A stack is a sequence of layers, the nearest first; its order alone decides what hides what. The released local fuser
takes a foreground and a background map: the nearest layer goes into the first, all others into the second, kept apart
by ranges of depth. The paper has two layers and names more as future work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .guidance import Region, Schedule, broadcast_batch

TEXT_WEIGHT = 4.0
"""How many times its attention a layer's text gets beside the picture's: with 1 its materials show less often."""

_RANGES = {1: ((0.0, 1.0),), 2: ((0.6, 1.0), (0.0, 0.65)), 3: ((0.5, 1.0), (0.2, 0.5), (0.0, 0.3))}
"""For so many layers in the background stream the (far, near) of each: measured on CnC-Mini, beside true depths."""

_HARD = 0.5

Stack = Sequence["DepthLayer"]


@dataclass(frozen=True, eq=False)
class DepthLayer:
    """One thing in the picture.

    Args:
        mask: its whole silhouette, also where nearer layers hide it: (B or 1, 1, H, W) in [0, 1]. None covers the
            picture: the backdrop.
        depth: (B or 1, C, H, W) in [0, 1], near = 1; None leaves its depth to the text.
        exemplar: the tokens of its exemplar, (B or 1, N, D), of the global fuser's foreground head, for the backdrop
            of its background head.
        text: its own words, encoded: (B or 1, T, D). They act on the positive prompt's half.
        exemplar_weight: lambda, which multiplies the exemplar's tokens.
        text_weight: how many times its attention the text gets; 0 leaves it out.
        strength: multiplies the local fuser's residuals where the layer is visible.
        near_far: the nearest and the farthest value of its depth in the background stream, in place of the usual.
        depth_scale: multiplies its depth, whichever stream it is in, as far as its nearest value stays within 1.
        schedule: when exemplar and text act.

    Raises ValueError for shapes that are none of these, and for numbers out of range.
    """

    mask: Tensor | None
    depth: Tensor | None = None
    exemplar: Tensor | None = None
    text: Tensor | None = None
    exemplar_weight: float = 1.0
    text_weight: float = TEXT_WEIGHT
    strength: float = 1.0
    near_far: tuple[float, float] | None = None
    depth_scale: float = 1.0
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        for name, tensor in (("mask", self.mask), ("depth", self.depth)):
            if tensor is not None and (tensor.ndim != 4 or (name == "mask" and tensor.shape[1] != 1)):
                raise ValueError(f"a layer's {name} must be (B, C, H, W), a mask's C 1, got {tuple(tensor.shape)}")
        for name, tokens in (("exemplar", self.exemplar), ("text", self.text)):
            if tokens is not None and tokens.ndim != 3:
                raise ValueError(f"a layer's {name} must be tokens (B, N, D), got {tuple(tokens.shape)}")
        numbers = (self.exemplar_weight, self.text_weight, self.strength, self.depth_scale)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError(f"a layer's weights, strength and depth_scale must be finite, 0 or more, got {numbers}")
        if self.near_far is not None and not 0 <= self.near_far[1] <= self.near_far[0] <= 1:
            raise ValueError(f"near_far must be the nearest and the farthest depth in [0, 1], got {self.near_far}")


def reduced(stack: Stack) -> tuple[DepthLayer, ...]:
    """Return the layers that can act: those with some visible part in some picture of the batch.

    All else here takes a stack of any kind and works on the reduced one, so that an empty or a hidden layer changes
    nothing. Raises ValueError where the layers' sizes or batches do not go together.
    """
    return tuple(layer for layer, _ in _visible(stack))


def visible_masks(stack: Stack) -> tuple[Tensor, ...]:
    """Return where each layer of the reduced stack shows, (B or 1, 1, H, W): mask_k * prod of (1 - mask_j), j < k.

    Soft edges stay soft. All add up to at most 1; what is left is the backdrop's, whose own is that.
    """
    return tuple(mask for _, mask in _visible(stack))


def depth_streams(stack: Stack) -> tuple[Tensor | None, Tensor | None]:
    """Return the local fuser's two maps, fg_depth and bg_depth, each (B or 1, C, H, W) or None where no layer has any.

    The nearest layer with a mask and a depth is the foreground's map, untouched; the backdrop is never that. One more
    is the background's, untouched. Several are composited there by their order, whole silhouettes, hard at a mask of
    0.5, since a soft edge would invent a depth between two planes; each in a range of its own.
    """
    planes = _planes(stack)
    fg_depth = _composited(planes[:1]) if planes and planes[0][0].mask is not None else None
    return fg_depth, _composited(planes if fg_depth is None else planes[1:])


def depth_map(stack: Stack) -> Tensor | None:
    """Return one map of all layers, z-buffered, (B or 1, C, H, W), for a model that takes one; None without any depth.

    They are composited as in the background stream, so that what is hidden is not in it.
    """
    return _composited(_planes(stack))


def depth_ranges(count: int) -> tuple[tuple[float, float], ...]:
    """Return (far, near) of each of so many layers of the background stream, the nearest first."""
    if count in _RANGES:
        return _RANGES[count]
    return tuple(((count - index - 1) / count, (count - index) / count) for index in range(count))


def regions(stack: Stack) -> tuple[Region, ...]:
    """Return where the layers' exemplars and texts act, none where no layer has either.

    A layer keeps its place free of the backdrop's exemplar also where it has none itself, or it does not act.
    """
    visible = _visible(stack)
    given = [tokens for layer, _ in visible for tokens in (layer.exemplar, layer.text) if tokens is not None]
    if not given:
        return ()
    none = given[0][:1, :0]
    made = []
    for layer, shown in visible:
        mask = None if layer.mask is None else shown
        if mask is not None:
            made.append(Region(none, mask))
        if layer.exemplar is not None:
            made.append(Region(layer.exemplar, mask, layer.exemplar_weight, schedule=layer.schedule))
        if layer.text is not None:
            made.append(Region(layer.text, mask, layer.text_weight, "gate", layer.schedule, positive_only=True))
    return tuple(made)


def strength_map(stack: Stack) -> Tensor | None:
    """Return what multiplies the residuals, (B or 1, 1, H, W): each layer's strength where it shows, else 1.

    None where it is 1 all over.
    """
    visible = _visible(stack)
    if all(layer.strength == 1 for layer, _ in visible):
        return None
    changed = [shown * (layer.strength - 1) for layer, shown in visible]
    return 1 + torch.stack(broadcast_batch(changed)).sum(0)


def _planes(stack: Stack) -> list[tuple[DepthLayer, Tensor]]:
    return [(layer, layer.depth) for layer in reduced(stack) if layer.depth is not None]


def _composited(planes: list[tuple[DepthLayer, Tensor]]) -> Tensor | None:
    """Return one map of the layers' depths, the nearest first: one as it is, several each in a range of its own."""
    if len(planes) == 1:
        layer, depth = planes[0]
        return depth if layer.depth_scale >= 1 else depth * layer.depth_scale
    composed: Tensor | None = None
    for (layer, depth), usual in reversed(list(zip(planes, depth_ranges(len(planes)), strict=True))):
        far, near = usual if layer.near_far is None else layer.near_far[::-1]
        scale = min(layer.depth_scale, 1 / near) if near else 0.0
        plane = scale * (far + (near - far) * depth)
        behind = torch.zeros_like(depth) if composed is None else composed
        composed = plane if layer.mask is None else torch.where(layer.mask > _HARD, plane, behind)
    return composed


def _visible(stack: Stack) -> list[tuple[DepthLayer, Tensor]]:
    """Return the layers that can act, each with where it shows."""
    size = _size(stack)
    left: Tensor | None = None  # of the picture, behind the layers so far
    found = []
    for layer in stack:
        mask = torch.ones(1, 1, *size) if layer.mask is None else layer.mask
        shown = mask if left is None else mask * left.to(mask.device)
        if shown.any():
            found.append((layer, shown))
            left = 1 - mask if left is None else left.to(mask.device) * (1 - mask)
    return found


def _size(stack: Stack) -> tuple[int, int]:
    """Return height and width of the layers' masks and maps; raise ValueError where they do not go together."""
    given = [
        (f"layer {number}'s {name}", tensor)
        for number, layer in enumerate(stack, start=1)
        for name, tensor in (("mask", layer.mask), ("depth", layer.depth))
        if tensor is not None
    ]
    if not given:
        return 1, 1
    (first, reference), batch = given[0], max(tensor.shape[0] for _, tensor in given)
    height, width = reference.shape[-2:]
    for name, tensor in given:
        if tensor.shape[-2:] != (height, width):
            raise ValueError(
                f"{name} is {tensor.shape[-1]} x {tensor.shape[-2]} and {first} {width} x {height}: give all layers "
                "one size"
            )
        if tensor.shape[0] not in (1, batch):
            raise ValueError(
                f"{name} has a batch of {tensor.shape[0]}, another layer one of {batch}: give one for all, or one for "
                "each"
            )
    return height, width
