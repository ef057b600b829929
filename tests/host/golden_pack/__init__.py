"""A node pack for the test server, put into its custom_nodes: a loader of the golden model and its conditions.

They come from `golden/scene.safetensors` in the server's models folder. The golden model is too small for the
host's checkpoint loader, which knows the full size alone. comfy is imported in the functions alone, since pytest
imports this folder too.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from .base_model import base_model


class LoadGolden:
    """The golden model, texts, pictures, embeddings and first latent."""

    RETURN_TYPES = (
        *("MODEL", "CONDITIONING", "CONDITIONING", "CLIP_VISION", "CLIP_VISION_OUTPUT", "CLIP_VISION_OUTPUT"),
        *("IMAGE", "IMAGE", "MASK", "LATENT"),
    )
    FUNCTION = "load"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def load(self) -> tuple[Any, ...]:
        import comfy.clip_vision
        import comfy.utils
        import folder_paths

        folder = Path(folder_paths.models_dir) / "golden"
        state, header = comfy.utils.load_torch_file(str(folder / "scene.safetensors"), return_metadata=True)
        config = SimpleNamespace(**json.loads(header["config"]))
        styles = []
        for layer in ("fg", "bg"):
            style = comfy.clip_vision.Output()
            style["image_embeds"] = state[f"in.{layer}_emb"]
            styles.append(style)
        return (
            base_model(state, config),
            [[state["in.ctx"], {}]],
            [[state["in.uctx"], {}]],
            _image_encoder(folder, config.context_dim),
            *styles,
            state["in.fg_depth"].movedim(1, -1),
            state["in.bg_depth"].movedim(1, -1),
            state["in.mask"][:, 0],
            {"samples": state["latent"]},
        )


def _image_encoder(folder: Path, width: int) -> Any:
    """The host's CLIP vision model with one layer and random weights, whose embeddings have this width."""
    import comfy.clip_vision

    config = {
        "hidden_act": "quick_gelu",
        "hidden_size": 16,
        "image_size": 32,
        "intermediate_size": 32,
        "layer_norm_eps": 1e-05,
        "model_type": "clip_vision_model",
        "num_attention_heads": 2,
        "num_channels": 3,
        "num_hidden_layers": 2,
        "patch_size": 16,
        "projection_dim": width,
    }
    path = folder / "image_encoder.json"
    path.write_text(json.dumps(config))
    encoder = comfy.clip_vision.ClipVisionModel(str(path))
    generator = torch.Generator().manual_seed(0)
    encoder.load_sd({k: torch.randn(v.shape, generator=generator) * 0.2 for k, v in encoder.get_sd().items()})
    return encoder


NODE_CLASS_MAPPINGS: dict[str, type] = {"TestLoadGolden": LoadGolden}
