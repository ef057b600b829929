"""How a compound node hands its inputs on to the nodes that it expands into."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

__all__ = ["COMPOUND", "GraphBuilder", "links", "not_of_lists"]

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
