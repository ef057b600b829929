"""The training loop: any stage, any number of processes, resumable to the bit.

A run's state is the number of samples it has seen. Which samples come next, and all chance, follow from that and the
seed (`order`, `draws`), so that a run that was killed goes on as if it had not been, and other numbers of processes
see the same batches.
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnc_core import Fusers

from ..config import ConfigError, save_config
from ..diffusion import min_snr_weights, noised, target, widest_float
from ..files import only_run_in
from ..prepared import PreparedSet
from .average import Average
from .checkpoints import Checkpoints, optimizer_tensors, restore_optimizer
from .config import TrainConfig
from .grids import Grids
from .interruption import StopRequest
from .loader import Batch, Loader
from .logs import RunLog
from .optimizers import make_optimizer
from .order import Drawn, Order
from .processes import check_alike, end_processes, from_main, make_accelerator
from .resume import load_run, settings_of_all
from .start import begin, text_states

__all__ = ["Result", "Trainer", "TrainingInterrupted", "TrainingStopped", "end_processes", "train_stage"]


class TrainingStopped(RuntimeError):
    """A run that cannot go on; the message names the last good checkpoint."""


class TrainingInterrupted(TrainingStopped):
    """A run that SIGTERM or Ctrl-C has ended after a step; the message says what was saved. signal: its number."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


@dataclass(frozen=True)
class Result:
    """What a finished run leaves. best is None without held-out samples; loss is the last step's."""

    steps: int
    weights: Path
    best: Path | None
    loss: float


def train_stage(config: TrainConfig) -> Result:
    """Run a stage to its end, from where it stands in ``config.out``.

    In several processes (`accelerate-launch`, `torchrun`) each calls this. Raises ConfigError, CheckpointError and
    PreparedError for what does not fit together, FolderInUse where another run works in that folder, OSError where
    the disk is full, TrainingStopped where the loss is no number, TrainingInterrupted where SIGTERM or Ctrl-C came.
    """
    accelerator = make_accelerator(config)
    with only_run_in(config.out) if accelerator.is_main_process else nullcontext():
        try:
            return Trainer(config, accelerator).run()
        finally:
            accelerator.free_memory()


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
        self.optimizer = make_optimizer(config, list(self.parameters.values()))
        self.model, self._stepper = self.accelerator.prepare(self.network, self.optimizer)
        self.average = Average(self.parameters, config.ema) if config.ema else None
        self.step, self.best_loss, self.last_loss = 0, math.inf, math.nan
        self.saved: Path | None = None

    def run(self) -> Result:
        """Train to the end, keeping checkpoints, logs and grids; say how to load the result."""
        config, checkpoints = self.config, Checkpoints(self.config.out, self.config.keep)
        self.resume(checkpoints)
        log = self._open_log()
        grids = Grids(self) if config.grid_every else None
        if self.step == 0:
            self._look_before(log, grids)
        turns = (self.own_turns(step) for step in range(self.step, self.total))
        batches = self.loader.ahead(micro for step_turns in turns for micro in step_turns)
        try:
            with StopRequest(self.accelerator) as stop:
                while self.step < self.total:
                    facts = self.train_step([next(batches) for _ in range(self.share // self.micro)])
                    if log:
                        log.step(self.step, facts)
                    is_due = self.step % config.save_every == 0 or self.step == self.total
                    if is_due:
                        self.save(checkpoints, log)
                    if self.step < self.total and (number := stop.agreed()):
                        if not is_due:
                            self.save(checkpoints, log, validate=False)
                        raise self._interrupted(number)
                    if grids and (self.step % config.grid_every == 0 or self.step == self.total):
                        grids.draw(log)
        finally:
            batches.close()
            if log:
                log.close()
        latest, has_best = from_main(self.accelerator, lambda: (checkpoints.latest(), checkpoints.best.exists()))
        if latest is None:
            raise TrainingStopped(f"{config.out} has no checkpoint after its last step: has it been removed?")
        result = Result(self.step, latest.weights, checkpoints.best if has_best else None, self.last_loss)
        if self.is_main:
            print(_how_to_load(result), flush=True)
        return result

    def _look_before(self, log: RunLog | None, grids: Grids | None) -> None:
        """The validation loss and the grid that training starts from."""
        if self.order.held_out:
            loss = self.validation_loss()
            if log:
                log.validation(0, loss, best=False)
        if grids:
            grids.draw(log)

    def train_step(self, batches: Sequence[Batch]) -> dict[str, float | int]:
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
            raise self._stopped(f"step {self.step + 1} has {facts}")
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
        total = torch.zeros((), dtype=widest_float(self.device), device=self.device)
        for first in range(0, len(own), self.micro):
            places = own[first : first + self.micro]
            batch = self.loader.fixed([indices[place] for place in places], places, len(indices))
            total += self.losses(self.evaluated(), batch.moved(self.device)).to(total.dtype).sum()
        return float(self.accelerator.reduce(total, "sum")) / len(indices)

    def evaluated(self) -> nn.Module:
        """The network without DDP around it, in the run's precision."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=True)

    def save(self, checkpoints: Checkpoints, log: RunLog | None, *, validate: bool = True) -> None:
        """Validate, and keep what the run has reached. validate: False keeps it as it is, since time is short."""
        with self.average.in_place() if self.average else nullcontext():
            is_best = False
            if self.order.held_out and validate:
                loss = self.validation_loss()
                if not math.isfinite(loss):
                    raise self._stopped(f"step {self.step} has validation loss {loss}")
                is_best = loss < self.best_loss
                self.best_loss = min(loss, self.best_loss)
                if log:
                    log.validation(self.step, loss, is_best)
            self.saved = checkpoints.weights(self.step)
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
        """Take up the main process's last checkpoint, if there is one.

        Raises ConfigError where the run began otherwise, or where the processes are not told the same.
        """
        check_alike(self.accelerator, settings_of_all(self.config, self.facts, self.total))
        state = load_run(self.accelerator, checkpoints, self.config, self.facts, len(self.order))
        if self.is_main:
            checkpoints.clean()
            save_config(self.config, self.config.out / "config.toml")
        if state is None:
            return
        weights, tensors, facts = state.weights, state.tensors, state.metadata
        if self.average:
            self.average.load(weights)
            weights = {name.removeprefix("weights."): t for name, t in tensors.items() if name.startswith("weights.")}
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])
        restore_optimizer(self.optimizer, {**tensors, **facts["optimizer"]})
        if self.accelerator.scaler and "scaler" in facts:
            self.accelerator.scaler.load_state_dict(facts["scaler"])
        self.step, self.best_loss, self.last_loss = facts["step"], facts["best_loss"], facts["loss"]
        self.saved = state.path

    def own_turns(self, step: int) -> list[Sequence[Drawn]]:
        """This process's micro-batches of a step: its part of the one global batch."""
        first = self.accelerator.process_index * self.share
        turns = self.order.turns(step * self.config.batch + first, self.share)
        return [turns[start : start + self.micro] for start in range(0, self.share, self.micro)]

    def _stopped(self, what: str) -> TrainingStopped:
        kept = f"the last good checkpoint is {self.saved}" if self.saved else "there is no checkpoint yet"
        return TrainingStopped(
            f"{what}: stopped, since it is no number; {kept}. Lower learning_rate, clip the gradient, or train in "
            f"another precision, in another out"
        )

    def _interrupted(self, number: int) -> TrainingInterrupted:
        return TrainingInterrupted(
            f"{signal.Signals(number).name}: stopped after step {self.step} of {self.total}, saved as {self.saved}. "
            f"Start the same command again, and it goes on from there",
            number,
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

    def _open_log(self) -> RunLog | None:
        if not self.is_main:
            return None
        config = self.config
        log = RunLog(config.out, self.step, self.total, config.batch, tensorboard=config.tensorboard)
        count = sum(parameter.numel() for parameter in self.parameters.values())
        log.say(
            f"{config.stage}: {count / 1e6:.1f} M parameters train, {len(self.order)} samples an epoch, "
            f"step {self.step} of {self.total}, {config.batch} samples each, on {self.accelerator.num_processes} x "
            f"{self.device.type}" + (f", going on from {self.saved}" if self.saved else "")
        )
        return log


_DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _how_to_load(result: Result) -> str:
    weights = result.best or result.weights
    return (
        f"finished after {result.steps} steps: {weights}\n"
        f"To use it in ComfyUI, copy that file into models/cnc, press R, and choose it in the node "
        f"Load Fusers (Compose and Conquer)."
    )
