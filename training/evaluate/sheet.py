"""Pictures of results: contact sheets of labelled strips, and plots of curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from training.files import replacing

from .folder import SHOWN, RunFolder

_LABEL = 18  # height of a strip's title, in pixels
_INK = ("#1f5fbf", "#d9480f", "#2b8a3e", "#862e9c", "#5c5f66", "#b08900", "#0b7285", "#c2255c")


def strip(pictures: Tensor | Sequence[Tensor]) -> Image.Image:
    """The first pictures (B, 1 or 3, H, W) in [0, 1], or a list of such, side by side."""
    shown = torch.cat([picture.expand(3, -1, -1).cpu() for picture in pictures[:SHOWN]], 2)
    return Image.fromarray((shown.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def write_strips(folder: RunFolder, name: str, strips: Sequence[tuple[str, Image.Image]]) -> None:
    """Write NAME.png: strips of pictures one below another, each under its title."""
    width, height = max(s.width for _, s in strips), sum(s.height + _LABEL for _, s in strips)
    sheet = Image.new("RGB", (width, height), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for words, picture in strips:
        draw.text((4, top + 2), words, "black", ImageFont.load_default(12))
        sheet.paste(picture, (0, top + _LABEL))
        top += picture.height + _LABEL
    _save(sheet, folder.path / f"{name}.png")


def write_curves(
    path: Path, title: str, x: Sequence[float], curves: dict[str, Sequence[float]], x_label: str, y_label: str
) -> None:
    """Draw curves of values over x as a PNG, with axes, ticks and a legend."""
    width, height, left, right, top, bottom = 1640, 940, 130, 480, 110, 110  # twice the size, for smooth lines
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(24)
    low = min(0.0, *(min(values) for values in curves.values()))
    high = max(max(values) for values in curves.values()) * 1.05 or 1.0
    span = max(x) - min(x) or 1.0

    def place(at: float, value: float) -> tuple[float, float]:
        across = left + (at - min(x)) / span * (width - left - right)
        return across, height - bottom - (value - low) / (high - low) * (height - top - bottom)

    draw.text((left, 20), title, "black", ImageFont.load_default(28))
    for tick in range(6):
        value = low + (high - low) * tick / 5
        _, y = place(min(x), value)
        draw.line([(left, y), (width - right, y)], "#e5e5e5", 2)
        draw.text((left - 16, y), f"{value:.2f}", "black", font, anchor="rm")
    for at in x:
        across, y = place(at, low)
        draw.text((across, y + 12), f"{at:g}", "black", font, anchor="mt")
    draw.line([place(min(x), high), place(min(x), low), place(max(x), low)], "black", 2)
    draw.text(((left + width - right) / 2, height - 30), x_label, "black", font, anchor="mm")
    draw.text((left, top - 10), y_label, "black", font, anchor="lb")
    for k, (name, values) in enumerate(curves.items()):
        ink, points = _INK[k % len(_INK)], [place(*both) for both in zip(x, values, strict=True)]
        draw.line(points, ink, 5)
        for across, y in points:
            draw.ellipse([across - 7, y - 7, across + 7, y + 7], ink)
        line = top + 16 + 36 * k
        draw.line([(width - right + 24, line), (width - right + 64, line)], ink, 6)
        draw.text((width - right + 76, line), name, "black", font, anchor="lm")
    _save(sheet.resize((width // 2, height // 2), Image.Resampling.LANCZOS), path)


def _save(sheet: Image.Image, path: Path) -> None:
    with replacing(path) as unfinished:
        sheet.save(unfinished, format="PNG")
