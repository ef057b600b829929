"""Write workflows in the API format, with the host's own defaults for what is not given.

    flow = Workflow(server.object_info())
    pixels = flow.add("LoadImage", image="cone.png")
    flow.add("PreviewImage", images=pixels.out("IMAGE"))
    server.run(flow.prompt)

A node or input that the host does not have is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Node:
    """A node of a workflow. outputs: the names that the host gives them."""

    id: str
    outputs: list[str]

    def out(self, output: int | str = 0) -> list[Any]:
        """A link to one output, by its place or its name."""
        return [self.id, output if isinstance(output, int) else self.outputs.index(output)]


class Workflow:
    """A growing prompt: {node id: {class_type, inputs}}."""

    def __init__(self, object_info: Mapping[str, Any]) -> None:
        self._info = object_info
        self.prompt: dict[str, dict[str, Any]] = {}

    def add(self, class_type: str, **inputs: Any) -> Node:
        """Add a node. Raises KeyError if the host has no such node, or the node no such input."""
        if class_type not in self._info:
            raise KeyError(f"the host has no node {class_type}")
        info = self._info[class_type]
        known = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        if unknown := inputs.keys() - known:
            raise KeyError(f"{class_type} has no input {sorted(unknown)}; it has {sorted(known)}")
        defaults = {name: value for name, spec in known.items() if (value := _default(spec)) is not None}
        node_id = str(len(self.prompt) + 1)
        self.prompt[node_id] = {"class_type": class_type, "inputs": {**defaults, **inputs}}
        return Node(node_id, info["output_name"])


def _default(spec: list[Any]) -> Any:
    """The widget's first value, or None for an input that wants a link."""
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if "default" in options:
        return options["default"]
    choices = kind if isinstance(kind, list) else options.get("options", [])
    return choices[0] if choices else None
