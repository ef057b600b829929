"""What a CNC_LAYERS connection carries, in which order, and how the core's stack is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ...cnc_core.depth_layers import TEXT_WEIGHT, DepthLayer
from ...cnc_core.guidance import Schedule
from ...cnc_core.placement import Flip
from .pictures import masks, optional_mask, picture
from .sizes import fit

MOST_LAYERS = 32
PLACE = ("x", "y", "scale", "rotation", "flip")
"""What moves a layer on the canvas."""
WEIGHTS = ("text_weight", "strength", "start_percent", "end_percent")
"""How strongly and when it acts, beside lambda."""
_WORDS = "cnc_words"
"""Where a conditioning's options say which of its rows stand for words."""
_NOT_WORDS = {
    "area": "an area",
    "mask": "a mask",
    "hooks": "hooks",
    "control": "a ControlNet",
    "start_percent": "a start",
    "end_percent": "an end",
}


@dataclass(frozen=True, eq=False)
class Layer:
    """What a Layer node says, unread: its inputs by their names, ``exemplar_weight`` for lambda."""

    name: str = ""
    visible: bool = True
    z: int = 0
    nearer: float = 0.0
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    rotation: float = 0.0
    flip: Flip = "none"
    exemplar_weight: float = 1.0
    text_weight: float = TEXT_WEIGHT
    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    picture: Tensor | None = None
    mask: Tensor | None = None
    depth: Tensor | None = None
    exemplar: Any = None
    text: Any = None
    curve: Schedule | None = None

    @property
    def is_moved(self) -> bool:
        """Whether anything moves it from where its picture has it."""
        return any(getattr(self, name) != getattr(Layer, name) for name in (*PLACE, "nearer"))

    @property
    def given_mask(self) -> Tensor | None:
        """Its mask; Load Image's empty one is none."""
        reference = self.picture if self.picture is not None else self.depth
        if self.mask is None or reference is None:
            return self.mask
        return optional_mask(self.mask, picture(reference, "picture"))

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of its picture, its depth and its mask, those that there are."""
        images = [picture(image, "picture") for image in (self.picture, self.depth) if image is not None]
        mask = self.given_mask
        sizes = [image.shape[1:3] for image in images] + ([] if mask is None else [mask.shape[-2:]])
        return [(height, width) for height, width in sizes]

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of its picture, else of its depth, else of its mask."""
        return next(iter(self.sizes), None)


def nearest_first(layers: Sequence[Layer]) -> list[int]:
    """Return the places of the visible layers in a chain, the nearest first: by z, and among equals its end."""
    places = [place for place, layer in enumerate(layers) if layer.visible]
    return sorted(places, key=lambda place: (layers[place].z, place), reverse=True)


def title(number: int, layer: Layer) -> str:
    """Return how errors name a layer: by its number, counted from the nearest, and its name."""
    return f"layer {number}" + (f" {layer.name[:60]!r}" if layer.name else "")


def check_batches(layers: Sequence[Layer]) -> None:
    """Raise ValueError unless all pictures, masks and depths, nearest layer first, are one for all or one for each."""
    counts = {}
    for number, layer in enumerate(layers, start=1):
        for name in ("picture", "mask", "depth"):
            given = getattr(layer, name)
            if given is None:
                continue
            try:
                read = masks(given) if name == "mask" else picture(given, name)
            except ValueError as error:
                raise ValueError(f"{title(number, layer)}: {error}") from None
            counts[f"{name} of {title(number, layer)}"] = len(read)
    most = max(counts, key=lambda name: counts[name], default="")
    for name, count in counts.items():
        if count not in (1, counts[most]):
            raise ValueError(
                f"{name} is a batch of {count} and {most} one of {counts[most]}: give one for all, or one for each"
            )


def depth_layers(layers: Sequence[Layer], channels: int) -> list[DepthLayer]:
    """Return the core's layers, where they lie and how deep, of placed ones, the nearest first.

    All are fitted to the size of the farthest. channels: how many of a depth map's are taken. Raises ValueError where
    no layer has a size, and with the layer's name for what is no picture or mask.
    """
    check_batches(layers)
    sizes = [layer.size for layer in layers if layer.size is not None]
    if not sizes:
        raise ValueError("no layer has a picture, a mask or a depth map, so that none has a place: give one a mask")
    size = sizes[-1]
    made = []
    for number, layer in enumerate(layers, start=1):
        depth = None if layer.depth is None else picture(layer.depth, "depth").movedim(-1, 1)[:, :channels]
        mask = None if layer.mask is None else masks(layer.mask)[:, None]
        mask, depth = (given if given is None else fit(given, *size, title(number, layer)) for given in (mask, depth))
        made.append(DepthLayer(mask, depth, depth_scale=2.0**layer.nearer, strength=layer.strength))
    return made


def with_words(stack: DepthLayer, layer: Layer, width: int) -> DepthLayer:
    """Return a layer of the core's with the words, weights and schedule of ours.

    width: of the text that the model attends to. Raises ValueError for a text that is no words of this model's.
    """
    schedule = replace(layer.curve or Schedule(), start_percent=layer.start_percent, end_percent=layer.end_percent)
    return replace(
        stack,
        text=None if layer.text is None else words(layer.text, width),
        exemplar_weight=layer.exemplar_weight,
        text_weight=layer.text_weight,
        strength=layer.strength,
        schedule=schedule,
    )


def mark_words(conditioning: Any, clip: Any, text: str) -> Any:
    """Return a CONDITIONING that says which of its rows stand for words: those of this text, encoded by this CLIP.

    The others are the start and the end of each section that the encoder reads, and the padding after it. A
    conditioning that has another length than this text is not of it, and returned as it is.
    """
    sections: dict[str, Any] = clip.tokenize(text, return_word_ids=True)
    lines = [[token[2] != 0 for section in encoder for token in section] for encoder in sections.values()]
    length = min(map(len, lines))  # as the host cuts two encoders' texts
    rows = [row for row in range(length) if any(line[row] for line in lines)]
    return [
        [embedding, {**options, _WORDS: rows} if embedding.shape[1] == length else options]
        for embedding, options in conditioning
    ]


def words(conditioning: Any, width: int) -> Tensor | None:
    """Return the rows of a CONDITIONING that stand for words, (B, T, D), None where none does.

    One that does not say which these are (:func:`mark_words`) is taken whole, but for its first row, the start.

    Raises ValueError for several entries, for one with an area, a mask, hooks, a ControlNet or a schedule, and for a
    width that is not the model's.
    """
    if len(conditioning) != 1:
        raise ValueError(
            f"text has {len(conditioning)} entries, and a layer takes one: connect the CLIP Text Encode of its words"
        )
    embedding, options = conditioning[0]
    found = [what for key, what in _NOT_WORDS.items() if options.get(key) is not None]
    if found:
        raise ValueError(
            f"text has {', '.join(found)}, and a layer has its own place and schedule: connect CLIP Text Encode itself"
        )
    if embedding.ndim != 3 or embedding.shape[-1] != width:
        raise ValueError(
            f"text is {embedding.shape[-1]} wide and the model's texts are {width}: it comes from the text encoder of "
            "another kind of model. Encode it with the CLIP of this one"
        )
    rows = options.get(_WORDS, range(1, embedding.shape[1]))
    return embedding[:, list(rows)] if len(rows) else None
