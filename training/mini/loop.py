"""One training loop for every stage: AdamW, warm-up and decay, clipping, EMA, resumable.

On a CPU a resumed run is to the bit the one that was not interrupted. On a GPU the first steps run as they are
and the rest as one CUDA graph, since a step of such small networks is thousands of kernels that take less time
than their launches; several trainings share the device, each in a stream of its own.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
Loss = Callable[["Draw"], tuple[Tensor, dict[str, Tensor]]]
"""A step's draws to the value to minimise and what else is worth a mean in the log, each a tensor of no dimensions."""

_WARM_UP = 3  # steps before a graph is captured: they make the optimizer's state and choose the kernels


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
    captured: bool = True  # on a GPU, as a CUDA graph: all steps have the same shapes

    def rate(self, step: int) -> float:
        """Learning rate: a warm-up, a plateau, a cosine down to 2 percent over the second half."""
        rise = min(1.0, (step + 1) / self.warm_up)
        late = max(0.0, 2 * step / self.steps - 1)
        return self.learning_rate * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * late)))


class Draw:
    """The chance of one step.

    On a CPU a function of the plan's seed and the step alone, so that a resumed run draws what an uninterrupted one
    would. On a GPU it comes from the device's own generator, which a graph carries on from replay to replay.
    """

    def __init__(self, plan: Plan, step: int, device: torch.device | str = "cpu") -> None:
        self.plan, self.step, self.device = plan, step, torch.device(device)
        self._generator: torch.Generator | None = None
        if self.device.type == "cpu":
            seed = np.random.SeedSequence((plan.seed, step)).generate_state(1, np.uint64)[0]
            self._generator = torch.Generator().manual_seed(int(seed >> 1))

    def noise(self, *shape: int) -> Tensor:
        """Normal numbers."""
        return torch.randn(*shape, generator=self._generator, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1)."""
        return torch.rand(*shape, generator=self._generator, device=self.device)

    def integers(self, limit: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to below the limit."""
        return (self.uniform(*shape) * limit).long().clamp(max=limit - 1)

    def rows(self, ready: int) -> Tensor:
        """A batch of rows out of the first `ready`."""
        return self.integers(ready, self.plan.batch)

    def timesteps(self, limit: int) -> Tensor:
        """A batch of timesteps, spread evenly (stratified) over [0, limit)."""
        count = self.plan.batch
        spread = (torch.arange(count, device=self.device) + self.uniform(count)) / count
        return (spread * limit).long().clamp(max=limit - 1)


class Training:
    """The state of a stage on disk and in memory: weights, optimizer, averaged weights, step."""

    def __init__(self, plan: Plan, modules: nn.Module, folder: Path, resume: bool = True) -> None:
        self.plan, self.modules, self.step = plan, modules, 0
        self.path = folder / f"{plan.name}.pt"
        self.parameters = [p for p in modules.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        on_gpu = self.device.type == "cuda"
        self._rate = torch.tensor(plan.learning_rate, device=self.device)
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            self._rate if on_gpu else plan.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=plan.weight_decay,
            fused=True,
            capturable=on_gpu,
        )
        self._tensors: list[Tensor] = list(self.parameters)
        self.average = [p.detach().clone() for p in self.parameters]
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warmed = 0
        self._began_at = 0
        self.stream = torch.cuda.Stream(self.device) if on_gpu else None
        if resume and self.path.exists():
            self._load()

    def _load(self) -> None:
        saved = torch.load(self.path, weights_only=True, map_location=self.device)
        if len(saved["weights"]) != len(self.parameters):
            raise ValueError(f"{self.path} holds another model: remove it, or train into another folder")
        with torch.no_grad():
            for parameter, weight in zip(self.parameters, saved["weights"], strict=True):
                parameter.copy_(weight)
            for mean, weight in zip(self.average, saved["average"], strict=True):
                mean.copy_(weight)
        self.optimizer.load_state_dict(saved["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate if self.stream else self.plan.learning_rate
        self.step = saved["step"]
        print(f"{self.plan.name}: resumed at step {self.step}", flush=True)

    def save(self) -> None:
        """Write all that a resume needs, whole or not at all."""
        self._wait()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".new")
        torch.save(
            {
                "step": self.step,
                "plan": asdict(self.plan),
                "weights": [p.detach() for p in self.parameters],
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
            },
            temporary,
        )
        os.replace(temporary, self.path)

    def advance(self, loss: Loss) -> None:
        """One step. On a GPU it runs in the training's own stream and may not have ended yet."""
        rate = self.plan.rate(self.step)
        if self.stream is None:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self._update(loss)
        else:
            with torch.cuda.stream(self.stream):
                self._rate.fill_(rate)
                self._replay(loss)
        self.step += 1
        self._count += 1
        decay = min(self.plan.ema, (1 + self.step) / (10 + self.step))
        with torch.cuda.stream(self.stream), torch.no_grad():
            torch._foreach_lerp_(self.average, self._tensors, 1 - decay)

    def _update(self, loss: Loss) -> None:
        """Loss, gradients and the optimizer's step, without waiting for any number."""
        value, extra = loss(Draw(self.plan, self.step, self.device))
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.plan.clip)
        self.optimizer.step()
        for name, number in {"loss": value.detach(), **extra}.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros((), device=self.device)
            self._sums[name].add_(number)

    def _replay(self, loss: Loss) -> None:
        if self._graph is not None:
            self._graph.replay()
            return
        self._update(loss)
        self._warmed += 1
        if self.plan.captured and self._warmed == _WARM_UP:
            torch.cuda.synchronize(self.device)
            self.optimizer.zero_grad(set_to_none=True)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self.stream):
                self._update(loss)

    def means(self) -> dict[str, float]:
        """What was logged, averaged since the last call."""
        self._wait()
        means = {name: total.item() / max(1, self._count) for name, total in self._sums.items()}
        with torch.cuda.stream(self.stream):
            for total in self._sums.values():
                total.zero_()
        self._count = 0
        return means

    def _wait(self) -> None:
        if self.stream is not None:
            self.stream.synchronize()

    def begin(self) -> None:
        """Be ready for the first step of a run."""
        self.modules.train()
        self._began_at = self.step
        if self.stream is not None:
            seed = np.random.SeedSequence((self.plan.seed, self.step)).generate_state(1)[0]
            torch.cuda.manual_seed(int(seed))
            self.stream.wait_stream(torch.cuda.current_stream(self.device))

    def report(self, began: float) -> None:
        """Print the means and save where the plan says so; a run began at `began`, in monotonic seconds."""
        plan, done = self.plan, self.step == self.plan.steps
        if self.step % plan.log_every == 0 or done:
            speed = (self.step - self._began_at) / (time.monotonic() - began)
            words = " ".join(f"{name} {mean:.4f}" for name, mean in self.means().items())
            print(f"{plan.name} {self.step}/{plan.steps} {words} ({speed:.2f} steps/s)", flush=True)
        if self.step % plan.save_every == 0 or done:
            self.save()

    def use_average(self) -> None:
        """Put the averaged weights into the modules."""
        self._wait()
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.average, strict=True):
                parameter.copy_(mean)
        self.modules.eval()


@dataclass
class Pace:
    """How long trainings may take: `share` of their plans' steps, or what fits before `deadline`, in monotonic seconds.

    The speed is measured over the first steps; rates fall only after half of them, so that nothing else changes.
    """

    share: float = 1.0
    deadline: float | None = None

    def of(self, plan: Plan) -> Plan:
        """A plan of this length."""
        return replace(plan, steps=max(1, round(plan.steps * self.share)))


@dataclass
class Line:
    """Trainings of which each begins where the one before has ended, `steps` in all.

    What the jobs' iterator does between two of them, it does when the first has ended.
    """

    steps: int
    jobs: Iterator[tuple[Training, Loss]]
    done: int = 0


_MEASURED = 60
"""Steps of every line after which a pace with a deadline is set."""


def run_together(lines: Sequence[Line], pace: Pace | None = None) -> None:
    """Train every line to its end, in turns that let all end together. On a GPU the lines overlap."""
    pace = pace or Pace()
    running: dict[int, tuple[Training, Loss]] = {}
    waiting = set(range(len(lines)))
    began = time.monotonic()
    steady: tuple[float, int] | None = None
    while waiting or running:
        for number in sorted(waiting):
            job = next(lines[number].jobs, None)
            if job is not None:
                job[0].begin()
                running[number] = job
        waiting.clear()
        if not running:
            return
        number = min(running, key=lambda k: lines[k].done / lines[k].steps)
        training, loss = running[number]
        if training.step < training.plan.steps:
            training.advance(loss)
            lines[number].done += 1
            training.report(began)
        if training.step >= training.plan.steps:
            del running[number]
            waiting.add(number)
        if pace.deadline is not None and all(line.done > _WARM_UP for line in lines):
            total = sum(line.done for line in lines)
            if steady is None:
                steady = _now(training.device), total
            elif total - steady[1] >= _MEASURED * len(lines):
                _set(pace, lines, [t for t, _ in running.values()], steady)


def _now(device: torch.device) -> float:
    """Monotonic seconds when all that was asked of a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


def _set(pace: Pace, lines: Sequence[Line], running: Sequence[Training], steady: tuple[float, int]) -> None:
    """Give all that is still to be trained the length that fits before the deadline."""
    now, total = _now(running[0].device), sum(line.done for line in lines)
    speed = (total - steady[1]) / (now - steady[0])
    left = max(0.0, (pace.deadline or now) - now) * speed
    factor = (total + left) / sum(line.steps for line in lines)
    for training in running:
        steps = max(training.step + 1, round(training.plan.steps * factor))
        training.plan = replace(training.plan, steps=steps)
    for line in lines:
        line.steps = max(line.done + 1, round(line.steps * factor))
    pace.share, pace.deadline = pace.share * factor, None
    print(f"{speed:.1f} steps/s in all: {factor:.3f} of the planned steps fit", flush=True)


def mixed(device: torch.device) -> torch.autocast:
    """bf16 where it is safe, for a network's forward pass; on a CPU only where its instructions (AMX, AVX-512) make it
    faster than fp32."""
    if device.type != "cpu":
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    capabilities: Callable[[], dict[str, object]] = getattr(torch.cpu, "get_capabilities", dict)  # torch before 2.10
    known = capabilities()
    return torch.autocast("cpu", torch.bfloat16, enabled=any(known.get(f"{kind}_bf16") for kind in ("amx", "avx512")))


def channels_last(network: Network) -> Network:
    """The network with its weights in the memory order in which convolutions are fastest."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
