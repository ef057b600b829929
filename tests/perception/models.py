"""Depth models in their real formats, tiny where the format allows, with made-up weights."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import torch
from torch import Tensor, nn

from devtools.launch import complete_torchvision

MIDAS_KEYS = Path(__file__).resolve().parents[1] / "data" / "midas_v21_small_keys.tsv"
"""Names and shapes of the public definition's state (isl-org/MiDaS, with geffnet's tf_efficientnet_lite3)."""


def make_dpt(folder: Path) -> Path:
    """A DPT, the architecture of the release's depth model."""
    complete_torchvision()
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    config = DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
    )
    _filled(DPTForDepthEstimation(config)).save_pretrained(folder)
    DPTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def make_depth_anything(folder: Path, **options: object) -> Path:
    """A Depth Anything V2. options: of its config."""
    complete_torchvision()
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=70,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
        **options,
    )
    _filled(DepthAnythingForDepthEstimation(config)).save_pretrained(folder)
    DPTImageProcessor(
        size={"height": 70, "width": 70},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
    return folder


def make_zoedepth(folder: Path) -> Path:
    """A ZoeDepth, which gives metres and pads its pictures."""
    complete_torchvision()
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation, ZoeDepthImageProcessor

    backbone = BeitConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=64,
        patch_size=16,
        use_relative_position_bias=True,
        use_mask_token=False,
        reshape_hidden_states=False,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = ZoeDepthConfig(
        backbone_config=backbone,
        backbone_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        bottleneck_features=16,
        num_relative_features=8,
        bin_embedding_dim=16,
        num_attractors=[4, 2, 2, 1],
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
    )
    _filled(ZoeDepthForDepthEstimation(config), 0.8).save_pretrained(folder)
    ZoeDepthImageProcessor(size={"height": 128, "width": 192}, ensure_multiple_of=16).save_pretrained(folder)
    return folder


def _filled(model: nn.Module, gain: float = 1.0) -> nn.Module:
    """Weights by the rule below: the library's own first ones are so small that all pictures look the same."""
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(_made(key, tuple(value.shape)) * (gain if value.ndim > 1 else 1.0))
    return model


def midas_state() -> dict[str, Tensor]:
    """Weights for every key of MiDaS v2.1 small; each follows from its key and shape alone."""
    rows = [line.split("\t") for line in MIDAS_KEYS.read_text().splitlines()]
    return {key: _made(key, tuple(map(int, filter(None, shape.split("x"))))) for key, shape in rows}


def make_midas(path: Path) -> Path:
    """A MiDaS v2.1 small at its real size, as torch.save writes it."""
    torch.save(midas_state(), path)
    return path


def _made(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode()) % 2**31))
    if len(shape) > 1:
        return noise * math.sqrt(2 / math.prod(shape[1:]))
    if key.endswith("running_var"):
        return noise.abs() + 0.5
    return noise * 0.1 + (1 if key.endswith("weight") else 0)
