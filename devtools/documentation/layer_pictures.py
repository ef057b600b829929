"""What the help pages of the layer nodes show, web/docs/NODE.jpg, as help_pictures.py for the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..demo import SIZE
from ..workflow import Node, Workflow
from .pictured import Link, Mini, Page, Shown, found, picture

SURROUNDINGS = "grass , blue sky , noon"
CFG, SEED = 2.5, 5


@dataclass(frozen=True)
class Shape:
    """A layer before the meadow: a picture of the demo, where it goes, its words, the picture whose look it takes."""

    picture: str
    place: Mapping[str, float] = field(default_factory=dict)
    words: str = ""
    look: str = ""


SHAPES = (
    Shape("fg_style", {"x": -0.22, "y": -0.05, "scale": 0.8}, "purple sphere", "bg_style"),
    Shape("cone", {"x": 0.03, "y": -0.05, "scale": 1.1}, "white cone", "fg_style"),
    Shape("cube", {"x": 0.15, "y": 0.05, "scale": 0.8}, "red cube", "cone"),
)
"""Three shapes that overlap, the farthest first."""


def chained(flow: Workflow, layers: Iterable[Mapping[str, Any]]) -> Link:
    """The last of a chain of Layer nodes with these inputs, the first behind all others."""
    chain: dict[str, Link] = {}
    for inputs in layers:
        chain = {"layers": flow.add("CnC_Layer", **inputs, **chain).out()}
    return chain["layers"]


def stack(
    mini: Mini,
    *,
    z: tuple[int, ...] = (1, 2, 3),
    words: bool = False,
    looks: bool = False,
    changed: Mapping[str, Mapping[str, float]] | None = None,
) -> Link:
    """The meadow and the three shapes before it, the last of the chain.

    Args:
        mini: the workflow.
        z: of each shape.
        words: whether each has its own.
        looks: whether each has the look of another picture.
        changed: inputs that differ, by the shape's picture.
    """
    layers: list[dict[str, Any]] = [{"name": "meadow", "picture": picture(mini.flow, "meadow")}]
    for shape, place in zip(SHAPES, z, strict=True):
        inputs = {"name": shape.picture, "picture": picture(mini.flow, shape.picture), "z": place, **shape.place}
        inputs |= {"text": mini.text(shape.words)} if words else {}
        inputs |= {"exemplar": picture(mini.flow, shape.look)} if looks else {}
        layers.append({**inputs, **(changed or {}).get(shape.picture, {})})
    return chained(mini.flow, layers)


def composed(mini: Mini, layers: Link, prompt: str = SURROUNDINGS) -> Node:
    """Compose Layers on CnC-Mini."""
    given = {name: mini.loaded.out(name) for name in ("model", "fusers", "clip_vision")}
    return mini.flow.add(
        "CnC_ComposeLayers", layers=layers, positive=mini.text(prompt), negative=mini.text(""), **given
    )


def sampled(mini: Mini, node: Node, seed: int = SEED) -> Link:
    """The picture that is made with a node's model, positive and negative."""
    positive, negative, model = (node.out(name) for name in ("positive", "negative", "model"))
    return mini.sampled(positive, negative, model, seed=seed, cfg=CFG)


def layer(flow: Workflow) -> Shown:
    """The stack as it comes, and with one input of one layer turned; below, what comes of each."""
    mini = Mini.of(flow)
    above: Shown = []
    below: Shown = []
    for caption, changes in TURNED.items():
        layers = stack(mini, words=True, changed=changes)
        node = composed(mini, layers)
        above.append((caption, node.out("picture")))
        below.append(("result", sampled(mini, node)))
    return above + below


TURNED: dict[str, dict[str, dict[str, float]]] = {
    "as they come": {},
    "ball: z 4": {"fg_style": {"z": 4}},
    "cube: nearer -0.5": {"cube": {"nearer": -0.5}},
    "cube: x, scale, rotation": {"cube": {"x": -0.1, "scale": 0.6, "rotation": 30.0}},
}
"""What is changed in the pictures of Layer's help page, by caption and layer."""


def compose_layers(flow: Workflow) -> Shown:
    """Words by layer, and the order reversed."""
    mini = Mini.of(flow)
    shown: Shown = []
    for caption, z in (("words by layer", (1, 2, 3)), ("z reversed", (3, 2, 1))):
        node = composed(mini, stack(mini, words=True, z=z))
        shown += [(name, node.out(name)) for name in ("picture", "masks", "fg_depth", "bg_depth")]
        shown.append((caption, sampled(mini, node)))
    return shown


def compose_looks(flow: Workflow) -> Shown:
    """The same stack with the prompt alone, and each shape with the look of another picture."""
    mini = Mini.of(flow)
    names = {"fg_style": "ball", "cone": "cone", "cube": "cube"}
    looks = [(f"exemplar of the {names[shape.picture]}", picture(flow, shape.look)) for shape in SHAPES]
    plain, dressed = (sampled(mini, composed(mini, stack(mini, looks=looks_too))) for looks_too in (False, True))
    return [("the prompt alone", plain), *looks, ("looks by layer", dressed)]


def move_layer(flow: Workflow) -> Shown:
    """Mask, picture and depth, and the three moved."""
    image = picture(flow, "cone")
    mask = found(flow, image)
    given = {"mask": mask, "picture": image, "depth": flow.add("CnC_DepthMap", image=image, mask=mask).out()}
    place = {"x": 0.2, "y": 0.1, "scale": 1.5, "rotation": 30.0}
    moved = flow.add("CnC_MoveLayer", width=SIZE, height=SIZE, **place, **given)
    return [*given.items(), *((f"{name}, moved", moved.out(name)) for name in given)]


def placed(mini: Mini, looks: Mapping[str, Mapping[str, Any]] | None = None) -> Link:
    """A cone before a cube before a meadow, each with its own mask and depth, and with these texts or exemplars."""
    layers: list[dict[str, Any]] = []
    for name in ("meadow", "cube", "cone"):
        image = picture(mini.flow, name)
        given = {"name": name, "picture": image, **(looks or {}).get(name, {})}
        if name == "meadow":
            given["depth"] = mini.flow.add("CnC_DepthMap", image=image, version="v1").out()
        else:
            given["mask"] = found(mini.flow, image)
            given["depth"] = mini.flow.add("CnC_DepthMap", image=image, mask=given["mask"], version="v2").out()
        layers.append(given)
    return chained(mini.flow, layers)


def stack_layers(flow: Workflow) -> Shown:
    """What the node shows of a cone before a cube."""
    mini = Mini.of(flow)
    node = flow.add("CnC_StackLayers", layers=placed(mini))
    return [(name, node.out(name)) for name in ("picture", "fg_depth", "bg_depth", "depth_map")]


def apply_layers(flow: Workflow) -> Shown:
    """A cone before a cube: the prompt alone, words by layer, looks by layer."""
    mini = Mini.of(flow)
    texts = {"cone": {"text": marked(mini, "white cone")}, "cube": {"text": marked(mini, "red cube")}}
    styles = {"cone": {"exemplar": mini.style("fg_style")}, "meadow": {"exemplar": mini.style("bg_style")}}
    layers = placed(mini)
    shown: Shown = [("picture", flow.add("CnC_StackLayers", layers=layers).out("picture"))]
    for caption, looks in (("the prompt alone", {}), ("words by layer", texts), ("looks by layer", styles)):
        shown.append(
            (caption, sampled(mini, applied(mini, placed(mini, looks), "" if looks is styles else SURROUNDINGS)))
        )
    return shown


def mark_words(flow: Workflow) -> Shown:
    """Words of the cone, taken whole and marked, against a prompt that says something else."""
    mini = Mini.of(flow)
    texts = {"whole": mini.text("white cone"), "marked": marked(mini, "white cone")}
    prompt = f"yellow cone in front of blue cube on {SURROUNDINGS}"
    shown: Shown = []
    for weight in (2.5, 3.0):
        for name, text in texts.items():
            layers = placed(mini, {"cone": {"text": text, "text_weight": weight}})
            shown.append((f"weight {weight:g}, {name}", sampled(mini, applied(mini, layers, prompt))))
    return shown


def compose_words(flow: Workflow) -> Shown:
    """Compose and Conquer with one prompt for both layers, and with words for each."""
    mini = Mini.of(flow)
    shown: Shown = []
    for fg, bg in (("red cone", "green cube"), ("green cone", "red cube")):
        for caption, prompt, texts in (
            ("one prompt", f"{fg} , {bg} , {SURROUNDINGS}", {}),
            ("fg_text, bg_text", SURROUNDINGS, {"fg_text": mini.text(fg), "bg_text": mini.text(bg)}),
        ):
            node = flow.add(
                "CnC_Compose",
                **{name: mini.loaded.out(name) for name in ("model", "fusers", "clip_vision")},
                positive=mini.text(prompt),
                negative=mini.text(""),
                foreground=picture(flow, "cone"),
                background=picture(flow, "cube"),
                **texts,
            )
            shown.append((caption, sampled(mini, node)))
    return shown


def marked(mini: Mini, words: str) -> Link:
    """A text with its words marked."""
    return mini.flow.add("CnC_MarkWords", text=mini.text(words), clip=mini.loaded.out("clip"), words=words).out()


def applied(mini: Mini, layers: Link, prompt: str = SURROUNDINGS) -> Node:
    """Apply Layers on CnC-Mini."""
    given = {name: mini.loaded.out(name) for name in ("model", "fusers")}
    return mini.flow.add("CnC_ApplyLayers", layers=layers, positive=mini.text(prompt), negative=mini.text(""), **given)


PAGES = {
    "CnC_Layer": Page(layer, 4),
    "CnC_ComposeLayers": Page(compose_layers, 5),
    "CnC_ComposeLayers_looks": Page(compose_looks, 5),
    "CnC_MoveLayer": Page(move_layer, 3),
    "CnC_StackLayers": Page(stack_layers, 4),
    "CnC_ApplyLayers": Page(apply_layers, 4),
    "CnC_MarkWords": Page(mark_words, 4),
    "CnC_Compose_words": Page(compose_words, 4),
}
