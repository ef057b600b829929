"""What is measured against each other: a full-size Stable Diffusion 1.5 with made-up weights, and what steers it.

Import this once ComfyUI is in the process (devtools.inprocess). Weights are noise of the right variance: time
and memory do not depend on their values, as long as none is denormal or infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.cldm.cldm
import comfy.clip_vision
import comfy.controlnet
import comfy.model_detection
import comfy.model_management as memory
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

import nodes as host_nodes
from devtools.inprocess import LoadedPack

UNET: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "num_heads": 8,
    "num_head_channels": -1,
    "context_dim": 768,
    "adm_in_channels": None,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "use_temporal_attention": False,
    "legacy": False,
}
"""Stable Diffusion 1.5's U-Net in the host's terms."""

Conditioning = list[list[Any]]


@dataclass(frozen=True)
class Contender:
    """A model and its conditionings, as they reach a sampler."""

    name: str
    model: ModelPatcher
    positive: Conditioning
    negative: Conditioning


@dataclass(frozen=True)
class Pictures:
    """What an artist would give: depth maps and mask of a size, two embedded exemplars, text; all made up."""

    depths: tuple[Tensor, Tensor]
    mask: Tensor
    styles: tuple[Any, Any]
    positive: Conditioning
    negative: Conditioning


def pictures(size: int) -> Pictures:
    """Make them for size x size pixels."""
    rows = torch.linspace(-1, 1, size)
    distance = (rows[:, None] ** 2 + rows[None] ** 2).sqrt()
    mask = (distance < 0.6).float()[None]
    background = ((rows + 1) / 2)[None, :, None, None].expand(1, size, size, 3).contiguous()
    foreground = ((1 - distance).clamp(0, 1)[None] * mask)[..., None].expand(-1, -1, -1, 3).contiguous()
    styles = []
    for _ in range(2):
        style = comfy.clip_vision.Output()
        style["image_embeds"] = torch.randn(1, UNET["context_dim"])
        styles.append(style)
    text = [[[torch.randn(1, 77, UNET["context_dim"]), {}]] for _ in range(2)]
    return Pictures((foreground, background), mask, (styles[0], styles[1]), text[0], text[1])


def made_up(module: nn.Module) -> nn.Module:
    """Fill all parameters in place, so that activations keep their variance."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                spread = math.sqrt(3 / math.prod(parameter.shape[1:]))
                parameter.uniform_(-spread, spread)
            else:
                parameter.fill_(1 if name.endswith("weight") else 0)
    return module.requires_grad_(False)


def _precision() -> tuple[torch.dtype, torch.dtype | None]:
    """Return the dtype of weights that the host would choose here, and what it computes in if another."""
    supported = [torch.float16, torch.bfloat16, torch.float32]
    dtype = memory.unet_dtype(supported_dtypes=supported)
    return dtype, memory.unet_manual_cast(dtype, memory.get_torch_device(), supported)


def plain_model() -> ModelPatcher:
    """Build the base model alone."""
    config = comfy.model_detection.model_config_from_unet_config(dict(UNET))
    config.set_inference_dtype(*_precision())
    model = config.get_model({}, "", device=memory.unet_offload_device())
    made_up(model.diffusion_model)
    return ModelPatcher(model, memory.get_torch_device(), memory.unet_offload_device())


def plain(model: ModelPatcher, given: Pictures) -> Contender:
    """Take the base model as it is."""
    return Contender("plain", model, given.positive, given.negative)


def control_net() -> comfy.controlnet.ControlNet:
    """Build the host's ControlNet for it, as its loader does."""
    dtype, manual_cast = _precision()
    network = comfy.cldm.cldm.ControlNet(
        **{name: value for name, value in UNET.items() if name != "out_channels"},
        hint_channels=3,
        operations=comfy.ops.pick_operations(dtype, manual_cast),
        dtype=dtype,
        device=memory.unet_offload_device(),
    )
    device = memory.get_torch_device()
    return comfy.controlnet.ControlNet(made_up(network), load_device=device, manual_cast_dtype=manual_cast)


def with_control_nets(
    model: ModelPatcher, network: comfy.controlnet.ControlNet, given: Pictures, count: int
) -> Contender:
    """Apply a ControlNet to one depth map, or to one after the other, with the host's node."""
    positive, negative = given.positive, given.negative
    node = host_nodes.ControlNetApplyAdvanced()
    for depth in given.depths[:count]:
        positive, negative = node.apply_controlnet(positive, negative, network, depth, 1.0, 0.0, 1.0)
    return Contender("ControlNet" if count == 1 else f"{count} ControlNets", model, positive, negative)


def write_fusers(path: Path, pack: LoadedPack) -> int:
    """Write a file of fusers at the released size, in fp32 as the released ones; return its bytes."""
    core = pack.core
    config = core.FuserConfig()
    kinds = (core.LocalFuser, core.GlobalFuser)
    networks = [made_up(kind(config, device="meta").to_empty(device="cpu")) for kind in kinds]
    core.save_fusers(path, core.Fusers(*networks, config, {}), {"training": "none: made-up weights"})
    return path.stat().st_size


def with_fusers(model: ModelPatcher, pack: LoadedPack, fusers: Any, given: Pictures, *, guided: bool) -> Contender:
    """Apply the pack's nodes as an artist wires them: two depth maps, two exemplars, soft guidance.

    Without ``guided``, the local fuser alone.
    """
    ours = pack.part("nodes.fusers")
    fg_depth, bg_depth = given.depths
    positive, negative = ours.ApplyLocalFuser.execute(
        given.positive, given.negative, fusers, 1.0, 0.0, 1.0, 1.0, 1.0, fg_depth, bg_depth
    ).args
    if not guided:
        return Contender("local fuser alone", model, positive, negative)
    (tokens,) = ours.ApplyGlobalFuser.execute(fusers, "automatic", *given.styles).args
    (model,) = ours.ApplySoftGuidance.execute(
        model, given.mask, 1.0, 0.6, 0.0, 1.0, "release", "area", "both", tokens
    ).args
    return Contender("Compose and Conquer", model, positive, negative)
