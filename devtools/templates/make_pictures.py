"""Make the pictures that the demo and the templates begin with.

    python -m devtools.templates.make_pictures

Four are things of the Mini's world, each alone before its own surroundings, and one is surroundings alone: rendered
scenes with their things moved out of the picture. The seed is used by nothing else. Two are depth maps drawn with a
brush's means: a ball, and a ground with a block on it.
"""

from __future__ import annotations

from dataclasses import replace

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from training.mini.render import render
from training.mini.scenes import Scene, Thing, draw_scene
from training.mini.world import BACKDROPS, GROUNDS, LIGHTS, MATERIALS, SOLIDS

from ..demo import PICTURES

SEED, SIZE, DRAWN = 20240404, 128, 256


def main() -> None:
    """Write the pictures into PICTURES."""
    layout = draw_scene(SEED, 0)
    left = _placed(layout, "cone", "yellow", -0.07, -0.06, 0.25)
    right = _placed(layout, "cube", "blue", 0.09, 0.04, 0.25)
    day = _around(layout, "grass", "blue sky", "noon")
    evening = _around(layout, "sand", "sunset sky", "evening")
    pictures = {
        "cone": replace(day, front=left),
        "cube": replace(day, front=right),
        "fg_style": replace(day, front=_placed(layout, "sphere", "checkered", 0.0, 0.0, 0.27)),
        "meadow": replace(day, front=replace(left, x=9.0)),
        "bg_style": replace(evening, front=_placed(layout, "dome", "red", 0.05, 0.0, 0.24)),
    }
    for name, scene in pictures.items():
        alone = replace(scene, back=replace(scene.back, x=9.0))
        pixels = (render([alone], SIZE).image[0].clamp(0, 1).permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(PICTURES / f"{name}.png", optimize=True)
    for name, drawn in {"drawn_front": _ball(), "drawn_back": _ground()}.items():
        drawn.convert("RGB").save(PICTURES / f"{name}.png", optimize=True)


def _ball() -> Image.Image:
    """Near is bright: a ball on black, brightest in its middle."""
    side = 2 * DRAWN // 5
    relief = Image.radial_gradient("L").resize((side, side)).point(lambda far: 255 - far // 2)
    outline = Image.new("L", (side, side))
    ImageDraw.Draw(outline).ellipse((0, 0, side - 1, side - 1), fill=255)
    canvas = Image.new("L", (DRAWN, DRAWN))
    canvas.paste(ImageChops.multiply(relief, outline), (DRAWN // 6, DRAWN // 3))
    return canvas


def _ground() -> Image.Image:
    """Near is bright: a ground that fades towards a horizon at half the height, and a block on it."""
    canvas = Image.new("L", (DRAWN, DRAWN))
    canvas.paste(Image.linear_gradient("L").resize((DRAWN, DRAWN // 2)), (0, DRAWN // 2))
    box = [int(share * DRAWN) for share in (0.42, 0.36, 0.82, 0.78)]
    ImageDraw.Draw(canvas).rectangle(box, fill=150)
    return canvas.filter(ImageFilter.GaussianBlur(1))


def _placed(layout: Scene, solid: str, material: str, x: float, y: float, size: float) -> Thing:
    solids, materials = [one.name for one in SOLIDS], [one.name for one in MATERIALS]
    return replace(layout.front, solid=solids.index(solid), material=materials.index(material), x=x, y=y, size=size)


def _around(layout: Scene, ground: str, backdrop: str, light: str) -> Scene:
    names = [[one.name for one in kind] for kind in (GROUNDS, BACKDROPS, LIGHTS)]
    found = [kind.index(name) for kind, name in zip(names, (ground, backdrop, light), strict=True)]
    return replace(layout, ground=found[0], backdrop=found[1], light=found[2], height=2.8, horizon=0.0)


if __name__ == "__main__":
    main()
