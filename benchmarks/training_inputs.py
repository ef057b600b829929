"""What the benchmark of training runs on: files of the right sizes whose numbers are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from cnc_core import FuserConfig, Fusers, GlobalFuser, LocalFuser, UNet, save_fusers
from training.prepared import Manifest, Sample, SetWriter, array_specs

CAPTIONS = 5
"""What a picture of COCO has."""
TOKENS = 77
VAE_SCALE = 0.18215

Encode = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Pictures (B, 3, H, W) in [0, 1] to latents (B, 4, H/8, W/8), text states (B, 77, 768), embeddings (B, 768)."""


def write_base(path: Path, config: FuserConfig) -> None:
    """A base model of noise in half precision."""
    state = _noise(UNet(config, device="meta").half()).state_dict()
    told = {name: getattr(config, name) for name in vars(config)}
    save_file(
        {f"model.diffusion_model.{name}": tensor for name, tensor in state.items()}, path, {"config": json.dumps(told)}
    )


def write_fusers(path: Path, config: FuserConfig) -> None:
    """Both fusers of noise, for the joint stage."""
    networks = (_noise(LocalFuser(config, device="meta")), _noise(GlobalFuser(config, device="meta")))
    save_fusers(path, Fusers(*networks, config, {}), {})


def write_set(folder: Path, samples: int, latent: int, config: FuserConfig) -> None:
    """A complete prepared set whose samples are all the same, in shards of 64."""
    rng = np.random.default_rng(0)
    size = (latent, latent)
    specs = array_specs(size, config.context_dim, text_dim=config.context_dim, captions=CAPTIONS)
    manifest = Manifest((8 * latent, 8 * latent), size, specs, items=samples, shard_size=64)
    arrays = {
        name: rng.integers(0, 255, spec.shape).astype(spec.dtype)
        if spec.dtype.startswith("uint")
        else rng.standard_normal(spec.shape).astype(spec.dtype)
        for name, spec in specs.items()
    } | {"caption_count": np.array(CAPTIONS, dtype=np.uint8)}
    writer = SetWriter(folder, manifest)
    for number in writer.missing():
        rows = range(number * 64, min(samples, number * 64 + 64))
        writer.write(number, [Sample(f"{row:06d}", ("",) * CAPTIONS, arrays) for row in rows])
    writer.finish()


def write_text_encoder(folder: Path, config: FuserConfig) -> None:
    """A text encoder as wide as the base's, and a tokenizer that knows two words: for the empty text alone."""
    from transformers import CLIPTextConfig, CLIPTextModel

    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    text = CLIPTextConfig(
        vocab_size=2, hidden_size=config.context_dim, intermediate_size=config.context_dim, num_hidden_layers=1,
        num_attention_heads=1, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")


def sd_encoders(device: torch.device, dtype: torch.dtype, *, exemplars: bool) -> tuple[Encode, str]:
    """Stable Diffusion 1.5's encoders with weights as torch initialises them, and in words which there are.

    exemplars: CLIP's image encoder too, on I_s and I_b. The autoencoder is diffusers'; without that package there is
    none, and the latents cost nothing.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    words: Any = CLIPTextModel(
        CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    )
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14,
        projection_dim=768,
    )  # fmt: skip
    clip: Any = CLIPVisionModelWithProjection(vision) if exemplars else None
    vae = _autoencoder()
    networks = {"the autoencoder": vae, "the text encoder": words, "the image encoder, twice": clip}
    for network in networks.values():
        if network is not None:
            network.eval().requires_grad_(False).to(device, dtype)

    @torch.no_grad()
    def encode(pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count, _, height, width = pictures.shape
        latents = torch.randn(count, 4, height // 8, width // 8, device=device)
        if vae is not None:
            latents = vae.encode((pictures * 2 - 1).to(dtype)).latent_dist.sample() * VAE_SCALE
        states = words(torch.randint(49407, (count, TOKENS), device=device)).last_hidden_state
        embeds = torch.zeros(count, 768, device=device)
        if clip is not None:
            small = F.interpolate(pictures, (224, 224), mode="bicubic", antialias=True).to(dtype)
            embeds = clip(pixel_values=torch.cat((small, small))).image_embeds[:count]
        return latents.float(), states.float(), embeds.float()

    without = "" if vae is not None else " (no autoencoder: diffusers is not installed)"
    return encode, " and ".join(name for name, network in networks.items() if network is not None) + without


def _autoencoder() -> Any:
    try:
        from diffusers import AutoencoderKL
    except ImportError:
        return None
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
    )  # fmt: skip


def _noise(network: Any) -> Any:
    """A network made on the meta device, on the CPU, with weights of noise of a variance that keeps that of inputs."""
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1 << 20, generator=generator)
    with torch.no_grad():
        for parameter in network.parameters():
            scaled = (noise * max(1, parameter[0].numel()) ** -0.5).to(parameter.dtype)
            flat, count = parameter.view(-1), parameter.numel()
            for first in range(0, count, len(scaled)):
                flat[first : first + len(scaled)] = scaled[: count - first]
    assert isinstance(network, nn.Module)  # noqa: S101 - tells the type checker
    return network
