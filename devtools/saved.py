"""A saved workflow in the API format, subgraphs opened, as the front end exports it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Prompt = dict[str, dict[str, Any]]
Link = tuple["Graph", int, int]
"""The graph that an output is in, its node's id, its place."""

NOTES = frozenset({"Note", "MarkdownNote"})
BUTTON = "upload"
"""A loader's button for a picture of the user's, which the front end keeps among the values and does not export."""
AFTERWARDS = frozenset({"fixed", "increment", "decrement", "randomize"})
"""What the front end keeps beside a seed: what becomes of it after a run."""
INPUTS, OUTPUTS = -10, -20
"""The ids that a subgraph's ends have in its links."""


class Graph:
    """The workflow, or one use of a subgraph in it. path: what precedes its nodes' ids in the API format."""

    def __init__(
        self, saved: Mapping[str, Any], subgraphs: Mapping[str, Any], path: str, outer: Graph | None, use: Any
    ) -> None:
        self.nodes = {node["id"]: node for node in saved["nodes"]}
        self.links = {link["id"]: link for link in map(_named, saved["links"])}
        self.saved, self.subgraphs, self.path, self.outer, self.use = saved, subgraphs, path, outer, use

    def inside(self, node: Mapping[str, Any]) -> Graph | None:
        """What a node that is a subgraph holds."""
        definition = self.subgraphs.get(node["type"])
        return definition and Graph(definition, self.subgraphs, f"{self.path}{node['id']}:", self, node)

    def given(self, link_id: int) -> list[Any] | Mapping[str, Any] | None:
        """Where a link begins, in the API format; or the value that a subgraph's own input has, as {"value": ...}."""
        link = self.links[link_id]
        if link["origin_id"] == INPUTS:
            return self._from_outside(link["origin_slot"])
        node = self.nodes[link["origin_id"]]
        inside = self.inside(node)
        if inside is None:
            return [f"{self.path}{node['id']}", link["origin_slot"]]
        (end,) = inside.saved["outputs"][link["origin_slot"]]["linkIds"]
        return inside.given(end)

    def _from_outside(self, slot: int) -> list[Any] | Mapping[str, Any] | None:
        if self.outer is None:
            raise ValueError("a workflow has no inputs of its own")
        name = self.saved["inputs"][slot]["name"]
        outer: Mapping[str, Any] = next((one for one in self.use["inputs"] if one["name"] == name), {})
        if outer.get("link") is not None:
            return self.outer.given(outer["link"])
        values = widgets(self.use) if self.use.get("widgets_values") else {}
        return {"value": values[name]} if name in values else None


def flat(workflow: Mapping[str, Any]) -> Prompt:
    """The workflow as it is posted to a server."""
    subgraphs = {one["id"]: one for one in workflow.get("definitions", {}).get("subgraphs", [])}
    return dict(_nodes(Graph(workflow, subgraphs, "", None, None)))


def widgets(node: Mapping[str, Any]) -> dict[str, Any]:
    """A node's values by name. Raises ValueError where the file has fewer of them than the node has names."""
    values = iter(node.get("widgets_values") or ())
    named = {}
    for slot in node.get("inputs", ()):
        if "widget" not in slot:
            continue
        try:
            value = next(values)
            if slot["name"] not in ("seed", "noise_seed") and isinstance(value, str) and value in AFTERWARDS:
                value = next(values)
        except StopIteration:
            raise ValueError(f"node {node['id']}, {node['type']}, has no value for {slot['name']}") from None
        named[slot["name"]] = value
    named.pop(BUTTON, None)
    return named


def _nodes(graph: Graph) -> Iterator[tuple[str, dict[str, Any]]]:
    for node in graph.nodes.values():
        inside = graph.inside(node)
        if inside is not None:
            yield from _nodes(inside)
        elif node["type"] not in NOTES:
            yield f"{graph.path}{node['id']}", {"class_type": node["type"], "inputs": _inputs(graph, node)}


def _inputs(graph: Graph, node: Mapping[str, Any]) -> dict[str, Any]:
    inputs = widgets(node)
    for slot in node.get("inputs", ()):
        if slot.get("link") is None:
            continue
        given = graph.given(slot["link"])
        if isinstance(given, Mapping):
            inputs[slot["name"]] = given["value"]
        elif given is not None:
            inputs[slot["name"]] = given
    return inputs


def _named(link: Any) -> dict[str, Any]:
    if isinstance(link, dict):
        return link
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return dict(zip(names, link, strict=False))
