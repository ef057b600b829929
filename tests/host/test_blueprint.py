"""The blueprint of Stable Diffusion inpainting: what the host lists, and the same graph run with the Mini."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnc_core.perception import DILATION
from devtools.demo import PICTURES
from devtools.server import Server

NAME = "Inpaint Background with Stable Diffusion"
INPUT_NODE, OUTPUT_NODE = -10, -20
Prompt = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def blueprint(root: Path) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads((root / "subgraphs" / f"{NAME}.json").read_text(encoding="utf-8"))
    return definition


def inner(blueprint: dict[str, Any]) -> dict[str, Any]:
    (subgraph,) = blueprint["definitions"]["subgraphs"]
    return subgraph


def widgets(node: dict[str, Any]) -> dict[str, Any]:
    """A node's values by name; a seed is followed by what the front end does with it after a run."""
    values = iter(node["widgets_values"])
    named = {}
    for slot in node["inputs"]:
        if "widget" in slot:
            named[slot["name"]] = next(values)
            if slot["name"] == "seed":
                assert next(values) == "fixed"
    assert next(values, None) is None
    return named


def flat(blueprint: dict[str, Any], given: dict[str, Any]) -> tuple[Prompt, list[Any]]:
    """The subgraph in the API format, with values or links for its inputs, and the link of its output."""
    subgraph = inner(blueprint)
    links = {link["id"]: link for link in subgraph["links"]}
    names = [entry["name"] for entry in subgraph["inputs"]]
    prompt: Prompt = {}
    for node in subgraph["nodes"]:
        inputs = widgets(node)
        for slot in node["inputs"]:
            if slot["link"] is None:
                continue
            link = links[slot["link"]]
            if link["origin_id"] != INPUT_NODE:
                inputs[slot["name"]] = [str(link["origin_id"]), link["origin_slot"]]
            elif names[link["origin_slot"]] in given:
                inputs[slot["name"]] = given[names[link["origin_slot"]]]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    (end,) = (link for link in subgraph["links"] if link["target_id"] == OUTPUT_NODE)
    return prompt, [str(end["origin_id"]), end["origin_slot"]]


def test_the_host_offers_it(server: Server) -> None:
    found = {entry["name"]: key for key, entry in server.get("/global_subgraphs").items()}
    data = server.get(f"/global_subgraphs/{found[NAME]}")["data"]
    assert json.loads(data)["definitions"]["subgraphs"][0]["name"] == NAME


def test_every_link_fits_the_hosts_nodes(server: Server, blueprint: dict[str, Any]) -> None:
    info = server.object_info()
    subgraph = inner(blueprint)
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    for node in subgraph["nodes"]:
        known = {**info[node["type"]]["input"]["required"], **info[node["type"]]["input"].get("optional", {})}
        assert {slot["name"] for slot in node["inputs"]} == set(known)
        assert [slot["type"] for slot in node["outputs"]] == info[node["type"]]["output"]
    for link in subgraph["links"]:
        if link["origin_id"] == INPUT_NODE:
            assert link["id"] in subgraph["inputs"][link["origin_slot"]]["linkIds"]
        else:
            out = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert out["type"] == link["type"] and link["id"] in out["links"]
        if link["target_id"] != OUTPUT_NODE:
            slot = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert slot["link"] == link["id"] and slot["type"] == link["type"]
    used = [link["id"] for link in subgraph["links"]]
    assert len(used) == len(set(used)) == subgraph["state"]["lastLinkId"]


def test_it_is_the_releases_recipe(blueprint: dict[str, Any]) -> None:
    nodes = {node["type"]: widgets(node) for node in reversed(inner(blueprint)["nodes"])}
    assert nodes["CLIPTextEncode"]["text"] == "empty scenery, ultra detailed, no people"
    assert (nodes["KSampler"]["steps"], nodes["KSampler"]["cfg"], nodes["KSampler"]["denoise"]) == (25, 10.0, 1.0)
    assert nodes["ImageScaleToTotalPixels"]["megapixels"] * 1024**2 == 512**2
    assert nodes["GrowMask"] == {"expand": DILATION // 2, "tapered_corners": False}


def test_the_same_graph_runs_with_the_mini(server: Server, blueprint: dict[str, Any]) -> None:
    """CnC-Mini in Stable Diffusion's place, at its own size: the hole is drawn anew, and nothing else is."""
    picture = Image.open(PICTURES / "cone.png").convert("RGB").resize((144, 120))
    picture.save(server.input / "blueprint.png")
    hidden = np.zeros((120, 144), dtype=bool)
    hidden[40:80, 50:90] = True
    alpha = np.where(hidden, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack((np.asarray(picture), alpha))).save(server.input / "blueprint_mask.png")
    given = {"image": ["100", 0], "mask": ["101", 1], "ckpt_name": "none", "seed": 3, "expand": 6}
    prompt, output = flat(blueprint, given)
    for entry in prompt.values():
        if entry["class_type"] == "CheckpointLoaderSimple":
            entry.update(class_type="CnC_LoadMini", inputs={})  # it, too, gives model, clip and vae
        if entry["class_type"] == "ImageScaleToTotalPixels":
            entry["inputs"]["megapixels"] = 128**2 / 1024**2
    prompt["100"] = {"class_type": "LoadImage", "inputs": {"image": "blueprint.png"}}
    prompt["101"] = {"class_type": "LoadImage", "inputs": {"image": "blueprint_mask.png"}}
    prompt["102"] = {"class_type": "SaveImage", "inputs": {"images": output, "filename_prefix": "blueprint"}}
    run = server.run(prompt)
    assert run.error is None, run.error
    filled = np.asarray(Image.open(io.BytesIO(run.images("102")[0])).convert("RGB")).astype(int)
    before = np.asarray(picture).astype(int)
    near = np.zeros_like(hidden)
    near[30:90, 40:100] = True  # 6 pixels at the working size, and a bit for rounding
    np.testing.assert_array_equal(filled[~near], before[~near])
    assert (np.abs(filled - before).sum(axis=-1)[hidden] > 3).mean() > 0.9
