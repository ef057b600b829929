"""The diffusion process of the Mini: the trainer's, with v-prediction and min-SNR weights scaled to a mean of one."""

from __future__ import annotations

from torch import Tensor

from ..diffusion import STEPS, Predict, alphas_cumprod, ddim, guided, noised, velocity

__all__ = ["MIN_SNR", "STEPS", "Predict", "alphas_cumprod", "ddim", "guided", "noised", "v_loss", "velocity"]

MIN_SNR = 5.0


def v_loss(predicted: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
    """Mean squared error of v, weighted by min(SNR, 5) / (SNR + 1) and scaled to weights of mean one."""
    alpha = alphas_cumprod(timesteps.device)
    snr = alpha / (1 - alpha)
    weights = snr.clamp(max=MIN_SNR) / (snr + 1)
    weight = (weights / weights.mean())[timesteps]
    return (weight * (predicted - target).square().mean((1, 2, 3))).mean()
