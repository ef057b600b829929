"""Files that are not fusers: each is told what it seems to be, and code in one is never run."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cnc_core import CheckpointError, load_fusers

from .golden import State, of

WRONG: dict[str, tuple[list[str], str]] = {
    "ControlNet, cldm": (
        ["control_model.input_hint_block.0.weight", "model.diffusion_model.out.0.weight"],
        "ControlNet",
    ),
    "ControlNet, bare": (["input_hint_block.0.weight", "input_blocks.0.0.weight"], "ControlNet"),
    "ControlNet, diffusers": (
        ["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.attentions.0.norm.weight"],
        "ControlNet",
    ),
    "T2I-Adapter": (["body.0.block1.weight", "conv_in.weight"], "T2I-Adapter"),
    "T2I-Adapter, diffusers": (["adapter.body.0.resnets.0.block1.weight", "adapter.conv_in.weight"], "T2I-Adapter"),
    "IP-Adapter": (["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"], "IP-Adapter"),
    "LoRA, kohya": (
        ["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "lora_te_text_model.alpha"],
        "LoRA",
    ),
    "LoRA, PEFT": (["unet.down_blocks.0.attentions.0.to_q.lora_A.weight"], "LoRA"),
    "LoRA, diffusers": (["unet.down_blocks.0.attentions.0.to_q.lora.up.weight"], "LoRA"),
    "SDXL": (["model.diffusion_model.label_emb.0.0.weight", "conditioner.embedders.0.weight"], "SDXL"),
    "SD 1.5": (
        ["model.diffusion_model.out.0.weight", "cond_stage_model.transformer.text_model.w", "first_stage_model.w"],
        "plain Stable Diffusion 1.5",
    ),
    "SD 2": (["model.diffusion_model.out.0.weight", "cond_stage_model.model.ln_final.weight"], "Stable Diffusion 2"),
    "Uni-ControlNet": (
        ["local_adapter.feature_extractor.pre_extractor.0.weight", "local_adapter.zero_convs.0.0.weight"],
        "Uni-ControlNet",
    ),
    "VAE": (["decoder.conv_in.weight", "encoder.down.0.block.0.norm1.weight"], "VAE"),
    "CLIP vision": (["vision_model.embeddings.class_embedding", "visual_projection.weight"], "CLIP"),
    "CLIP text": (["text_model.embeddings.token_embedding.weight"], "CLIP"),
    "U-Net": (["down_blocks.0.attentions.0.norm.weight", "conv_in.weight"], "U-Net alone"),
    "embedding": (["emb_params"], "textual inversion"),
    "fuser without its prefix, compiled": (["_orig_mod.feature_extractor.fg_extractor.0.weight"], "lack"),
    "fuser without its prefix": (["feature_extractor.fg_extractor.0.weight", "time_embed.0.weight"], "lack"),
    "nothing known": (["left", "right"], "something unknown, of 2 tensors (left, right)"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_other_models_are_named(tmp_path: Path, kind: str, suffix: str) -> None:
    names, words = WRONG[kind]
    state = {name: torch.zeros(2) for name in names}
    path = tmp_path / f"fusers{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path)
    _assert_refused(path, words, "expected Compose and Conquer fusers")


def test_ip_adapter_as_its_authors_ship_it(tmp_path: Path) -> None:
    content = {"image_proj": {"proj.weight": torch.zeros(2)}, "ip_adapter": {"1.to_k_ip.weight": torch.zeros(2)}}
    torch.save(content, tmp_path / "ip-adapter_sd15.bin")
    _assert_refused(tmp_path / "ip-adapter_sd15.bin", "IP-Adapter")


class Code:
    """What a pickle with code in it holds: unpickled, it writes a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.victim), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_executed(tmp_path: Path, released_state: State, zipped: bool) -> None:
    victim = tmp_path / "victim"
    content = {"state_dict": of(released_state, "global_adapter."), "callbacks": Code(victim)}
    torch.save(content, tmp_path / "fusers.ckpt", _use_new_zipfile_serialization=zipped)
    _assert_refused(tmp_path / "fusers.ckpt", "io.open", "not executed")
    assert not victim.exists()
    torch.load(tmp_path / "fusers.ckpt", weights_only=False)  # the code is there and would have run
    assert victim.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_bare_pickle_is_not_executed(tmp_path: Path, protocol: int) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "fusers.ckpt").write_bytes(pickle.dumps(Code(victim), protocol=protocol))
    _assert_refused(tmp_path / "fusers.ckpt", "executed")
    assert not victim.exists()


@pytest.mark.parametrize("keep", [9, 500, 5_000, 200_000, -1])
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_files_cut_short(tmp_path: Path, released_state: State, suffix: str, keep: int) -> None:
    path = tmp_path / f"fusers{suffix}"
    if suffix == ".safetensors":
        save_file(released_state, path)
    else:
        torch.save(released_state, path)
    path.write_bytes(path.read_bytes()[:keep])
    _assert_refused(path, "cut short or damaged", "download it again")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 2\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page"),
        (b"\n  <html lang='en'><head>", "web page"),
        (b"Entry not found", "neither a safetensors file nor a whole one of torch.save"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "neither a safetensors file nor a whole one of torch.save"),
    ],
)
def test_what_is_no_file_of_weights(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "fusers.safetensors").write_bytes(content)
    _assert_refused(tmp_path / "fusers.safetensors", words)


def test_no_file_at_all(tmp_path: Path) -> None:
    _assert_refused(tmp_path / "missing.safetensors", "does not exist")
    _assert_refused(tmp_path, "is a directory")


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_archives_of_other_things(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "fusers.ckpt", "w") as archive:
        archive.writestr("README.md", "unpack me")
    _assert_refused(tmp_path / "fusers.ckpt", "zip archive without PyTorch weights")
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(tmp_path / "program.pt"))
    _assert_refused(tmp_path / "program.pt", "TorchScript")
    torch.save([1, 2], tmp_path / "list.pt")
    _assert_refused(tmp_path / "list.pt", "a file without tensors")


def test_a_newer_format(tmp_path: Path, released_state: State) -> None:
    path = tmp_path / "fusers.safetensors"
    save_file(of(released_state, "global_adapter."), path, metadata={"format": "cnc_fusers", "format_version": "2"})
    _assert_refused(path, "format version 2", "reads version 1")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("{", "Expecting property name"),
        ("[4]", "must be a JSON object"),
        ('{"num_heads": "four"}', "num_heads must be a whole number from 1 to 65536, got 'four'"),
        ('{"num_heads": 0}', "num_heads must be a whole number"),
        ('{"num_heads": -4}', "num_heads must be a whole number from 1 to 65536, got -4"),
        ('{"num_heads": 4.0}', "num_heads must be a whole number from 1 to 65536, got 4.0"),
        ('{"num_heads": true}', "num_heads must be a whole number from 1 to 65536, got True"),
        ('{"num_heads": Infinity}', "num_heads must be a whole number"),
        ('{"channel_mult": [2, 4, 4, 4]}', "channel_mult must begin with 1"),
        ('{"channel_mult": {"1": 2}}', "channel_mult must be whole numbers"),
        ('{"channel_mult": ' + "[" * 4000 + "]" * 4000 + "}", ""),
        ("[" * 4000 + "]" * 4000, ""),
    ],
)
def test_a_header_that_makes_no_sense(tmp_path: Path, released_state: State, told: str, words: str) -> None:
    save_file(of(released_state, "global_adapter."), tmp_path / "fusers.safetensors", metadata={"config": told})
    _assert_refused(tmp_path / "fusers.safetensors", "cannot be used", words)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("prefix", ["ema.", "net.module.", "student.model."])
def test_a_prefix_that_is_not_known_is_named(tmp_path: Path, released_state: State, prefix: str, suffix: str) -> None:
    path = tmp_path / f"fusers{suffix}"
    state = {f"{prefix}{key}": value for key, value in of(released_state, "local_adapter.").items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    _assert_refused(path, f"under the prefix {prefix}, which is not known")


def test_weights_under_two_prefixes(tmp_path: Path, released_state: State) -> None:
    state = of(released_state, "global_adapter.")
    twice = {**state, **{f"module.{key}": value + 1 for key, value in state.items()}}
    torch.save(twice, tmp_path / "fusers.ckpt")
    _assert_refused(tmp_path / "fusers.ckpt", "two tensors for global_adapter.")


@pytest.mark.parametrize(
    "name", ["model-00001-of-00003.safetensors", "pytorch_model-00002-of-00003.bin", "model.fp16-1-of-2.safetensors"]
)
def test_shards_are_called_shards(tmp_path: Path, released_state: State, name: str) -> None:
    state = of(released_state, "global_adapter.")
    save_file(state, tmp_path / name) if name.endswith(".safetensors") else torch.save(state, tmp_path / name)
    _assert_refused(tmp_path / name, "is shard ", "merge the shards")


def test_the_index_of_shards_is_called_so(tmp_path: Path) -> None:
    index = {"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    for name in ("model.safetensors.index.json", "index.ckpt"):
        (tmp_path / name).write_text(json.dumps(index, indent=2))
        _assert_refused(tmp_path / name, "index of a checkpoint in shards")


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    _assert_refused(tmp_path, "is a directory")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.ckpt")
        _assert_refused(tmp_path / "pipe.ckpt", "not a regular file")


def test_keys_and_shapes_are_checked_exactly(tmp_path: Path, released_state: State) -> None:
    state = of(released_state, "local_adapter.", "global_adapter.")
    path = tmp_path / "fusers.safetensors"

    def refused(changed: State, *words: str) -> None:
        save_file(changed, path)
        _assert_refused(path, *words)

    name = "global_adapter.norm1_fg.weight"
    refused({key: value for key, value in state.items() if key != name}, f"lacks {name}")
    attentions = [name for name in state if ".attn1.to_q." in name]
    refused(
        {name: value for name, value in state.items() if name not in attentions},
        f"{len(attentions)} keys missing ({', '.join(attentions[:3])}, ...)",
    )
    refused({**state, "local_adapter.extra": torch.zeros(1)}, "1 keys unexpected (local_adapter.extra)")
    name = "local_adapter.input_blocks.3.0.op.bias"
    refused({**state, name: torch.zeros(7)}, f"1 keys of another shape ({name} (7,) instead of (32,))")
    refused({**state, name: torch.zeros(32, dtype=torch.int8)}, name, "torch.int8", "expected float32")
    name = "local_adapter.input_blocks.0.0.weight"
    refused({**state, name: torch.zeros(7)}, f"{name} has shape (7,), expected 4 dimensions")
    refused({**state, name: torch.zeros(24, 4, 3, 3)}, "no multiples of 24")


def _assert_refused(path: Path, *words: str) -> None:
    """Assert that the file is refused, by its path and in these words."""
    with pytest.raises(CheckpointError) as refused:
        load_fusers(path)
    for expected in (str(path), *words):
        assert expected in str(refused.value)
