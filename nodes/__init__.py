"""The pack's nodes, one module a family."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    compose,
    compose_layers,
    curve,
    depth,
    document,
    fusers,
    inpaint,
    layer,
    layers,
    loaders,
    masks,
    place,
    selection,
    stack,
)
from .host.folders import register_fusers
from .host.perception import register_perception

NEWER = (document,)
"""The families that need a connection of the host's that older ones lack: its layered document."""


class ComposeAndConquer(ComfyExtension):
    """What the host asks the pack for."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return all nodes that this host can connect."""
        whole = (loaders, compose, layer, compose_layers, fusers, curve)
        parts = (masks, selection, inpaint, depth, layers, place, stack)
        newer = NEWER if hasattr(io, "Layers") else ()
        return [node for family in (*whole, *newer, *parts) for node in family.NODES]


async def comfy_entrypoint() -> ComposeAndConquer:
    """Return the extension; the host calls this after import, which itself changes nothing of the host's."""
    register_fusers()
    register_perception()
    return ComposeAndConquer()
