"""A real server without the optional packages: each node that needs one says which, and the rest goes on."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from devtools.server import Server

from ..perception import onnx_files, salience_files
from ..perception.models import make_dpt, make_midas
from ..perception.sam2_files import write_sam2
from .conftest import Host

Prompt = dict[str, dict[str, object]]


@pytest.fixture(scope="module")
def bare(comfy: Path) -> Iterator[Server]:
    """A server with models of all kinds and none of the packages that run them."""
    server = Server(comfy)
    shutil.copytree(Path(__file__).with_name("lacking_pack"), server.base / "custom_nodes" / "lacking_pack")
    pixels = np.zeros((64, 96, 4), np.uint8)
    pixels[20:40, 30:60] = (220, 30, 20, 255)
    Image.fromarray(pixels).save(server.input / "square.png")
    salience_files.isnet(server.models / "saliency" / "isnet.onnx")
    onnx_files.migan_pipeline(server.models / "inpaint" / "migan.onnx")
    save_file({"a": torch.zeros(2)}, server.models / "inpaint" / "big-lama.safetensors")
    make_dpt(server.models / "depth_estimation" / "dpt")
    make_midas(server.models / "depth_estimation" / "midas_v21_small_256.pt")
    write_sam2(server.models / "sam2" / "tiny")
    with server as running:
        yield running


def prompt(class_type: str, *, mask: bool = False, **inputs: object) -> Prompt:
    """A picture, what a node makes of it and (given a mask to work with) of its mask, and a look at that."""
    given = {"image": ["1", 0], **inputs, **({"mask": ["2", 0]} if mask else {})}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "square.png"}},
        "2": {"class_type": "InvertMask", "inputs": {"mask": ["1", 1]}},
        "3": {"class_type": class_type, "inputs": given},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}},
    }


def salience(estimator: str) -> Prompt:
    return prompt("CnC_SalienceMap", estimator=estimator, preprocessing="model")


def depth(estimator: str) -> Prompt:
    options = {"version": "v1", "preprocessing": "model", "clip_percent": 0.0, "invert": False}
    return prompt("CnC_DepthMap", estimator=estimator, **options)


def inpainting(inpainter: str) -> Prompt:
    return prompt("CnC_InpaintBackground", mask=True, inpainter=inpainter, dilation=0)


@pytest.mark.parametrize(
    ("posted", "package"),
    [
        (salience("isnet.onnx"), "onnxruntime"),
        (inpainting("migan.onnx"), "onnxruntime"),
        (inpainting("big-lama.safetensors"), "spandrel"),
        (inpainting("telea"), "opencv-python"),
        (depth("dpt"), "transformers"),
        (depth("midas_v21_small_256.pt"), "timm"),
        (prompt("CnC_SelectObject", estimator="tiny", points="40,30"), "transformers"),
    ],
)
def test_what_lacks_is_told_with_the_command_that_brings_it(bare: Server, posted: Prompt, package: str) -> None:
    error = bare.run(posted).error
    assert error is not None
    assert re.search(rf"`python -m pip install (-U )?{package}\b", error), error
    assert sys.executable not in error and sys.executable in bare.log()


@pytest.mark.parametrize("posted", [salience("mini"), depth("mini"), depth("mask-and-ground-plane")])
def test_what_needs_none_of_it_works(bare: Server, posted: Prompt) -> None:
    run = bare.run(posted)
    assert run.error is None and "4" in run.outputs


@pytest.mark.parametrize("name", ["compose-and-conquer", "compose and conquer"])
def test_a_command_of_the_pack_is_shown_without_the_machines_paths(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Quoted in the folder of ComfyUI, it is one that runs; the console has it with its whole paths."""
    folders, lines = host.pack.part("nodes.host.folders"), host.pack.part("cnc_core.command_lines")
    script = tmp_path / "my ComfyUI" / "custom_nodes" / name / "cnc.py"
    monkeypatch.setattr(folders, "PACK", script.parent)
    monkeypatch.setattr(folders, "SCRIPT", script)
    shown = folders.without_server_paths(f"get it by `{lines.command_line(str(script), 'fetch', 'isnet')}`")
    assert shown == f"get it by `python {lines.quoted(f'custom_nodes/{name}/cnc.py')} fetch isnet`"
