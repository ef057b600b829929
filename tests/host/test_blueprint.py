"""The blueprints in `subgraphs/`: what the host lists, and each graph run on it, with the Mini for a model."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnc_core.perception import DILATION
from devtools.demo import PICTURES
from devtools.environment import ROOT
from devtools.saved import INPUTS, OUTPUTS, Prompt, flat, widgets
from devtools.server import Run, Server

NAMES = sorted(path.stem for path in (ROOT / "subgraphs").glob("*.json"))
NEWER = {"ImageScaleToTotalPixels": {"resolution_steps"}}
"""What newer hosts require and older ones, which leave it out, do not know."""
INPAINT, SPLIT, COMPOSE = "Inpaint Background with Stable Diffusion", "Split an Image into Layers", "Compose Two Layers"


def blueprint(name: str) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads((ROOT / "subgraphs" / f"{name}.json").read_text(encoding="utf-8"))
    return definition


def inner(definition: dict[str, Any]) -> dict[str, Any]:
    (subgraph,) = definition["definitions"]["subgraphs"]
    return subgraph


def used(name: str, given: dict[str, list[Any]], around: Prompt) -> tuple[Prompt, dict[str, list[Any]]]:
    """The blueprint among other nodes, in the API format, and the links of its outputs.

    given: a link to one of the nodes around it for each input that is to be connected.
    """
    workflow = copy.deepcopy(blueprint(name))
    (use,) = workflow["nodes"]
    for number, (node_id, _) in enumerate(given.values(), start=1000):
        if not any(node["id"] == node_id for node in workflow["nodes"]):
            workflow["nodes"].append({"id": node_id, "type": "stands for another", "inputs": []})
        name_of = list(given)[number - 1000]
        slot = next(slot for slot in use["inputs"] if slot["name"] == name_of)
        slot["link"] = number
        workflow["links"].append([number, *given[name_of], use["id"], use["inputs"].index(slot), slot["type"]])
    prompt = {key: node for key, node in flat(workflow).items() if node["class_type"] != "stands for another"}
    ends = {link["id"]: link for link in inner(workflow)["links"]}
    outputs = {}
    for output in inner(workflow)["outputs"]:
        end = ends[output["linkIds"][0]]
        outputs[output["name"]] = [f"{use['id']}:{end['origin_id']}", end["origin_slot"]]
    return {**prompt, **around}, outputs


def shown(run: Run, node: str) -> np.ndarray:
    """The first picture of a node, (H, W, 3), 0 to 255."""
    assert run.error is None, run.error
    return np.asarray(Image.open(io.BytesIO(run.images(node)[0])).convert("RGB")).astype(int)


@pytest.mark.parametrize("name", NAMES)
def test_the_host_offers_it(server: Server, name: str) -> None:
    found = {entry["name"]: key for key, entry in server.get("/global_subgraphs").items()}
    data = server.get(f"/global_subgraphs/{found[name]}")["data"]
    assert json.loads(data)["definitions"]["subgraphs"][0]["name"] == name


@pytest.mark.parametrize("name", NAMES)
def test_every_link_fits_the_hosts_nodes(server: Server, name: str) -> None:
    info = server.object_info()
    subgraph = inner(blueprint(name))
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    for node in subgraph["nodes"]:
        known = {**info[node["type"]]["input"]["required"], **info[node["type"]]["input"].get("optional", {})}
        assert {slot["name"] for slot in node["inputs"]} - set(known) <= NEWER.get(node["type"], set())
        assert set(info[node["type"]]["input"]["required"]) <= {slot["name"] for slot in node["inputs"]}
        assert [slot["type"] for slot in node["outputs"]] == info[node["type"]]["output"]
    for link in subgraph["links"]:
        if link["origin_id"] == INPUTS:
            assert link["id"] in subgraph["inputs"][link["origin_slot"]]["linkIds"]
        else:
            out = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert out["type"] == link["type"] and link["id"] in out["links"]
        if link["target_id"] != OUTPUTS:
            slot = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert slot["link"] == link["id"] and slot["type"] == link["type"]
    used = [link["id"] for link in subgraph["links"]]
    assert len(used) == len(set(used)) == subgraph["state"]["lastLinkId"]


def test_inpainting_is_the_releases_recipe() -> None:
    nodes = {node["type"]: widgets(node) for node in reversed(inner(blueprint(INPAINT))["nodes"])}
    assert nodes["CLIPTextEncode"]["text"] == "empty scenery, ultra detailed, no people"
    assert (nodes["KSampler"]["steps"], nodes["KSampler"]["cfg"], nodes["KSampler"]["denoise"]) == (25, 10.0, 1.0)
    assert nodes["ImageScaleToTotalPixels"]["megapixels"] * 1024**2 == 512**2
    assert nodes["GrowMask"] == {"expand": DILATION // 2, "tapered_corners": False}


def test_inpainting_runs_with_the_mini(server: Server) -> None:
    """CnC-Mini in Stable Diffusion's place, at its own size: the hole is drawn anew, and nothing else is."""
    picture = Image.open(PICTURES / "cone.png").convert("RGB").resize((144, 120))
    picture.save(server.input / "blueprint.png")
    hidden = np.zeros((120, 144), dtype=bool)
    hidden[40:80, 50:90] = True
    alpha = np.where(hidden, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack((np.asarray(picture), alpha))).save(server.input / "blueprint_mask.png")
    around = {
        "100": {"class_type": "LoadImage", "inputs": {"image": "blueprint.png"}},
        "101": {"class_type": "LoadImage", "inputs": {"image": "blueprint_mask.png"}},
    }
    prompt, outputs = used(INPAINT, {"image": [100, 0], "mask": [101, 1]}, around)
    for entry in prompt.values():
        if entry["class_type"] == "CheckpointLoaderSimple":
            entry.update(class_type="CnC_LoadMini", inputs={})  # it, too, gives model, clip and vae
        if entry["class_type"] == "ImageScaleToTotalPixels":
            entry["inputs"]["megapixels"] = 128**2 / 1024**2
        if entry["class_type"] == "GrowMask":
            entry["inputs"]["expand"] = 6
    saved = {"images": outputs["IMAGE"], "filename_prefix": "blueprint"}
    filled = shown(server.run({**prompt, "102": {"class_type": "SaveImage", "inputs": saved}}), "102")
    before = np.asarray(picture).astype(int)
    near = np.zeros_like(hidden)
    near[30:90, 40:100] = True  # 6 pixels at the working size, and a bit for rounding
    np.testing.assert_array_equal(filled[~near], before[~near])
    assert (np.abs(filled - before).sum(axis=-1)[hidden] > 3).mean() > 0.9


def test_splitting_gives_both_layers_and_their_depths(server: Server) -> None:
    """The object on black, the picture without it, and a depth map of each, as the nodes one by one give them."""
    (server.input / "cone.png").write_bytes((PICTURES / "cone.png").read_bytes())
    around = {"100": {"class_type": "LoadImage", "inputs": {"image": "cone.png"}}}
    prompt, outputs = used(SPLIT, {"image": [100, 0]}, around)
    kept = {}
    for name, link in outputs.items():
        if name == "mask":
            prompt["mask"] = {"class_type": "MaskToImage", "inputs": {"mask": link}}
            link = ["mask", 0]
        prompt[f"{name} shown"] = {"class_type": "PreviewImage", "inputs": {"images": link}}
    run = server.run(prompt)
    kept = {name: shown(run, f"{name} shown") for name in outputs}
    picture = np.asarray(Image.open(PICTURES / "cone.png").convert("RGB")).astype(int)
    mask = kept["mask"][..., 0] > 127
    assert 0.05 < mask.mean() < 0.3
    np.testing.assert_array_equal(kept["foreground"], picture * mask[..., None])
    assert np.abs(kept["background"] - picture)[mask].mean() > 50
    assert kept["fg_depth"][~mask].mean() < 10 < 100 < kept["fg_depth"][mask].mean()
    below = slice(100, None)
    assert kept["bg_depth"][below].mean() > kept["bg_depth"][:30].mean()  # the ground is nearer than the sky


def test_two_layers_are_composed_as_compose_does(server: Server) -> None:
    """The same picture, to the bit, as by the one node."""
    for name in ("cone", "cube", "fg_style", "bg_style"):
        (server.input / f"{name}.png").write_bytes((PICTURES / f"{name}.png").read_bytes())
    pictures = {"foreground": "cone", "background": "cube", "fg_style": "fg_style", "bg_style": "bg_style"}
    around: Prompt = {
        "100": {"class_type": "CnC_LoadMini", "inputs": {}},
        "101": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["100", 1], "text": ""}},
        "102": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
    }
    links: dict[str, list[Any]] = {"model": [100, 0], "clip_vision": [100, 3], "fusers": [100, 4]}
    links |= {"positive": [101, 0], "negative": [101, 0]}
    for number, (slot, file) in enumerate(pictures.items(), start=110):
        around[str(number)] = {"class_type": "LoadImage", "inputs": {"image": f"{file}.png"}}
        links[slot] = [number, 0]
    prompt, outputs = used(COMPOSE, links, around)
    whole = {slot: [str(node), place] for slot, (node, place) in links.items()}
    values = {"saliency": "mini", "inpainter": "telea", "depth": "mini"}
    strengths = {"lambda_fg": 1.0, "lambda_bg": 1.0, "strength": 1.0}
    prompt["one node"] = {"class_type": "CnC_Compose", "inputs": {**whole, **values, **strengths}}
    ends = {"parts": [outputs[name] for name in ("model", "positive", "negative")]}
    ends["whole"] = [["one node", place] for place in range(3)]
    for name, (model, positive, negative) in ends.items():
        sampled = {"model": model, "positive": positive, "negative": negative, "latent_image": ["102", 0], "seed": 3}
        sampled |= {"steps": 2, "cfg": 1.5, "sampler_name": "ddim", "scheduler": "ddim_uniform", "denoise": 1.0}
        prompt[f"{name} sampled"] = {"class_type": "KSampler", "inputs": sampled}
        decoded = {"samples": [f"{name} sampled", 0], "vae": ["100", 2]}
        prompt[f"{name} decoded"] = {"class_type": "VAEDecode", "inputs": decoded}
        prompt[name] = {"class_type": "PreviewImage", "inputs": {"images": [f"{name} decoded", 0]}}
    run = server.run(prompt)
    parts, one = shown(run, "parts"), shown(run, "whole")
    assert parts.std() > 10
    np.testing.assert_array_equal(parts, one)
