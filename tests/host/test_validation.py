"""What comes to a node over a link or in a prompt by hand, which the host does not check: told by the input's name."""

from __future__ import annotations

import inspect
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from devtools.server import Server

from .conftest import Host

Prompt = dict[str, dict[str, Any]]
BY_NEWER_HOSTS = "Value not in list"
"""What a host says that checks a combo's choice by itself."""
NEVER = [math.nan, math.inf, -math.inf, None, [1.0], {"value": 1.0}]


def wrong_values(given: Any) -> list[Any]:
    """What an input must refuse, by what its schema says of it."""
    if hasattr(given, "min"):
        assert given.min is not None and given.max is not None, given.id
        whole = type(given.min) is int
        outside = [given.min - 1, given.max + 1, 10**400, -(10**400)]
        return [*NEVER, *outside, True, str(given.min), *([(given.min + given.max) / 2 + 0.1] if whole else [])]
    kind = given.get_io_type()
    by_type = {"BOOLEAN": [1, 0, "true"], "STRING": [1, True], "COMBO": [1, True]}
    if kind == "COMBO" and type(given).__name__ != "FileChoice":
        by_type["COMBO"].append(f"{given.options[0]} ")
    sockets = [1, 0.5, True, "picture", *(["a model", [], object()] if kind in ("IMAGE", "MASK") else [])]
    return [*(NEVER if kind in by_type else []), *by_type.get(kind, sockets)]


def test_every_input_of_every_node_refuses_what_its_schema_does_not_allow(host: Host) -> None:
    ours = [node for name, node in host.nodes.NODE_CLASS_MAPPINGS.items() if name.lstrip("_").startswith("CnC_")]
    nodes = [node for node in ours if not inspect.iscoroutinefunction(node.execute)]  # those take links, not values
    refused = 0
    for node in nodes:
        schema = node.GET_SCHEMA()
        for given in schema.inputs:
            for value in wrong_values(given):
                if value is None and given.optional:
                    continue
                entry = [value] if schema.is_input_list else value
                with pytest.raises(ValueError, match=rf"^{given.id} must be .*, got ") as told:
                    node.execute(**{given.id: entry})
                assert len(str(told.value)) < 400
                refused += 1
    assert len(nodes) >= 14 and refused > 300


SQUARE: Prompt = {
    "picture": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 255}},
    "mask": {"class_type": "SolidMask", "inputs": {"width": 32, "height": 32, "value": 1.0}},
}


def placed(**inputs: object) -> Prompt:
    given = {"background": ["picture", 0], "foreground": ["picture", 0], "mask": ["mask", 0]}
    given |= {"x": 0.5, "y": 0.5, "scale": 1.0, "rotation": 0.0, "flip": "none", **inputs}
    shown = {"class_type": "PreviewImage", "inputs": {"images": ["placed", 0]}}
    return SQUARE | {"placed": {"class_type": "CnC_PlaceLayer", "inputs": given}, "shown": shown}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("scale", 1e-9, "scale must be a number from 0.01 to 20, got 1e-09"),
        ("scale", 1e9, "scale must be a number from 0.01 to 20, got 1000000000.0"),
        ("x", 7.0, "x must be a number from -1 to 2, got 7.0"),
    ],
)
def test_a_linked_number_is_held_to_the_widgets_range(server: Server, name: str, value: float, words: str) -> None:
    number = {"class_type": "PrimitiveFloat", "inputs": {"value": value}}
    error = server.run({**placed(**{name: ["number", 0]}), "number": number}).error
    assert error is not None and words in error, error


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"flip": None}, f"flip must be none, horizontal or vertical, got None|{BY_NEWER_HOSTS}: flip"),
        ({"rotation": math.nan}, "rotation must be a number from -360 to 360, got nan"),
        ({"foreground": "picture.png"}, "foreground must be connected"),
        ({"mask": None}, "mask must be connected"),
    ],
)
def test_a_constant_that_the_host_lets_pass(server: Server, inputs: dict[str, object], words: str) -> None:
    error = server.run(placed(**inputs)).error
    assert error is not None and re.search(words, error), error


def lookup(class_type: str, **inputs: object) -> Prompt:
    node = {"class_type": class_type, "inputs": inputs}
    return SQUARE | {"node": node, "shown": {"class_type": "PreviewAny", "inputs": {"source": ["node", 0]}}}


@pytest.mark.parametrize("name", [None, 5, True, {"name": "fusers.safetensors"}])
def test_the_name_of_a_file_is_a_text(server: Server, name: object) -> None:
    error = server.run(lookup("CnC_LoadFusers", fusers_name=name)).error
    assert error is not None and "fusers_name must be the name of one of its choices, got" in error, error


@pytest.fixture
def odd_files(server: Server) -> Iterator[None]:
    """A file or folder of every kind of model that is none."""
    made = [server.models / name for name in ("cnc/odd.ckpt", "saliency/odd.pth", "inpaint/odd.pt")]
    for file in made:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"neither this nor that")
    depth = server.models / "depth_estimation" / "odd"
    depth.mkdir(parents=True, exist_ok=True)
    (depth / "config.json").write_text(json.dumps({"model_type": "dpt"}))
    save_file({}, depth / "model.safetensors")
    yield
    shutil.rmtree(depth)
    for file in made:
        file.unlink()


PICTURE: dict[str, object] = {"image": ["picture", 0], "preprocessing": "model"}


@pytest.mark.usefixtures("odd_files")
@pytest.mark.parametrize(
    ("named", "prompt"),
    [
        ("models/cnc/odd.ckpt", lookup("CnC_LoadFusers", fusers_name="odd.ckpt")),
        ("models/cnc", lookup("CnC_LoadFusers", fusers_name="missing.ckpt")),
        ("models/saliency/odd.pth", lookup("CnC_SalienceMap", estimator="odd.pth", **PICTURE)),
        ("models/saliency", lookup("CnC_SalienceMap", estimator="missing.pth", **PICTURE)),
        (
            "models/inpaint/odd.pt",
            lookup("CnC_InpaintBackground", image=["picture", 0], mask=["mask", 0], inpainter="odd.pt", dilation=0),
        ),
        (
            "models/depth_estimation/odd",
            lookup("CnC_DepthMap", estimator="odd", version="v1", clip_percent=0.0, invert=False, **PICTURE),
        ),
    ],
)
def test_errors_name_files_by_folder_and_name(server: Server, named: str, prompt: Prompt) -> None:
    """Who posts a workflow may be anyone: the console alone has the server's paths."""
    error = server.run(prompt).error
    assert error is not None and (named in error or BY_NEWER_HOSTS in error), error
    for path in (server.base, server.comfy, Path(__file__).parents[2], Path.home()):
        assert str(path) not in error and str(path.resolve()) not in error
    if "odd" in named:
        assert str(server.base / named) in server.log()
