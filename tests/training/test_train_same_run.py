"""What a run that goes on must share with how it began: models, schedule and all that its batches follow from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from training.config import ConfigError
from training.prepare import encoders
from training.train import train_stage

from .train_inputs import tiny_config, write_base


def test_another_base_model_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=2)
    train_stage(config)
    tensors = {name: tensor + 0.01 for name, tensor in load_file(config.base).items()}
    other = write_base(tmp_path / "other.safetensors")
    with safe_open(other, "pt") as file:
        metadata = file.metadata()
    save_file(tensors, other, metadata=metadata)
    with pytest.raises(ConfigError, match=r"the base model was another.*choose another out"):
        train_stage(replace(config, base=other, steps=4))
    moved = shutil.copy(config.base, tmp_path / "moved.safetensors")
    assert train_stage(replace(config, base=Path(moved), steps=3)).steps == 3, "the same file by another name"


def test_another_text_encoder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, steps=2)
    train_stage(config)
    folder = Path(shutil.copytree(encoders.MINI_FOLDER, tmp_path / "mini"))
    monkeypatch.setattr(encoders, "MINI_FOLDER", folder)
    path = folder / "text_encoder.safetensors"
    save_file(
        {name: tensor * 1.01 if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()},
        path,
    )
    with pytest.raises(ConfigError, match="the text encoder was another"):
        train_stage(replace(config, steps=4))


def test_other_steps_under_a_cosine_schedule_are_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=4, schedule="cosine")
    train_stage(config)
    with pytest.raises(ConfigError, match="the cosine schedule went over 4 steps and now over 6"):
        train_stage(replace(config, steps=6))
    with pytest.raises(ConfigError, match="the cosine schedule went over 4 steps and now over 15"):
        train_stage(replace(config, steps=None, epochs=3))
    assert train_stage(config).steps == 4


def test_without_its_config_file_a_run_is_checked_as_well(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=2)
    train_stage(config)
    (config.out / "config.toml").unlink()
    for change, said in (
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"learning_rate": 0.5}, "learning_rate was 0.001 and is 0.5"),
        ({"ema": 0.5}, "ema was 0.0 and is 0.5"),
    ):
        with pytest.raises(ConfigError, match=said):
            train_stage(replace(config, steps=4, **change))
    assert torch.isfinite(torch.tensor(train_stage(replace(config, steps=3)).loss))


def test_weights_whose_state_was_removed_stay_as_does_whatever_else_lies_there(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=4)
    train_stage(config)
    folder = config.out / "checkpoints"
    (folder / "step_00000002.state.safetensors").unlink()
    (folder / "kept").mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "step_00000004.safetensors.77.new").write_bytes(b"half")
    train_stage(replace(config, steps=5))
    assert (folder / "step_00000002.safetensors").exists()
    assert (folder / "kept").is_dir() and (folder / "notes.txt").exists()
    assert not list(folder.glob("*.new"))
