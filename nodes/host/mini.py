"""CnC-Mini in the host's own classes, so that its samplers, encoders and loaders treat it as any other model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import comfy.clip_vision
import comfy.model_base
import comfy.model_management as memory
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

from ...cnc_core.config import ATTENTION_LEVELS, FuserConfig
from .fusers import HostFusers
from .fusers import load as load_fusers
from .patchers import core_patcher, reloadable

FOLDER = Path(__file__).resolve().parents[2] / "models" / "mini"
FILES = (
    "unet.safetensors",
    "fusers.safetensors",
    "autoencoder.safetensors",
    "text_encoder.safetensors",
    "text_encoder.json",
    "image_encoder.safetensors",
    "image_encoder.json",
)


class _Mini(comfy.supported_models.SD15):
    """Stable Diffusion 1.5's family at the Mini's size, which predicts v."""

    unet_extra_config: ClassVar[dict[str, Any]] = {}  # else the host puts 8 heads over what unet_config says

    def model_type(self, state_dict: Any, prefix: str = "") -> Any:
        return comfy.model_base.ModelType.V_PREDICTION


class _MiniTextModel(comfy.sd1_clip.SDClipModel):
    """The host's CLIP text model at the Mini's size."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(textmodel_json_config=json.loads((FOLDER / "text_encoder.json").read_text()), **kwargs)


def check_files() -> None:
    """Raise FileNotFoundError, with the files' names, where the Mini is not whole."""
    missing = [name for name in FILES if not (FOLDER / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"CnC-Mini is not whole: {', '.join(missing)} missing from {FOLDER}. Install the pack again"
        )


def load_model(config: FuserConfig, *, disable_dynamic: bool = False) -> ModelPatcher:
    """Load the base U-Net. disable_dynamic: for newer hosts, in a plain ModelPatcher."""
    state = _read("unet.safetensors")
    mini = _Mini(_unet_config(config))
    load_device, offload_device = memory.get_torch_device(), memory.unet_offload_device()
    supported = mini.supported_inference_dtypes
    dtype = memory.unet_dtype(supported_dtypes=supported, weight_dtype=comfy.utils.weight_dtype(state))
    mini.set_inference_dtype(dtype, memory.unet_manual_cast(dtype, load_device, supported))
    model = mini.get_model(state).to(offload_device)
    # Newer hosts build linear layers without weights and take those of the state as they are.
    model.load_model_weights({name: weights.to(dtype) for name, weights in state.items()})
    return core_patcher(model, load_device, offload_device, load_model, config, disable_dynamic=disable_dynamic)


def load_clip(**options: Any) -> comfy.sd.CLIP:
    """Load the text encoder, its embedding spread over the tokenizer's whole vocabulary. options: for the host."""
    state = _read("text_encoder.safetensors")
    # Only the words that it knows are in the file; all others share one row, a word without meaning.
    ids = state.pop("token_ids")
    name = "text_model.embeddings.token_embedding.weight"
    rows = state[name]
    vocabulary = json.loads((FOLDER / "text_encoder.json").read_text())["vocab_size"]
    state[name] = rows.mean(0, keepdim=True).repeat(vocabulary, 1).index_copy(0, ids.long(), rows)

    class Target(comfy.supported_models_base.ClipTarget):
        def __init__(self) -> None:
            super().__init__(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
            self.params["clip_model"] = _MiniTextModel

    clip = comfy.sd.CLIP(Target(), parameters=comfy.utils.calculate_parameters(state), **options)
    clip.load_sd(state)
    reloadable(clip.patcher, lambda **options: load_clip(**options).patcher)
    return clip


def load_vae() -> comfy.sd.VAE:
    """Load the autoencoder, which has the layout of TAESD."""
    vae = comfy.sd.VAE(sd=_read("autoencoder.safetensors"))
    reloadable(vae.patcher, lambda **_: load_vae().patcher)
    return vae


def load_clip_vision() -> comfy.clip_vision.ClipVisionModel:
    """Load the image encoder."""
    encoder = comfy.clip_vision.ClipVisionModel(str(FOLDER / "image_encoder.json"))
    encoder.load_sd(_read("image_encoder.safetensors"))
    return encoder


def load() -> tuple[ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE, comfy.clip_vision.ClipVisionModel, HostFusers]:
    """Load all parts. Raises FileNotFoundError where the Mini is not whole."""
    check_files()
    fusers = load_fusers(FOLDER / "fusers.safetensors")
    return load_model(fusers.config), load_clip(), load_vae(), load_clip_vision(), fusers


def _read(name: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = comfy.utils.load_torch_file(str(FOLDER / name), safe_load=True)
    return state


def _unet_config(config: FuserConfig) -> dict[str, Any]:
    """Return the host's description of a U-Net of this size."""
    levels = len(config.channel_mult)
    depths = [int(level < ATTENTION_LEVELS) for level in range(levels)]
    return {
        "image_size": 32,
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "model_channels": config.model_channels,
        "num_res_blocks": [config.num_res_blocks] * levels,
        "channel_mult": config.channel_mult,
        "num_heads": config.num_heads,
        "num_head_channels": -1,
        "transformer_depth": [depth for depth in depths for _ in range(config.num_res_blocks)],
        "transformer_depth_output": [depth for depth in depths for _ in range(config.num_res_blocks + 1)],
        "transformer_depth_middle": 1,
        "context_dim": config.context_dim,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "legacy": False,
    }
