"""A picture of results side by side, as a PNG."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from training.mini.finished import FinishedMini
from training.mini.render import render
from training.mini.scenes import Scene


def write_png(path: Path, picture: Tensor) -> None:
    """Write a picture (3, H, W) in [0, 1]."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(path, format="PNG")


def tiled(columns: list[Tensor]) -> Tensor:
    """Columns of pictures, each (B, 1 or 3, H, W), as one picture: a scene a row."""
    return torch.cat([torch.cat(list(column.expand(-1, 3, -1, -1)), 1) for column in columns], 2)


def write_sheet(path: Path, mini: FinishedMini, scenes: list[Scene], steps: int, cfg: float) -> None:
    """True render, depth maps, result, roles exchanged, result, and the first without the local fuser."""
    noise = torch.randn(len(scenes), 4, 16, 16, generator=torch.Generator().manual_seed(1))
    columns = []
    for order in (scenes, [scene.exchanged() for scene in scenes]):
        layers, captions = render(order), [scene.caption for scene in order]
        made = mini.sample(noise, captions, layers.fg_depth, layers.bg_depth, steps=steps, cfg=cfg)
        columns += [layers.image, layers.fg_depth, layers.bg_depth, made]
    captions = [scene.caption for scene in scenes]
    columns.append(mini.sample(noise, captions, None, None, steps=steps, cfg=cfg))
    write_png(path, tiled(columns))
