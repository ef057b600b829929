"""Pictures and masks in half precision, as `--fp16-intermediates` of newer hosts makes them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from devtools.demo import PICTURES
from devtools.server import Server

from .conftest import Host
from .layer_prompts import SHAPES, layered, node, sampled

NODES = [
    f"CnC_{name}" for name in ("SalienceMap", "RefineMask", "InpaintBackground", "PlaceLayer", "DepthMap", "MoveLayer")
]


@pytest.mark.parametrize("name", NODES)
def test_a_node_takes_them_as_the_same_numbers_in_single_precision(host: Host, name: str) -> None:
    """To the bit."""
    made = host.nodes.NODE_CLASS_MAPPINGS[name]
    images, plain = {}, {}
    mask = torch.zeros(1, 48, 64)
    mask[:, 12:40, 20:44] = torch.rand(28, 24) / 2 + 0.5
    for given in made.GET_SCHEMA().inputs:
        if given.get_io_type() in ("IMAGE", "MASK"):
            images[given.id] = (mask if given.get_io_type() == "MASK" else torch.rand(1, 48, 64, 3)).half()
        elif given.get_io_type() == "COMBO":
            plain[given.id] = given.default or given.options[0]
        else:
            plain[given.id] = given.default
    with torch.inference_mode():
        half = made.execute(**images, **plain).args
        single = made.execute(**{key: image.float() for key, image in images.items()}, **plain).args
    for ours, expected in zip(half, single, strict=True):
        torch.testing.assert_close(ours, expected, atol=0, rtol=0)


def test_a_server_whose_pictures_are_all_in_half_precision(host: Host, comfy: Path) -> None:
    from comfy.cli_args import args

    if not hasattr(args, "fp16_intermediates"):
        pytest.skip("this ComfyUI keeps pictures in single precision")
    server = Server(comfy, extra_args=("--cpu", "--fp16-intermediates"), env={"OMP_NUM_THREADS": "1"})
    for path in PICTURES.glob("*.png"):
        shutil.copy(path, server.input)
    inputs: dict[str, Any] = layered(SHAPES)["compose"]["inputs"]
    inputs = {name: value for name, value in inputs.items() if name != "layers"}
    composed = sampled("compose")
    composed["cone"] = node("LoadImage", image="cone.png")
    # Without exemplars: the host's own CLIP Vision Encode takes no such picture on a CPU.
    composed["compose"] = node(
        "CnC_Compose", foreground=["cone", 0], inpainter="telea", lambda_fg=1.0, lambda_bg=1.0, **inputs
    )
    composed["split"] = node(
        "CnC_SplitLayers", image=["cone", 0], saliency="mini", inpainter="telea", threshold=0.5, dilation=50
    )
    composed["seen"] = node("PreviewImage", images=["split", 1])
    with server:
        for prompt in (composed, layered(SHAPES)):
            run = server.run(prompt)
            assert run.error is None, run.error
