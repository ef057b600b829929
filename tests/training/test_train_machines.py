"""A run on several machines without a shared folder: the main process decides where it goes on, for all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from training.config import save_config
from training.train import TrainConfig, train_stage
from training.train.logs import read_log

from .train_inputs import tiny_config, write_set

ROOT = Path(__file__).resolve().parents[2]


def on_two_machines(config: TrainConfig, other_set: str = "") -> list[dict[str, Any]]:
    """Run it in two processes with folders of their own; what each ended with."""
    save_config(config, config.out.with_suffix(".toml"))
    worker = Path(__file__).with_name("separate_folders_worker.py")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launch, str(worker), str(config.out.with_suffix(".toml")), other_set]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    folders = [config.out.with_name(f"{config.out.name}_{rank}") for rank in (0, 1)]
    return [torch.load(folder / "result.pt", weights_only=True) for folder in folders]


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"ema": 0.9}], ids=["plain", "ema"])
def test_all_processes_go_on_from_what_the_main_one_has(tmp_path: Path, fields: dict[str, Any]) -> None:
    config = tiny_config(tmp_path, **fields)
    train_stage(tiny_config(tmp_path, out=tmp_path / "run_0", steps=4, **fields))
    first, second = on_two_machines(config)
    assert (first["steps"], second["steps"]) == (6, 6)
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    assert len([line for line in read_log(tmp_path / "run_0") if "loss" in line]) == 6
    assert not (tmp_path / "run_1" / "checkpoints").exists()


@pytest.mark.slow
def test_a_checkpoint_that_only_another_process_has_is_not_taken(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    train_stage(tiny_config(tmp_path, out=tmp_path / "run_1", steps=4))
    first, second = on_two_machines(config)
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    assert [line["step"] for line in read_log(tmp_path / "run_0") if "loss" in line] == list(range(1, 7))


@pytest.mark.slow
def test_processes_with_other_sets_all_refuse(tmp_path: Path) -> None:
    found = on_two_machines(tiny_config(tmp_path), str(write_set(tmp_path / "other", samples=24)))
    for result in found:
        assert "processes 0 and 1 do not train the same: data_content is" in result["refused"]
