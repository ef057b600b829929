"""Scenes of the Mini's world, drawn deterministically from (seed, index)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from .world import BACKDROPS, GROUNDS, LIGHTS, MATERIALS, SOLIDS, Attributes

# Every draw is SeedSequence((seed, index)): different seeds never meet.
SEEDS = {"train": 20240101, "segmenter": 20240202, "test": 20240303}

NEAR, FAR = (2.6, 3.2), (1.75, 2.0)  # the front object's distance; the back one's, as a multiple of it


@dataclass(frozen=True)
class Thing:
    """One solid: x, y its place on the picture (fractions, from the centre, y up), size its apparent
    radius, distance along the view, rotation (3, 3) from its own axes to the camera's."""

    solid: int
    material: int
    x: float
    y: float
    size: float
    distance: float
    rotation: np.ndarray


@dataclass(frozen=True)
class Surroundings:
    """What a scene's solids float in."""

    ground: int
    backdrop: int
    light: int
    height: float  # of the camera above the ground
    horizon: float  # place on the picture, from the centre, upwards
    wall: float  # distance of the wall, where the backdrop is one
    shift: float  # of the ground's pattern


@dataclass(frozen=True)
class Scene(Surroundings):
    """A front thing, a back thing and their surroundings."""

    front: Thing
    back: Thing
    layout: int  # of the caption

    @property
    def attributes(self) -> Attributes:
        """What the scene shows."""
        return Attributes(
            self.front.solid, self.front.material, self.back.solid, self.back.material,
            self.ground, self.backdrop, self.light,
        )  # fmt: skip

    @property
    def caption(self) -> str:
        """The scene in words."""
        return self.attributes.caption(self.layout)

    def exchanged(self) -> Scene:
        """The same layout with the roles exchanged: each silhouette stays as it is on the picture."""
        return replace(
            self,
            front=replace(self.back, distance=self.front.distance),
            back=replace(self.front, distance=self.back.distance),
        )

    def dressed_as(self, other: Scene) -> Scene:
        """This layout and these solids in the other scene's materials, surroundings and light."""
        return replace(
            self,
            front=replace(self.front, material=other.front.material),
            back=replace(self.back, material=other.back.material),
            ground=other.ground,
            backdrop=other.backdrop,
            light=other.light,
        )


GROUP = 4
"""Training scenes come in groups of this many; see `training_scene`."""


def training_scene(seed: int, index: int) -> Scene:
    """The training scene number index of a seed.

    A group is a scene, the same with its roles exchanged, another layout that shows the same materials,
    surroundings and light, and that one exchanged: index ^ 1 is a scene's exchange, index ^ 2 another picture that
    can serve as its exemplar.
    """
    group, place = divmod(index, GROUP)
    scene = _drawn(seed, 2 * group)
    if place >= 2:
        scene = _drawn(seed, 2 * group + 1).dressed_as(scene)
    return scene.exchanged() if place % 2 else scene


@lru_cache(maxsize=2)
def _drawn(seed: int, index: int) -> Scene:
    return draw_scene(seed, index)


def draw_rotation(rng: np.random.Generator) -> np.ndarray:
    """A solid's turn."""
    yaw, pitch, roll = rng.uniform(-np.pi, np.pi), rng.uniform(-0.55, 0.25), rng.uniform(-0.4, 0.4)
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def draw_scene(seed: int, index: int) -> Scene:
    """The scene number index of a seed. Size, height on the picture and order are independent."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, index)))
    sizes = rng.uniform(0.18, 0.27, 2)
    solids = rng.integers(len(SOLIDS), size=2)
    materials = rng.choice(len(MATERIALS), size=2, replace=False)
    distance = rng.uniform(*NEAR)
    distances = (distance, distance * rng.uniform(*FAR))
    angle, apart = rng.uniform(-np.pi, np.pi), rng.uniform(0.40, 0.85) * sizes.sum()
    offset = 0.5 * apart * np.array([np.cos(angle), 0.8 * np.sin(angle)])
    middle = rng.uniform((-0.16, -0.10), (0.16, 0.12))
    things = []
    for k, sign in enumerate((1.0, -1.0)):
        place = middle + sign * offset
        limit = 0.52 - sizes[k]
        place = np.clip(place, (-limit, -0.40 + sizes[k]), (limit, limit))
        things.append(
            Thing(int(solids[k]), int(materials[k]), float(place[0]), float(place[1]), float(sizes[k]),
                  float(distances[k]), draw_rotation(rng))
        )  # fmt: skip
    surroundings = draw_surroundings(rng)
    return Scene(**vars(surroundings), front=things[0], back=things[1], layout=int(rng.integers(3)))


def draw_surroundings(rng: np.random.Generator) -> Surroundings:
    """Ground, backdrop, light and where they are."""
    return Surroundings(
        ground=int(rng.integers(len(GROUNDS))),
        backdrop=int(rng.integers(len(BACKDROPS))),
        light=int(rng.integers(len(LIGHTS))),
        height=float(rng.uniform(2.6, 3.0)),
        horizon=float(rng.uniform(-0.06, 0.06)),
        wall=float(rng.uniform(9.0, 12.0)),
        shift=float(rng.uniform(0.0, 4.0)),
    )


def draw_scenes(seed: int, indices: Iterable[int]) -> list[Scene]:
    """The scenes of these indices."""
    return [draw_scene(seed, index) for index in indices]
