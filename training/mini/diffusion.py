"""The diffusion process of the Mini: SD's schedule, v-prediction, min-SNR weights, DDIM with CFG."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

STEPS = 1000
MIN_SNR = 5.0

Predict = Callable[[Tensor, Tensor], Tensor]
"""The model with its conditions filled in: x (B, 4, h, w) and timesteps (B,) to v."""


@cache
def alphas_cumprod() -> Tensor:
    """SD's scaled-linear schedule, (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def _levels(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    alpha = alphas_cumprod().to(timesteps.device)[timesteps][:, None, None, None]
    return alpha.sqrt(), (1 - alpha).sqrt()


def noised(latent: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """x_t of latents (B, 4, h, w)."""
    signal, spread = _levels(timesteps)
    return signal * latent + spread * noise


def velocity(latent: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """The target v = sqrt(alpha) noise - sqrt(1 - alpha) latent."""
    signal, spread = _levels(timesteps)
    return signal * noise - spread * latent


def v_loss(predicted: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
    """Mean squared error of v, weighted by min(SNR, 5) / (SNR + 1) and scaled to weights of mean one."""
    snr = alphas_cumprod() / (1 - alphas_cumprod())
    weights = snr.clamp(max=MIN_SNR) / (snr + 1)
    weight = (weights / weights.mean()).to(timesteps.device)[timesteps]
    return (weight * (predicted - target).square().mean((1, 2, 3))).mean()


def ddim(predict: Predict, noise: Tensor, steps: int) -> Iterator[Tensor]:
    """Deterministic DDIM from pure noise; yields the predicted latent after every step."""
    times = torch.linspace(STEPS - 1, 0, steps + 1).round().long()
    x = noise
    for now, then in pairwise(times):
        at = now.expand(len(x))
        signal, spread = _levels(at)
        v = predict(x, at)
        latent, direction = signal * x - spread * v, spread * x + signal * v
        yield latent
        signal, spread = _levels(then.expand(len(x)))
        x = signal * latent + spread * direction


def guided(predict_twice: Predict, scale: float) -> Predict:
    """Classifier-free guidance over a model whose batch holds the conditional half first, then the other."""

    def predict(x: Tensor, timesteps: Tensor) -> Tensor:
        with_text, without = predict_twice(torch.cat((x, x)), torch.cat((timesteps, timesteps))).chunk(2)
        return without + scale * (with_text - without)

    return predict
