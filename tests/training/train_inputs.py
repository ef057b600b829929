"""What training tests start from: a tiny base model, and a prepared set of made-up samples for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from cnc_core import FuserConfig, UNet
from training.prepared import Manifest, Sample, SetWriter, array_specs
from training.train import TrainConfig

TINY = FuserConfig(
    model_channels=32,
    channel_mult=(1, 1, 1, 2),
    num_res_blocks=1,
    num_heads=2,
    context_dim=96,
    inject_channels=(8, 8, 8, 8),
    global_tokens=2,
)
"""As small as the architecture gets, with the text states of CnC-Mini."""


def write_base(path: Path, config: FuserConfig = TINY, prediction: str = "epsilon") -> Path:
    """A base model of noise that is no identity: its output convolutions are not zero."""
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, tensor in UNet(config, device="meta").state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        state[f"model.diffusion_model.{name}"] = noise / max(1, tensor[0].numel()) ** 0.5
    save_file(state, path, metadata={"config": json.dumps(asdict(config)), "prediction_type": prediction})
    return path


def write_set(
    folder: Path,
    samples: int = 23,
    *,
    latent: int = 16,
    config: FuserConfig = TINY,
    condition: str = "depth",
    broken: int | None = None,
    **options: Any,
) -> Path:
    """A complete set of made-up samples, two captions each; the latents of the broken one hold a NaN."""
    rng = np.random.default_rng(4)
    specs = array_specs(
        (latent, latent), config.context_dim, text_dim=config.context_dim, captions=2, source_depth=True, **options
    )
    manifest = Manifest(
        image_size=(8 * latent, 8 * latent),
        latent_size=(latent, latent),
        arrays=specs,
        items=samples,
        shard_size=10,
        condition=condition,
        models={"text_encoder": {"name": "mini"}, "autoencoder": {"name": "mini"}},
    )
    writer = SetWriter(folder, manifest)
    for number in writer.missing():
        rows = range(number * 10, min(samples, number * 10 + 10))
        writer.write(number, [_sample(rng, f"{row:04d}", specs, row == broken) for row in rows])
    writer.finish()
    return folder


def _sample(rng: np.random.Generator, name: str, specs: Mapping[str, Any], broken: bool) -> Sample:
    arrays = {}
    for key, spec in specs.items():
        if spec.dtype.startswith("uint"):
            arrays[key] = rng.integers(0, np.iinfo(spec.dtype).max, spec.shape, dtype=spec.dtype, endpoint=True)
        else:
            arrays[key] = rng.standard_normal(spec.shape).astype(spec.dtype)
    if broken:
        arrays["latents"][0, 0, 0] = np.nan
    arrays["caption_count"] = np.array(2, dtype=np.uint8)
    return Sample(name, ("a red cube", "a blue ball"), arrays)


def tiny_config(folder: Path, **fields: Any) -> TrainConfig:
    """A config of the tiny base and set in ``folder``, which are written where they are not there."""
    if not (folder / "base.safetensors").exists():
        write_base(folder / "base.safetensors")
        write_set(folder / "set")
    standard = {
        "stage": "local", "data": (folder / "set",), "base": folder / "base.safetensors", "out": folder / "run",
        "steps": 6, "batch": 4, "learning_rate": 1e-3, "save_every": 2, "held_out": 3, "grid_every": 0, "device": "cpu",
        "tensorboard": False, "threads": 1,
    }  # fmt: skip
    return TrainConfig(**{**standard, **fields})
