"""Workflows saved by earlier versions, in the API format: they run as they are, and how that stays so.

`tests/data/workflows` has one of each release whose nodes differ from the last one's, with every node of it. None of
the files is ever changed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.demo import PICTURES, opened
from devtools.server import Server

from ..perception.sam2_files import write_sam2

SAVED = sorted((Path(__file__).parents[1] / "data" / "workflows").glob("*.json"))
ON_NEWER_HOSTS = {"from_a_document": "AddLayer"}
"""Workflows that an older host cannot run, and the node of the host's that it lacks."""


def ready(server: Server, root: Path) -> Server:
    """A server, not yet started, with the pictures and models that the saved workflows name."""
    for path in PICTURES.glob("*.png"):
        shutil.copy(path, server.input)
    (server.models / "cnc").mkdir()
    shutil.copy(root / "models" / "mini" / "fusers.safetensors", server.models / "cnc" / "cnc_mini.safetensors")
    write_sam2(server.models / "sam2" / "tiny")
    return server


def previews(prompt: dict[str, Any]) -> list[str]:
    return [key for key, node in prompt.items() if node["class_type"] == "PreviewImage"]


@pytest.fixture(scope="module")
def saved_server(comfy: Path, root: Path) -> Iterator[Server]:
    with ready(Server(comfy), root) as running:
        yield running


@pytest.mark.parametrize("file", SAVED, ids=lambda path: path.stem)
def test_a_saved_workflow_runs(saved_server: Server, file: Path) -> None:
    prompt = json.loads(file.read_text())
    if file.stem in ON_NEWER_HOSTS and ON_NEWER_HOSTS[file.stem] not in saved_server.object_info():
        pytest.skip(f"this host has no {ON_NEWER_HOSTS[file.stem]}")
    done = saved_server.run(prompt)
    assert done.error is None, done.error
    assert previews(prompt) and all(len(done.images(key)) == 1 for key in previews(prompt))


def test_every_node_is_in_a_saved_workflow(saved_server: Server) -> None:
    """A release with a new node adds a workflow with it."""
    saved = {node["class_type"] for file in SAVED for node in json.loads(file.read_text()).values()}
    assert {name for name in saved_server.object_info() if name.startswith("CnC_")} <= saved


def test_select_object_got_its_box_later(saved_server: Server) -> None:
    """The workflow from before has points alone, and means the same as one with an empty box."""
    prompt = json.loads(next(file for file in SAVED if "before_the_box" in file.name).read_text())
    (key,) = (key for key, node in prompt.items() if node["class_type"] == "CnC_SelectObject")
    assert "box" not in prompt[key]["inputs"]
    shown = previews(prompt)[0]
    before = opened(saved_server.run(prompt).images(shown)[0])
    prompt[key]["inputs"]["box"] = ""
    assert opened(saved_server.run(prompt).images(shown)[0]).tobytes() == before.tobytes()


@pytest.mark.parametrize(("needed", "words"), [("optional=True", None), ("optional=False", "missing: softness")])
def test_how_an_input_is_added(comfy: Path, root: Path, tmp_path: Path, needed: str, words: str | None) -> None:
    """A later version, made here, whose Refine Mask has one more: optional, old workflows run; required, none does."""
    pack = tmp_path / "pack"
    for name in ("nodes", "cnc_core"):
        shutil.copytree(root / name, pack / name, ignore=shutil.ignore_patterns("__pycache__"))
    (pack / "models").mkdir()
    (pack / "models" / "mini").symlink_to(root / "models" / "mini", target_is_directory=True)
    shutil.copy(root / "__init__.py", pack)
    source = pack / "nodes" / "masks.py"
    text, last, argument = source.read_text(), '"Swap inside and outside, after all else."),', "invert: bool,\n    )"
    assert text.count(last) == text.count(argument) == 1
    added = f'{last}\n                io.Float.Input("softness", default=0.0, {needed}),'
    source.write_text(
        text.replace(last, added).replace(argument, "invert: bool,\n        softness: float = 0.0,\n    )")
    )
    prompt = {
        "1": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 48}},
        "2": {"class_type": "CnC_RefineMask", "inputs": _refine(root)},
        "3": {"class_type": "MaskToImage", "inputs": {"mask": ["2", 0]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    with Server(comfy, pack=pack) as later:
        error = later.run(prompt).error
    assert error is None if words is None else words in str(error)


def _refine(root: Path) -> dict[str, Any]:
    """Refine Mask's inputs as the first release saved them, on another mask."""
    saved = json.loads((root / "tests" / "data" / "workflows" / "0.1.0.json").read_text())
    inputs = next(node["inputs"] for node in saved.values() if node["class_type"] == "CnC_RefineMask")
    return {**inputs, "mask": ["1", 0]}
