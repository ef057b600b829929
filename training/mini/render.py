"""The scenes of two solids as exact pictures, with mask and depth of every layer, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .rays import lit, look, shadow, solids_of, spread, view_of
from .scenes import Scene


@dataclass(frozen=True)
class Layers:
    """A batch of rendered scenes. Pictures (B, 3, H, W), the rest (B, 1, H, W), all in [0, 1].

    Depth maps are inverse distances, near = bright, each picture's spread to [0, 1].
    """

    image: Tensor  # I_s
    background: Tensor  # I_b: the front thing and its shadow are gone
    mask: Tensor  # M: 1 where the front thing is seen
    back_mask: Tensor  # all of the back thing, as I_b shows it
    depth: Tensor  # of I_s
    fg_depth: Tensor  # of I_f = I_s * M: zero outside M
    bg_depth: Tensor  # of I_b
    other_bg_depth: Tensor  # of I_b with a wall in place of the sky, or a sky in place of the wall

    @property
    def foreground(self) -> Tensor:
        """I_f = I_s * M, (B, 3, H, W)."""
        return self.image * self.mask


@torch.no_grad()
def render(scenes: Sequence[Scene], size: int = 128, samples: int = 2) -> Layers:
    """Render scenes at size x size pixels with samples x samples rays a pixel, on torch's default device."""
    view = view_of(scenes, (size, size), samples)
    rays, towards, picture = view.rays, view.towards, view.picture
    horizons = [s.horizon for s in scenes]
    front, back = (solids_of([getattr(s, role) for s in scenes], horizons) for role in ("front", "back"))
    front_at, front_albedo, front_cosine = look(front, rays, towards)
    back_at, back_albedo, back_cosine = look(back, rays, towards)

    # the background: the back thing or the surroundings
    on_back = back_at < view.at
    behind_at = torch.minimum(back_at, view.at)
    points = rays * behind_at.clamp(max=100.0)[..., None]
    by_back = shadow(back, points, towards) * (~on_back)
    shade = torch.maximum(by_back, shadow(front, points, towards))
    background, shadowed = (view.seen(on_back, back_albedo, back_cosine, dark) for dark in (by_back, shade))
    on_front = front_at < behind_at
    front_lit = lit(front_albedo, front_cosine, torch.zeros_like(front_at), view.tint, view.ambient)

    mask = view.mask(on_front)
    inverse_front = picture(torch.where(on_front, 1 / front_at, 1 / behind_at))
    return Layers(
        image=picture(torch.where(on_front[..., None], front_lit, shadowed)),
        background=picture(background),
        mask=mask,
        back_mask=view.mask(on_back),
        depth=spread(inverse_front),
        fg_depth=spread(torch.where(mask > 0, inverse_front, 0.0)),
        bg_depth=spread(picture(1 / behind_at)),
        other_bg_depth=spread(picture(1 / torch.minimum(back_at, view.other_at))),
    )
