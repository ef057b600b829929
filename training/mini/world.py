"""What exists in the Mini's world: solids, materials, grounds, backdrops, lights and their words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Pattern = Literal["plain", "checker", "stripes"]
Colour = tuple[float, float, float]

MAX_PLANES = 8


@dataclass(frozen=True)
class Solid:
    """A convex solid: the inside of a quadric, cut by half-spaces, within about one unit of its centre.

    quadric holds (qx, qy, qz, ly, c) of qx x^2 + qy y^2 + qz z^2 + ly y + c <= 0;
    planes holds (nx, ny, nz, d) of n . p <= d, n of length one.
    """

    name: str
    quadric: tuple[float, float, float, float, float]
    planes: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Material:
    """A surface: a pattern of two colours (RGB in [0, 1]); period is the pattern's size in units."""

    name: str
    colour: Colour
    second: Colour
    pattern: Pattern = "plain"
    period: float = 1.0


@dataclass(frozen=True)
class Backdrop:
    """What stands behind everything: a sky (infinitely far, low to high colour) or a wall."""

    name: str
    low: Colour
    high: Colour
    wall: bool
    pattern: Pattern = "plain"
    period: float = 1.0


@dataclass(frozen=True)
class Light:
    """A distant light from behind the camera: direction towards it, its tint and the ambient tint."""

    name: str
    direction: tuple[float, float, float]
    tint: Colour
    ambient: Colour


_EVERYWHERE = (0.0, 0.0, 0.0, 0.0, -1.0)


def _unit(x: float, y: float, z: float, d: float) -> tuple[float, float, float, float]:
    length = (x * x + y * y + z * z) ** 0.5
    return x / length, y / length, z / length, d / length


def _box(x: float, y: float, z: float) -> tuple[tuple[float, float, float, float], ...]:
    return (
        (1.0, 0.0, 0.0, x), (-1.0, 0.0, 0.0, x), (0.0, 1.0, 0.0, y),
        (0.0, -1.0, 0.0, y), (0.0, 0.0, 1.0, z), (0.0, 0.0, -1.0, z),
    )  # fmt: skip


def _caps(low: float, high: float) -> tuple[tuple[float, float, float, float], ...]:
    return (0.0, 1.0, 0.0, high), (0.0, -1.0, 0.0, -low)


_HEXAGON = tuple((float(np.cos(angle)), 0.0, float(np.sin(angle)), 0.66) for angle in np.arange(6) * np.pi / 3)
_CONE = 0.85 / 1.75  # radius at the base over the height

SOLIDS: tuple[Solid, ...] = (
    Solid("sphere", (1.0, 1.0, 1.0, 0.0, -0.85), ()),
    Solid("cube", _EVERYWHERE, _box(0.66, 0.66, 0.66)),
    Solid("cylinder", (1.0, 0.0, 1.0, 0.0, -0.4), _caps(-0.82, 0.82)),
    Solid("cone", (1.0, -(_CONE**2), 1.0, 2 * _CONE**2, -(_CONE**2)), _caps(-0.75, 1.0)),
    Solid(
        "pyramid",
        _EVERYWHERE,
        (
            _unit(2, 1, 0, 1), _unit(-2, 1, 0, 1), _unit(0, 1, 2, 1), _unit(0, 1, -2, 1),
            (0.0, -1.0, 0.0, 0.65),
        ),
    ),
    Solid("prism", _EVERYWHERE, _HEXAGON + _caps(-0.78, 0.78)),
    Solid("dome", (1.0, 1.0, 1.0, 0.8, 0.16 - 1.0), _caps(-0.4, 2.0)),
    Solid(
        "diamond",
        _EVERYWHERE,
        tuple(_unit(x, 0.8 * y, z, 1.0) for x in (1, -1) for y in (1, -1) for z in (1, -1)),
    ),
)  # fmt: skip

_RED, _WHITE, _BLACK = (0.88, 0.06, 0.06), (0.95, 0.95, 0.95), (0.06, 0.06, 0.07)

MATERIALS: tuple[Material, ...] = (
    Material("red", _RED, _RED),
    Material("orange", (1.0, 0.48, 0.02), (1.0, 0.48, 0.02)),
    Material("yellow", (0.98, 0.90, 0.05), (0.98, 0.90, 0.05)),
    Material("green", (0.05, 0.62, 0.10), (0.05, 0.62, 0.10)),
    Material("cyan", (0.05, 0.85, 0.88), (0.05, 0.85, 0.88)),
    Material("blue", (0.05, 0.12, 0.85), (0.05, 0.12, 0.85)),
    Material("purple", (0.48, 0.08, 0.68), (0.48, 0.08, 0.68)),
    Material("pink", (1.0, 0.45, 0.75), (1.0, 0.45, 0.75)),
    Material("white", _WHITE, _WHITE),
    Material("black", _BLACK, _BLACK),
    Material("checkered", _BLACK, _WHITE, "checker", 0.55),
    Material("striped", _RED, _WHITE, "stripes", 0.5),
)

GROUNDS: tuple[Material, ...] = (
    Material("grass", (0.36, 0.52, 0.22), (0.30, 0.45, 0.18), "checker", 1.6),
    Material("sand", (0.85, 0.75, 0.52), (0.85, 0.75, 0.52)),
    Material("snow", (0.88, 0.92, 0.96), (0.88, 0.92, 0.96)),
    Material("asphalt", (0.30, 0.31, 0.33), (0.30, 0.31, 0.33)),
    Material("tiles", (0.72, 0.60, 0.50), (0.45, 0.33, 0.27), "checker", 1.5),
    Material("planks", (0.58, 0.40, 0.24), (0.46, 0.30, 0.17), "stripes", 1.2),
)

BACKDROPS: tuple[Backdrop, ...] = (
    Backdrop("blue sky", (0.78, 0.88, 0.97), (0.35, 0.60, 0.92), False),
    Backdrop("sunset sky", (0.98, 0.72, 0.42), (0.62, 0.42, 0.58), False),
    Backdrop("grey sky", (0.80, 0.81, 0.82), (0.55, 0.57, 0.60), False),
    Backdrop("brick wall", (0.55, 0.34, 0.28), (0.45, 0.27, 0.23), True, "stripes", 1.6),
    Backdrop("plaster wall", (0.86, 0.82, 0.74), (0.86, 0.82, 0.74), True),
    Backdrop("dark wall", (0.22, 0.26, 0.32), (0.22, 0.26, 0.32), True),
)

LIGHTS: tuple[Light, ...] = (
    Light("morning", (-0.65, 0.60, -0.47), (0.60, 0.57, 0.50), (0.51, 0.51, 0.54)),
    Light("noon", (0.10, 0.88, -0.46), (0.56, 0.56, 0.56), (0.53, 0.53, 0.53)),
    Light("evening", (0.65, 0.55, -0.52), (0.62, 0.50, 0.38), (0.54, 0.50, 0.48)),
    Light("night", (-0.25, 0.75, -0.61), (0.42, 0.45, 0.54), (0.44, 0.45, 0.50)),
)

_LAYOUTS = (
    "{front} in front of {back} on {ground} , {backdrop} , {light}",
    "the {front} in front of the {back} , {ground} and {backdrop} at {light}",
    "at {light} the {front} hides the {back} , {backdrop} above {ground}",
)
_NEUTRAL = "{first} and {second} on {ground} , {backdrop} , {light}"
_SHAPES = "{front_solid} in front of {back_solid}"


@dataclass(frozen=True)
class Attributes:
    """Names of what a scene shows, as indices into the lists of this module."""

    front_solid: int
    front_material: int
    back_solid: int
    back_material: int
    ground: int
    backdrop: int
    light: int

    def caption(self, layout: int = 0) -> str:
        """The scene in words; layout picks one of the ways to say it."""
        return self._said(_LAYOUTS[layout % len(_LAYOUTS)])

    def neutral_caption(self) -> str:
        """The scene in words that do not tell who stands in front: the objects come in the order of the alphabet."""
        return self._said(_NEUTRAL)

    def shapes_caption(self) -> str:
        """The solids and their order alone."""
        return self._said(_SHAPES)

    def _said(self, form: str) -> str:
        front = f"{MATERIALS[self.front_material].name} {SOLIDS[self.front_solid].name}"
        back = f"{MATERIALS[self.back_material].name} {SOLIDS[self.back_solid].name}"
        first, second = sorted((front, back))
        return form.format(
            front_solid=SOLIDS[self.front_solid].name,
            back_solid=SOLIDS[self.back_solid].name,
            front=front,
            back=back,
            first=first,
            second=second,
            ground=GROUNDS[self.ground].name,
            backdrop=BACKDROPS[self.backdrop].name,
            light=LIGHTS[self.light].name,
        )


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted."""
    words = {word for form in (*_LAYOUTS, _NEUTRAL, _SHAPES) for word in form.split() if not word.startswith("{")}
    named = (SOLIDS, MATERIALS, GROUNDS, BACKDROPS, LIGHTS)
    words.update(word for things in named for thing in things for word in thing.name.split())
    return sorted(words)
