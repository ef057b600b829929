"""A workflow as it is to be drawn: nodes in the columns of titled groups, joined by name.

    sheet = Sheet("Title")
    with sheet.group("Pictures"):
        cone = sheet.node("LoadImage", image="cnc_cone.png")
    with sheet.group("Result"):
        sheet.node("PreviewImage", images=cone["IMAGE"])

Where things stand and how large they are is left to the front end that draws it (`drawing.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Link:
    """An output of a node, by its name; where a subgraph's inputs are named, an input."""

    node: str
    slot: str


@dataclass(frozen=True)
class Model:
    """A file that a node needs, for the front end's dialog about missing models.

    directory: under the host's `models`. url: None where there is no address of the file itself.
    """

    name: str
    directory: str
    url: str | None = None


@dataclass
class Node:
    """One node. values: of its widgets, by name. links: of its inputs, by name. node["x"] is its output x."""

    key: str
    type: str
    title: str | None
    values: dict[str, Any]
    links: dict[str, Link]
    models: list[Model]
    size: tuple[int | None, int | None]

    def __getitem__(self, slot: str) -> Link:
        return Link(self.key, slot)


@dataclass
class Group:
    """A titled frame. row: groups of one row stand side by side, the next row below."""

    title: str
    row: int
    columns: list[list[Node]] = field(default_factory=lambda: [[]])


class Sheet:
    """A workflow to be drawn."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.groups: list[Group] = []
        self._subgraphs: list[dict[str, Any]] = []
        self._row = 0

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        """What is added inside stands in a frame of this title, to the right of the last one."""
        self.groups.append(Group(title, self._row))
        yield

    def row(self) -> None:
        """Begin a new row of groups."""
        self._row += 1

    def column(self) -> None:
        """Begin a new column of nodes in the group."""
        self.groups[-1].columns.append([])

    def node(
        self,
        type: str,
        title: str | None = None,
        *,
        models: Sequence[Model] = (),
        size: tuple[int | None, int | None] = (None, None),
        **inputs: Any,
    ) -> Node:
        """Add a node below the last one; its inputs are links or values. size: least width and height of the node."""
        links = {name: value for name, value in inputs.items() if isinstance(value, Link)}
        values = {name: value for name, value in inputs.items() if not isinstance(value, Link)}
        count = sum(len(column) for group in self.groups for column in group.columns)
        added = Node(str(count), type, title, values, links, list(models), size)
        self.groups[-1].columns[-1].append(added)
        return added

    def read_me(self, text: str, *, height: int) -> None:
        """Put a note in Markdown before everything else."""
        with self.group("Read me"):
            self.node("MarkdownNote", "Note", size=(460, height), text=text)
        self.groups.insert(0, self.groups.pop())
        self.groups[0].row = 0

    def subgraph(
        self,
        inside: Sheet,
        inputs: Mapping[str, Link | Sequence[Link]],
        outputs: Mapping[str, Link],
        **facts: str,
    ) -> None:
        """Make nodes of the type `inside.name` possible, which hold another sheet's nodes.

        inputs: what each stands for inside, a widget's as well. facts: description, category.
        """
        targets = [
            [title, [[link.node, link.slot] for link in ([links] if isinstance(links, Link) else links)]]
            for title, links in inputs.items()
        ]
        sources = [[title, [link.node, link.slot]] for title, link in outputs.items()]
        self._subgraphs.append(
            {**inside.described(), "name": inside.name, "inputs": targets, "outputs": sources, **facts}
        )

    @property
    def nodes(self) -> list[Node]:
        """All of them, in the order in which they were added."""
        return [node for group in self.groups for column in group.columns for node in column]

    def described(self) -> Mapping[str, Any]:
        """For the front end, as JSON has it."""
        return {
            "subgraphs": self._subgraphs,
            "groups": [
                {
                    "title": group.title,
                    "row": group.row,
                    "columns": [[_described(node) for node in column] for column in group.columns if column],
                }
                for group in self.groups
            ],
        }


def _described(node: Node) -> dict[str, Any]:
    return {
        "key": node.key,
        "type": node.type,
        "title": node.title,
        "values": node.values,
        "links": {name: [link.node, link.slot] for name, link in node.links.items()},
        "models": [vars(model) for model in node.models if model.url],
        "size": list(node.size),
    }
