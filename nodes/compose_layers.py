"""Any number of layers in one node, which expands into the others."""

from __future__ import annotations

from functools import partial
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from .depth import depth_input
from .fusers import sampler_outputs, strength_input
from .host.early_expansion import early
from .host.expansion import (
    COMPOUND,
    GraphBuilder,
    chain_inputs,
    depth_part,
    exemplar_part,
    links,
    marked_words,
    not_of_lists,
    ready_layer,
    salient_mask_parts,
)
from .host.guidance import text_width
from .host.layers import MOST_LAYERS, PLACE, WEIGHTS, Layer, check_batches, nearest_first, title
from .host.schema import schema
from .host.validation import validated
from .masks import saliency_input
from .stack import stack_outputs
from .types import CATEGORY, IN_DEPTH, OF_STYLE, Fusers, Layers

_CONNECTED = ("picture", "mask", "depth", "exemplar", "text", "curve")


class ComposeLayers(io.ComfyNode):
    """Layers in, conditioned model and prompts out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_ComposeLayers",
            display_name="Compose Layers (Compose and Conquer)",
            category=CATEGORY,
            description="Any number of things one in front of the other, each with its own words (regional prompts), "
            "look (style transfer) and place in depth: what is behind is hidden (occlusion). It expands into the "
            "pack's other nodes, which ComfyUI caches one by one: changing one layer computes that layer alone anew.",
            search_aliases=[
                "layers",
                "regional prompt",
                "depth composition",
                "multiple objects",
                "z order",
                "collage",
                *IN_DEPTH,
                *OF_STYLE,
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="Any Stable Diffusion 1.5 model; without fusers, for words by layer alone, SDXL as well.",
                ),
                io.Conditioning.Input("positive", tooltip="The positive prompt, of the whole picture."),
                io.Conditioning.Input("negative", tooltip="The negative prompt."),
                Layers.Input("layers", tooltip="From the last Layer of a chain, the nearest one."),
                saliency_input("saliency"),
                depth_input("depth"),
                strength_input(),
                Fusers.Input(
                    "fusers",
                    optional=True,
                    tooltip="From Load Fusers. Without them there are no exemplars and no depth but for the output "
                    "depth_map; words by layer act.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="The CLIP vision model that the fusers were trained with: ViT-L/14 for the released "
                    "weights. Used for exemplars alone.",
                ),
            ],
            outputs=[
                *sampler_outputs(),
                *stack_outputs(partial(io.Mask.Output, is_output_list=True)),
            ],
            **COMPOUND,
        )

    @classmethod
    @not_of_lists
    @validated
    def execute(
        cls, model: Any, layers: tuple[Layer, ...], fusers: Any = None, clip_vision: Any = None, **_: Any
    ) -> io.NodeOutput:
        linked = links(cls)
        text_width(model)
        order = nearest_first(layers)
        nearest = [layers[place] for place in order]
        if not nearest:
            raise ValueError(
                f"no layer is visible: {len(layers)} are connected, all switched off"
                if layers
                else "there is no layer: connect the last Layer of a chain to layers"
            )
        check_batches(nearest)
        chain = chain_inputs(cls, linked["layers"], len(layers))
        graph = GraphBuilder()
        expansion = _Expansion(graph, linked, _canvas(nearest))
        placed, looks = None, None
        for number, place in reversed(list(enumerate(order, start=1))):
            layer, label = layers[place], title(number, layers[place])
            given = _given(layer, chain[place])
            needed = [("fusers", fusers, "Load Fusers")] if layer.exemplar is not None else []
            if isinstance(layer.exemplar, Tensor):
                needed.append(("clip_vision", clip_vision, "Load CLIP Vision"))
            for name, value, loader in needed:
                if value is None:
                    raise ValueError(f"{label} has an exemplar, which needs {name}: connect {loader} to Compose Layers")
            geometry = expansion.geometry(layer, given, place, label, is_last=number == len(order))
            placed = ready_layer(graph, f"placed_{place}", layer.name, layers=placed, nearer=layer.nearer, **geometry)
            looks = ready_layer(
                graph,
                f"look_{place}",
                layer.name,
                layers=looks,
                exemplar=expansion.exemplar(layer, given, place),
                text=marked_words(cls, graph, given.get("text"), f"words_{place}"),
                curve=given.get("curve"),
                **{name: getattr(layer, name) for name in WEIGHTS},
                **{"lambda": layer.exemplar_weight},
            )
        applied = graph.node(
            "CnC_ApplyLayers",
            "apply",
            layers=placed,
            looks=looks,
            **{name: linked[name] for name in ("model", "positive", "negative", "strength")},
            **({"fusers": linked["fusers"]} if linked.get("fusers") is not None else {}),
        )
        stack = graph.node("CnC_StackLayers", "stack", layers=placed)
        outputs = [applied.out(index) for index in range(3)] + [stack.out(index) for index in range(5)]
        return io.NodeOutput(*outputs, expand=graph.finalize())


def _given(layer: Layer, inputs: dict[str, Any] | None) -> dict[str, Any]:
    """Return what is connected to a layer: links where the graph tells them, else values."""
    given = {}
    for name in _CONNECTED:
        value = layer.given_mask if name == "mask" else getattr(layer, name)
        if value is not None:
            given[name] = value if inputs is None else inputs[name]
    return given


def _canvas(nearest: list[Layer]) -> tuple[int, int]:
    """Return height and width of the canvas: those of the backdrop, else of the largest picture."""
    if nearest[-1].given_mask is None and nearest[-1].size is not None:
        return nearest[-1].size
    sizes = [layer.size for layer in nearest if layer.size is not None]
    return max(sizes, key=lambda size: size[0] * size[1], default=(64, 64))


class _Expansion:
    """How layers become parts of a graph. A part's id ends in its layer's place in the chain.

    Args:
        graph: where the parts go.
        linked: the inputs of Compose Layers as the graph has them.
        canvas: height and width that all layers are brought to.
    """

    def __init__(self, graph: GraphBuilder, linked: dict[str, Any], canvas: tuple[int, int]) -> None:
        self._graph = graph
        self._linked = linked
        self._canvas = canvas

    def geometry(self, layer: Layer, given: dict[str, Any], place: int, label: str, *, is_last: bool) -> dict[str, Any]:
        """Return the links to a layer's mask, picture and depth on the canvas, those that there are."""
        found = {name: given[name] for name in ("mask", "picture", "depth") if name in given}
        if "mask" not in found and not is_last:
            if "picture" not in found:
                raise ValueError(
                    f"{label} has neither picture nor mask, so that it would hide all behind it: connect a mask, or "
                    "make it the farthest layer"
                )
            parts = (f"salience_{place}", f"mask_{place}")
            found["mask"] = salient_mask_parts(self._graph, found["picture"], self._linked["saliency"], parts=parts)
        if "depth" not in found and "picture" in found:
            estimator, mask = self._linked["depth"], found.get("mask")
            found["depth"] = depth_part(self._graph, found["picture"], estimator, mask, f"depth_{place}")
        if not found or (set(layer.sizes) == {self._canvas} and not layer.is_moved):
            return found
        goal = {name: getattr(layer, name) for name in PLACE}
        goal["scale"] *= 2.0**layer.nearer
        height, width = self._canvas
        moved = self._graph.node("CnC_MoveLayer", f"move_{place}", width=width, height=height, **goal, **found)
        return {name: moved.out(index) for index, name in enumerate(("mask", "picture", "depth")) if name in found}

    def exemplar(self, layer: Layer, given: dict[str, Any], place: int) -> Any:
        """Return the link to a layer's exemplar as CLIP sees it, or None."""
        if not isinstance(layer.exemplar, Tensor):
            return given.get("exemplar")  # none, or encoded by the user
        return exemplar_part(self._graph, given["exemplar"], self._linked["clip_vision"], f"exemplar_{place}")


def _announced(node: type[io.ComfyNode], linked: dict[str, Any]) -> list[GraphBuilder]:
    """Return the networks that a running Compose Layers may expand into: of each layer with whichever mask it has."""
    graph = GraphBuilder()
    for given in chain_inputs(node, linked["layers"], MOST_LAYERS):
        if given is not None and given.get("picture") is not None:
            found = salient_mask_parts(graph, given["picture"], linked["saliency"])
            for mask in (None, given.get("mask"), found):
                depth_part(graph, given["picture"], linked["depth"], mask)
        if given is not None and given.get("exemplar") is not None and linked.get("clip_vision") is not None:
            exemplar_part(graph, given["exemplar"], linked["clip_vision"])
    return [graph]


NODES: list[type[io.ComfyNode]] = early(ComposeLayers, _announced)
