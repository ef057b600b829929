"""Render the registry's pictures of the pack from the Mini's world: docs/icon.png (square) and docs/banner.jpg (21:9).

    python -m devtools.documentation.registry_pictures

A cone before a cube; on the banner also the cube before the cone. The seed is used by nothing else.
"""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from training.mini.render import render
from training.mini.scenes import Scene, Thing, draw_scene
from training.mini.world import BACKDROPS, GROUNDS, LIGHTS, MATERIALS, SOLIDS

from ..environment import ROOT

SEED, ICON, BANNER = 20240505, 400, (1260, 540)


def main() -> None:
    """Write both."""
    order = _scene()
    _rendered(order, ICON).quantize(128).save(ROOT / "docs" / "icon.png", optimize=True)
    width, height = BANNER
    banner = Image.new("RGB", BANNER)
    for place, scene in enumerate((order, order.exchanged())):
        half = _rendered(scene, width // 2)
        above = (half.height - height) // 2
        banner.paste(half.crop((0, above, half.width, above + height)), (place * half.width, 0))
    banner.save(ROOT / "docs" / "banner.jpg", quality=88, optimize=True)


def _scene() -> Scene:
    drawn = draw_scene(SEED, 0)
    ground = [one.name for one in GROUNDS].index("grass")
    backdrop = [one.name for one in BACKDROPS].index("blue sky")
    light = [one.name for one in LIGHTS].index("noon")
    front = _thing(drawn.front, "cone", "yellow", -0.11, -0.03)
    back = _thing(drawn.back, "cube", "blue", 0.1, 0.03)
    return replace(
        drawn, front=front, back=back, ground=ground, backdrop=backdrop, light=light, height=2.8, horizon=0.0
    )


def _thing(thing: Thing, solid: str, material: str, x: float, y: float) -> Thing:
    names = [one.name for one in SOLIDS], [one.name for one in MATERIALS]
    return replace(thing, solid=names[0].index(solid), material=names[1].index(material), x=x, y=y, size=0.26)


def _rendered(scene: Scene, side: int) -> Image.Image:
    pixels = render([scene], side, samples=3).image[0].clamp(0, 1).permute(1, 2, 0) * 255
    return Image.fromarray(pixels.round().byte().numpy())


if __name__ == "__main__":
    main()
