"""How a compound node hands its inputs on to the nodes that it expands into."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

__all__ = ["HIDDEN", "GraphBuilder", "links"]

HIDDEN = [io.Hidden.unique_id, io.Hidden.dynprompt]
"""What a compound node's schema must ask for."""


def links(node: type[io.ComfyNode]) -> dict[str, Any]:
    """The running node's inputs as the graph has them: links where they are connected, else constants.

    The host caches a node by what it is connected to; a picture handed on as a value, not as a link,
    would make every part run again each time.
    """
    inputs: dict[str, Any] = node.hidden.dynprompt.get_node(node.hidden.unique_id)["inputs"]
    return inputs
