"""The training loop: any stage, any number of processes, resumable to the bit.

A run's state is the number of samples it has seen. Which samples come next, and all chance, follow from that and the
seed (`order`, `draws`), so that a run that was killed goes on as if it had not been, and other numbers of processes
see the same batches.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnc_core import Fusers, read_checkpoint
from cnc_core.checkpoints import GLOBAL, LOCAL

from ..config import ConfigError, load_config, save_config
from ..diffusion import min_snr_weights, noised, target
from ..files import only_run_in
from ..prepared import PreparedSet
from .average import Average
from .checkpoints import Checkpoints, Saved, optimizer_tensors, restore_optimizer
from .config import TrainConfig
from .grids import Grids
from .loader import Batch, Loader
from .logs import RunLog
from .order import Drawn, Order
from .start import begin, text_states

FREE = frozenset(
    {
        "data", "base", "out", "fusers", "text_encoder", "autoencoder", "verify", "epochs", "steps", "micro_batch",
        "gradient_checkpointing", "compile", "tf32", "device", "threads", "save_every", "keep", "grid_every",
        "grid_samples", "grid_steps", "grid_cfg", "tensorboard",
    }
)  # fmt: skip
"""Fields that may differ where a run goes on: they change neither its batches nor its losses, but for rounding."""


class TrainingStopped(RuntimeError):
    """A run that cannot go on; the message names the last good checkpoint."""


@dataclass(frozen=True)
class Result:
    """What a finished run leaves. best is None without held-out samples; loss is the last step's."""

    steps: int
    weights: Path
    best: Path | None
    loss: float


def train_stage(config: TrainConfig) -> Result:
    """Run a stage to its end, from where it stands in ``config.out``.

    In several processes (`accelerate launch`, `torchrun`) each calls this. Raises ConfigError, CheckpointError and
    PreparedError for what does not fit together, FolderInUse where another run works in that folder, OSError where
    the disk is full, TrainingStopped where the loss is no number.
    """
    accelerator = make_accelerator(config)
    with only_run_in(config.out) if accelerator.is_main_process else nullcontext():
        try:
            return Trainer(config, accelerator).run()
        finally:
            accelerator.free_memory()


def end_processes() -> None:
    """End each process of a run on several, with exit code 0, when all of them are done; the last thing that each does.

    Each ends at once. Where Python takes its time over it, the communication threads of one may meet the closed
    connections of another and abort the process. A run on one process goes on.
    """
    from accelerate import PartialState

    state = PartialState()
    if state.num_processes == 1:
        return
    state.wait_for_everyone()
    state.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class Trainer:
    """A stage ready to go: networks on their device, optimizer, data. :meth:`run` does all of it."""

    def __init__(self, config: TrainConfig, accelerator: Any = None) -> None:
        self.config = config
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.tf32
        self.accelerator = accelerator or make_accelerator(config)
        self.device: torch.device = self.accelerator.device
        self.is_main: bool = self.accelerator.is_main_process
        world = self.accelerator.num_processes
        self.share = config.batch // world
        self.micro = config.micro_batch or self.share
        if config.batch % world or self.share % self.micro:
            raise ConfigError(
                f"a batch of {config.batch} does not divide into {world} processes with {self.micro} samples at once; "
                f"choose batch as a multiple of {world} x micro_batch"
            )
        self.data = PreparedSet(*config.data, verify=config.verify)
        self.order = Order(len(self.data), config.seed, config.held_out)
        self.total = config.total_steps(len(self.order))
        started = begin(config, self.data, dtype=_DTYPES[config.mixed_precision])
        self.prediction, self.facts = started.prediction, started.facts
        self.network = started.network.to(self.device)
        empty, encode = text_states(config, self.data, self.network.config.context_dim, self.device)
        width = self.network.dropout_width
        self.loader = Loader(self.data, config, empty=empty.to(self.device), encode=encode, dropout_width=width)
        if config.gradient_checkpointing:
            self.network.checkpoint_blocks()
        if config.compile:
            self.network.compile()
        self.parameters = self.network.trained()
        self.optimizer = _optimizer(config, list(self.parameters.values()))
        self.model, self._stepper = self.accelerator.prepare(self.network, self.optimizer)
        self.average = Average(self.parameters, config.ema) if config.ema else None
        self.step, self.best_loss, self.last_loss = 0, math.inf, math.nan

    def run(self) -> Result:
        """Train to the end, keeping checkpoints, logs and grids; say how to load the result."""
        config, checkpoints = self.config, Checkpoints(self.config.out, self.config.keep)
        self.resume(checkpoints)
        log = self._open_log(checkpoints)
        grids = Grids(self) if config.grid_every else None
        if self.step == 0 and grids:
            grids.draw(log)
        turns = (self.own_turns(step) for step in range(self.step, self.total))
        batches = self.loader.ahead(micro for step_turns in turns for micro in step_turns)
        try:
            while self.step < self.total:
                facts = self.train_step([next(batches) for _ in range(self.share // self.micro)], checkpoints)
                if log:
                    log.step(self.step, facts)
                if self.step % config.save_every == 0 or self.step == self.total:
                    self.save(checkpoints, log)
                if grids and (self.step % config.grid_every == 0 or self.step == self.total):
                    grids.draw(log)
        finally:
            batches.close()
            if log:
                log.close()
        self.accelerator.wait_for_everyone()
        latest = checkpoints.latest()
        if latest is None:
            raise TrainingStopped(f"{config.out} has no checkpoint after its last step: has it been removed?")
        result = Result(
            self.step, latest.weights, checkpoints.best if checkpoints.best.exists() else None, self.last_loss
        )
        if self.is_main:
            print(_how_to_load(result), flush=True)
        return result

    def train_step(self, batches: Sequence[Batch], checkpoints: Checkpoints | None = None) -> dict[str, float | int]:
        """One optimisation step on this process's share of a batch, in micro-batches; returns what is logged."""
        rate = self._rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.gradients(batches)
        facts: dict[str, float | int] = {"samples": (self.step + 1) * self.config.batch, "loss": loss, "rate": rate}
        if self.config.clip:
            norm = self.accelerator.clip_grad_norm_(list(self.parameters.values()), self.config.clip)
            facts["gradient_norm"] = float(norm)
        numbers = [loss] if self.accelerator.scaler else [loss, facts.get("gradient_norm", 0.0)]
        if not all(map(math.isfinite, numbers)):
            raise self._stopped(f"step {self.step + 1} has {facts}", checkpoints)
        self._stepper.step()
        self._stepper.zero_grad(set_to_none=True)
        self.step += 1
        self.last_loss = loss
        if self.average:
            self.average.update(self.step)
        epoch_turns = self.order.turns((self.step - 1) * self.config.batch, self.config.batch)
        facts["order"] = zlib.crc32(np.array(epoch_turns, dtype=np.int64).tobytes())
        return facts

    def gradients(self, batches: Sequence[Batch]) -> float:
        """Accumulate the gradients of micro-batches of one size; returns the loss over all processes."""
        self.network.train()
        total = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                loss = self.losses(self.model, batch.moved(self.device)).mean() / len(batches)
                self.accelerator.backward(loss)
            total += loss.detach()
        return float(self.accelerator.reduce(total, "mean"))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of each sample (B,) of a moved batch: the paper's eq. 1, weighted if the config says so."""
        draws, latent = batch.draws, batch.latents()
        x = noised(latent, draws.noise, draws.timesteps)
        predicted = model(x, draws.timesteps, self.loader.conditions(batch), draws.dropout).float()
        wanted = target(self.prediction, latent, draws.noise, draws.timesteps)
        losses = (predicted - wanted).square().mean((1, 2, 3))
        if self.config.min_snr:
            losses = losses * min_snr_weights(self.prediction, draws.timesteps, self.config.min_snr)
        return losses

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss over the held-out samples, with noise and timesteps that never change."""
        self.network.eval()
        indices, world = self.order.held_out, self.accelerator.num_processes
        own = list(range(len(indices)))[self.accelerator.process_index :: world]
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for first in range(0, len(own), self.micro):
            places = own[first : first + self.micro]
            batch = self.loader.fixed([indices[place] for place in places], places, len(indices))
            total += self.losses(self.evaluated(), batch.moved(self.device)).double().sum()
        return float(self.accelerator.reduce(total, "sum")) / len(indices)

    def evaluated(self) -> nn.Module:
        """The network without DDP around it, in the run's precision."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=True)

    def save(self, checkpoints: Checkpoints, log: RunLog | None) -> None:
        """Validate, and keep what the run has reached."""
        with self.average.in_place() if self.average else nullcontext():
            is_best = False
            if self.order.held_out:
                loss = self.validation_loss()
                if not math.isfinite(loss):
                    raise self._stopped(f"step {self.step} has validation loss {loss}", checkpoints)
                is_best = loss < self.best_loss
                self.best_loss = min(loss, self.best_loss)
                if log:
                    log.validation(self.step, loss, is_best)
            if not self.is_main:
                return
            tensors, rest = optimizer_tensors(self.optimizer)
            facts = {"step": self.step, "best_loss": self.best_loss, "loss": self.last_loss, "optimizer": rest}
            facts["data_content"] = self.facts["data_content"]
            if self.accelerator.scaler:
                facts["scaler"] = self.accelerator.scaler.state_dict()
            if self.average:  # whose place is taken: its means are the weights now
                tensors |= {f"weights.{name}": weight for name, weight in self.average.means.items()}
            checkpoints.save(self.step, self._fusers(), self._metadata(), tensors, facts, is_best=is_best)

    def resume(self, checkpoints: Checkpoints) -> None:
        """Take up the last checkpoint, if there is one. Raises ConfigError where the run began with another config."""
        latest = checkpoints.latest()
        resolved = self.config.out / "config.toml"
        if latest and resolved.exists():
            _check_same(load_config(TrainConfig, resolved), self.config)
        self.accelerator.wait_for_everyone()
        if self.is_main:
            checkpoints.clean()
            save_config(self.config, resolved)
        if latest is None:
            return
        tensors, facts = latest.read_state()
        if facts["data_content"] != self.facts["data_content"]:
            raise ConfigError(
                f"{self.config.out} was trained on other sets than {self.data.name}, or on those before one was "
                f"prepared again; choose another out"
            )
        self._take(latest, tensors)
        restore_optimizer(self.optimizer, {**tensors, **facts["optimizer"]})
        if self.accelerator.scaler and "scaler" in facts:
            self.accelerator.scaler.load_state_dict(facts["scaler"])
        self.step, self.best_loss, self.last_loss = facts["step"], facts["best_loss"], facts["loss"]

    def _take(self, latest: Saved, tensors: dict[str, Tensor]) -> None:
        """Put a checkpoint's weights, and the average, where they belong."""
        prefixes = {LOCAL: "local_fuser.", GLOBAL: "global_fuser."}
        state, _, _ = read_checkpoint(latest.weights)
        kept = {
            own + n.removeprefix(key): t for key, own in prefixes.items() for n, t in state.items() if n.startswith(key)
        }
        if self.average:
            self.average.load(kept)
            kept = {name.removeprefix("weights."): t for name, t in tensors.items() if name.startswith("weights.")}
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(kept[name])

    def own_turns(self, step: int) -> list[Sequence[Drawn]]:
        """This process's micro-batches of a step: its part of the one global batch."""
        first = self.accelerator.process_index * self.share
        turns = self.order.turns(step * self.config.batch + first, self.share)
        return [turns[start : start + self.micro] for start in range(0, self.share, self.micro)]

    @staticmethod
    def _stopped(what: str, checkpoints: Checkpoints | None) -> TrainingStopped:
        latest = checkpoints.latest() if checkpoints else None
        kept = f"the last good checkpoint is {latest.weights}" if latest else "there is no checkpoint yet"
        return TrainingStopped(
            f"{what}: stopped, since it is no number; {kept}. Lower learning_rate, clip the gradient, or train in "
            f"another precision, in another out"
        )

    def _rate(self, step: int) -> float:
        config = self.config
        rate = config.learning_rate * (min(1.0, (step + 1) / config.warm_up) if config.warm_up else 1.0)
        if config.schedule == "cosine":
            share = max(0, step - config.warm_up) / max(1, self.total - config.warm_up)
            rate *= 0.5 * (1 + math.cos(math.pi * share))
        return rate

    def _fusers(self) -> Fusers:
        local_fuser, global_fuser = self.network.local_fuser, self.network.global_fuser
        parts = [fuser.config for fuser in (local_fuser, global_fuser) if fuser is not None]
        config = dataclasses.replace(parts[0], global_tokens=parts[-1].global_tokens)
        return Fusers(local_fuser, global_fuser, config, {})

    def _metadata(self) -> dict[str, str]:
        samples = self.step * self.config.batch
        counts = {"steps": str(self.step), "samples": str(samples), "epochs": f"{samples / len(self.order):.3f}"}
        told = json.dumps({field: str(value) for field, value in vars(self.config).items() if value is not None})
        return {**self.facts, **counts, "averaged": str(self.config.ema), "training": told}

    def _open_log(self, checkpoints: Checkpoints) -> RunLog | None:
        if not self.is_main:
            return None
        config = self.config
        log = RunLog(config.out, self.step, self.total, config.batch, tensorboard=config.tensorboard)
        count = sum(parameter.numel() for parameter in self.parameters.values())
        log.say(
            f"{config.stage}: {count / 1e6:.1f} M parameters train, {len(self.order)} samples an epoch, "
            f"step {self.step} of {self.total}, {config.batch} samples each, on {self.accelerator.num_processes} x "
            f"{self.device.type}" + (f", going on from {latest.weights}" if (latest := checkpoints.latest()) else "")
        )
        return log


_DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def make_accelerator(config: TrainConfig) -> Any:
    """What spreads a run over its processes. Raises ConfigError without accelerate, and for fp16 on a CPU."""
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs
    except ImportError as error:
        raise ConfigError(
            "training needs accelerate: `pip install accelerate`, or this package's extra `training`"
        ) from error
    AcceleratorState._reset_state()  # a notebook may train a second stage, in another precision
    kwargs = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, cpu=config.device == "cpu", kwargs_handlers=[kwargs]
    )
    if config.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ConfigError("fp16 needs a GPU, and training would run on a CPU: give --mixed-precision bf16, or no")
    return accelerator


def _optimizer(config: TrainConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError(
            "8-bit AdamW needs bitsandbytes: `pip install bitsandbytes`, or this package's extra `eight-bit`"
        ) from error
    return AdamW8bit(parameters, config.learning_rate, weight_decay=config.weight_decay)


def _check_same(before: TrainConfig, now: TrainConfig) -> None:
    changed = [
        f"{name} was {value!r} and is {getattr(now, name)!r}"
        for name, value in vars(before).items()
        if name not in FREE and value != getattr(now, name)
    ]
    if changed:
        raise ConfigError(
            f"{now.out} holds a run that began otherwise: {'; '.join(changed)}. Go on with its own config, or choose "
            f"another out"
        )


def _how_to_load(result: Result) -> str:
    weights = result.best or result.weights
    return (
        f"finished after {result.steps} steps: {weights}\n"
        f"To use it in ComfyUI, copy that file into models/cnc, press R, and choose it in the node "
        f"Load Fusers (Compose and Conquer)."
    )
