"""Checkpoints that are right: round trips, and released files as they are found."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cnc_core import (
    CheckpointError,
    FuserConfig,
    Fusers,
    GlobalFuser,
    LocalFuser,
    load_fusers,
    read_checkpoint,
    save_fusers,
)

from .golden import State, of


def assert_same(loaded: torch.nn.Module | None, expected: torch.nn.Module | None) -> None:
    assert (loaded is None) == (expected is None)
    if loaded is None or expected is None:
        return
    found, wanted = loaded.state_dict(), expected.state_dict()
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("parts", ["both", "local", "global"])
def test_round_trip(tmp_path: Path, fusers: Fusers, parts: str, dtype: torch.dtype) -> None:
    config = fusers.config
    local_fuser = None if parts == "global" else LocalFuser(config, dtype=dtype)
    global_fuser = None if parts == "local" else GlobalFuser(config, dtype=dtype)
    saved = Fusers(local_fuser, global_fuser, config, {})
    save_fusers(tmp_path / "fusers.safetensors", saved, {"license": "MIT", "training": "none"})
    loaded = load_fusers(tmp_path / "fusers.safetensors")
    assert loaded.config == config
    assert loaded.metadata["license"] == "MIT"
    assert loaded.metadata["training"] == "none"
    assert_same(loaded.local_fuser, local_fuser)
    assert_same(loaded.global_fuser, global_fuser)
    for module in (loaded.local_fuser, loaded.global_fuser):
        if module is not None:
            assert not module.training
            assert {parameter.dtype for parameter in module.parameters()} == {dtype}
            assert not any(parameter.is_meta for parameter in module.parameters())


def test_header_of_a_saved_file(tmp_path: Path, fusers: Fusers) -> None:
    path = tmp_path / "fusers.safetensors"
    save_fusers(path, fusers, {"license": "MIT", "format_version": "7"})
    with safe_open(path, framework="pt") as file:
        header, names = file.metadata(), set(file.keys())
    assert (header["format"], header["format_version"], header["license"]) == ("cnc_fusers", "1", "MIT")
    assert FuserConfig(**json.loads(header["config"])) == fusers.config
    assert "local_adapter.feature_extractor.fg_extractor.0.weight" in names
    assert "global_adapter.ff2_bg.net.2.bias" in names
    again = load_fusers(path)
    save_fusers(tmp_path / "again.safetensors", again, again.metadata)
    assert load_fusers(tmp_path / "again.safetensors").metadata == header


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_released_files(tmp_path: Path, released_state: State, fusers: Fusers, nested: bool, zipped: bool) -> None:
    content = {"state_dict": released_state, "epoch": 3, "lr_schedulers": []} if nested else released_state
    torch.save(content, tmp_path / "cnc_v1.ckpt", _use_new_zipfile_serialization=zipped)
    loaded = load_fusers(tmp_path / "cnc_v1.ckpt", num_heads=4)
    assert loaded.config == fusers.config
    assert_same(loaded.local_fuser, fusers.local_fuser)
    assert_same(loaded.global_fuser, fusers.global_fuser)
    state, _, metadata = read_checkpoint(tmp_path / "cnc_v1.ckpt")
    assert state.keys() == of(released_state, "local_adapter.", "global_adapter.").keys()
    assert metadata == {}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module.", "_orig_mod.module.model."]
)
def test_wrappers_prefixes(tmp_path: Path, released_state: State, fusers: Fusers, prefix: str, suffix: str) -> None:
    """As DataParallel, torch.compile, and a model that holds another one leave them, and all of these."""
    path = tmp_path / f"fusers{suffix}"
    state = {f"{prefix}{key}": value for key, value in of(released_state, "local_adapter.", "global_adapter.").items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = load_fusers(path, num_heads=4)
    assert_same(loaded.local_fuser, fusers.local_fuser)
    assert_same(loaded.global_fuser, fusers.global_fuser)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod."])
def test_a_wrapper_around_each_fuser(tmp_path: Path, released_state: State, fusers: Fusers, wrapper: str) -> None:
    state = {key.replace("_adapter.", f"_adapter.{wrapper}"): value for key, value in released_state.items()}
    torch.save(state, tmp_path / "fusers.ckpt")
    assert_same(load_fusers(tmp_path / "fusers.ckpt", num_heads=4).local_fuser, fusers.local_fuser)


@pytest.mark.parametrize(
    "outer", [["model"], ["module"], ["state_dict"], ["model", "state_dict"], ["state_dict", "model"]]
)
def test_mappings_around_the_weights(tmp_path: Path, released_state: State, fusers: Fusers, outer: list[str]) -> None:
    content: dict[str, object] = dict(released_state)
    for name in reversed(outer):
        content = {name: content, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}, "epoch": 3}
    torch.save(content, tmp_path / "fusers.ckpt")
    loaded = load_fusers(tmp_path / "fusers.ckpt", num_heads=4)
    assert_same(loaded.local_fuser, fusers.local_fuser)
    assert_same(loaded.global_fuser, fusers.global_fuser)


@pytest.mark.parametrize("name", ["right.safetensors", "wrong.ckpt"])
def test_formats_are_told_by_content(tmp_path: Path, released_state: State, fusers: Fusers, name: str) -> None:
    save_file(released_state, tmp_path / name)
    assert_same(load_fusers(tmp_path / name).local_fuser, fusers.local_fuser)


def test_config_follows_from_the_shapes(tmp_path: Path) -> None:
    config = FuserConfig(
        in_channels=9,
        model_channels=64,
        channel_mult=(1, 2, 3),
        num_res_blocks=1,
        context_dim=40,
        local_channels=1,
        inject_channels=(8, 16, 24),
        global_tokens=2,
    )
    state = {f"local_adapter.{key}": value for key, value in LocalFuser(config).state_dict().items()}
    state |= {f"global_adapter.{key}": value for key, value in GlobalFuser(config).state_dict().items()}
    save_file(state, tmp_path / "bare.safetensors")
    assert load_fusers(tmp_path / "bare.safetensors").config == config


def test_heads_come_from_the_argument_then_the_header_then_are_eight(
    tmp_path: Path, released_state: State, fusers: Fusers
) -> None:
    torch.save(released_state, tmp_path / "bare.ckpt")
    assert load_fusers(tmp_path / "bare.ckpt").config.num_heads == 8
    assert load_fusers(tmp_path / "bare.ckpt", num_heads=2).config.num_heads == 2
    save_fusers(tmp_path / "ours.safetensors", fusers, {})
    assert load_fusers(tmp_path / "ours.safetensors").config.num_heads == 4
    assert load_fusers(tmp_path / "ours.safetensors", num_heads=2).config.num_heads == 2
    with pytest.raises(CheckpointError, match="num_heads = 5"):
        load_fusers(tmp_path / "ours.safetensors", num_heads=5)


def test_dtype_asked_for_and_dtypes_mixed(tmp_path: Path, released_state: State) -> None:
    state = {
        key: value.half() if index % 2 else value.bfloat16()
        for index, (key, value) in enumerate(of(released_state, "global_adapter.").items())
    }
    save_file(state, tmp_path / "mixed.safetensors")
    for asked, expected in ((None, torch.float32), (torch.bfloat16, torch.bfloat16)):
        fuser = load_fusers(tmp_path / "mixed.safetensors", dtype=asked).global_fuser
        assert fuser is not None
        assert {parameter.dtype for parameter in fuser.parameters()} == {expected}


def test_layers_come_from_the_operations_given(tmp_path: Path, fusers: Fusers) -> None:
    class Recorded(torch.nn.Linear):
        pass

    operations = type("operations", (), {n: getattr(torch.nn, n) for n in ("Conv2d", "GroupNorm", "LayerNorm")})
    operations.Linear = Recorded  # type: ignore[attr-defined]
    save_fusers(tmp_path / "fusers.safetensors", fusers, {})
    loaded = load_fusers(tmp_path / "fusers.safetensors", operations=operations)
    assert loaded.local_fuser is not None
    assert isinstance(loaded.local_fuser.time_embed[0], Recorded)
    assert_same(loaded.local_fuser, fusers.local_fuser)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_weights_are_held_once(tmp_path: Path, fusers: Fusers, released_state: State, suffix: str) -> None:
    """They lie in the mapped file itself, so that there is no second copy, not even while loading."""
    path = tmp_path / f"fusers{suffix}"
    save_file(released_state, path) if suffix == ".safetensors" else torch.save(released_state, path)
    loaded = load_fusers(path)
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    ranges = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in lines]
    for module in (loaded.local_fuser, loaded.global_fuser):
        assert module is not None
        for name, parameter in module.named_parameters():
            assert any(start <= parameter.data_ptr() < end for start, end in ranges), name


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_training_on_does_not_write_into_the_file(tmp_path: Path, released_state: State, suffix: str) -> None:
    path = tmp_path / f"fusers{suffix}"
    state = of(released_state, "global_adapter.")
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    before = path.read_bytes()
    fuser = load_fusers(path).global_fuser
    assert fuser is not None
    with torch.no_grad():
        for parameter in fuser.parameters():
            parameter.add_(1)
    assert path.read_bytes() == before


def test_a_failing_write_leaves_the_old_file(tmp_path: Path, fusers: Fusers, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fusers.safetensors"
    save_fusers(path, fusers, {"license": "first"})
    before = path.read_bytes()

    def full_disk(state: State, filename: Path, metadata: dict[str, str]) -> None:
        Path(filename).write_bytes(b"half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr("cnc_core.checkpoints.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_fusers(path, fusers, {"license": "second"})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_what_cannot_be_saved(tmp_path: Path, fusers: Fusers) -> None:
    with pytest.raises(ValueError, match="no fuser to save"):
        save_fusers(tmp_path / "a.safetensors", Fusers(None, None, fusers.config, {}), {})
    with pytest.raises(ValueError, match="got int for 'steps'"):
        save_fusers(tmp_path / "a.safetensors", fusers, {"steps": 3})  # type: ignore[dict-item]
    assert not os.listdir(tmp_path)
