"""A small Stable Diffusion 1.5, built by the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def base_model(state: dict[str, Tensor], config: Any, dtype: torch.dtype = torch.float32, **attributes: Any) -> Any:
    """The host's Stable Diffusion 1.5 of the config's size, with a checkpoint's weights, in a ModelPatcher.

    attributes: other settings of the host's model class.
    """
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    unet_config = {
        "image_size": 32,
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "model_channels": config.model_channels,
        "num_res_blocks": [config.num_res_blocks] * 4,
        "channel_mult": config.channel_mult,
        "num_heads": config.num_heads,
        "num_head_channels": -1,
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
        "context_dim": config.context_dim,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "legacy": False,
    }
    # Without the class's extra settings, which would set eight heads.
    attributes = {"unet_config": unet_config, "unet_extra_config": {}, **attributes}
    described = type("SmallSD15", (comfy.supported_models.SD15,), attributes)(dict(unet_config))
    described.set_inference_dtype(dtype, None)
    model = described.get_model(state, "model.diffusion_model.")
    model.load_model_weights(dict(state), "model.diffusion_model.")
    return comfy.model_patcher.ModelPatcher(
        model,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
