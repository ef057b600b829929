"""Stage "autoencoder": pictures to 16 x 16 x 4 latents and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .autoencoder import Autoencoder, Widths
from .cache import SIZE, SceneCache
from .loop import Draw, Plan, Training, channels_last

ENCODER = Widths((16, 32, 64, 64), (1, 1, 2, 3))
DECODER = Widths((32, 32, 64, 64), (1, 1, 2, 3))
PLAN = Plan("autoencoder", steps=3000, batch=16, learning_rate=1.5e-3, seed=11, save_every=250, weight_decay=0.0)
DECODER_PLAN = Plan("decoder", steps=1500, batch=16, learning_rate=8e-4, seed=13, save_every=250, weight_decay=0.0)
CROP = 64
LATENT_NOISE = 0.08  # added to latents in training: near latents decode alike, which diffusion needs


def crops(cache: SceneCache, draw: Draw, size: int = CROP) -> Tensor:
    """Random crops of I_s and I_b, half of them mirrored."""
    out = np.empty((draw.plan.batch, 3, size, size), np.uint8)
    for k, row in enumerate(draw.rows(cache.ready)):
        name = "image" if draw.numbers.random() < 0.7 else "background"
        top, left = draw.numbers.integers(SIZE - size + 1, size=2)
        crop = cache.arrays[name][row, :, top : top + size, left : left + size]
        out[k] = crop[..., ::-1] if draw.numbers.random() < 0.5 else crop
    return torch.from_numpy(out).float() / 255


def _slopes(picture: Tensor) -> tuple[Tensor, Tensor]:
    return picture[..., 1:, :] - picture[..., :-1, :], picture[..., 1:] - picture[..., :-1]


def reconstruction_loss(seen: Tensor, wanted: Tensor) -> Tensor:
    """L1, MSE and the L1 of the slopes."""
    slopes = sum(F.l1_loss(a, b) for a, b in zip(_slopes(seen), _slopes(wanted), strict=True))
    return F.l1_loss(seen, wanted) + 2 * F.mse_loss(seen, wanted) + 0.5 * slopes


def psnr(seen: Tensor, wanted: Tensor) -> float:
    """Peak signal to noise in dB."""
    return float(-10 * torch.log10(F.mse_loss(seen.clamp(0, 1), wanted)))


def train(cache: SceneCache, folder: Path, resume: bool = True, plan: Plan = PLAN) -> Autoencoder:
    """Train to the plan's end; returns the averaged weights."""
    torch.manual_seed(plan.seed)
    model = channels_last(Autoencoder(ENCODER, DECODER))
    training = Training(plan, model, folder, resume)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        wanted = crops(cache, draw).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            latent = model.encode(wanted).float()
            noisy = latent + LATENT_NOISE * draw.noise(*latent.shape)
            seen = model.decode(noisy).float()
        mean, deviation = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
        moments = (mean.square() + (deviation - 1).square()).mean()
        value = reconstruction_loss(seen, wanted) + 0.05 * moments
        return value, {"psnr": psnr(seen.detach(), wanted), "std": float(deviation.detach().mean())}

    training.run(loss)
    training.use_average()
    return model


def measure(model: Autoencoder, cache: SceneCache, rows: np.ndarray) -> dict[str, float]:
    """PSNR on whole pictures, and the latent's mean and deviation."""
    with torch.no_grad():
        picture = cache.read("image", rows)
        latent = model.encode(picture)
        seen = model.decode(latent)
    return {"psnr": psnr(seen, picture), "mean": float(latent.mean()), "std": float(latent.std())}


def restore(folder: Path) -> Autoencoder:
    """The autoencoder as far as the stage has come. Raises FileNotFoundError where it has not begun."""
    if not (folder / f"{PLAN.name}.pt").exists():
        raise FileNotFoundError(f"no autoencoder in {folder}: run `python -m training mini --stage autoencoder`")
    model = Autoencoder(ENCODER, DECODER)
    Training(PLAN, model, folder).use_average()
    return model.requires_grad_(False)


def narrowed(finished: Autoencoder) -> Autoencoder:
    """A finished autoencoder without the zeros that `released_layout` filled in: the same function, faster."""
    model, state = Autoencoder(ENCODER, DECODER), finished.state_dict()
    model.load_state_dict(
        {key: state[key][tuple(slice(0, n) for n in part.shape)] for key, part in model.state_dict().items()}
    )
    return model.eval().requires_grad_(False)


def train_decoder(cache: SceneCache, folder: Path, resume: bool = True, plan: Plan = DECODER_PLAN) -> Autoencoder:
    """Train the decoder alone, on whole pictures' latents of the frozen encoder."""
    model = channels_last(restore(folder))
    training = Training(plan, model.taesd_decoder.requires_grad_(True), folder, resume)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        wanted = crops(cache, draw).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            latent = model.encode(wanted).float()
            seen = model.decode(latent + 0.5 * LATENT_NOISE * draw.noise(*latent.shape)).float()
        return reconstruction_loss(seen, wanted), {"psnr": psnr(seen.detach(), wanted)}

    training.run(loss)
    training.use_average()
    return model


def restore_decoder(folder: Path) -> Autoencoder:
    """The autoencoder with the decoder of the later stage, where that has begun."""
    model = restore(folder)
    if (folder / f"{DECODER_PLAN.name}.pt").exists():
        Training(DECODER_PLAN, model.taesd_decoder.requires_grad_(True), folder).use_average()
    return model.requires_grad_(False)
