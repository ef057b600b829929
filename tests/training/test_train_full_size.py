"""The released size on this machine: parameter counts, a real step of each stage, and what `--plan` says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cnc_core import FuserConfig, Fusers, UNet, load_fusers, save_fusers
from devtools.launch import complete_torchvision
from training.train import TrainConfig, Trainer
from training.train.plan import plan
from training.weights import convert, export_fusers, initial_global_fuser, merge_fusers, read_base

from .train_inputs import tiny_config, write_set

FULL = FuserConfig()
TRAINED = {"local": 411.8, "global": 94.4, "joint": 506.2}
"""Millions of parameters."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, comfy: Path) -> Path:
    """A base model of Stable Diffusion's size in half precision, a set for it, and a text encoder as wide as its."""
    folder = tmp_path_factory.mktemp("full")
    generator = torch.Generator().manual_seed(0)
    state = {
        f"model.diffusion_model.{name}": (
            torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel()) ** 0.5
        ).half()
        for name, tensor in UNet(FULL, device="meta").state_dict().items()
    }
    save_file(state, folder / "base.safetensors")
    write_set(folder / "set", samples=6, latent=16, config=FULL)
    complete_torchvision()
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    CLIPTokenizer.from_pretrained(comfy / "comfy" / "sd1_tokenizer").save_pretrained(folder / "clip" / "tokenizer")
    text = CLIPTextModel(CLIPTextConfig(hidden_size=768, num_hidden_layers=1, num_attention_heads=12))
    text.save_pretrained(folder / "clip" / "text_encoder")
    convert(folder / "base.safetensors", folder / "local.safetensors", say=lambda line: None)
    return folder


def config(inputs: Path, stage: str, **fields: object) -> TrainConfig:
    standard = {"batch": 1, "held_out": 1, "text_encoder": str(inputs / "clip"), "threads": None}
    return tiny_config(inputs, stage=stage, **{**standard, **fields})


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["local", "global", "joint"])
def test_a_step_at_the_released_size(inputs: Path, tmp_path: Path, stage: str) -> None:
    fusers: tuple[Path, ...] = ()
    if stage == "joint":
        save_fusers(tmp_path / "global.safetensors", Fusers(None, initial_global_fuser(FULL), FULL, {}), {})
        fusers = (tmp_path / "both.safetensors",)
        merge_fusers(inputs / "local.safetensors", tmp_path / "global.safetensors", *fusers, say=lambda line: None)
    trainer = Trainer(config(inputs, stage, fusers=fusers))
    count = sum(parameter.numel() for parameter in trainer.parameters.values())
    assert round(count / 1e6, 1) == TRAINED[stage]
    watched = {"local_fuser.zero_convs.0.0.weight", "global_fuser.ff2_fg.net.2.weight"} & trainer.parameters.keys()
    before = {name: trainer.parameters[name].detach().clone() for name in watched}
    facts = trainer.train_step([trainer.loader.training(turns) for turns in trainer.own_turns(0)])
    assert facts["loss"] > 0
    assert len(before) == (2 if stage == "joint" else 1)
    for name, value in before.items():
        assert not torch.equal(trainer.parameters[name], value), name
    assert all(parameter.grad is None for parameter in trainer.network.unet.parameters())


@pytest.mark.slow
def test_the_plan_counts_what_trains(inputs: Path) -> None:
    planned = plan(config(inputs, "global", batch=2, steps=None), steps=0)
    lines = "\n".join(planned.lines())
    assert "94.4 M parameters train, 859.5 M are frozen" in lines
    assert "2 an epoch at batch 2, 60 in all" in lines
    assert "not measured" in lines
    assert planned.fixed_bytes == 16 * planned.trained + 4 * planned.frozen
    assert not (inputs / "run").exists()


@pytest.mark.slow
def test_a_full_file_goes_to_half_precision_and_to_the_releases_form(inputs: Path, tmp_path: Path) -> None:
    half, released = tmp_path / "half.safetensors", tmp_path / "local.ckpt"
    export_fusers(inputs / "local.safetensors", half, precision="fp16", say=lambda line: None)
    assert half.stat().st_size < 0.51 * (inputs / "local.safetensors").stat().st_size
    export_fusers(half, released, base=inputs / "base.safetensors", say=lambda line: None)
    assert load_fusers(released).config == FULL
    assert read_base(released).config == FULL
