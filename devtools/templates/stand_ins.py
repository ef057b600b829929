"""CnC-Mini, and small made-up files, in the place of what a workflow for Stable Diffusion 1.5 loads.

So every workflow can be run with no download and no GPU. The graph stays as it is: loaders are exchanged, sizes,
steps and guidance set to what the Mini is for, and estimators to those that come with the pack.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..environment import ROOT
from ..saved import Prompt
from ..server import Server
from .parts import BASE, CLIP_VISION, FUSERS, QUALITY
from .workflows import LORA

PACK = Path(__file__).with_name("stand_in_pack")
SIDE = 128
"""What the Mini was trained at; a workflow's 512 stands for it."""

LOADERS = {
    # Each class: its outputs' places in Load CnC-Mini's.
    "CheckpointLoaderSimple": {0: 0, 1: 1, 2: 2},
    "CLIPVisionLoader": {0: 3},
    "CnC_LoadFusers": {0: 4},
}
FILES = {"ckpt_name": BASE.name, "clip_name": CLIP_VISION.name, "fusers_name": FUSERS.name}
ESTIMATORS = {
    "CnC_Compose": {"saliency": "mini", "depth": "mini", "inpainter": "telea"},
    "CnC_SalientMask": {"estimator": "mini"},
    "CnC_DepthMap": {"estimator": "mini"},
}
SIZED = ("EmptyLatentImage", "ImageScale")


def stand_ins(prompt: Mapping[str, Mapping[str, Any]], steps: int = 20) -> Prompt:
    """The same graph with CnC-Mini in Stable Diffusion's place; `steps` at most in each sampler.

    Raises ValueError for a file that a loader names and the templates do not speak of.
    """
    changed: Prompt = copy.deepcopy({key: dict(node) for key, node in prompt.items()})
    moved = {key: LOADERS[node["class_type"]] for key, node in changed.items() if node["class_type"] in LOADERS}
    for key, node in changed.items():
        kind, inputs = node["class_type"], node["inputs"]
        if kind in LOADERS:
            for name, value in inputs.items():
                if value != FILES[name]:
                    raise ValueError(f"{kind} {key} loads {value}, which the templates' notes do not name")
            node.update(class_type="CnC_LoadMini", inputs={})
            continue
        inputs.update(ESTIMATORS.get(kind, {}))
        if kind == "KSampler":
            inputs.update(steps=min(steps, inputs["steps"]), cfg=1.5 if moved else inputs["cfg"])
        if kind in SIZED and moved:
            inputs.update(width=SIDE, height=SIDE)
        if kind == "CLIPTextEncode" and moved:
            # It knows some 60 words, and each other one is the same word to it.
            inputs["text"] = inputs["text"].removesuffix(QUALITY) if QUALITY in inputs["text"] else ""
        if kind == "ControlNetLoader":
            node.update(class_type="TestControlNet", inputs={"model": [next(iter(moved)), 0]})
        for name, value in inputs.items():
            if isinstance(value, list) and value[0] in moved:
                inputs[name] = [value[0], moved[value[0]][value[1]]]
    return changed


def provide(server: Server) -> None:
    """Give a server, before it is started, what `stand_ins` names beside the Mini."""
    shutil.copytree(PACK, server.base / "custom_nodes" / PACK.name)
    (server.models / "loras").mkdir(exist_ok=True)
    save_lora(server.models / "loras" / LORA)


def save_lora(path: Path) -> None:
    """Write a LoRA of the Mini's own cross-attention: small made-up weights, the same each time."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    rank, state = 2, {}
    with safe_open(ROOT / "models" / "mini" / "unet.safetensors", framework="pt") as unet:
        for name in unet.keys():
            if not name.endswith(("attn2.to_q.weight", "attn2.to_v.weight")):
                continue
            rows, columns = unet.get_slice(name).get_shape()
            key = "lora_unet_" + name.removeprefix("model.diffusion_model.").removesuffix(".weight").replace(".", "_")
            state[f"{key}.lora_down.weight"] = torch.randn(rank, columns, generator=generator) / columns**0.5
            state[f"{key}.lora_up.weight"] = torch.randn(rows, rank, generator=generator) / rank**0.5
            state[f"{key}.alpha"] = torch.tensor(float(rank))
    save_file(state, path)
