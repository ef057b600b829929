"""The rows of more than two layers, and what each may take beside the two of today."""

from __future__ import annotations

from dataclasses import dataclass

TWO_LAYERS = "Compose and Conquer"
"""The name of the row that more layers are compared with: an object and its background."""
MEMORY_TARGET = 1.05
"""The most of the two layers' peak memory that a row of more may take."""


@dataclass(frozen=True)
class LayerRow:
    """A stack with an exemplar for each layer.

    Args:
        name: how it is printed.
        layers: how many, the backdrop among them.
        words: whether each layer has words of its own.
        target: the most that its step may take, as a share of the two layers'.
    """

    name: str
    layers: int
    words: bool
    target: float


LAYER_ROWS = {
    row.name: row
    for row in (
        LayerRow("3 layers", 3, False, 1.03),
        LayerRow("5 layers", 5, False, 1.06),
        LayerRow("5 layers with words", 5, True, 1.12),
    )
}
