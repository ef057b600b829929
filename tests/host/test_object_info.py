"""What the host knows of our nodes: all of them, each part explained, and what saved workflows rely on unchanged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from devtools.server import Server

DESIGNED = {
    *("CnC_LoadFusers", "CnC_LoadMini", "CnC_ApplyLocalFuser", "CnC_ApplyGlobalFuser", "CnC_SoftGuidance"),
    *("CnC_Compose", "CnC_SalienceMap", "CnC_RefineMask", "CnC_SalientMask", "CnC_InpaintBackground"),
    "CnC_SelectObject",
    *("CnC_SplitLayers", "CnC_DepthMap"),
}
RENEW = "CNC_RENEW_SCHEMA=1 python -m pytest tests/host/test_object_info.py"


@pytest.fixture(scope="module")
def nodes(server: Server) -> dict[str, dict[str, Any]]:
    """Our nodes as the front end gets them."""
    return {name: info for name, info in server.object_info().items() if name.startswith("CnC_")}


def inputs(info: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any], bool]]:
    """A node's inputs in order: type, options, and whether one must be given."""
    return {
        name: (*info["input"][kind][name], kind == "required")
        for kind in ("required", "optional")
        for name in info["input_order"].get(kind, ())
    }


def schema(nodes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What saved workflows rely on: ids, inputs with type, need and default in order, choices, output types."""
    return {
        node_id: {
            "inputs": [
                {"id": name, "type": kind, "required": required}
                | {fact: options[fact] for fact in ("default", "options") if fact in options}
                for name, (kind, options, required) in inputs(info).items()
            ],
            "outputs": [list(pair) for pair in zip(info["output_name"], info["output"], strict=True)],
        }
        for node_id, info in sorted(nodes.items())
    }


def test_the_pack_is_imported_without_a_word(comfy: Path, server: Server) -> None:
    """Until the host lists its packs, it says nothing that it would not say without ours."""
    with Server(comfy, pack=None) as plain:
        own_words = set(plain.log().splitlines())
    before, found, after = server.log().partition("Import times for custom nodes:\n")
    assert found and [line for line in before.splitlines() if line and line not in own_words] == []
    assert "IMPORT FAILED" not in after.splitlines()[0]


def test_every_node_is_there(nodes: dict[str, dict[str, Any]]) -> None:
    assert set(nodes) >= DESIGNED


def test_every_part_is_explained(nodes: dict[str, dict[str, Any]]) -> None:
    unexplained = []
    for node_id, info in nodes.items():
        unexplained += [f"{node_id}: {fact}" for fact in ("display_name", "description") if not info[fact]]
        if info["category"].split("/")[0] != "Compose and Conquer":
            unexplained.append(f"{node_id}: category")
        unexplained += [f"{node_id}: {name}" for name, (_, o, _) in inputs(info).items() if not o.get("tooltip")]
        tooltips = info.get("output_tooltips") or [None] * len(info["output"])
        pairs = zip(info["output_name"], tooltips, strict=True)
        unexplained += [f"{node_id}: output {name}" for name, tooltip in pairs if not tooltip]
    assert unexplained == []


@pytest.mark.parametrize("node_id", ["CnC_SoftGuidance", "CnC_Compose"])
@pytest.mark.parametrize("layer", ["fg", "bg"])
def test_lambda_is_a_slider(nodes: dict[str, dict[str, Any]], node_id: str, layer: str) -> None:
    kind, options, _ = inputs(nodes[node_id])[f"lambda_{layer}"]
    shown = {name: options[name] for name in ("min", "max", "default", "display")}
    assert (kind, shown) == ("FLOAT", {"min": 0.0, "max": 2.0, "default": 1.0, "display": "slider"})
    assert "\N{GREEK SMALL LETTER LAMDA}" in options["display_name"]


def test_saved_workflows_still_fit(nodes: dict[str, dict[str, Any]], data: Path) -> None:
    """As recorded in tests/data/schema.json; choices may grow, for instance with the files in a models folder."""
    file, found = data / "schema.json", schema(nodes)
    if os.environ.get("CNC_RENEW_SCHEMA"):
        file.write_text(json.dumps(found, indent=1) + "\n")
    recorded = json.loads(file.read_text())
    lost = []
    for node_id in recorded.keys() & found.keys():
        for old, new in zip(recorded[node_id]["inputs"], found[node_id]["inputs"], strict=False):
            lost += [f"{node_id}: {old['id']}: {o}" for o in old.pop("options", ()) if o not in new.get("options", ())]
    for node in found.values():
        for new in node["inputs"]:
            new.pop("options", None)
    assert lost == [], "a choice that saved workflows may have made is gone"
    assert found == recorded, (
        "saved workflows rely on what is recorded in tests/data/schema.json. Ids and input ids are never renamed, "
        f"new inputs are optional and last. If that holds, record the change: {RENEW}"
    )
