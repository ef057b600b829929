"""`python -m training evaluate parts`: the Mini's smaller networks on unseen scenes."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from training.mini.finished import FinishedMini, mini_net
from training.mini.render import render
from training.mini.scenes import SEEDS, draw_scenes
from training.mini.stage_autoencoder import psnr


def _spread(depth: Tensor) -> Tensor:
    low, high = depth.amin((1, 2, 3), keepdim=True), depth.amax((1, 2, 3), keepdim=True)
    return (depth - low) / (high - low).clamp(min=1e-6)


def _overlap(found: Tensor, wanted: Tensor) -> float:
    """Mean intersection over union of masks (B, 1, H, W)."""
    both, either = (found * wanted).sum((1, 2, 3)), ((found + wanted) > 0).float().sum((1, 2, 3))
    return float((both / either.clamp(min=1)).mean())


@torch.no_grad()
def measure(models: Path, count: int) -> dict[str, float]:
    """PSNR of the autoencoder, depth errors (mean absolute, of maps clamped and spread to [0, 1]) and salience."""
    mini = FinishedMini.load(models)
    depth, salience = mini_net(models / "depth.safetensors"), mini_net(models / "salience.safetensors")
    parts = [render(draw_scenes(SEEDS["test"], range(first, first + 4))) for first in range(0, count, 4)]
    sums: dict[str, float] = {}
    for layers in parts:
        salient = (salience(layers.image) > 0).float()
        errors = {
            "depth of I_s": (layers.image, layers.depth),
            "depth of I_f": (layers.foreground, layers.fg_depth),
            "depth of I_b": (layers.background, layers.bg_depth),
        }
        found = {
            "autoencoder PSNR, dB": float(
                psnr(mini.autoencoder.decode(mini.autoencoder.encode(layers.image)), layers.image)
            ),
            "salience, IoU": _overlap(salient, layers.mask),
            "salience, pixels right": float((salient == layers.mask).float().mean()),
            **{
                name: float((_spread(depth(x).clamp(0, 1)) - truth).abs().mean()) for name, (x, truth) in errors.items()
            },
        }
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value / len(parts)
    return sums


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--models", type=Path, default=Path("models/mini"))
    parser.add_argument("--scenes", type=int, default=100)


def main(arguments: argparse.Namespace) -> None:
    """Run the measure and print it."""
    print(f"{arguments.scenes} scenes of seed {SEEDS['test']}")
    for name, value in measure(arguments.models, arguments.scenes).items():
        print(f"{name}: {value:.3f}")
