"""A tiny SAM 2 with made-up weights in the library's own folder layout."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from devtools.launch import complete_torchvision

SIDE = 128
"""Height and width of what the network sees."""


def write_sam2(folder: Path, *, video: bool = False, seed: int = 0) -> Path:
    """Save a model and its processor. video: named as the public folders are, with weights for video beside."""
    complete_torchvision()
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model, Sam2Processor

    vision = {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 12,
            "num_attention_heads": 1,
            "embed_dim_per_stage": [12, 24, 48, 96],
            "num_attention_heads_per_stage": [1, 2, 4, 8],
            "blocks_per_stage": [1, 2, 3, 2],
            "global_attention_blocks": [4],
            "image_size": [SIDE, SIDE],
        },
        "backbone_channel_list": [96, 48, 24, 12],
        "backbone_feature_sizes": [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
        "fpn_hidden_size": 32,
    }
    torch.manual_seed(seed)
    model = Sam2Model(
        Sam2Config(
            vision_config=vision,
            prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "patch_size": 16},
            mask_decoder_config={
                "hidden_size": 32,
                "mlp_dim": 64,
                "num_attention_heads": 2,
                "iou_head_hidden_dim": 32,
            },
            # The usual deviation gives logits of nearly zero, and masks that are the same whatever is asked.
            initializer_range=0.3,
        )
    )
    model.save_pretrained(folder)
    Sam2Processor(Sam2ImageProcessor(size={"height": SIDE, "width": SIDE})).save_pretrained(folder)
    if video:
        add_video(folder)
    return folder


def add_video(folder: Path) -> None:
    """What facebook/sam2.1-hiera-tiny has beside the picture's part: the type's name and the memory's weights."""
    from safetensors.torch import load_file, save_file

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "sam2_video"}))
    state = load_file(folder / "model.safetensors")
    state["memory_encoder.projection.weight"] = torch.zeros(2, 2)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
