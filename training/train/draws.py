"""The chance of each sample: noise, timestep, drops, caption and dropout, drawn from (seed, epoch, index) alone.

So neither the other samples of a batch, nor the number of processes, nor where a run was interrupted matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..diffusion import STEPS
from .config import DROPS, TrainConfig
from .order import Drawn

_TRAINING, _VALIDATION = 2, 3  # of the seed's streams; `order` has 0 and 1


@dataclass(frozen=True, eq=False)
class Draws:
    """Of a batch of B. timesteps (B,); noise (B, 4, h, w); captions: one of each sample's; kept (B, 5), text and the
    conditions in the order of `config.DROPS`; deviation (B, 4, h, w), what multiplies the latents' deviation; dropout
    (B, width) uniform in [0, 1)."""

    timesteps: Tensor
    noise: Tensor
    captions: list[int]
    kept: Tensor
    deviation: Tensor | None = None
    dropout: Tensor | None = None


def draw(
    config: TrainConfig,
    turns: Sequence[Drawn],
    captions: Sequence[int],
    latent: tuple[int, ...],
    *,
    deviation: bool = False,
    dropout: int = 0,
) -> Draws:
    """What training draws for these samples, with so many captions each.

    latent: shape of one. deviation: draw for the latents as well. dropout: how many uniform numbers.
    """
    probabilities = np.array([getattr(config, name) for name in DROPS])
    timesteps, chosen, kept = [], [], []
    noises, deviations, uniforms = [], [], []
    for (epoch, index), count in zip(turns, captions, strict=True):
        numbers = np.random.default_rng((config.seed, _TRAINING, epoch, index))
        uniform = numbers.random(3 + len(DROPS))
        timesteps.append(int(uniform[0] * STEPS))
        chosen.append(int(uniform[1] * count))
        kept.append(_kept(config, uniform[2], uniform[3:] >= probabilities))
        noises.append(numbers.standard_normal(latent, dtype=np.float32))
        if deviation:
            deviations.append(numbers.standard_normal(latent, dtype=np.float32))
        if dropout:
            uniforms.append(numbers.random(dropout, dtype=np.float32))
    return Draws(
        torch.tensor(timesteps),
        _stacked(noises),
        chosen,
        _stacked(kept),
        _stacked(deviations) if deviation else None,
        _stacked(uniforms) if dropout else None,
    )


def draw_fixed(
    config: TrainConfig, indices: Sequence[int], places: Sequence[int], of: int, latent: tuple[int, ...]
) -> Draws:
    """What validation draws, always the same: timesteps spread evenly by a sample's place among `of`, nothing dropped,
    the first caption."""
    noises = [
        np.random.default_rng((config.seed, _VALIDATION, index)).standard_normal(latent, dtype=np.float32)
        for index in indices
    ]
    timesteps = torch.tensor([int((place + 0.5) / of * STEPS) for place in places])
    kept = torch.ones(len(indices), len(DROPS), dtype=torch.bool)
    return Draws(timesteps, _stacked(noises), [0] * len(indices), kept)


def _kept(config: TrainConfig, all_of_them: float, each: np.ndarray) -> np.ndarray:
    if all_of_them < config.keep_all:
        return np.ones_like(each)
    if all_of_them < config.keep_all + config.drop_all:
        return np.zeros_like(each)
    return each


def _stacked(rows: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(rows))
