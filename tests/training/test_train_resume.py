"""Runs that are killed, and runs that meet a full disk: nothing is lost, and what follows is the same to the bit."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from training.config import save_config
from training.files import FolderInUse
from training.train import TrainConfig, train_stage
from training.train.logs import read_log

from .train_inputs import tiny_config, write_base, write_set

ROOT = Path(__file__).resolve().parents[2]


def command(config: TrainConfig) -> list[str]:
    file = config.out.with_suffix(".toml")
    save_config(config, file)
    return [sys.executable, "-m", "training", "train", "--config", str(file)]


@contextmanager
def running(config: TrainConfig) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command(config), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_step(process: subprocess.Popen[str], config: TrainConfig, step: int) -> None:
    """Until the log has the step: watched closely, so that the kill comes in the middle of the work after it."""
    while not any(line["step"] >= step for line in read_log(config.out)):
        if process.poll() is not None:
            pytest.fail(f"the run ended before step {step}: {process.stderr.read() if process.stderr else ''}")
        time.sleep(0.002)


def told(config: TrainConfig) -> list[dict[str, object]]:
    """The log but for times."""
    return [{k: v for k, v in line.items() if k != "samples_per_second"} for line in read_log(config.out)]


def assert_same_tensors(first: Path, second: Path) -> None:
    a, b = load_file(first), load_file(second)
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{}, {"ema": 0.9, "clip": 1.0, "warm_up": 5, "micro_batch": 2}], ids=["plain", "ema"]
)
def test_killed_at_several_steps_a_run_ends_as_if_it_had_not_been(tmp_path: Path, fields: dict[str, object]) -> None:
    tiny_config(tmp_path)
    parts = (tmp_path / "local", tmp_path / "global")
    for out in parts:
        train_stage(tiny_config(tmp_path, stage=out.name, out=out, steps=2))
    fusers = tuple(out / "best.safetensors" for out in parts)
    whole = tiny_config(tmp_path, stage="joint", fusers=fusers, steps=24, save_every=4, batch=8, **fields)
    killed = tiny_config(
        tmp_path, stage="joint", fusers=fusers, steps=24, save_every=4, batch=8, out=tmp_path / "killed", **fields
    )
    subprocess.run(command(whole), cwd=ROOT, check=True, capture_output=True)
    reached = []
    for step in (2, 6, 9, 17):  # before the first checkpoint, between two, right after one, later
        with running(killed) as process:
            wait_for_step(process, killed, step)
            if step == 9:
                with pytest.raises(FolderInUse, match=f"process {process.pid}"):
                    train_stage(killed)
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        reached.append(len(read_log(killed.out)))
    assert told(killed)[-1]["step"] < 24
    subprocess.run(command(killed), cwd=ROOT, check=True, capture_output=True)
    assert told(killed) == told(whole)
    assert [line["step"] for line in told(whole) if "loss" in line] == list(range(1, 25))
    names = sorted(path.name for path in (whole.out / "checkpoints").iterdir())
    assert names == sorted(path.name for path in (killed.out / "checkpoints").iterdir())
    for name in (*(f"checkpoints/{name}" for name in names), "best.safetensors"):
        assert_same_tensors(whole.out / name, killed.out / name)


def test_a_kill_between_weights_and_state_goes_on_from_the_checkpoint_before(tmp_path: Path) -> None:
    whole = tiny_config(tmp_path, out=tmp_path / "whole")
    train_stage(whole)
    killed = tiny_config(tmp_path, out=tmp_path / "killed")
    train_stage(tiny_config(tmp_path, out=tmp_path / "killed", steps=4))
    (killed.out / "checkpoints" / "step_00000004.state.safetensors").unlink()
    (killed.out / "checkpoints" / "step_00000004.state.safetensors.77.new").write_bytes(b"half")
    train_stage(killed)
    assert told(killed) == told(whole)
    assert not list(killed.out.rglob("*.new"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files stands for the full disk")
def test_a_full_disk_is_told_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=4)
    train_stage(tiny_config(tmp_path, steps=2))
    before = (config.out / "checkpoints" / "step_00000002.safetensors").read_bytes()
    limited = ["bash", "-c", 'ulimit -f 1024; exec "$@"', "limited", *command(config)]
    ended = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert re.search(
        r"step_00000004\S*safetensors cannot be written, the disk is full.*what was finished before is kept",
        ended.stderr,
    )
    assert "Traceback" not in ended.stderr
    assert sorted(path.name for path in (config.out / "checkpoints").iterdir()) == [
        "step_00000002.safetensors", "step_00000002.state.safetensors",
    ]  # fmt: skip
    assert (config.out / "checkpoints" / "step_00000002.safetensors").read_bytes() == before
    assert train_stage(config).steps == 4


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    """The same global batch on two processes by gloo: first-step gradients within 1e-5, ten losses within 1e-4."""
    write_base(tmp_path / "base.safetensors")
    write_set(tmp_path / "set")
    parts = (tmp_path / "local", tmp_path / "global")
    for out in parts:
        train_stage(tiny_config(tmp_path, stage=out.name, out=out, steps=2))
    config = tiny_config(tmp_path, stage="joint", fusers=tuple(out / "best.safetensors" for out in parts), batch=8)
    worker = Path(__file__).with_name("train_worker.py")
    save_config(config, tmp_path / "run.toml")
    found = []
    for count in (1, 2):
        out = tmp_path / f"{count}.pt"
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        arguments = [sys.executable, *launch, str(worker), str(tmp_path / "run.toml"), str(out)]
        ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        found.append(torch.load(out, weights_only=True))
    one, two = found
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["order"] == two["order"]
    assert one["gradients"].keys() == two["gradients"].keys()
    errors = {name: two["gradients"][name] - gradient for name, gradient in one["gradients"].items()}
    whole, error = (float(torch.cat([t.flatten() for t in d.values()]).norm()) for d in (one["gradients"], errors))
    assert error < 1e-5 * whole
    for name, gradient in one["gradients"].items():  # some are zero but for rounding: biases before a norm
        assert float(errors[name].norm()) < 1e-5 * float(gradient.norm()) + 1e-7 * whole, name
    assert len(one["losses"]) == 10
    torch.testing.assert_close(torch.tensor(two["losses"]), torch.tensor(one["losses"]), rtol=1e-4, atol=0)
    assert one["validation"] == pytest.approx(two["validation"], rel=1e-4)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """Two processes, killed, and then one: the samples come in the same order, and the losses are as of one alone."""
    tiny_config(tmp_path)
    whole = tiny_config(tmp_path, steps=8, out=tmp_path / "whole")
    train_stage(whole)
    parted = tiny_config(tmp_path, steps=8, out=tmp_path / "parted")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "training"]
    process = subprocess.Popen(
        [*launch, *command(parted)[3:]], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for_step(process, parted, 3)
    finally:
        workers = psutil.Process(process.pid).children(recursive=True)
        for each in (process, *workers):
            each.kill()
        psutil.wait_procs(workers)
        process.wait()
    reached = told(parted)[-1]["step"]
    train_stage(parted)
    assert 3 <= int(str(reached)) < 8, "it ended before it was killed"
    lines = [[line for line in told(config) if "order" in line] for config in (whole, parted)]
    assert [line["order"] for line in lines[0]] == [line["order"] for line in lines[1]]
    losses = [torch.tensor([line["loss"] for line in some]) for some in lines]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=0)
