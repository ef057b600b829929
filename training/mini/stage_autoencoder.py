"""Stage "autoencoder": pictures to 16 x 16 x 4 latents and back."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .autoencoder import Autoencoder, Widths
from .cache import SIZE, SceneCache
from .loop import Draw, Loss, Plan, Training, channels_last, mixed

PLAN = Plan("autoencoder", steps=5000, batch=64, learning_rate=1e-3, seed=11, log_every=500, weight_decay=0.0)
ENCODER = Widths((16, 32, 64, 64), (1, 1, 2, 3))
DECODER = Widths((32, 32, 64, 64), (1, 1, 2, 3))
CROP = 64
LATENT_NOISE = 0.08  # added to latents in training: near latents decode alike, which diffusion needs


def crops(scenes: SceneCache, draw: Draw, size: int = CROP) -> Tensor:
    """Random crops (B, 3, size, size) of I_s and I_b, half of them mirrored."""
    rows, count = draw.rows(scenes.ready), draw.plan.batch
    top, left = draw.integers(SIZE - size + 1, 2, count, 1)
    line = torch.arange(size, device=scenes.device)
    across = torch.where(draw.uniform(count, 1) < 0.5, line, size - 1 - line)
    place = torch.arange(count, device=scenes.device)[:, None, None]
    chosen = (draw.uniform(count) < 0.7)[:, None, None, None]
    pictures = torch.where(chosen, scenes.arrays["image"][rows], scenes.arrays["background"][rows]).movedim(1, -1)
    cut = pictures[place, (top + line)[:, :, None], (left + across)[:, None, :]]
    return cut.movedim(-1, 1).float() / 255


def _slopes(picture: Tensor) -> tuple[Tensor, Tensor]:
    return picture[..., 1:, :] - picture[..., :-1, :], picture[..., 1:] - picture[..., :-1]


def reconstruction_loss(seen: Tensor, wanted: Tensor) -> Tensor:
    """L1, MSE and the L1 of the slopes."""
    slopes = sum(F.l1_loss(a, b) for a, b in zip(_slopes(seen), _slopes(wanted), strict=True))
    return F.l1_loss(seen, wanted) + 2 * F.mse_loss(seen, wanted) + 0.5 * slopes


def psnr(seen: Tensor, wanted: Tensor) -> Tensor:
    """Peak signal to noise in dB."""
    return -10 * torch.log10(F.mse_loss(seen.clamp(0, 1), wanted))


def begin(
    scenes: SceneCache, folder: Path, resume: bool = True, plan: Plan = PLAN
) -> tuple[Autoencoder, Training, Loss]:
    """The autoencoder, its training and what that minimises."""
    torch.manual_seed(plan.seed)
    model = channels_last(_made_for(scenes.device))

    def loss(draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        wanted = crops(scenes, draw).contiguous(memory_format=torch.channels_last)
        with mixed(scenes.device):
            latent = model.encode(wanted).float()
            noisy = latent + LATENT_NOISE * draw.noise(*latent.shape)
            seen = model.decode(noisy).float()
        mean, deviation = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
        moments = (mean.square() + (deviation - 1).square()).mean()
        value = reconstruction_loss(seen, wanted) + 0.05 * moments
        return value, {"psnr": psnr(seen.detach(), wanted), "std": deviation.detach().mean()}

    return model, Training(plan, model, folder, resume), loss


def _made_for(device: torch.device) -> Autoencoder:
    """The released widths on a GPU; on a CPU the narrow ones, which widen without a change."""
    return Autoencoder(ENCODER, DECODER) if device.type == "cpu" else Autoencoder().to(device)


@torch.no_grad()
def measure(model: Autoencoder, scenes: SceneCache, rows: Tensor) -> dict[str, float]:
    """PSNR on whole pictures, and the latent's mean and deviation."""
    picture = scenes.read("image", rows)
    latent = model.encode(picture)
    facts = {"psnr": psnr(model.decode(latent), picture), "mean": latent.mean(), "std": latent.std()}
    return {name: round(value.item(), 3) for name, value in facts.items()}


def restore(folder: Path, device: torch.device) -> Autoencoder:
    """The autoencoder as far as the stage has come. Raises FileNotFoundError where it has not begun."""
    if not (folder / f"{PLAN.name}.pt").exists():
        raise FileNotFoundError(f"no autoencoder in {folder}: run `python -m training mini --stage encoders`")
    model = _made_for(device)
    Training(PLAN, model, folder).use_average()
    return model.requires_grad_(False)
