"""A training step from a prepared set beside the same step that encodes pictures and texts each time, and its memory.

Both are steps of `training.train.Trainer` on the same networks, read by the same loader; the second one then replaces
latents, text states and embeddings by what Stable Diffusion 1.5's encoders make of pictures that are on the device
already, and so pays nothing for decoding and resizing them.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnc_core import FuserConfig
from training.train import TrainConfig, Trainer
from training.train.config import Stage
from training.train.loader import Batch
from training.train.plan import peak_memory

from .training_inputs import TOKENS, Encode, sd_encoders, write_base, write_fusers, write_set, write_text_encoder

GIB = 2**30
CARD = 24.0
SPARE = 1.0
"""GiB of a card that the driver, the context and a screen take."""
PREPARED, ENCODING = "prepared", "encoding each time"


@dataclass(frozen=True)
class Inputs:
    """Where the made-up files are, of which sizes."""

    folder: Path
    pixels: int
    config: FuserConfig

    def write(self, samples: int) -> None:
        """Put all files in their place."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_base(self.folder / "base.safetensors", self.config)
        write_set(self.folder / "set", samples, self.pixels // 8, self.config)
        write_text_encoder(self.folder / "text", self.config)

    def trainer(self, stage: Stage, **fields: Any) -> Measured:
        """A stage at its start."""
        folder = self.folder
        both = folder / "both.safetensors"
        if stage == "joint" and not both.exists():
            write_fusers(both, self.config)
        standard = {
            "mixed_precision": "bf16" if torch.cuda.is_available() else "no", "verify": False, "held_out": 0,
            "text_encoder": str(folder / "text"), "fusers": (both,) if stage == "joint" else (),
        }  # fmt: skip
        return Measured(
            TrainConfig(
                stage,
                (folder / "set",),
                folder / "base.safetensors",
                folder / "run",
                **{"batch": 1, **standard, **fields},
            )
        )


class Measured(Trainer):
    """A trainer that encodes each batch's pictures itself where it has been given encoders."""

    encode: Encode | None = None
    pictures: Tensor

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """As in a run, with arrays that were encoded just now in place of the prepared ones."""
        if self.encode is None:
            return super().losses(model, batch)
        latents, text, embeds = self.encode(self.pictures[: len(batch.draws.timesteps)])
        made = {"latents": latents, "text": text, "source_embed": embeds, "background_embed": embeds}
        arrays = {name: made.get(name, array) for name, array in batch.arrays.items()}
        return super().losses(model, replace(batch, arrays=arrays))

    def timed(self, batch: int, rounds: int, encode: Encode | None = None) -> dict[str, list[float]]:
        """Seconds of each step of so many samples, one kind after the other, after a step of each to warm up."""
        turns = (self.order.turns(step * batch, batch) for step in range(2 * rounds + 2))
        batches = self.loader.ahead(turns)
        kinds = {PREPARED: None} if encode is None else {PREPARED: None, ENCODING: encode}
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(rounds + 1):
            for name, encoder in kinds.items():
                self.encode = encoder
                began = time.perf_counter()
                self.train_step([next(batches)])  # waits for the device, since it returns the loss
                times[name].append(time.perf_counter() - began)
        batches.close()
        self.encode = None
        return {name: each[1:] for name, each in times.items()}


def measure(inputs: Inputs, stage: Stage, batches: tuple[int, ...], rounds: int) -> Measured:
    """Print samples a second of both kinds of step at these batches, and their ratio."""
    trainer = inputs.trainer(stage)
    device = trainer.device
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    encode, encoders = sd_encoders(device, dtype, exemplars=stage != "local")
    trained = sum(parameter.numel() for parameter in trainer.parameters.values())
    precision = "bf16" if device.type == "cuda" else "fp32"
    print(
        f"{stage} stage, {trained / 1e6:.1f} M parameters train, {inputs.pixels} pixels, {precision}, {where(device)}"
    )
    print(f"  encoding each time runs {encoders}; medians of {rounds} steps each, in turn")
    for batch in batches:
        trainer.pictures = torch.rand(batch, 3, inputs.pixels, inputs.pixels, device=device)
        times = trainer.timed(batch, rounds, encode)
        medians = {name: statistics.median(each) for name, each in times.items()}
        told = ", ".join(f"{name} {_rate(batch, each)}" for name, each in times.items())
        print(f"  batch {batch}: {told}: {medians[ENCODING] / medians[PREPARED]:.2f} times as many", flush=True)
    print(f"  peak memory of this process so far: {peak_memory(device) / GIB:.1f} GiB", flush=True)
    return trainer


@torch.no_grad()
def measure_forward(trainer: Measured, batch: int, rounds: int) -> None:
    """Print how fast the base's U-Net is alone, which is what inpainting and sampling take most of."""
    device, unet = trainer.device, trainer.network.unet
    dtype, latent = next(unet.parameters()).dtype, trainer.loader.latent_shape
    x = torch.randn(batch, *latent, device=device, dtype=dtype)
    text = torch.randn(batch, TOKENS, unet.config.context_dim, device=device, dtype=dtype)
    timesteps = torch.full((batch,), 500, device=device)
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        float(unet(x, timesteps, text).sum())  # waits for the device
        times.append(time.perf_counter() - began)
    print(f"  the U-Net's forward alone, batch {batch}: {_rate(batch, times[1:])}", flush=True)


def measure_compiled(trainer: Measured, batch: int, rounds: int) -> None:
    """Print samples a second of the prepared step with the networks compiled, and how long that took."""
    trainer.network.compile()
    began = time.perf_counter()
    trainer.timed(batch, 1)
    first = time.perf_counter() - began
    times = trainer.timed(batch, rounds)[PREPARED]
    print(f"  batch {batch}, compiled: {_rate(batch, times)}; the first two steps took {first:.0f} s", flush=True)


def measure_memory(trainer: Measured, largest: int = 96) -> None:
    """Print the largest batch whose step runs in a process that is held to a card of 24 GB, and others' peaks.

    At last with gradient checkpointing, which stays on.
    """
    total = torch.cuda.get_device_properties(trainer.device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (CARD - SPARE) * GIB / total))
    for kind in ("as it is", "with gradient checkpointing"):
        if kind != "as it is":
            trainer.network.checkpoint_blocks()
        peaks: dict[int, float] = {}
        batch, times = 1, [0.0]
        while batch <= largest:
            trainer.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            try:
                times = trainer.timed(batch, 1)[PREPARED]
            except torch.cuda.OutOfMemoryError:
                break
            peaks[batch] = torch.cuda.max_memory_reserved() / GIB
            batch += 1 if batch < 4 else 4
        best = max(peaks, default=0)
        print(
            f"  held to {CARD - SPARE:.0f} GiB, {kind}: batch {best} fits"
            + (f", {_rate(best, times)}; GiB by batch: " if best else "")
            + ", ".join(f"{each}: {peak:.1f}" for each, peak in peaks.items()),
            flush=True,
        )
    trainer.optimizer.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.0)


def _rate(batch: int, times: list[float]) -> str:
    return f"{batch / statistics.median(times):.3f} a second ({min(times):.3f} to {max(times):.3f} s a step)"


def where(device: torch.device) -> str:
    """On what it ran."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
