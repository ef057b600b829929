"""What is measured against each other: a full-size Stable Diffusion 1.5 with made-up weights, and what steers it.

Import this once ComfyUI is in the process (devtools.inprocess). Weights are noise of the right variance: time
and memory do not depend on their values, as long as none is denormal or infinite.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.cldm.cldm
import comfy.clip_vision
import comfy.controlnet
import comfy.model_management as memory
import comfy.ops
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

import nodes as host_nodes
from cnc_core import FuserConfig
from devtools.inprocess import LoadedPack

from .rows import TWO_LAYERS, LayerRow

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

FULL = FuserConfig()
NETWORKS = {
    "full": FULL,
    "tiny": FuserConfig(model_channels=32, channel_mult=(1, 1, 1, 2), inject_channels=(8,) * 4),
}
"""Sizes of the networks: the released one, and one as small as they get, to try a benchmark itself."""

WORDS = 12
"""Token rows of a layer's own words."""
STRENGTH = 0.9
"""The nearest layer's in a stack; it is not 1, so that the residuals are weighted place by place as well."""

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
    return Pictures((foreground, background), mask, (style(), style()), text(77), text(77))


def style() -> Any:
    """Make up an exemplar as CLIP Vision Encode gives it."""
    made = comfy.clip_vision.Output()
    made["image_embeds"] = torch.randn(1, UNET["context_dim"])
    return made


def text(rows: int) -> Conditioning:
    """Make up a text of so many rows as CLIP Text Encode gives it."""
    return [[torch.randn(1, rows, UNET["context_dim"]), {}]]


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


def _unet(size: FuserConfig) -> dict[str, Any]:
    """Return a U-Net of a size in the host's terms."""
    return {**UNET, "model_channels": size.model_channels, "channel_mult": list(size.channel_mult)}


def plain_model(size: FuserConfig = FULL) -> ModelPatcher:
    """Build the base model alone."""
    config = comfy.supported_models.SD15(_unet(size))
    config.set_inference_dtype(*_precision())
    model = config.get_model({}, "", device=memory.unet_offload_device())
    made_up(model.diffusion_model)
    return ModelPatcher(model, memory.get_torch_device(), memory.unet_offload_device())


def plain(model: ModelPatcher, given: Pictures) -> Contender:
    """Take the base model as it is."""
    return Contender("plain", model, given.positive, given.negative)


def control_net(size: FuserConfig = FULL) -> comfy.controlnet.ControlNet:
    """Build the host's ControlNet for it, as its loader does."""
    dtype, manual_cast = _precision()
    network = comfy.cldm.cldm.ControlNet(
        **{name: value for name, value in _unet(size).items() if name != "out_channels"},
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


def write_fusers(path: Path, pack: LoadedPack, size: FuserConfig = FULL) -> int:
    """Write a file of fusers, in fp32 as the released ones; return its bytes."""
    core = pack.core
    config = core.FuserConfig(**dataclasses.asdict(size))
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
    return Contender(TWO_LAYERS, model, positive, negative)


def with_layers(model: ModelPatcher, pack: LoadedPack, fusers: Any, given: Pictures, row: LayerRow) -> Contender:
    """Apply a stack of layers by the node that Compose Layers expands into."""
    layer = pack.part("nodes.host.layers").Layer
    layers = []
    for place in range(row.layers):  # the backdrop, then the objects, the nearest last
        depth, mask = (given.depths[1], None) if place == 0 else _silhouette(given, place, row.layers)
        words = text(1 + WORDS) if row.words else None  # the node leaves out the first row, which is the start
        strength = STRENGTH if place == row.layers - 1 else 1.0
        layers.append(layer(depth=depth, mask=mask, exemplar=style(), text=words, strength=strength))
    applied = pack.part("nodes.stack").ApplyLayers.execute(
        model, given.positive, given.negative, tuple(layers), 1.0, fusers
    )
    return Contender(row.name, *applied.args)


def _silhouette(given: Pictures, place: int, layers: int) -> tuple[Tensor, Tensor]:
    """Return depth and mask of an object: discs from left to right, each over a part of the one behind it."""
    rows = torch.linspace(-1, 1, given.mask.shape[-1])
    across, down = 0.3 * (place - layers / 2), 0.15 * (-1) ** place
    distance = ((rows[None] - across) ** 2 + (rows[:, None] - down) ** 2).sqrt()
    mask = (distance < 0.5).float()[None]
    depth = ((1 - distance).clamp(0, 1)[None] * mask)[..., None].expand(-1, -1, -1, 3).contiguous()
    return depth, mask
