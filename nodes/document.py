"""The node that takes the layers of the host's own layered document."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from .host.document import DocumentLayer, read_document
from .host.document_placement import placed
from .host.layers import WEIGHTS, Layer
from .host.perception import each
from .host.pictures import picture
from .host.schema import schema
from .host.validation import validated
from .types import CATEGORY, Document, Layers

_OPAQUE = 1 - 1e-3
"""A layer hides what is behind it where its mask is above this; so the host says too."""
_LOOKS = ("nearer", "exemplar_weight", "exemplar", "text", "curve", *WEIGHTS)
"""What a document's layer takes of the Layer that goes with it, beside its depth."""


class LayersFromDocument(io.ComfyNode):
    """Layers that are drawn and placed in the host's layer editor.

    The host takes a batch of pictures in one layer for as many layers. Here, as everywhere in the pack, a batch is one
    layer in as many results.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_LayersFromDocument",
            display_name="Layers from Document (Compose and Conquer)",
            category=CATEGORY,
            description="Takes the layers of ComfyUI's own layered document, as Add Layer makes it, for Compose "
            "Layers: their pictures where the document has them, with their names, in its order.",
            search_aliases=["psd", "add layer", "create layered image", "compositor", "import layers"],
            inputs=[
                Document.Input(
                    "document",
                    tooltip="From Add Layer, the last of them. A layer with a batch of pictures stays one layer, with "
                    "one of them for each result.",
                ),
                Layers.Input(
                    "layers",
                    optional=True,
                    tooltip="A chain of Layer nodes whose exemplars, words, depths, weights, percents and nearer the "
                    "document's layers take. Each goes to the layers of its name; one without a name to the layer at "
                    "its place, the farthest first.",
                ),
            ],
            outputs=[Layers.Output("layers_out", display_name="layers", tooltip="To Compose Layers, or to a Layer.")],
        )

    @classmethod
    @validated
    def execute(cls, document: Any, layers: tuple[Layer, ...] | None = None) -> io.NodeOutput:
        read = read_document(document)
        looks = _matched(read.layers, layers or ())
        _tell_of_blend_modes(read.layers)
        stack: list[Layer] = []
        hidden = False  # by a layer that covers the whole canvas
        for place in each(len(read.layers)):
            layer, look = read.layers[-1 - place], looks[-1 - place]
            made = Layer(layer.name, visible=False) if hidden else _made(layer, look, read.canvas)
            hidden = hidden or (made.visible and made.mask is None)
            stack.append(made)
        if not read.has_canvas and not hidden:
            logging.warning(
                "Compose and Conquer: the document has no canvas of its own and is as large as its layers reach, "
                "%d x %d pixels. No layer covers that, so that there is no backdrop. Cut off what reaches over it, or "
                "begin the document with Layers From Bounding Boxes, which has canvas_width and canvas_height.",
                *reversed(read.canvas),
            )
        return io.NodeOutput(tuple(stack[::-1]))


def _tell_of_blend_modes(layers: Sequence[DocumentLayer]) -> None:
    mixed = [layer for layer in layers if layer.visible and layer.blend_mode != "normal"]
    if mixed:
        logging.warning(
            "Compose and Conquer: blend modes cannot be kept, since each layer is a thing of its own; these are taken "
            "for normal: %s.",
            ", ".join(f"{layer.blend_mode[:60]} of {layer.label}" for layer in mixed),
        )


def _made(layer: DocumentLayer, look: Layer, canvas: tuple[int, int]) -> Layer:
    """Return a layer of ours; without a mask if it covers the canvas, switched off if nothing of it is there."""
    if not layer.visible or not layer.opacity:
        return Layer(layer.name, visible=False)
    seen, mask = placed(layer, canvas)
    if not mask.any():
        return Layer(layer.name, visible=False)
    depth = None if look.depth is None else placed(layer, canvas, picture(look.depth, f"depth of {layer.label}"))[0]
    return Layer(
        layer.name,
        picture=seen,
        mask=None if mask.min() > _OPAQUE else mask,
        depth=depth,
        **{name: getattr(look, name) for name in _LOOKS},
    )


def _matched(layers: Sequence[DocumentLayer], looks: Sequence[Layer]) -> list[Layer]:
    """Return the Layer that goes with each layer of a document, both the farthest first; a plain one where none does.

    Of several with one name each takes the next layer of that name, and the last one all that are left. What goes with
    none is logged. One that is switched off gives nothing, but keeps its place.
    """
    named = defaultdict(list)
    for look in looks:
        if look.name:
            named[look.name].append(look)
    taken: Counter[str] = Counter()
    found = []
    for place, layer in enumerate(layers):
        namesakes = named.get(layer.name, [])
        if namesakes:
            look = namesakes[min(taken[layer.name], len(namesakes) - 1)]
            taken[layer.name] += 1
        else:
            look = looks[place] if place < len(looks) and not looks[place].name else Layer()
        found.append(look)
    used = {id(look) for look in found}
    idle = [
        repr(look.name[:60]) if look.name else f"the one at place {place}"
        for place, look in enumerate(looks, start=1)
        if look.visible and id(look) not in used
    ]
    if idle:
        logging.warning(
            "Compose and Conquer: of layers, %s went to no layer of the document. Its layers are, the farthest first: "
            "%s.",
            ", ".join(idle),
            ", ".join(repr(layer.name[:60]) if layer.name else "one without a name" for layer in layers),
        )
    return [look if look.visible else Layer() for look in found]


NODES: list[type[io.ComfyNode]] = [LayersFromDocument]
