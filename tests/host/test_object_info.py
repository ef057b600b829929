"""What the host knows of our nodes: all of them, each part explained, and what saved workflows rely on unchanged."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable
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
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
RENEW = "CNC_RENEW_SCHEMA=1 python -m pytest tests/host/test_object_info.py"


@pytest.fixture(scope="module")
def nodes(our_nodes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return our_nodes


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


def said(server: Server) -> str:
    """A server's log without colours and levels, which newer hosts write, and without its own folder's name."""
    without_colours = re.sub(r"\x1b\[\d+m", "", server.log())
    return re.sub(r"^\[[A-Z]+\] ", "", without_colours, flags=re.MULTILINE).replace(str(server.base), "")


def test_the_pack_is_imported_without_a_word(comfy: Path, server: Server) -> None:
    """Until the host lists its packs, it says nothing that it would not say without ours."""
    with Server(comfy, pack=None) as plain:
        own_words = set(said(plain).splitlines())
    before, found, after = said(server).partition("Import times for custom nodes:\n")
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


LOOKED_FOR = {
    "depth": {"CnC_Compose", "CnC_ComposeLayers", "CnC_ApplyLocalFuser", "CnC_DepthMap"},
    "in front": {"CnC_Compose", "CnC_ComposeLayers"},
    "behind": {"CnC_Compose", "CnC_ComposeLayers", "CnC_ApplyLocalFuser"},
    "occlusion": {"CnC_Compose", "CnC_ComposeLayers"},
    "layer": {"CnC_Compose", "CnC_ComposeLayers", "CnC_Layer"},
    "regional": {"CnC_Compose", "CnC_ComposeLayers", "CnC_SoftGuidance"},
    "style transfer": {"CnC_Compose", "CnC_ComposeLayers", "CnC_ApplyGlobalFuser"},
    "ip adapter": {"CnC_ApplyGlobalFuser"},
}


@pytest.mark.parametrize("words", LOOKED_FOR)
def test_nodes_are_found_by_what_people_type(nodes: dict[str, dict[str, Any]], words: str) -> None:
    """By aliases; on hosts without them by name and description."""
    missed = []
    for node_id in sorted(LOOKED_FOR[words]):
        info = nodes[node_id]
        searched = [info["display_name"], *info.get("search_aliases", [info["description"]])]
        missed += [node_id] if words not in " / ".join(searched).lower() else []
    assert missed == []


def test_older_front_ends_search_names_alone(nodes: dict[str, dict[str, Any]]) -> None:
    found = {node_id for node_id, info in nodes.items() if "depth" in info["display_name"].lower()}
    assert found >= {"CnC_Compose", "CnC_ApplyLocalFuser", "CnC_DepthMap"}


@pytest.mark.parametrize("node_id", ["CnC_SoftGuidance", "CnC_Compose"])
@pytest.mark.parametrize("layer", ["fg", "bg"])
def test_lambda_is_a_slider(nodes: dict[str, dict[str, Any]], node_id: str, layer: str) -> None:
    kind, options, _ = inputs(nodes[node_id])[f"lambda_{layer}"]
    shown = {name: options[name] for name in ("min", "max", "default", "display")}
    assert (kind, shown) == ("FLOAT", {"min": 0.0, "max": 2.0, "default": 1.0, "display": "slider"})
    assert "\N{GREEK SMALL LETTER LAMDA}" in options["display_name"]


def broken(recorded: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What of the schema breaks workflows saved with the recorded one.

    Ids, types and defaults stay; an input that was required may become optional. Saved values go by the place of their
    widget among the widgets, and links by the input's name: widgets keep their order, and a new input is optional
    and, if it is a widget, last. A new output is last, since links go by its place. Choices may grow, for instance
    with the files in a models folder.
    """
    wrong = [f"{node_id} is gone" for node_id in recorded.keys() - found.keys()]
    for node_id in recorded.keys() & found.keys():
        old, new = recorded[node_id], found[node_id]
        by_id = {one["id"]: one for one in new["inputs"]}
        before, after = ([one["id"] for one in node["inputs"] if one["type"] in WIDGETS] for node in (old, new))
        if after[: len(before)] != before:
            wrong.append(f"{node_id}: the widgets were {before}, are {after}")
        for one in old["inputs"]:
            now = by_id.pop(one["id"], {})
            for fact in ("id", "type", "required", "default"):
                loosened = fact == "required" and now.get(fact) is False
                if one.get(fact) != now.get(fact) and not loosened:
                    wrong.append(f"{node_id}: {one['id']}: {fact} was {one.get(fact)!r}, is {now.get(fact)!r}")
            lost = [choice for choice in one.get("options", ()) if choice not in now.get("options", ())]
            wrong += [f"{node_id}: {one['id']}: the choice {choice!r} is gone" for choice in lost]
        wrong += [f"{node_id}: {one['id']} is new and required" for one in by_id.values() if one["required"]]
        if new["outputs"][: len(old["outputs"])] != old["outputs"]:
            wrong.append(f"{node_id}: outputs were {old['outputs']}, are {new['outputs']}")
    return wrong


def test_saved_workflows_still_fit(nodes: dict[str, dict[str, Any]], data: Path) -> None:
    """As recorded in tests/data/schema.json. What breaks a saved workflow cannot be recorded either."""
    file, found = data / "schema.json", schema(nodes)
    recorded = json.loads(file.read_text())
    assert broken(recorded, found) == []
    if os.environ.get("CNC_RENEW_SCHEMA"):
        file.write_text(json.dumps(found, indent=1) + "\n")
        recorded = found
    for node in (*found.values(), *recorded.values()):
        for one in node["inputs"]:
            one.pop("options", None)
    assert found == recorded, f"something is new since this was recorded; it breaks nothing, so record it: {RENEW}"


def _rename(inputs: list[dict[str, Any]], outputs: list[list[str]]) -> None:
    inputs[1]["id"] = "method"


def _remove(inputs: list[dict[str, Any]], outputs: list[list[str]]) -> None:
    del inputs[-1]


def _reorder(inputs: list[dict[str, Any]], outputs: list[list[str]]) -> None:
    inputs[4], inputs[5] = inputs[5], inputs[4]


def _insert_optional(inputs: list[dict[str, Any]], outputs: list[list[str]]) -> None:
    inputs.insert(2, {"id": "new", "type": "FLOAT", "required": False, "default": 0.0})


def _require(inputs: list[dict[str, Any]], outputs: list[list[str]]) -> None:
    next(one for one in inputs if not one["required"])["required"] = True


def _add_required(inputs: list[dict[str, Any]], outputs: list[list[str]]) -> None:
    inputs.append({"id": "new", "type": "FLOAT", "required": True, "default": 0.0})


def _change_type(inputs: list[dict[str, Any]], outputs: list[list[str]]) -> None:
    inputs[4]["type"] = "INT"


def _change_default(inputs: list[dict[str, Any]], outputs: list[list[str]]) -> None:
    inputs[4]["default"] = 1.0


def _lose_choice(inputs: list[dict[str, Any]], outputs: list[list[str]]) -> None:
    inputs[2]["options"].remove("v3")


def _insert_output(inputs: list[dict[str, Any]], outputs: list[list[str]]) -> None:
    outputs.insert(0, ["mask", "MASK"])


BREAKING = (
    *(_rename, _remove, _reorder, _insert_optional, _add_required, _require),
    *(_change_type, _change_default, _lose_choice, _insert_output),
)


@pytest.mark.parametrize("change", BREAKING)
def test_a_change_that_breaks_saved_workflows_is_refused(change: Callable[..., None], data: Path) -> None:
    recorded = json.loads((data / "schema.json").read_text())
    changed = copy.deepcopy(recorded)
    change(**changed["CnC_DepthMap"])
    assert broken(recorded, changed)


def test_a_lost_node_is_refused(data: Path) -> None:
    recorded = json.loads((data / "schema.json").read_text())
    changed = {name: node for name, node in recorded.items() if name != "CnC_DepthMap"}
    assert broken(recorded, changed) == ["CnC_DepthMap is gone"]


def test_what_breaks_nothing_is_accepted(data: Path) -> None:
    """A new node, a new choice, an optional input after all others, one less needed, an output after all others."""
    recorded = json.loads((data / "schema.json").read_text())
    changed = copy.deepcopy(recorded)
    changed["CnC_New"] = changed["CnC_LoadMini"]
    node = changed["CnC_DepthMap"]
    node["inputs"][1]["options"].append("newest.pt")
    node["inputs"].append({"id": "new", "type": "FLOAT", "required": False, "default": 0.0})
    node["outputs"].append(["more", "IMAGE"])
    changed["CnC_SoftGuidance"]["inputs"][0]["required"] = False
    assert broken(recorded, changed) == []
