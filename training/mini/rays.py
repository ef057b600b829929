"""Rays against solids and their surroundings: the parts of which `render` and `layered` make pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .scenes import Surroundings, Thing
from .world import BACKDROPS, GROUNDS, LIGHTS, MATERIALS, MAX_PLANES, SOLIDS, Pattern

_FAR_AWAY = 1e4
_BOUND = 1.36  # radius, in a solid's own units, of a ball around any of them
_PATTERNS: dict[Pattern, int] = {"plain": 0, "checker": 1, "stripes": 2}


@dataclass(frozen=True)
class Solids:
    """One thing of each scene in the shape that the intersection wants."""

    centre: Tensor  # (B, 3)
    scale: Tensor  # (B, 1)
    rotation: Tensor  # (B, 3, 3), from the solid's axes to the camera's
    quadric: Tensor  # (B, 5)
    normals: Tensor  # (B, MAX_PLANES, 3)
    offsets: Tensor  # (B, MAX_PLANES)
    surface: Tensor  # (B, 8): two colours, pattern, period


def as_tensor(rows: object) -> Tensor:
    """Numbers as fp32."""
    return torch.tensor(np.asarray(rows, dtype=np.float32))


def solids_of(things: Sequence[Thing], horizons: Sequence[float]) -> Solids:
    """One thing of each scene, in the camera's axes."""
    normals, offsets = np.zeros((len(things), MAX_PLANES, 3)), np.ones((len(things), MAX_PLANES))
    for row, thing in enumerate(things):
        for k, plane in enumerate(SOLIDS[thing.solid].planes):
            normals[row, k], offsets[row, k] = plane[:3], plane[3]
    places = zip(things, horizons, strict=True)
    centres = [(t.x * t.distance, (t.y - h) * t.distance, t.distance) for t, h in places]
    materials = [MATERIALS[t.material] for t in things]
    return Solids(
        as_tensor(centres),
        as_tensor([[t.size * t.distance] for t in things]),
        as_tensor([t.rotation for t in things]),
        as_tensor([SOLIDS[t.solid].quadric for t in things]),
        as_tensor(normals),
        as_tensor(offsets),
        as_tensor([(*m.colour, *m.second, _PATTERNS[m.pattern], m.period) for m in materials]),
    )


def _intersect(solid: Solids, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where rays (B, P or 1, 3) enter a solid.

    Returns the ray's parameter (B, P, _FAR_AWAY where it misses), the parameter where it leaves, the
    normal in the camera's axes and the point in the solid's axes (B, P, 3).
    """
    scale = solid.scale[:, :, None]
    o = (origin - solid.centre[:, None]) @ solid.rotation / scale
    d = direction @ solid.rotation / scale
    approach, start = d @ solid.normals.mT, o @ solid.normals.mT  # (B, P, planes)
    safe = torch.where(approach.abs() < 1e-7, 1e-7, approach)
    cut = (solid.offsets[:, None] - start) / safe
    enter, face = torch.where(safe < 0, cut, -_FAR_AWAY).max(-1)
    leave = torch.where(safe > 0, cut, _FAR_AWAY).amin(-1)

    q, linear, constant = solid.quadric[:, None, :3], solid.quadric[:, None, 3], solid.quadric[:, None, 4]
    a = (q * d * d).sum(-1)
    a = torch.where(a.abs() < 1e-8, 1e-8, a)
    b = (q * o * d).sum(-1) + 0.5 * linear * d[..., 1]
    c = (q * o * o).sum(-1) + linear * o[..., 1] + constant
    square = b * b - a * c
    root = square.clamp(min=0).sqrt() / a.abs()
    first, second = -b / a - root, -b / a + root
    inside_between = a > 0
    everywhere = ~inside_between & (square < 0)
    # where a < 0 the ray is inside before the first root or after the second (a cone seen end on)
    before = ~inside_between & ~everywhere & (enter < torch.minimum(leave, first))
    after = ~inside_between & ~everywhere & ~before
    quadric_enter = torch.where(inside_between, first, torch.where(after, second, -_FAR_AWAY))
    quadric_leave = torch.where(inside_between, second, torch.where(before, first, _FAR_AWAY))
    by_quadric = quadric_enter > enter
    near, far = torch.maximum(enter, quadric_enter), torch.minimum(leave, quadric_leave)
    hit = (near < far) & (far > 1e-3) & ~(inside_between & (square < 0))
    point = o + near[..., None] * d
    curved = 2 * q * point + torch.stack((torch.zeros_like(linear), linear, torch.zeros_like(linear)), -1)
    flat = torch.gather(solid.normals, 1, face[..., None].expand(-1, -1, 3))
    normal = torch.where(by_quadric[..., None], curved, flat) @ solid.rotation.mT
    return torch.where(hit, near, _FAR_AWAY), torch.where(hit, far, -_FAR_AWAY), F.normalize(normal, dim=-1), point


def _candidates(solid: Solids, origin: Tensor, direction: Tensor) -> Tensor:
    """The rays that come near a solid: indices (B, K), short rows filled up with their last entry."""
    way = origin - solid.centre[:, None]
    along = (way * direction).sum(-1)
    outside = (way * way).sum(-1) - (_BOUND * solid.scale) ** 2
    close = along * along > (direction * direction).sum(-1) * outside
    count = close.sum(1)
    rows, columns = close.nonzero(as_tuple=True)
    index = torch.zeros(len(close), max(int(count.max()), 1), dtype=torch.long)
    index[rows, torch.arange(len(rows)) - (count.cumsum(0) - count)[rows]] = columns
    last = index.gather(1, (count - 1).clamp(min=0)[:, None])
    return torch.where(torch.arange(index.shape[1]) < count[:, None], index, last)


def _pick(rays: Tensor, index: Tensor) -> Tensor:
    return rays if rays.shape[1] == 1 else rays.gather(1, index[..., None].expand(-1, -1, rays.shape[-1]))


def shadow(solid: Solids, points: Tensor, towards: Tensor) -> Tensor:
    """1 where the solid stands between points (B, P, 3) and the light (B, 1, 3), else 0: (B, P)."""
    index = _candidates(solid, points, towards)
    near, far, _, _ = _intersect(solid, _pick(points, index), towards)
    blocked = ((far > 0.05) & (near < _FAR_AWAY)).float()
    return torch.zeros(points.shape[:2]).scatter_(1, index, blocked)


def look(solid: Solids, rays: Tensor, towards: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What rays (B, P, 3) from the camera see of a solid: distance (B, P), colour (B, P, 3) and the
    cosine between its normal and the light (B, P)."""
    eye = torch.zeros(len(rays), 1, 3)
    index = _candidates(solid, eye, rays)
    near, _, normal, point = _intersect(solid, eye, _pick(rays, index))
    colour, cosine = _paint(solid.surface, *point.unbind(-1)), (normal * towards).sum(-1)
    distance = torch.full(rays.shape[:2], _FAR_AWAY).scatter_(1, index, near)
    colours = torch.zeros_like(rays).scatter_(1, index[..., None].expand(-1, -1, 3), colour)
    return distance, colours, torch.zeros(rays.shape[:2]).scatter_(1, index, cosine)


def _paint(surface: Tensor, x: Tensor, y: Tensor, z: Tensor, fade: Tensor | float = 1.0) -> Tensor:
    """The colour (B, P, 3) of a patterned surface (B, 8) at coordinates (B, P); fade in [0, 1]
    takes the pattern back to its mean."""
    kind, period = surface[:, None, 6], surface[:, None, 7]
    i, j, k = (torch.floor(axis / period + 0.25) for axis in (x, y, z))
    checker, stripes = (i + j + k).remainder(2.0), j.remainder(2.0)
    share = torch.where(kind == 1, checker, torch.where(kind == 2, stripes, 0.0))
    share = (0.5 + (share - 0.5) * fade) * (kind > 0)
    return surface[:, None, :3] * (1 - share[..., None]) + surface[:, None, 3:6] * share[..., None]


def lit(albedo: Tensor, cosine: Tensor, shade: Tensor, tint: Tensor, ambient: Tensor) -> Tensor:
    """Colours (B, P, 3) of surfaces in the light; shade is 1 in a shadow."""
    diffuse = cosine.clamp(min=0) * (1 - shade)
    return (albedo * (ambient + tint * diffuse[..., None])).clamp(0, 1)


def spread(inverse: Tensor) -> Tensor:
    """Maps (B, C, H, W), each stretched to [0, 1]."""
    low, high = inverse.amin((1, 2, 3), keepdim=True), inverse.amax((1, 2, 3), keepdim=True)
    return (inverse - low) / (high - low).clamp(min=1e-6)


@dataclass(frozen=True)
class View:
    """A batch of surroundings as rays see them, P rays a picture.

    Without a note, tensors are (B, P) and colours (B, P, 3). Distances are along the view.
    """

    rays: Tensor  # (B, P, 3), z = 1: a ray's parameter is the distance
    towards: Tensor  # (B, 1, 3), to the light
    tint: Tensor  # (B, 1, 3), the light's
    ambient: Tensor  # (B, 1, 3)
    at: Tensor  # the distance of the ground or the backdrop
    other_at: Tensor  # so with a wall in place of the sky, or a sky in place of the wall
    colour: Tensor  # of the ground or the wall
    cosine: Tensor  # between its normal and the light
    sky: Tensor  # whether it is sky
    sky_lit: Tensor  # the sky's colour, in the light
    size: tuple[int, int]  # height and width in pixels
    samples: int  # squared: rays a pixel

    def picture(self, flat: Tensor) -> Tensor:
        """Values (B, P) or (B, P, C) of rays as a picture (B, C, H, W): the mean of each pixel's."""
        height, width = self.size
        shape = (len(flat), height * self.samples, width * self.samples, -1)
        channels = flat.reshape(shape).permute(0, 3, 1, 2)
        return F.avg_pool2d(channels, self.samples) if self.samples > 1 else channels.contiguous()

    def mask(self, inside: Tensor) -> Tensor:
        """A picture of 1 where most of a pixel's rays are inside, else 0: (B, 1, H, W)."""
        return (self.picture(inside.float()) > 0.5).float()

    def seen(self, on_solid: Tensor, albedo: Tensor, cosine: Tensor, shade: Tensor) -> Tensor:
        """The colours of what stands here: solids where `on_solid`, of this albedo and cosine, else the surroundings;
        shade is 1 in a shadow."""
        colour = torch.where(on_solid[..., None], albedo, self.colour)
        facing = torch.where(on_solid, cosine, self.cosine)
        sky = (self.sky & ~on_solid)[..., None]
        return torch.where(sky, self.sky_lit, lit(colour, facing, shade, self.tint, self.ambient))


def view_of(scenes: Sequence[Surroundings], size: tuple[int, int], samples: int) -> View:
    """The surroundings of scenes as pictures of `size`, (height, width), see them, samples x samples rays a pixel.

    Places are fractions of a picture's shorter side, from its centre: a wider picture shows more to both sides.
    """
    height, width = size
    batch, short = len(scenes), min(size) * samples
    across, down = (
        (torch.arange(side * samples, dtype=torch.float32) + 0.5) / short - side * samples / (2 * short)
        for side in (width, height)
    )
    horizon = as_tensor([s.horizon for s in scenes])[:, None]
    x = across.repeat(len(down)).expand(batch, -1)
    y = -down.repeat_interleave(len(across))[None] - horizon
    rays = torch.stack((x, y, torch.ones_like(x)), -1)
    lights = [LIGHTS[s.light] for s in scenes]
    towards = F.normalize(as_tensor([li.direction for li in lights]), dim=-1)[:, None]
    tint, ambient = as_tensor([li.tint for li in lights])[:, None], as_tensor([li.ambient for li in lights])[:, None]

    # ground below the horizon, else a wall, else the sky
    rise_to_eye, wall = as_tensor([[s.height] for s in scenes]), as_tensor([[s.wall] for s in scenes])
    backdrops = [BACKDROPS[s.backdrop] for s in scenes]
    is_wall = torch.tensor([[b.wall] for b in backdrops])
    ground_at = torch.where(y < -1e-4, rise_to_eye / (-y).clamp(min=1e-4), _FAR_AWAY)
    sky_at = torch.tensor(_FAR_AWAY / 2)
    backdrop_at, other_at = torch.where(is_wall, wall, sky_at), torch.where(is_wall, sky_at, wall)
    is_ground = ground_at < backdrop_at
    at = torch.minimum(ground_at, backdrop_at)
    grounds = [GROUNDS[s.ground] for s in scenes]
    ground = as_tensor([(*g.colour, *g.second, _PATTERNS[g.pattern], g.period) for g in grounds])
    ground_x = x * at + as_tensor([[s.shift] for s in scenes])
    is_stripes = ground[:, None, 6] == 2
    fade = (9.0 / at - 0.5).clamp(0, 1)
    zero = torch.zeros_like(x)
    ground_colour = _paint(ground, ground_x, torch.where(is_stripes, ground_x, 0.0), at, fade)
    rows = as_tensor([(*b.low, *b.high, _PATTERNS[b.pattern], b.period) for b in backdrops])
    wall_colour = _paint(rows, zero, y * at, zero)
    rise = (y.clamp(min=0) * 2)[..., None].clamp(max=1)
    sky_colour = rows[:, None, :3] * (1 - rise) + rows[:, None, 3:6] * rise
    return View(
        rays, towards, tint, ambient, at, torch.minimum(ground_at, other_at),
        torch.where(is_ground[..., None], ground_colour, wall_colour),
        torch.where(is_ground, towards[..., 1], -towards[..., 2]),
        ~is_ground & ~is_wall, sky_colour * (ambient + 0.8 * tint), size, samples,
    )  # fmt: skip
