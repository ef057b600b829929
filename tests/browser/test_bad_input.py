"""What a page says of a workflow that cannot run: in words, on the screen, naming the node, the file, the value."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from devtools.environment import ROOT
from devtools.server import Server

from .editor import Editor

pytestmark = pytest.mark.slow


@pytest.fixture
def quick_start() -> dict[str, Any]:
    (path,) = (ROOT / "example_workflows").glob("01 *.json")
    workflow: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return workflow


def one(workflow: dict[str, Any], class_type: str) -> dict[str, Any]:
    node: dict[str, Any] = next(node for node in workflow["nodes"] if node["type"] == class_type)
    return node


def test_models_that_are_not_there(settings: dict[str, Any], server: Server, request: pytest.FixtureRequest) -> None:
    """Each file is named with the folder that it goes into, before anything is run."""
    settings["Comfy.Workflow.ShowMissingModelsWarning"] = True
    editor: Editor = request.getfixturevalue("editor")
    (path,) = (ROOT / "example_workflows").glob("02 *.json")
    editor.open_workflow(json.loads(path.read_text(encoding="utf-8")))
    editor.on_screen(r"Missing Models|\d+ issues found")
    editor.screenshot(f"missing models {editor.version}")
    editor.on_screen("checkpoints")
    editor.on_screen("v1-5-pruned-emaonly-fp16.safetensors")
    editor.screenshot(f"missing models in detail {editor.version}")


def test_a_run_with_a_model_that_is_not_there(editor: Editor) -> None:
    (path,) = (ROOT / "example_workflows").glob("08 *.json")
    editor.open_workflow(json.loads(path.read_text(encoding="utf-8")))
    editor.command_unawaited("Comfy.QueuePrompt")
    editor.on_screen("cnc_v1.ckpt")
    assert editor.starts() == 0
    editor.screenshot(f"run without models {editor.version}")


def test_a_node_of_a_pack_that_is_not_installed(editor: Editor, quick_start: dict[str, Any]) -> None:
    """It is named; ours beside it keep their values, and the workflow saves it again as it was."""
    stranger = {**copy.deepcopy(one(quick_start, "VAEDecode")), "id": 990, "type": "SomebodyElsesNode", "title": None}
    stranger |= {"inputs": [], "outputs": [], "pos": [0, 900], "properties": {}, "widgets_values": [7, "words"]}
    quick_start["nodes"].append(stranger)
    values = one(quick_start, "CnC_Compose")["widgets_values"]
    editor.open_workflow(quick_start)
    editor.on_screen("SomebodyElsesNode")
    editor.screenshot(f"absent pack {editor.version}")
    workflow = editor.workflow()
    assert one(workflow, "CnC_Compose")["widgets_values"] == values
    assert one(workflow, "SomebodyElsesNode")["widgets_values"] == [7, "words"]


def test_a_lambda_out_of_range(editor: Editor, quick_start: dict[str, Any]) -> None:
    """In a file: what the server refuses stands on the screen, with node, input and value."""
    node = one(quick_start, "CnC_Compose")
    node["widgets_values"][node["widgets_values"].index(1)] = 7
    editor.open_workflow(quick_start)
    editor.command_unawaited("Comfy.QueuePrompt")
    editor.on_screen(r"bigger than max of 2|above the maximum 2")
    editor.on_screen("lambda_fg")
    assert editor.starts() == 0
    editor.screenshot(f"lambda out of range {editor.version}")


def test_a_path_that_climbs_out(editor: Editor, quick_start: dict[str, Any]) -> None:
    """It is no choice of the list, so nothing is opened."""
    (editor.server.base / "secret.onnx").write_bytes(b"")
    node = one(quick_start, "CnC_Compose")
    node["widgets_values"][node["widgets_values"].index("mini")] = "../../secret.onnx"
    editor.open_workflow(quick_start)
    editor.command_unawaited("Comfy.QueuePrompt")
    editor.wait_for(lambda: editor.refused() or editor.failed(), "a refusal")
    editor.on_screen(r"secret\.onnx")
    editor.screenshot(f"climbing path {editor.version}")


def test_masks_that_do_not_fit(editor: Editor, quick_start: dict[str, Any]) -> None:
    """Three masks for two pictures: both numbers, and what to do, in the node's own words."""
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "cone.png"}},
        "2": {"class_type": "RepeatImageBatch", "inputs": {"image": ["1", 0], "amount": 2}},
        "3": {"class_type": "RepeatImageBatch", "inputs": {"image": ["1", 0], "amount": 3}},
        "4": {"class_type": "ImageToMask", "inputs": {"image": ["3", 0], "channel": "red"}},
        "5": {
            "class_type": "CnC_InpaintBackground",
            "inputs": {"image": ["2", 0], "mask": ["4", 0], "inpainter": "telea", "dilation": 50},
        },
        "6": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
    }
    editor.load(prompt, "CnC_InpaintBackground")
    editor.command_unawaited("Comfy.QueuePrompt")
    editor.wait_for(editor.failed, "the failure")
    editor.on_screen("image has 2 pictures and mask has 3, which do not go together")
    editor.screenshot(f"masks that do not fit {editor.version}")


def test_a_file_of_an_older_front_end(editor: Editor, quick_start: dict[str, Any]) -> None:
    """Its nodes name no widgets among their inputs, and a value that came later is not in it: the default is taken."""
    older = copy.deepcopy(quick_start)
    for node in older["nodes"]:
        node["inputs"] = [slot for slot in node.get("inputs", []) if "widget" not in slot]
    for link in older["links"]:
        target = next(node for node in older["nodes"] if node["id"] == link[3])
        link[4] = next(index for index, slot in enumerate(target["inputs"]) if slot["link"] == link[0])
    strength = one(older, "CnC_Compose")["widgets_values"].pop()
    editor.open_workflow(quick_start)
    exported = editor.api_format()
    editor.open_workflow(older)
    assert strength == 1 and editor.api_format() == exported
