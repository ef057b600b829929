"""Scenes of one to four solids, each a layer of its own, before a backdrop without any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .rays import Solids, lit, look, shadow, solids_of, spread, view_of
from .scenes import NEAR, Surroundings, Thing, draw_rotation, draw_surroundings
from .world import BACKDROPS, GROUNDS, LIGHTS, MATERIALS, SOLIDS

MOST = 4
"""Solids of a scene."""
APART = (1.45, 1.6)
"""A solid's distance as a multiple of that of the next nearer one."""
SIZES = ((0.18, 0.27), (0.18, 0.27), (0.17, 0.24), (0.16, 0.22))
"""Apparent radii where there are one, two, three, four solids."""


@dataclass(frozen=True)
class LayeredScene(Surroundings):
    """Solids, the nearest first, and their surroundings."""

    solids: tuple[Thing, ...]

    def reversed(self) -> LayeredScene:
        """The same with the farthest solid nearest: each silhouette stays as it is on the picture."""
        distances = [solid.distance for solid in self.solids]
        solids = zip(reversed(self.solids), distances, strict=True)
        return replace(self, solids=tuple(replace(solid, distance=distance) for solid, distance in solids))

    @property
    def names(self) -> tuple[str, ...]:
        """Each solid's material and kind, the nearest first."""
        return tuple(f"{MATERIALS[one.material].name} {SOLIDS[one.solid].name}" for one in self.solids)

    @property
    def prompts(self) -> tuple[str, ...]:
        """A prompt for each solid alone, the nearest first."""
        return tuple(f"{name} on {GROUNDS[self.ground].name}" for name in self.names)

    @property
    def surroundings_caption(self) -> str:
        """Ground, sky and light in words, without any solid."""
        return f"{GROUNDS[self.ground].name} , {BACKDROPS[self.backdrop].name} , {LIGHTS[self.light].name}"

    @property
    def caption(self) -> str:
        """The scene in words, with the solids' order."""
        return f"{' in front of '.join(self.names)} on {self.surroundings_caption}"

    @property
    def neutral_caption(self) -> str:
        """The scene in words that do not tell the order: the solids come in the order of the alphabet."""
        return f"{' and '.join(sorted(self.names))} on {self.surroundings_caption}"


@dataclass(frozen=True)
class LayeredPictures:
    """A batch of rendered scenes of N solids each, in [0, 1]; solids are in the scenes' order, the nearest first.

    Depth maps are inverse distances, near = bright, each stretched to [0, 1].
    """

    image: Tensor  # (B, 3, H, W)
    backdrop: Tensor  # (B, 3, H, W): without any solid
    masks: Tensor  # (B, N, H, W) in {0, 1}: each whole silhouette, also where nearer solids hide it
    layer_depths: Tensor  # (B, N, H, W): each solid's alone, 0 outside of its mask
    backdrop_depth: Tensor  # (B, 1, H, W)
    depth: Tensor  # (B, 1, H, W): of the image

    @property
    def visible(self) -> Tensor:
        """Where each solid shows, (B, N, H, W) in {0, 1}."""
        hidden = torch.cummax(self.masks, 1).values
        return self.masks * (1 - torch.cat((torch.zeros_like(hidden[:, :1]), hidden[:, :-1]), 1))

    def __getitem__(self, rows: slice | list[int] | Tensor) -> LayeredPictures:
        """Some scenes of the batch."""
        return LayeredPictures(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[LayeredPictures]) -> LayeredPictures:
        """Batches one after another."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def draw_layered_scene(seed: int, index: int, solids: int, *, across: float = 1.0, down: float = 1.0) -> LayeredScene:
    """Draw the scene number `index` of a seed.

    Args:
        seed: Different seeds have no scene in common.
        index: The scene's number.
        solids: How many solids, 1 to `MOST`. Sizes, places on the picture and order are independent; each solid lies
            near the one before it, and the materials are all different.
        across: The picture's width as a multiple of its shorter side.
        down: Its height, so too.

    Raises:
        ValueError: If there are fewer or more solids.
    """
    if not 1 <= solids <= MOST:
        raise ValueError(f"a scene has 1 to {MOST} solids, got {solids}")
    # Four numbers: a two-solid scene's (seed, index) is another sequence.
    rng = np.random.default_rng(np.random.SeedSequence((seed, index, solids, 1)))
    sizes = rng.uniform(*SIZES[solids - 1], solids)
    kinds = rng.integers(len(SOLIDS), size=solids)
    materials = rng.choice(len(MATERIALS), size=solids, replace=False)
    rotations = [draw_rotation(rng) for _ in range(solids)]
    multiples = np.cumprod([1.0, *rng.uniform(*APART, solids - 1)])
    nearest = rng.uniform(*NEAR)
    surroundings = draw_surroundings(rng)
    # The farthest solid is before the wall, also where there is none, and no solid reaches into the ground, whichever
    # is the farthest.
    room = surroundings.wall / (1 + 1.36 * sizes.max())
    distances = min(nearest, 0.97 * room / multiples[-1]) * multiples
    lowest = surroundings.horizon - 0.97 * surroundings.height / distances[-1]
    places = _places(rng, sizes, across, down, lowest)
    things = tuple(
        Thing(int(kinds[k]), int(materials[k]), float(places[k, 0]), float(places[k, 1]), float(sizes[k]),
              float(distances[k]), rotations[k])
        for k in range(solids)
    )  # fmt: skip
    return LayeredScene(**vars(surroundings), solids=things)


def _places(rng: np.random.Generator, sizes: np.ndarray, across: float, down: float, lowest: float) -> np.ndarray:
    """Where the solids are on the picture, (N, 2): a chain of neighbours that overlap, nothing of it below `lowest`."""
    angle = rng.uniform(-np.pi, np.pi)
    places = [np.zeros(2)]
    for before, size in pairwise(sizes):
        apart = rng.uniform(0.42, 0.65) * (before + size)
        places.append(places[-1] + apart * np.array([np.cos(angle), 0.8 * np.sin(angle)]))
        angle += rng.uniform(-0.9, 0.9)
    chain = np.array(places)
    half = np.array([0.5 * across, 0.5 * down]) + 0.02
    high = half - sizes[:, None]
    low = -high
    low[:, 1] = np.maximum(-0.5 * down + 0.1 + sizes, lowest + 1.1 * sizes)
    # The chain is moved as a whole to a random place where all of it fits, or as near to that as it can.
    least, most = (low - chain).max(0), (high - chain).min(0)
    middle = np.where(least <= most, rng.uniform(np.minimum(least, most), np.maximum(least, most)), (least + most) / 2)
    return np.clip(chain + middle, low, high)


@torch.no_grad()
def render_layered(
    scenes: Sequence[LayeredScene], size: tuple[int, int] = (128, 128), samples: int = 2
) -> LayeredPictures:
    """Render scenes of equally many solids on torch's default device.

    Args:
        scenes: B scenes.
        size: Height and width in pixels.
        samples: Rays a pixel, squared.
    """
    view = view_of(scenes, size, samples)
    horizons = [scene.horizon for scene in scenes]
    solids = [solids_of(things, horizons) for things in zip(*(scene.solids for scene in scenes), strict=True)]
    zero = torch.zeros_like(view.at)

    def shade(distance: Tensor, nearer: Sequence[Solids]) -> Tensor:
        points = view.rays * distance.clamp(max=100.0)[..., None]
        return torch.stack([zero, *(shadow(solid, points, view.towards) for solid in nearer)]).amax(0)

    def surroundings(shade: Tensor) -> Tensor:
        return view.seen(zero > 0, view.colour, zero, shade)

    image, at = surroundings(shade(view.at, solids)), view.at
    masks: list[Tensor] = []
    depths: list[Tensor] = []
    for number in reversed(range(len(solids))):  # the farthest first: each hides what is behind it
        distance, albedo, cosine = look(solids[number], view.rays, view.towards)
        shown = distance < view.at
        # As in `render`, a solid stands in the shadows of the nearer ones alone.
        colour = lit(albedo, cosine, shade(distance, solids[:number]), view.tint, view.ambient)
        image = torch.where(shown[..., None], colour, image)
        at = torch.where(shown, distance, at)
        masks.insert(0, view.mask(shown))
        alone = view.picture(torch.where(shown, 1 / distance, 1 / view.at))
        depths.insert(0, spread(torch.where(masks[0] > 0, alone, 0.0)))
    return LayeredPictures(
        image=view.picture(image),
        backdrop=view.picture(surroundings(zero)),
        masks=torch.cat(masks, 1),
        layer_depths=torch.cat(depths, 1),
        backdrop_depth=spread(view.picture(1 / view.at)),
        depth=spread(view.picture(1 / at)),
    )
