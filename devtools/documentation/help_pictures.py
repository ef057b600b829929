"""What the help pages show of each node, web/docs/NODE.jpg; `python -m devtools.documentation.make` makes them.

Each function builds a workflow about one node and names what of it is shown.
"""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw

from cnc_core.perception import parse_box, parse_points

from ..demo import SCENES
from ..workflow import Workflow
from .pictured import CELL, FUSERS, PROMPT, SEED, Link, Mini, Page, Shown, depths, found, picture

TEXTS = (
    "red sphere in front of white cube on grass , blue sky , noon",
    "green cone in front of orange cylinder on sand , sunset sky , evening",
    "purple cube in front of checkered sphere on snow , blue sky , morning",
)
"""What the help page says of the pictures that CnC-Mini makes from text alone."""


def load_mini(flow: Workflow) -> Shown:
    """Pictures from text alone."""
    mini = Mini.of(flow)
    return [(str(place), mini.sampled(mini.text(words), seed=SEED)) for place, words in enumerate(TEXTS, start=1)]


def load_fusers(flow: Workflow) -> Shown:
    """The same seed and prompt with nothing, and with the fusers of a file."""
    mini = Mini.of(flow)
    fusers = flow.add("CnC_LoadFusers", fusers_name=FUSERS).out()
    _, fg, bg = depths(flow)
    positive, negative = mini.text(PROMPT), mini.text("")
    local = flow.add(
        "CnC_ApplyLocalFuser", positive=positive, negative=negative, fusers=fusers, fg_depth=fg, bg_depth=bg
    )
    steered = mini.sampled(local.out(0), local.out(1))
    return [("text alone", mini.sampled(positive, negative)), ("with fusers and depth", steered)]


def apply_local_fuser(flow: Workflow) -> Shown:
    """Two depth maps and what becomes of them, and the roles exchanged."""
    mini = Mini.of(flow)
    shown: Shown = []
    for scene in SCENES[:2]:
        layers = depths(flow, scene.foreground, scene.background)
        result = mini.composed(layers, words=scene.prompt)
        shown += [("fg_depth", layers[1]), ("bg_depth", layers[2]), ("result", result)]
    return shown


def apply_global_fuser(flow: Workflow) -> Shown:
    """Exemplars, and pictures with one of them and with both; no words."""
    mini = Mini.of(flow)
    styles = {name: mini.style(name) for name in ("fg_style", "bg_style")}
    return [
        ("fg_style", picture(flow, "fg_style")),
        ("bg_style", picture(flow, "bg_style")),
        ("fg_style alone", mini.composed(depths(flow), {"fg_style": styles["fg_style"]})),
        ("both", mini.composed(depths(flow), styles)),
    ]


def soft_guidance(flow: Workflow) -> Shown:
    """The mask, and the corners of the two sliders."""
    mini = Mini.of(flow)
    styles = {name: mini.style(name) for name in ("fg_style", "bg_style")}
    layers = depths(flow)
    shown: Shown = [("mask", layers[0])]
    for lambda_fg, lambda_bg in ((0, 0), (1, 0), (0, 1), (1, 1), (1.5, 1)):
        caption = f"fg {lambda_fg:g}, bg {lambda_bg:g}"
        guidance = {"lambda_fg": float(lambda_fg), "lambda_bg": float(lambda_bg)}
        shown.append((caption, mini.composed(layers, styles, guidance=guidance)))
    return shown


def lambda_curve(flow: Workflow) -> Shown:
    """Exemplars that act throughout, in the first steps, in the last ones; gates, so that 0 is none."""
    mini = Mini.of(flow)
    styles = {name: mini.style(name) for name in ("fg_style", "bg_style")}
    layers = depths(flow)
    shown: Shown = []
    for points in CURVES:
        curve = flow.add("CnC_LambdaCurve", points=points).out()
        guidance = {"weight_mode": "gate", "curve": curve}
        shown.append((points, mini.composed(layers, styles, guidance=guidance)))
    return shown


CURVES = ("0, 0", "0, 1", "0, 1; 0.3, 1; 0.35, 0", "0.3, 0; 0.35, 1")
"""Points of the help page of the lambda curve, which are the captions too."""


def salience_map(flow: Workflow) -> Shown:
    """A picture and its map."""
    image = picture(flow, "cube")
    return [("image", image), ("salience", flow.add("CnC_SalienceMap", image=image).out())]


def refine_mask(flow: Workflow) -> Shown:
    """One mask, changed by one input at a time."""
    mask = flow.add("CnC_SalienceMap", image=picture(flow, "cube")).out()

    def refined(**inputs: Any) -> Link:
        return flow.add("CnC_RefineMask", mask=mask, **inputs).out()

    return [
        ("mask", mask),
        ("threshold 0.5", refined()),
        ("grow 8", refined(grow=8)),
        ("grow -8", refined(grow=-8)),
        ("feather 16", refined(feather=16)),
        ("invert", refined(invert=True)),
    ]


def salient_mask(flow: Workflow) -> Shown:
    """A picture and its mask, as found and grown."""
    image = picture(flow, "cone")
    grown = flow.add("CnC_SalientMask", image=image, grow=6).out()
    return [("image", image), ("mask", found(flow, image)), ("grow 6", grown)]


def inpaint_background(flow: Workflow) -> Shown:
    """The object taken out, with its outline and without."""
    image = picture(flow, "cone")
    mask = found(flow, image)
    filled = [
        (f"dilation {dilation}", flow.add("CnC_InpaintBackground", image=image, mask=mask, dilation=dilation).out())
        for dilation in (0, 50)
    ]
    return [("image", image), ("mask", mask), *filled]


def depth_map(flow: Workflow) -> Shown:
    """The three versions, and the one that is drawn from the mask."""
    image = picture(flow, "cone")
    mask = found(flow, image)

    def depth(**inputs: Any) -> Link:
        return flow.add("CnC_DepthMap", image=image, mask=mask, **inputs).out()

    drawn = "mask-and-ground-plane"
    return [
        ("image", image),
        *((version, depth(version=version)) for version in ("v1", "v2", "v3")),
        ("v2, from the mask", depth(version="v2", estimator=drawn)),
        ("v1, a plane", depth(version="v1", estimator=drawn)),
    ]


def split_layers(flow: Workflow) -> Shown:
    """One picture and its three parts."""
    image = picture(flow, "cube")
    split = flow.add("CnC_SplitLayers", image=image)
    return [("image", image), *((name, split.out(name)) for name in split.outputs)]


def place_layer(flow: Workflow) -> Shown:
    """A cut-out on another picture, as it comes and transformed."""
    background, foreground = picture(flow, "cube"), picture(flow, "cone")
    layers = {"background": background, "foreground": foreground, "mask": found(flow, foreground)}
    plain = flow.add("CnC_PlaceLayer", **layers)
    turned = flow.add("CnC_PlaceLayer", **layers, x=0.3, y=0.45, scale=0.7, rotation=30.0)
    return [
        ("background", background),
        ("foreground", foreground),
        ("as it comes", plain.out(0)),
        ("moved, scaled, turned", turned.out(0)),
    ]


def compose(flow: Workflow) -> Shown:
    """Two pictures and two exemplars, both ways round."""
    mini = Mini.of(flow)
    shown: Shown = []
    for front, back in (("cone", "cube"), ("cube", "cone")):
        given = {"foreground": front, "background": back, "fg_style": "fg_style", "bg_style": "bg_style"}
        pictures = {name: picture(flow, file) for name, file in given.items()}
        composed = flow.add(
            "CnC_Compose",
            **{name: mini.loaded.out(name) for name in ("model", "fusers", "clip_vision")},
            positive=mini.text(""),
            negative=mini.text(""),
            **pictures,
        )
        result = mini.sampled(composed.out("positive"), composed.out("negative"), composed.out("model"))
        shown += [*pictures.items(), ("result", result)]
    return shown


def select_object(flow: Workflow) -> Shown:
    """A picture, three times; `POINTED` is drawn onto them."""
    return [(caption, picture(flow, "cone")) for caption in POINTED]


POINTED: dict[str, tuple[str, str]] = {
    "1": ("55,70; 60,88", ""),
    "2": ("55,70; -100,30", ""),
    "3": ("", "35,40,88,105"),
}
"""Points and box of Select Object, as its help page has them, by caption. No SAM 2 comes with the pack to run it."""


def pointed(caption: str, image: Image.Image) -> Image.Image:
    """The picture with what is `POINTED` drawn onto it: points on the object in green, those beside it in red."""
    points, box = POINTED[caption]
    zoom = CELL / image.width
    drawn = image.resize((CELL, CELL), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(drawn)
    for point in parse_points(points):
        x, y = point.x * zoom, point.y * zoom
        colour = "lime" if point.inside else "red"
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour, outline="black", width=2)
    if around := parse_box(box):
        corners = (around.left, around.top, around.right, around.bottom)
        draw.rectangle([corner * zoom for corner in corners], outline="lime", width=3)
    return drawn


PAGES = {
    "CnC_LoadMini": Page(load_mini, 3),
    "CnC_LoadFusers": Page(load_fusers, 2),
    "CnC_ApplyLocalFuser": Page(apply_local_fuser, 3),
    "CnC_ApplyGlobalFuser": Page(apply_global_fuser, 4),
    "CnC_SoftGuidance": Page(soft_guidance, 3),
    "CnC_LambdaCurve": Page(lambda_curve, 4),
    "CnC_SalienceMap": Page(salience_map, 2),
    "CnC_RefineMask": Page(refine_mask, 3),
    "CnC_SalientMask": Page(salient_mask, 3),
    "CnC_SelectObject": Page(select_object, 3, pointed),
    "CnC_InpaintBackground": Page(inpaint_background, 4),
    "CnC_DepthMap": Page(depth_map, 3),
    "CnC_SplitLayers": Page(split_layers, 4),
    "CnC_PlaceLayer": Page(place_layer, 4),
    "CnC_Compose": Page(compose, 5),
}
