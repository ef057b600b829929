"""The diffusion process of Stable Diffusion: schedule, noising, what is predicted, loss weights, DDIM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

STEPS = 1000
Prediction = Literal["eps", "v"]

Predict = Callable[[Tensor, Tensor], Tensor]
"""The model with its conditions filled in: x (B, 4, h, w) and timesteps (B,) to its prediction."""


@cache
def alphas_cumprod(device: torch.device | str = "cpu") -> Tensor:
    """SD's scaled-linear schedule, (1000,), computed on the CPU once for each device."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64, device="cpu") ** 2
    return (1 - betas).cumprod(0).float().to(device)


def levels(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """The share of signal and of noise at timesteps (B,), each (B, 1, 1, 1)."""
    alpha = alphas_cumprod(timesteps.device)[timesteps][:, None, None, None]
    return alpha.sqrt(), (1 - alpha).sqrt()


def noised(latent: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """x_t of latents (B, 4, h, w)."""
    signal, spread = levels(timesteps)
    return signal * latent + spread * noise


def velocity(latent: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """The target v = sqrt(alpha) noise - sqrt(1 - alpha) latent."""
    signal, spread = levels(timesteps)
    return signal * noise - spread * latent


def target(prediction: Prediction, latent: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What a model is to predict: the noise, or v."""
    return noise if prediction == "eps" else velocity(latent, noise, timesteps)


def min_snr_weights(prediction: Prediction, timesteps: Tensor, gamma: float) -> Tensor:
    """Min-SNR weights (B,) (Hang et al. 2023): min(SNR, gamma) over SNR for eps, over SNR + 1 for v.

    Both weigh the error of the latent, which they stand for, by min(SNR, gamma).
    """
    alpha = alphas_cumprod(timesteps.device)[timesteps]
    snr = alpha / (1 - alpha)
    return snr.clamp(max=gamma) / (snr if prediction == "eps" else snr + 1)


def ddim(predict: Predict, noise: Tensor, steps: int, prediction: Prediction = "v") -> Iterator[Tensor]:
    """Deterministic DDIM from pure noise; yields the predicted latent after every step."""
    times = torch.linspace(STEPS - 1, 0, steps + 1).round().long().to(noise.device)
    x = noise
    for now, then in pairwise(times):
        at = now.expand(len(x))
        signal, spread = levels(at)
        predicted = predict(x, at)
        if prediction == "eps":
            latent, direction = (x - spread * predicted) / signal, predicted
        else:
            latent, direction = signal * x - spread * predicted, spread * x + signal * predicted
        yield latent
        signal, spread = levels(then.expand(len(x)))
        x = signal * latent + spread * direction


def guided(predict_twice: Predict, scale: float) -> Predict:
    """Classifier-free guidance over a model whose batch holds the conditional half first, then the other."""

    def predict(x: Tensor, timesteps: Tensor) -> Tensor:
        with_text, without = predict_twice(torch.cat((x, x)), torch.cat((timesteps, timesteps))).chunk(2)
        return without + scale * (with_text - without)

    return predict


def widest_float(device: torch.device) -> torch.dtype:
    """The widest floats for sums on a device: MPS has none of 64 bits."""
    return torch.float32 if device.type == "mps" else torch.float64
