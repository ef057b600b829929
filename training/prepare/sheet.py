"""A contact sheet of a prepared set: one sample a row, to be looked at."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..files import replacing
from ..prepared import PreparedSet

COLUMNS = ("source", "mask", "foreground", "background", "fg_depth", "bg_depth")
_LINE = 14


def draw_sheet(folder: Path, out: Path, *, count: int = 8, side: int = 192, seed: int = 0) -> list[int]:
    """Draw so many samples of a set, chosen by a seed, with their captions, as a PNG; return which they are.

    Columns are I_s, M, I_f, I_b, depth of I_f, depth of I_b. Where a set keeps no pictures, only what its arrays
    hold is drawn.
    """
    prepared = PreparedSet(folder, partial=True)
    rng = np.random.default_rng(seed)
    chosen = sorted(rng.choice(len(prepared), min(count, len(prepared)), replace=False).tolist())
    sheet = Image.new("RGB", (side * len(COLUMNS), (side + _LINE) * len(chosen)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, index in enumerate(chosen):
        top = row * (side + _LINE)
        for column, picture in enumerate(_pictures(prepared, index)):
            if picture is not None:
                sheet.paste(picture.resize((side, side), Image.Resampling.BILINEAR), (column * side, top))
        label = f"{index}: {prepared.id(index)} | {prepared.captions(index)[0]}"
        # the built-in font knows Latin letters alone
        draw.text((2, top + side + 1), label.encode("latin-1", "replace").decode("latin-1")[:160], fill="black")
    with replacing(out) as path:
        sheet.save(path, format="PNG")
    return chosen


def _pictures(prepared: PreparedSet, index: int) -> list[Image.Image | None]:
    files = prepared.pictures(index)
    arrays = prepared.batch([index])
    found: list[Image.Image | None] = []
    for name in COLUMNS:
        if name in arrays:
            found.append(Image.fromarray((arrays[name][0].numpy() * 255).round().astype(np.uint8)).convert("RGB"))
        else:
            content = files.get(f"{name}.png")
            found.append(Image.open(io.BytesIO(content)).convert("RGB") if content else None)
    return found
