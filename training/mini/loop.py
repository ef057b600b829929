"""One training loop for every stage: AdamW, warm-up and decay, clipping, EMA, resumable to the bit."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
Loss = Callable[["Draw"], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Plan:
    """How long and how fast a stage trains."""

    name: str
    steps: int
    batch: int
    learning_rate: float
    seed: int
    warm_up: int = 200
    ema: float = 0.998
    weight_decay: float = 0.01
    clip: float = 1.0
    log_every: int = 100
    save_every: int = 500

    def rate(self, step: int) -> float:
        """Learning rate: a warm-up, a plateau, a cosine down to 2 percent over the second half."""
        rise = min(1.0, (step + 1) / self.warm_up)
        late = max(0.0, 2 * step / self.steps - 1)
        return self.learning_rate * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * late)))


class Draw:
    """The chance of one step: a function of the plan's seed and the step alone, so that a resumed
    run draws what an uninterrupted one would."""

    def __init__(self, plan: Plan, step: int) -> None:
        self.plan, self.step = plan, step
        self.numbers = np.random.default_rng(np.random.SeedSequence((plan.seed, step)))
        self._generator = torch.Generator().manual_seed(int(self.numbers.integers(2**62)))

    def rows(self, ready: int) -> np.ndarray:
        """A batch of rows out of the first `ready`, sorted (memory maps like that)."""
        return np.sort(self.numbers.integers(ready, size=self.plan.batch))

    def noise(self, *shape: int) -> Tensor:
        """Normal numbers."""
        return torch.randn(*shape, generator=self._generator)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1)."""
        return torch.rand(*shape, generator=self._generator)

    def timesteps(self, limit: int) -> Tensor:
        """A batch of timesteps, spread evenly (stratified) over [0, limit)."""
        count = self.plan.batch
        spread = (torch.randperm(count, generator=self._generator) + self.uniform(count)) / count
        return (spread * limit).long().clamp(max=limit - 1)


class Training:
    """The state of a stage on disk and in memory: weights, optimizer, averaged weights, step."""

    def __init__(self, plan: Plan, modules: nn.Module, folder: Path, resume: bool = True) -> None:
        self.plan, self.modules, self.step = plan, modules, 0
        self.path = folder / f"{plan.name}.pt"
        self.parameters = [p for p in modules.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, plan.learning_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay, fused=True
        )
        self._tensors: list[Tensor] = list(self.parameters)
        self.average = [p.detach().clone() for p in self.parameters]
        if resume and self.path.exists():
            self._load()

    def _load(self) -> None:
        saved = torch.load(self.path, weights_only=True, map_location="cpu")
        if len(saved["weights"]) != len(self.parameters):
            raise ValueError(f"{self.path} holds another model: remove it, or train into another folder")
        with torch.no_grad():
            for parameter, weight in zip(self.parameters, saved["weights"], strict=True):
                parameter.copy_(weight)
            for mean, weight in zip(self.average, saved["average"], strict=True):
                mean.copy_(weight)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = saved["step"]
        print(f"{self.plan.name}: resumed at step {self.step}", flush=True)

    def save(self) -> None:
        """Write all that a resume needs, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".new")
        torch.save(
            {
                "step": self.step,
                "weights": [p.detach() for p in self.parameters],
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
            },
            temporary,
        )
        os.replace(temporary, self.path)

    def run(self, loss: Loss, until: int | None = None) -> dict[str, float]:
        """Train to the plan's end, or to step `until`; returns the last logged means."""
        plan, began, first = self.plan, time.monotonic(), self.step
        sums: dict[str, float] = {}
        count, means = 0, dict[str, float]()
        stop = plan.steps if until is None else min(until, plan.steps)
        self.modules.train()
        while self.step < stop:
            for group in self.optimizer.param_groups:
                group["lr"] = plan.rate(self.step)
            value, extra = loss(Draw(plan, self.step))
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(self.parameters, plan.clip)
            self.optimizer.step()
            self.step += 1
            decay = min(plan.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self._tensors, 1 - decay)
            for name, number in {"loss": value.item(), **extra}.items():
                sums[name] = sums.get(name, 0.0) + number
            count += 1
            if self.step % plan.log_every == 0 or self.step == stop:
                means = {name: total / count for name, total in sums.items()}
                speed = (self.step - first) / (time.monotonic() - began)
                words = " ".join(f"{name} {mean:.4f}" for name, mean in means.items())
                print(f"{plan.name} {self.step}/{plan.steps} {words} ({speed:.2f} steps/s)", flush=True)
                sums, count = {}, 0
            if self.step % plan.save_every == 0 or self.step == stop:
                self.save()
        return means

    def use_average(self) -> None:
        """Put the averaged weights into the modules."""
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.average, strict=True):
                parameter.copy_(mean)
        self.modules.eval()


def channels_last(network: Network) -> Network:
    """The network with its weights in the memory order in which convolutions are fastest."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
