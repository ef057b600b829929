"""How a compound node hands its inputs on to the nodes that it expands into."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder, is_link

from .layers import PLACE, WEIGHTS, Layer

__all__ = [
    "COMPOUND",
    "GraphBuilder",
    "chain_inputs",
    "depth_part",
    "exemplar_part",
    "links",
    "marked_words",
    "not_of_lists",
    "ready_layer",
    "salient_mask_parts",
]

COMPOUND: dict[str, Any] = {
    "hidden": [io.Hidden.unique_id, io.Hidden.dynprompt],
    "enable_expand": True,
    "is_input_list": True,
}
"""What a compound node's schema says. Its `execute` is `not_of_lists`."""


def not_of_lists(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """Take each input out of the list that it comes in.

    The host runs a node once for each entry of a list. An expansion gets links, which stand for the whole list, and
    the host would mix up what its parts give: raises ValueError for more than one entry.
    """

    @functools.wraps(execute)
    def unpacked(node: type[io.ComfyNode], **inputs: list[Any]) -> io.NodeOutput:
        for name, values in inputs.items():
            if len(values) != 1:
                raise ValueError(
                    f"{name}: got a list of {len(values)}, and this node takes one picture or one batch. Join pictures "
                    "of one size with Rebatch Images, or use the nodes that this one stands for (the template "
                    "A folder of pictures shows how)"
                )
        return execute(node, **{name: values[0] for name, values in inputs.items()})

    return unpacked


def links(node: type[io.ComfyNode]) -> dict[str, Any]:
    """The running node's inputs as the graph has them: links where they are connected, else constants.

    The host caches a node by what it is connected to; a picture handed on as a value, not as a link,
    would make every part run again each time.
    """
    inputs: dict[str, Any] = node.hidden.dynprompt.get_node(node.hidden.unique_id)["inputs"]
    return inputs


def salient_mask_parts(
    graph: GraphBuilder,
    image: Any,
    estimator: Any,
    *,
    threshold: float = 0.5,
    grow: int = 0,
    feather: int = 0,
    parts: tuple[str | None, str | None] = (None, None),
) -> Any:
    """Return the link to the mask of what stands out in an image. parts: ids of Salience Map and Refine Mask."""
    salience = graph.node("CnC_SalienceMap", parts[0], image=image, estimator=estimator, preprocessing="model")
    refined = graph.node(
        "CnC_RefineMask",
        parts[1],
        mask=salience.out(0),
        threshold=threshold,
        grow=grow,
        fill_holes=False,
        largest_only=False,
        feather=feather,
        invert=False,
    )
    return refined.out(0)


def depth_part(graph: GraphBuilder, image: Any, estimator: Any, mask: Any = None, part: str | None = None) -> Any:
    """Return the link to an image's depth, with a mask that of the cut-out object: as the fusers were trained."""
    depth = graph.node(
        "CnC_DepthMap",
        part,
        image=image,
        estimator=estimator,
        version="v1" if mask is None else "v2",
        preprocessing="model",
        clip_percent=0.0,
        invert=False,
        **({} if mask is None else {"mask": mask}),
    )
    return depth.out(0)


def exemplar_part(graph: GraphBuilder, image: Any, clip_vision: Any, part: str | None = None) -> Any:
    """Return the link to what CLIP sees of an exemplar."""
    return graph.node("CLIPVisionEncode", part, clip_vision=clip_vision, image=image, crop="center").out(0)


def chain_inputs(node: type[io.ComfyNode], link: Any, count: int) -> list[dict[str, Any] | None]:
    """Return what the graph says of the inputs of each Layer of a chain, the farthest first.

    None for those that cannot be followed by links, since another node hands them on: of these the values are known.
    """
    found: list[dict[str, Any] | None] = []
    while is_link(link) and len(found) < count:
        part = node.hidden.dynprompt.get_node(link[0])
        if part["class_type"] != "CnC_Layer":
            break
        found.append(part["inputs"])
        link = part["inputs"].get("layers")
    return [None] * (count - len(found)) + found[::-1]


def marked_words(node: type[io.ComfyNode], graph: GraphBuilder, text: Any, part: str) -> Any:
    """Return a text's link, by way of Mark Words, under the id ``part``, where the host's CLIP Text Encode gives it."""
    if not is_link(text):
        return text
    encode = node.hidden.dynprompt.get_node(text[0])
    if encode["class_type"] != "CLIPTextEncode":
        return text
    inputs = encode["inputs"]
    return graph.node("CnC_MarkWords", part, text=text, clip=inputs["clip"], words=inputs["text"]).out(0)


def ready_layer(graph: GraphBuilder, part: str, name: str, **inputs: Any) -> Any:
    """Return the link to a Layer, under the id ``part``, with these inputs but those that are None, else defaults."""
    plain = Layer(name=name)
    defaults = {one: getattr(plain, one) for one in ("name", "visible", "z", "nearer", *PLACE, *WEIGHTS)}
    given = {one: value for one, value in inputs.items() if value is not None}
    return graph.node("CnC_Layer", part, **{**defaults, "lambda": plain.exemplar_weight, **given}).out(0)
