"""The help pages: one for each node, about all of its inputs and outputs, and served with their pictures."""

from __future__ import annotations

import io
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from devtools.inprocess import newer_nodes
from devtools.server import Server

from .conftest import Host

PICTURE_KB, ALL_KB, WIDTH = 60, 1500, 1024
PICTURE = re.compile(r"!\[([^]]+)\]\(([^)]+)\)")


@pytest.fixture(scope="module")
def nodes(our_nodes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return our_nodes


@pytest.fixture(scope="module")
def pages(root: Path) -> dict[str, str]:
    """The pages by their node's id."""
    return {path.stem: path.read_text(encoding="utf-8") for path in (root / "web" / "docs").glob("*.md")}


def fetched(server: Server, nodes: dict[str, dict[str, Any]], file: str) -> bytes:
    """A file of a node's help, from where the front end looks for it: beside the page, whatever its language."""
    folder = nodes["CnC_Compose"]["python_module"].split(".")[1]
    with urllib.request.urlopen(f"{server.url}/extensions/{folder}/docs/{file}", timeout=30) as reply:
        content: bytes = reply.read()
    return content


def first_column(page: str, section: str) -> list[str]:
    """What a section's table is about: the code in the first cell of each row."""
    text = page.split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def test_every_node_has_a_page(nodes: dict[str, dict[str, Any]], pages: dict[str, str]) -> None:
    assert set(pages) == set(nodes)


def test_a_page_is_about_every_input_and_output(nodes: dict[str, dict[str, Any]], pages: dict[str, str]) -> None:
    """In the order of the node, with its own names."""
    for name, info in nodes.items():
        inputs = [one for kind in ("required", "optional") for one in info["input_order"].get(kind, ())]
        assert first_column(pages[name], "Inputs") == inputs, name
        assert first_column(pages[name], "Outputs") == info["output_name"], name
        assert "## When something goes wrong\n" in pages[name], name


def test_pages_and_pictures_are_served(
    server: Server, host: Host, nodes: dict[str, dict[str, Any]], pages: dict[str, str], root: Path
) -> None:
    """Nodes that an older host lacks have no picture: the pictures are made on such a one."""
    named, size, not_drawn = set(), 0, newer_nodes(host.pack)
    for name in nodes:
        assert fetched(server, nodes, f"{name}.md").decode() == pages[name]
        pictures = PICTURE.findall(pages[name])
        assert pictures or name in not_drawn, f"{name} has no picture"
        for words, file in pictures:
            assert len(words) > 20, f"{name}: {words!r} does not say what {file} shows"
            content = fetched(server, nodes, file)
            shown = Image.open(io.BytesIO(content))
            assert shown.width <= WIDTH and len(content) <= PICTURE_KB * 1024, file
            named.add(file)
            size += len(content)
    assert size <= ALL_KB * 1024
    there = {path.name for path in (root / "web" / "docs").iterdir() if path.suffix != ".md"}
    assert there == named, "pictures that no page shows"


def test_a_language_without_a_page_falls_back_to_english(server: Server, nodes: dict[str, dict[str, Any]]) -> None:
    """The front end asks for NODE/LANGUAGE.md first and goes on to NODE.md only where that is not found."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetched(server, nodes, "CnC_Compose/ko.md")
    assert refused.value.code == 404
