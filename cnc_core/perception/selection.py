"""Choosing one object of a crowded picture by points and a box, and how those are written by hand.

Coordinates are pixels of the picture, x to the right and y down, from 0, 0 at the top left corner.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from .estimator import Run, Selector, check_image

POINTS_FORMAT = "x,y; x,y; -x,y"
"""How points are written: in pixels, separated by semicolons or lines; a minus before one leaves out what is there."""

BOX_FORMAT = "x1,y1,x2,y2"
"""How a box is written: its left, top, right and bottom side, in pixels."""

MOST_POINTS = 256
"""So that a text by mistake or by malice does not take a network's memory for minutes: a hand gives ten."""

_NUMBER = r"\d+(?:\.\d+)?"
_POINT = re.compile(rf"([+-]?)\s*({_NUMBER})\s*,\s*({_NUMBER})")
_BOX = re.compile(rf"\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*")


@dataclass(frozen=True)
class Point:
    """A pixel that belongs to the object (`inside`), or that does not."""

    x: float
    y: float
    inside: bool = True


@dataclass(frozen=True)
class Box:
    """A rectangle around the object."""

    left: float
    top: float
    right: float
    bottom: float


def parse_points(text: str) -> tuple[Point, ...]:
    """Points from `POINTS_FORMAT`; none from an empty text.

    Raises ValueError with the part that is none, and for more than `MOST_POINTS`.
    """
    parts = [part for part in re.split(r"[;\n]", text) if part.strip()]
    if len(parts) > MOST_POINTS:
        raise ValueError(f"{len(parts)} points are too many: give at most {MOST_POINTS}; some three show an object")
    points = []
    for part in parts:
        match = _POINT.fullmatch(part.strip())
        if match is None:
            raise ValueError(
                f"{_shortened(part)!r} is no point: points are written {POINTS_FORMAT}, in pixels, such as 320,240; "
                f"-40,60, where the minus leaves out what is there"
            )
        sign, x, y = match.groups()
        points.append(Point(float(x), float(y), sign != "-"))
    return tuple(points)


def parse_box(text: str) -> Box | None:
    """A box from `BOX_FORMAT`, or None from an empty text. Raises ValueError where it is neither."""
    if not text.strip():
        return None
    match = _BOX.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{_shortened(text)!r} is no box: a box is written {BOX_FORMAT}, in pixels, such as 40,20,300,200"
        )
    return Box(*(float(number) for number in match.groups()))


def _shortened(text: str, most: int = 60) -> str:
    text = text.strip()
    return text if len(text) <= most else f"{text[:most]}..."


def select(
    selector: Selector, image: Tensor, points: tuple[Point, ...] = (), box: Box | None = None, *, run: Run | None = None
) -> Tensor:
    """The mask of the object that the points and the box show: (B, H, W, 3) in [0, 1] to (B, H, W) of 0 and 1.

    The same points and box serve each picture of the batch. `run` stands in for the plain call of the network.
    Raises ValueError for a picture that `check_image` refuses, for what lies outside of it, and where nothing
    shows the object.
    """
    check_image(image)
    height, width = image.shape[1:3]
    if box is None and not any(point.inside for point in points):
        raise ValueError("nothing shows the object: give a point on it or a box around it")
    for point in points:
        if not (0 <= point.x < width and 0 <= point.y < height):
            raise ValueError(
                f"the point {point.x:g},{point.y:g} is outside of the picture of {width} x {height} pixels"
            )
    if box is not None and not (0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height):
        raise ValueError(
            f"the box {box.left:g},{box.top:g},{box.right:g},{box.bottom:g} has to be left, top, right, bottom, "
            f"inside the picture of {width} x {height} pixels, and not empty"
        )
    with torch.no_grad():
        output = (run or selector.network)(*selector.prepare(image, points, box))
    return selector.finish(output, height, width)
