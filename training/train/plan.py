"""`train --plan`: what a run would take, before anything starts."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import torch

from .config import TrainConfig
from .loop import Trainer
from .processes import make_accelerator

GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """Counts of parameters, bytes of memory on each device, steps; seconds a step and peak bytes where measured."""

    config: TrainConfig
    trained: int
    frozen: int
    processes: int
    device: str
    samples: int
    epoch_steps: int
    steps: int
    fixed_bytes: int
    seconds: float | None
    peak_bytes: int | None

    def lines(self) -> list[str]:
        """For printing."""
        config = self.config
        told = [
            f"stage {config.stage}: {self.trained / 1e6:.1f} M parameters train, {self.frozen / 1e6:.1f} M are frozen",
            f"data: {self.samples} samples an epoch, {config.held_out} held out",
            f"steps: {self.epoch_steps} an epoch at batch {config.batch}, {self.steps} in all, on {self.processes} x "
            f"{self.device}",
            f"memory of weights, gradients and optimizer: {self.fixed_bytes / GIB:.2f} GiB on each device (by count)",
        ]
        if self.seconds is None or self.peak_bytes is None:
            return [*told, "memory of activations and time a step: not measured (--plan-steps 0)"]
        told.append(f"memory at its peak, all included: {self.peak_bytes / GIB:.2f} GiB (measured in these few steps)")
        hours = self.seconds / 3600
        told.append(
            f"time: {self.seconds:.2f} s a step, {config.batch / self.seconds:.2f} samples a second (measured); from "
            f"that an estimate of {hours * self.epoch_steps:.2f} h an epoch, {hours * self.steps:.2f} h in all"
        )
        return told


def plan(config: TrainConfig, *, steps: int = 3) -> Plan:
    """Set up the stage as `train_stage` would, measure a few steps of it after one to warm up, and write nothing.

    steps: how many to measure; 0 measures nothing. Raises what `train_stage` raises for a config that cannot run.
    """
    accelerator = make_accelerator(config)
    trainer = Trainer(config, accelerator)
    trained = sum(parameter.numel() for parameter in trainer.parameters.values())
    frozen = sum(parameter.numel() for parameter in trainer.network.unet.parameters())
    state = 2 if config.optimizer == "adamw8bit" else 8
    fixed = trained * (4 + 4 + state + (4 if config.ema else 0))
    fixed += sum(parameter.nbytes for parameter in trainer.network.unet.parameters())
    seconds, peak = _measured(trainer, steps) if steps else (None, None)
    accelerator.free_memory()
    return Plan(
        config,
        trained,
        frozen,
        accelerator.num_processes,
        torch.cuda.get_device_name() if trainer.device.type == "cuda" else trainer.device.type,
        len(trainer.order),
        max(1, len(trainer.order) // config.batch),
        trainer.total,
        fixed,
        seconds,
        peak,
    )


def _measured(trainer: Trainer, steps: int) -> tuple[float, int]:
    """Seconds of the fastest step, which others on the machine have held up least, and the peak of memory."""
    times = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        trainer.train_step([trainer.loader.training(turns) for turns in trainer.own_turns(trainer.step)])
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times[1:]), peak_memory(trainer.device)


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held: of the GPU's memory, or of the machine's where there is no GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
