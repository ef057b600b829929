"""The workflows in `example_workflows/`: tidy, explained, offered by the host, and each run on it.

Those for Stable Diffusion 1.5 run with CnC-Mini in its place (devtools/templates/stand_ins.py).
"""

from __future__ import annotations

import io
import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from devtools.environment import ROOT
from devtools.saved import NOTES, Prompt, flat, widgets
from devtools.server import Run, Server
from devtools.templates import stand_ins
from devtools.templates.drawing import FOLDER, provide
from devtools.workflow import Workflow

FILES = sorted((ROOT / "example_workflows").glob("*.json"))
NAMES = [path.stem for path in FILES]
TITLE = 30  # pixels of a node's title, which is above its position
MINI = ("01", "04", "06", "07", "11")
"""Those that need no download."""

RESULTS = {"07": 2, "11": len(FOLDER)}
SIDES = {"06": 3 * 128 + 2 * 4, "10": 192}


def saved(name: str) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    return workflow


def number(name: str) -> str:
    return name.partition(" ")[0]


@pytest.fixture(scope="module")
def stage(comfy: Path) -> Iterator[Server]:
    """A server with the templates' pictures and what stands in for what they load."""
    server = Server(comfy)
    stand_ins.provide(server)
    with server:
        provide(server)
        yield server


def results(run: Run, prompt: Prompt) -> list[np.ndarray]:
    """What was saved, (H, W, 3), 0 to 255."""
    assert run.error is None, run.error
    files = [data for key, node in prompt.items() if node["class_type"] == "SaveImage" for data in run.images(key)]
    return [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) for data in files]


def test_there_is_one_for_each_use() -> None:
    assert [number(name) for name in NAMES] == [f"{index:02}" for index in range(1, 12)]


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(stage: Server, name: str) -> None:
    """As it is, or with the Mini in the place of Stable Diffusion; in few steps."""
    prompt = stand_ins.stand_ins(flat(saved(name)), steps=3)
    if number(name) in MINI:
        whole = flat(saved(name))
        changed = {key for key in whole if prompt[key] != whole[key]}
        assert {prompt[key]["class_type"] for key in changed} <= {"KSampler"}  # the steps
    pictures = results(stage.run(prompt), prompt)
    side = SIDES.get(number(name), 128)
    assert [picture.shape for picture in pictures] == [(side, side, 3)] * RESULTS.get(number(name), 1)
    for picture in pictures:
        assert picture.std() > 10
    for one, other in combinations(pictures, 2):
        assert np.abs(one - other).mean() > 1
    if number(name) == "06":
        check_grid(pictures[0])


def check_grid(table: np.ndarray) -> None:
    """Every cell is a picture of its own, with white between the rows."""
    cells = [table[row : row + 128, column : column + 128] for row in (0, 132, 264) for column in (0, 132, 264)]
    for one, other in combinations(cells, 2):
        assert np.abs(one - other).mean() > 0.2
    assert {tuple(pixel) for pixel in table[128:132].reshape(-1, 3)} == {(255, 255, 255)}


@pytest.mark.parametrize(
    ("name", "class_type", "weights"),
    [
        ("08 With a LoRA", "LoraLoader", ("strength_model", "strength_clip")),
        ("09 Beside another ControlNet", "ControlNetApplyAdvanced", ("strength",)),
        ("09 Beside another ControlNet", "CnC_Compose", ("strength",)),
        ("10 Hires fix", "CnC_Compose", ("strength",)),
    ],
)
def test_what_a_template_joins_acts(stage: Server, name: str, class_type: str, weights: tuple[str, ...]) -> None:
    """The LoRA, the other ControlNet, and the depth maps beside it: without one the picture is another."""
    prompt = stand_ins.stand_ins(flat(saved(name)), steps=3)
    (joined,) = results(stage.run(prompt), prompt)
    (node,) = [one for one in prompt.values() if one["class_type"] == class_type]
    node["inputs"].update(dict.fromkeys(weights, 0.0))
    (without,) = results(stage.run(prompt), prompt)
    assert np.abs(joined - without).mean() > 0.2


def test_only_the_object_is_restyled(stage: Server) -> None:
    """All else is the picture that was given, to the bit."""
    prompt = stand_ins.stand_ins(flat(saved("05 One object restyled")), steps=3)
    given = next(key for key, node in prompt.items() if node["class_type"] == "ImageScale")
    prompt["given"] = {"class_type": "SaveImage", "inputs": {"images": [given, 0], "filename_prefix": "given"}}
    restyled, before = results(stage.run(prompt), prompt)
    changed = np.abs(restyled - before).sum(axis=-1) > 0
    assert 0.05 < changed.mean() < 0.4


@pytest.mark.parametrize("name", NAMES)
def test_every_node_and_input_is_known(stage: Server, name: str) -> None:
    info = stage.object_info()
    for node in flat(saved(name)).values():
        known = info[node["class_type"]]["input"]
        assert set(known["required"]) <= set(node["inputs"]) <= {*known["required"], *known.get("optional", {})}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_tidy(name: str) -> None:
    """No node lies over another one, each is in a titled group, and no group lies over another one."""
    workflow = saved(name)
    boxes = [(*node["pos"], *node["size"]) for node in workflow["nodes"]]
    titled = [(x, y - TITLE, width, height + TITLE) for x, y, width, height in boxes]
    groups = [group["bounding"] for group in workflow["groups"]]
    assert not any(overlap(one, other) for one, other in combinations(titled, 2))
    assert not any(overlap(one, other) for one, other in combinations(groups, 2))
    for box in titled:
        assert sum(inside(box, group) for group in groups) == 1
    assert all(group["title"] for group in workflow["groups"])


def overlap(one: Any, other: Any) -> bool:
    apart = (one[axis] + one[axis + 2] <= other[axis] or other[axis] + other[axis + 2] <= one[axis] for axis in (0, 1))
    return not any(apart)


def inside(box: Any, group: Any) -> bool:
    return all(
        group[axis] <= box[axis] and box[axis] + box[axis + 2] <= group[axis] + group[axis + 2] for axis in (0, 1)
    )


LOADED = {
    # What names a file: the class, the input, the folder that it is looked for in.
    "CheckpointLoaderSimple": ("ckpt_name", "checkpoints"),
    "CLIPVisionLoader": ("clip_name", "clip_vision"),
    "CnC_LoadFusers": ("fusers_name", "cnc"),
    "ControlNetLoader": ("control_net_name", "controlnet"),
    "LoraLoader": ("lora_name", "loras"),
}
FETCHED = {"isnet.onnx": "isnet", "u2net.onnx": "u2net-onnx", "dpt-large": "dpt-large"}
FETCHED |= {"Depth-Anything-V2-Small-hf": "depth-anything-v2-small"}


@pytest.mark.parametrize("name", NAMES)
def test_its_note_names_the_models_and_where_they_go(stage: Server, name: str) -> None:
    workflow = saved(name)
    (note,) = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] in NOTES]
    assert "## Models" in note
    assert bool(re.search(r"None to get[.:] CnC-Mini comes with the pack", note)) == (number(name) in MINI)
    folders = stage.get("/models")
    for node in (node for node in workflow["nodes"] if node["type"] not in NOTES):
        values = widgets(node)
        if node["type"] in LOADED:
            given, folder = LOADED[node["type"]]
            assert folder in folders and f"`{folder}`" in note.replace("`models/", "`")
            if node["type"] != "LoraLoader":  # that one is the user's own
                assert values[given] in note
            for model in node["properties"].get("models", []):
                assert model["name"] == values[given] and model["directory"] == folder
                assert model["url"].startswith("https://huggingface.co/") and model["url"] in note
        for choice in values.values():
            if choice in FETCHED:
                assert f"python cnc.py fetch {FETCHED[choice]}`" in note


def test_the_host_offers_them_with_their_thumbnails(stage: Server) -> None:
    (offered,) = [names for pack, names in stage.get("/workflow_templates").items() if pack == "compose-and-conquer"]
    assert sorted(offered) == NAMES
    for name in NAMES:
        place = f"{stage.url}/api/workflow_templates/compose-and-conquer/{urllib.parse.quote(name)}"
        with urllib.request.urlopen(f"{place}.jpg", timeout=30) as reply, Image.open(reply) as picture:
            assert picture.format == "JPEG" and picture.size == (512, 512)
        with urllib.request.urlopen(f"{place}.json", timeout=30) as reply:
            assert json.load(reply) == saved(name)


@pytest.mark.parametrize("class_type", ["CnC_Compose", "CnC_SalientMask", "CnC_SplitLayers"])
def test_a_list_is_refused_by_a_node_that_expands(stage: Server, class_type: str) -> None:
    """In words that name the input; a list of one is one."""
    flow = Workflow(stage.object_info())
    source = flow.add("LoadImageDataSetFromFolder", folder="cnc_pictures")
    slot = "foreground" if class_type == "CnC_Compose" else "image"
    given: dict[str, Any] = {slot: source.out(), "saliency": "mini", "depth": "mini", "estimator": "mini"}
    if class_type == "CnC_Compose":
        mini = flow.add("CnC_LoadMini")
        text = flow.add("CLIPTextEncode", clip=mini.out("clip"), text="")
        given |= {name: mini.out(name) for name in ("model", "fusers", "clip_vision")}
        given |= {"positive": text.out(), "negative": text.out()}
    known = stage.object_info()[class_type]["input"]
    chosen = {name: value for name, value in given.items() if name in {*known["required"], *known.get("optional", {})}}
    added = flow.add(class_type, **chosen)
    flow.add("PreviewImage", images=flow.add("MaskToImage", mask=added.out("mask")).out())
    error = stage.run(flow.prompt).error
    assert error is not None and f"{slot}: got a list of 3, and this node takes one picture or one batch" in error
    joined = flow.add("RebatchImages", images=source.out(), batch_size=3)
    flow.prompt[added.id]["inputs"][slot] = joined.out()
    assert stage.run(flow.prompt).error is None
