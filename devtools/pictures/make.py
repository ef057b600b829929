"""Make the demo's input pictures: things of the Mini's world, each alone before its own surroundings.

    python -m devtools.pictures.make

Each is a rendered scene with one of its two things moved out of the picture. The seed is used by nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from training.mini.render import render
from training.mini.scenes import Scene, Thing, draw_scene
from training.mini.world import BACKDROPS, GROUNDS, LIGHTS, MATERIALS, SOLIDS

SEED, SIZE = 20240404, 128
FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """Write the pictures beside this file."""
    layout = draw_scene(SEED, 0)
    left = _placed(layout, "cone", "yellow", -0.07, -0.06, 0.25)
    right = _placed(layout, "cube", "blue", 0.09, 0.04, 0.25)
    day = _around(layout, "grass", "blue sky", "noon")
    evening = _around(layout, "sand", "sunset sky", "evening")
    pictures = {
        "cone": replace(day, front=left),
        "cube": replace(day, front=right),
        "fg_style": replace(day, front=_placed(layout, "sphere", "checkered", 0.0, 0.0, 0.27)),
        "bg_style": replace(evening, front=_placed(layout, "dome", "red", 0.05, 0.0, 0.24)),
    }
    for name, scene in pictures.items():
        alone = replace(scene, back=replace(scene.back, x=9.0))
        pixels = (render([alone], SIZE).image[0].clamp(0, 1).permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(FOLDER / f"{name}.png", optimize=True)


def _placed(layout: Scene, solid: str, material: str, x: float, y: float, size: float) -> Thing:
    solids, materials = [one.name for one in SOLIDS], [one.name for one in MATERIALS]
    return replace(layout.front, solid=solids.index(solid), material=materials.index(material), x=x, y=y, size=size)


def _around(layout: Scene, ground: str, backdrop: str, light: str) -> Scene:
    names = [[one.name for one in kind] for kind in (GROUNDS, BACKDROPS, LIGHTS)]
    found = [kind.index(name) for kind, name in zip(names, (ground, backdrop, light), strict=True)]
    return replace(layout, ground=found[0], backdrop=found[1], light=found[2], height=2.8, horizon=0.0)


if __name__ == "__main__":
    main()
