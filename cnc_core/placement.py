"""A cut-out set onto another picture: moved, scaled, turned and flipped, its mask with it."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .pictures import check_image, check_mask

Flip = Literal["none", "horizontal", "vertical"]

FLIPS: tuple[Flip, ...] = ("none", "horizontal", "vertical")

_FINEST = 1024
"""Samples a pixel in each direction, at most: a cut-out that is finer is averaged first."""

_TILE = 1024
"""Samples in each direction that are taken at a time: a hundred megabytes."""

_ROUNDING = 1e-9
"""Coverage that only the rounding of coordinates makes, beside an object that lies on whole pixels."""


def place(
    background: Tensor,
    foreground: Tensor,
    mask: Tensor,
    *,
    x: float = 0.5,
    y: float = 0.5,
    scale: float = 1.0,
    rotation: float = 0.0,
    flip: Flip = "none",
) -> tuple[Tensor, Tensor]:
    """Set the masked object onto the background: the composed picture (B, H, W, 3) and its mask (B, H, W).

    background: (B or 1, H, W, 3) in [0, 1]. foreground: (B or 1, h, w, 3) in [0, 1], the object's own picture.
    mask: (B or 1, h, w) in [0, 1], may be soft; the box around all above 0.5 is what is placed, so that the
    object's own place in its picture does not matter.
    x, y: where that box's centre goes, in fractions of the background: (0.5, 0.5) is the middle. scale: 1
    gives the object the share of the picture's height that it has of its own. rotation: degrees, clockwise,
    around that centre, after the flip.

    The colours are sampled once, times the mask, so that nothing of what surrounds the object is mixed in,
    and averaged over each pixel, so that what shrinks does not flicker. What falls outside is cut off; an
    object wholly outside leaves the background as it is, with an empty mask. At any scale the memory at work is
    a few hundred megabytes for pictures of 4096 x 4096 pixels, and the time at most that of some 50 million samples.

    Raises ValueError for shapes that do not go together, a mask with nothing above 0.5, an unknown flip, and
    numbers that are not finite or a scale of 0 or less.
    """
    check_image(background, name="the background")
    check_image(foreground, name="the foreground")
    check_mask(mask)
    if mask.shape[1:] != foreground.shape[1:3]:
        raise ValueError(
            f"the mask must be (B, h, w) for the foreground's (B, h, w, 3); "
            f"got {tuple(mask.shape)} for {tuple(foreground.shape)}"
        )
    counts = {"backgrounds": len(background), "foregrounds": len(foreground), "masks": len(mask)}
    batch = max(counts.values())
    if not set(counts.values()) <= {1, batch}:
        listed = ", ".join(f"{count} {what}" for what, count in counts.items())
        raise ValueError(f"{listed} do not go together: give one for all, or one for each")
    if flip not in FLIPS:
        raise ValueError(f"flip is one of {', '.join(FLIPS)}; got {flip!r}")
    if not all(map(math.isfinite, (x, y, scale, rotation))) or scale <= 0:
        raise ValueError(
            f"x, y, scale and rotation are finite numbers, and scale is above 0; "
            f"got {x:g}, {y:g}, {scale:g}, {rotation:g}"
        )
    height, width = background.shape[1:3]
    factor = scale * height / foreground.shape[1]
    turn = _matrix(rotation, flip)  # of directions in the foreground to directions in the background
    image = background.repeat(batch // len(background), 1, 1, 1)
    coverage = image.new_zeros(image.shape[:3])
    layers = zip(foreground.expand(batch, -1, -1, -1), mask.expand(batch, -1, -1), image, coverage, strict=True)
    for colours, inside, composed, covered in layers:
        _place_one(composed, covered, colours, inside, (x * width, y * height), factor * turn, factor)
    return image, coverage


def move(
    picture: Tensor,
    mask: Tensor,
    size: tuple[int, int],
    *,
    x: float = 0.0,
    y: float = 0.0,
    scale: float = 1.0,
    rotation: float = 0.0,
    flip: Flip = "none",
) -> tuple[Tensor, Tensor]:
    """Move a masked object within its picture: the picture (B, H, W, 3), black around it, and the mask (B, H, W).

    picture (B or 1, h, w, 3), mask (B or 1, h, w) and flip, rotation and scale as for :func:`place`. size: height and
    width of what is made; in another size than the picture's the object keeps its share of the height, and its
    centre's place. x, y: how far it is moved from there, in fractions of the size. Colours are not mixed with black
    at a soft edge. Where nothing of a mask is above 0.5, what is made is empty.

    Raises ValueError as :func:`place` does.
    """
    batch = max(len(picture), len(mask))
    moved, covered = picture.new_zeros(batch, *size, 3), mask.new_zeros(batch, *size)
    if not {len(picture), len(mask)} <= {1, batch}:
        raise ValueError(f"{len(picture)} pictures and {len(mask)} masks do not go together: give one for all or each")
    height, width = mask.shape[1:]
    for index, inside in enumerate(mask.expand(batch, -1, -1)):
        if not (inside > 0.5).any():
            continue
        left, top, right, bottom = object_box(inside > 0.5)
        image, alpha = place(
            moved[index : index + 1],
            picture[index % len(picture)][None],
            inside[None],
            x=(left + right) / 2 / width + x,
            y=(top + bottom) / 2 / height + y,
            scale=scale,
            rotation=rotation,
            flip=flip,
        )
        alone = (image / alpha[..., None]).clamp(0, 1)
        moved[index] = alone.where(alpha[..., None] > 0, 0.0)[0]
        covered[index] = alpha[0]
    return moved, covered


def _place_one(
    composed: Tensor,
    covered: Tensor,
    colours: Tensor,
    mask: Tensor,
    target: tuple[float, float],
    matrix: Tensor,
    factor: float,
) -> None:
    """Place one object, in place of what is in composed (H, W, 3) and covered (H, W), tile by tile."""
    left, top, right, bottom = object_box(mask > 0.5)
    centre = torch.tensor([(left + right) / 2, (top + bottom) / 2], dtype=torch.float64)
    goal = torch.tensor(target, dtype=torch.float64)

    left, top, right, bottom = object_box(mask > 0)  # with its soft rim
    corners = torch.tensor([(u, v) for u in (left, right) for v in (top, bottom)], dtype=torch.float64)
    reached = (corners - centre) @ matrix.T + goal
    if not reached.isfinite().all():
        raise ValueError(f"the object is to be {factor:g} times as large and centred at {target}: that is too far out")
    rim = factor  # interpolation reaches half a pixel of the cut-out further, at its corners a little more
    low, high = reached.amin(0) - rim, reached.amax(0) + rim
    columns = range(max(0, math.floor(low[0])), min(composed.shape[1], math.ceil(high[0])))
    rows = range(max(0, math.floor(low[1])), min(composed.shape[0], math.ceil(high[1])))
    if max(right - left, bottom - top) * factor < 1 / _FINEST:
        return  # less than a millionth of a pixel

    layer = _Layer(colours[top:bottom, left:right], mask[top:bottom, left:right], (left, top))
    fine = math.ceil(1 / factor)  # samples a pixel in each direction: no pixel of the cut-out is skipped
    if fine > _FINEST:
        layer = layer.reduced(math.ceil(fine / _FINEST))
        fine = _FINEST
    inverse = torch.linalg.inv(matrix)
    side = max(1, _TILE // fine)
    for y in range(rows.start, rows.stop, side):
        for x in range(columns.start, columns.stop, side):
            window = (slice(y, min(y + side, rows.stop)), slice(x, min(x + side, columns.stop)))
            across, down = (
                (torch.arange((line.stop - line.start) * fine, dtype=torch.float64) + 0.5) / fine + line.start
                for line in reversed(window)
            )
            wanted = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)  # (rows, columns, 2)
            sampled = layer.sampled((wanted - goal) @ inverse.T + centre)
            if sampled is None:
                continue
            sampled = F.avg_pool2d(sampled, fine)[0].movedim(0, -1).to(composed.device)
            alpha = sampled[..., 3].clamp(0.0, 1.0)
            alpha = alpha.where(alpha > _ROUNDING, 0.0)
            composed[window] = (sampled[..., :3] + composed[window] * (1 - alpha[..., None])).to(composed)
            covered[window] = alpha.to(covered)


class _Layer(NamedTuple):
    """A cut-out: colours (h, w, 3), mask (h, w), and where its corner is and how large its pixels are."""

    colours: Tensor
    mask: Tensor
    origin: tuple[float, float]
    pixel: int = 1

    def reduced(self, by: int) -> _Layer:
        """Return the layer with each ``by`` x ``by`` pixels averaged, their colours by what they cover."""
        by = min(by, max(self.mask.shape))
        height, width = self.mask.shape
        mask = self.mask.float()

        def mean(values: Tensor) -> Tensor:
            return F.avg_pool2d(F.pad(values, (0, -width % by, 0, -height % by))[None], by)[0]

        covered = mean(mask)
        colours = torch.stack([mean(self.colours[..., channel] * mask) for channel in range(3)], dim=-1)
        return _Layer(colours / covered.clamp(min=torch.finfo(mask.dtype).tiny)[..., None], covered, self.origin, by)

    def sampled(self, source: Tensor) -> Tensor | None:
        """Return colours times mask, and mask, at places (rows, columns, 2) of x and y, as (1, 4, rows, columns).

        None where all of these are beside the layer.
        """
        size = source.new_tensor([self.mask.shape[1], self.mask.shape[0]])
        index = (source - source.new_tensor(self.origin)) / self.pixel - 0.5
        first = index.flatten(0, 1).amin(0).floor().clamp(min=0)
        last = torch.minimum(index.flatten(0, 1).amax(0).floor() + 2, size)
        if (last <= first).any():
            return None
        (left, top), (right, bottom) = first.int().tolist(), last.int().tolist()
        inside = self.mask[top:bottom, left:right].double()[..., None]
        layer = torch.cat((self.colours[top:bottom, left:right].double() * inside, inside), dim=-1)
        grid = ((2 * (index - first) + 1) / (last - first) - 1).to(layer.device)
        return F.grid_sample(layer.movedim(-1, 0)[None], grid[None], mode="bilinear", align_corners=False)


def object_box(inside: Tensor) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is true in (H, W); right and bottom are one beyond.

    Raises ValueError where nothing is.
    """
    columns, rows = (inside.any(dim=dim).nonzero()[:, 0].tolist() for dim in (0, 1))
    if not rows:
        raise ValueError(
            "the mask has nothing above 0.5: there is no object to place. Look at the mask: it is empty, too faint, or "
            "the wrong way round"
        )
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _matrix(rotation: float, flip: Flip) -> Tensor:
    """(2, 2): flip, then turn clockwise where y goes down."""
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    turned = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    mirror = [-1.0 if flip == "horizontal" else 1.0, -1.0 if flip == "vertical" else 1.0]
    return turned @ torch.diag(torch.tensor(mirror, dtype=torch.float64))
