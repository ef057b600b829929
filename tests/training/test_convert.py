"""Files of weights made of others: initial fusers, joined fusers, the release's form and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cnc_core import CheckpointError, FuserConfig, Fusers, GlobalFuser, LocalFuser, UNet, load_fusers, save_fusers
from training.weights import convert, export_fusers, initial_local_fuser, merge_fusers, read_base

SMALL = FuserConfig(
    model_channels=32, channel_mult=(1, 2, 4, 4), num_heads=8, context_dim=24, inject_channels=(8, 8, 12, 12)
)
FULL_KEYS = Path(__file__).parents[1] / "data" / "cnc_v1_keys.tsv"


def random_state(module: torch.nn.Module, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(t.shape, generator=generator) for name, t in module.state_dict().items()}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A small base model as single-file checkpoints hold theirs, with a text encoder beside it."""
    state = {f"model.diffusion_model.{n}": t for n, t in random_state(UNet(SMALL), 1).items()}
    state["cond_stage_model.transformer.text_model.final_layer_norm.weight"] = torch.ones(24)
    path = tmp_path / "base.safetensors"
    save_file(state, path, metadata={"config": json.dumps(asdict(SMALL)), "prediction_type": "v_prediction"})
    return path


@pytest.fixture
def fusers(tmp_path: Path) -> dict[str, Path]:
    """A file of each kind, by name."""
    local_fuser, global_fuser = LocalFuser(SMALL), GlobalFuser(SMALL)
    local_fuser.load_state_dict(random_state(local_fuser, 2))
    global_fuser.load_state_dict(random_state(global_fuser, 3))
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("local", "global")}
    save_fusers(paths["local"], Fusers(local_fuser, None, SMALL, {}), {"conditions": "depth", "seed": "1"})
    save_fusers(paths["global"], Fusers(None, global_fuser, SMALL, {}), {"seed": "2"})
    return paths


def test_the_base_model_is_read_as_it_is(base: Path) -> None:
    read = read_base(base)
    assert (read.config, read.prediction) == (SMALL, "v")
    unet = read.unet()
    assert not any(parameter.requires_grad for parameter in unet.parameters())
    for name, tensor in random_state(UNet(SMALL), 1).items():
        assert torch.equal(unet.state_dict()[name], tensor), name


def test_the_clone_takes_all_that_the_encoder_has_and_starts_without_effect(base: Path, tmp_path: Path) -> None:
    origins = convert(base, tmp_path / "initial.safetensors", say=lambda line: None)
    fuser = load_fusers(tmp_path / "initial.safetensors").local_fuser
    source, own = read_base(base).state, fuser.state_dict()
    assert {*origins.copied, *origins.zero, *origins.fresh} == set(own)
    for name in origins.copied:
        assert torch.equal(own[name], source[name]), name
    # every tensor of SD's encoder is copied but for the group norms that FDN replaces, levels 1, 4, 7, 10
    left = {n for n in origins.unused if n.startswith(("time_embed.", "input_blocks.", "middle_block."))}
    assert left == {
        f"input_blocks.{index}.0.{norm}.0.{part}"
        for index in (1, 4, 7, 10)
        for norm in ("in_layers", "out_layers")
        for part in ("weight", "bias")
    }
    latent, depth = torch.randn(2, 4, 8, 8), torch.rand(2, 3, 64, 64)
    residuals = fuser(latent, torch.tensor([3, 700]), torch.randn(2, 5, 24), depth, depth)
    assert all(not residual.any() for residual in residuals)


def test_the_same_seed_makes_the_same_fuser(base: Path) -> None:
    read = read_base(base)
    first, again, other = (initial_local_fuser(read.state, SMALL, seed=seed)[0].state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.slow
def test_uni_controlnet_gives_all_but_the_depth_streams(tmp_path: Path) -> None:
    released = dict(line.split("\t") for line in FULL_KEYS.read_text().splitlines() if line.startswith("local_"))
    state = {
        name: torch.zeros(1).expand(*map(int, shape.split("x"))).half()
        for name, shape in released.items()
        if "_extractor." not in name.replace("feature_extractor.", "", 1)
    }
    state["local_adapter.feature_extractor.pre_extractor.0.weight"] = torch.zeros(32, 21, 3, 3)
    torch.save(state, tmp_path / "uni.ckpt")
    said: list[str] = []
    origins = convert(tmp_path / "uni.ckpt", tmp_path / "initial.safetensors", say=said.append)
    streams = ("feature_extractor.fg_extractor.", "feature_extractor.bg_extractor.")
    assert origins.fresh and all(name.startswith(streams) for name in origins.fresh)
    assert len(origins.copied) + len(origins.fresh) == len(released)
    assert origins.unused == ("feature_extractor.pre_extractor.0.weight",)
    assert "Uni-ControlNet" in said[0] and "411.8 M" in said[0]
    del state["local_adapter.middle_block_out.0.weight"]
    torch.save(state, tmp_path / "uni.ckpt")
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors.*middle_block_out"):
        convert(tmp_path / "uni.ckpt", tmp_path / "again.safetensors")


@pytest.mark.parametrize("harm", ["missing", "shape", "inpainting", "fusers"])
def test_what_is_no_base_model_is_refused(base: Path, fusers: dict[str, Path], tmp_path: Path, harm: str) -> None:
    state = {f"model.diffusion_model.{n}": t for n, t in random_state(UNet(SMALL), 1).items()}
    metadata = {"config": json.dumps(asdict(SMALL))}
    if harm == "missing":
        del state["model.diffusion_model.out.2.bias"]
    elif harm == "shape":
        state["model.diffusion_model.out.2.bias"] = torch.zeros(5)
    elif harm == "inpainting":
        state["model.diffusion_model.input_blocks.0.0.weight"], metadata = torch.zeros(320, 9, 3, 3), {}
    path = fusers["local"] if harm == "fusers" else tmp_path / "wrong.safetensors"
    if harm != "fusers":
        save_file(state, path, metadata=metadata)
    words = {
        "missing": "missing",
        "shape": "another shape",
        "inpainting": "9 channels",
        "fusers": "seems to be Compose",
    }
    with pytest.raises(CheckpointError, match=words[harm]):
        read_base(path)


def test_merging_keeps_both_to_the_bit(fusers: dict[str, Path], tmp_path: Path) -> None:
    merge_fusers(fusers["local"], fusers["global"], tmp_path / "joint.safetensors", say=lambda line: None)
    joint = load_fusers(tmp_path / "joint.safetensors")
    for part, name in ((joint.local_fuser, "local"), (joint.global_fuser, "global")):
        alone = load_fusers(fusers[name])
        module = alone.local_fuser or alone.global_fuser
        assert all(torch.equal(part.state_dict()[n], t) for n, t in module.state_dict().items())
    assert joint.metadata["conditions"] == "depth"
    assert (joint.metadata["local_seed"], joint.metadata["global_seed"]) == ("1", "2")


def test_merging_refuses_what_does_not_belong_together(fusers: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no local fuser"):
        merge_fusers(fusers["global"], fusers["global"], tmp_path / "joint.safetensors")
    wide = FuserConfig(**{**asdict(SMALL), "context_dim": 48})
    save_fusers(tmp_path / "wide.safetensors", Fusers(None, GlobalFuser(wide), wide, {}), {})
    with pytest.raises(CheckpointError, match=r"24 channels.*48"):
        merge_fusers(fusers["local"], tmp_path / "wide.safetensors", tmp_path / "joint.safetensors")


def test_a_released_checkpoint_goes_to_safetensors_and_back(
    base: Path, fusers: dict[str, Path], tmp_path: Path
) -> None:
    merge_fusers(fusers["local"], fusers["global"], tmp_path / "joint.safetensors", say=lambda line: None)
    export_fusers(tmp_path / "joint.safetensors", tmp_path / "cnc.ckpt", base=base, say=lambda line: None)
    released = torch.load(tmp_path / "cnc.ckpt", weights_only=True)
    prefixes = {name.split(".")[0] for name in released}
    assert prefixes == {"local_adapter", "global_adapter", "model", "cond_stage_model"}
    adapters = {name for name in released if "_adapter." in name}
    assert adapters == {line.split("\t")[0] for line in FULL_KEYS.read_text().splitlines()}
    export_fusers(tmp_path / "cnc.ckpt", tmp_path / "back.safetensors", say=lambda line: None)
    first, back = (load_fusers(tmp_path / name) for name in ("joint.safetensors", "back.safetensors"))
    for part, again in ((first.local_fuser, back.local_fuser), (first.global_fuser, back.global_fuser)):
        assert all(torch.equal(again.state_dict()[n], t) for n, t in part.state_dict().items())


def test_half_precision_is_half_the_size_and_says_what_does_not_fit(fusers: dict[str, Path], tmp_path: Path) -> None:
    said: list[str] = []
    export_fusers(fusers["local"], tmp_path / "half.safetensors", precision="fp16", say=said.append)
    assert "float16" in said[0]
    half, full = load_fusers(tmp_path / "half.safetensors"), load_fusers(fusers["local"])
    assert half.metadata["conditions"] == "depth"
    for name, tensor in full.local_fuser.state_dict().items():
        assert torch.equal(half.local_fuser.state_dict()[name], tensor.half()), name
    with torch.no_grad():
        full.local_fuser.time_embed[0].weight[0, 0] = 1e6
    save_fusers(tmp_path / "large.safetensors", full, {})
    with pytest.raises(CheckpointError, match=r"not finite in fp16 \(local_adapter.time_embed.0.weight"):
        export_fusers(tmp_path / "large.safetensors", tmp_path / "large_half.safetensors", precision="fp16")
    assert not (tmp_path / "large_half.safetensors").exists()
