"""SIGTERM and Ctrl-C end a run after its step, with a checkpoint and the signal's code."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from training.train import train_stage
from training.train.checkpoints import Checkpoints

from .test_train_resume import ROOT, assert_same_tensors, command, running, told, wait_for_step
from .train_inputs import tiny_config


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("fields", [{}, {"ema": 0.9}], ids=["plain", "ema"])
def test_a_signal_saves_the_step_and_the_run_goes_on_to_the_bit(
    tmp_path: Path, number: signal.Signals, fields: dict[str, Any]
) -> None:
    whole = tiny_config(tmp_path, out=tmp_path / "whole", steps=24, save_every=24, **fields)
    train_stage(whole)
    config = tiny_config(tmp_path, steps=24, save_every=24, **fields)
    with running(config) as process:
        wait_for_step(process, config, 3)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 128 + number
    assert f"{number.name}: stopped after step" in errors and "Start the same command again" in errors
    assert "Traceback" not in errors
    latest = Checkpoints(config.out, 3).latest()
    assert latest is not None and 3 <= latest.step < 24
    assert latest.step == max(int(str(line["step"])) for line in told(config))
    subprocess.run(command(config), cwd=ROOT, check=True, capture_output=True)
    assert told(config) == told(whole)
    for name in ("best.safetensors", "checkpoints/step_00000024.safetensors"):
        assert_same_tensors(config.out / name, whole.out / name)


@pytest.mark.slow
def test_a_signal_to_one_process_of_two_stops_both_at_the_same_step(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=400, save_every=400)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "training"]
    process = subprocess.Popen(
        [*launch, *command(config)[3:]], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for_step(process, config, 3)
        workers = [w for w in psutil.Process(process.pid).children() if "training" in w.cmdline()]
        assert len(workers) == 2
        workers[1].send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    finally:
        for each in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            each.kill()
        process.kill()
        process.wait()
    assert errors.count("SIGTERM: stopped after step") == 1
    latest = Checkpoints(config.out, 3).latest()
    assert latest is not None and latest.step == told(config)[-1]["step"]
