"""Grids of results on held-out samples, always from the same noise: source, depth maps, mask, result."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from ..diffusion import ddim, guided
from ..files import replacing
from ..prepare.encoders import LatentDecoder
from ..prepared import PreparedError
from .logs import RunLog

if TYPE_CHECKING:
    from .loop import Trainer


COLUMNS = ("picture", "foreground map", "background map", "mask", "result")
LABEL_HEIGHT = 14


class Grids:
    """Draws the same samples at every interval, in the main process.

    Raises PreparedError where neither the config nor the set names an autoencoder.
    """

    def __init__(self, trainer: Trainer) -> None:
        config = trainer.config
        self._trainer = trainer
        name = config.autoencoder or trainer.data.manifest.models.get("autoencoder", {}).get("name")
        if name is None:
            raise PreparedError(
                f"{trainer.data.name} does not say which autoencoder prepared it: give --autoencoder, or --grid-every 0"
            )
        self._decode = LatentDecoder(name, str(trainer.device), torch.float32)
        indices = trainer.order.held_out or list(range(len(trainer.data)))
        self._indices = indices[: config.grid_samples]
        self._folder = config.out / "grids"

    @torch.no_grad()
    def draw(self, log: RunLog | None) -> None:
        """Sample, and write grids/STEP.png and TensorBoard's picture; only the main process does anything."""
        trainer = self._trainer
        if not trainer.is_main:
            return
        if log:
            count, steps = len(self._indices), trainer.config.grid_steps
            log.say(f"step {trainer.step}: drawing a grid of {count} results in {steps} sampling steps each")
        trainer.network.eval()
        with trainer.average.in_place() if trainer.average else nullcontext():
            rows = [self._row(place) for place in range(len(self._indices))]
        grid = torch.cat([_labels(rows[0]), *(torch.cat(row, dim=2) for row in rows)], dim=1)
        self._folder.mkdir(exist_ok=True)
        _write_png(self._folder / f"{trainer.step:08d}.png", grid)
        if log:
            log.picture(trainer.step, grid)

    def _row(self, place: int) -> list[Tensor]:
        trainer, config = self._trainer, self._trainer.config
        batch = trainer.loader.fixed([self._indices[place]], [place], len(self._indices)).moved(trainer.device)
        conditions = trainer.loader.conditions(batch)
        both = [conditions, trainer.loader.unconditional(conditions)]
        twice = type(conditions)(**{name: torch.cat([getattr(c, name) for c in both]) for name in vars(conditions)})
        predict = guided(lambda x, t: trainer.evaluated()(x, t, twice).float(), config.grid_cfg)
        *_, latent = ddim(predict, batch.draws.noise, config.grid_steps, trainer.prediction)
        pictures = [self._decode(value)[0] for value in (batch.latents(), latent)]
        size = pictures[0].shape[1:]
        maps = [_fitted(value, size) for value in (conditions.fg_depth, conditions.bg_depth, conditions.mask)]
        return [pictures[0], *maps, pictures[1]]


def _fitted(values: Tensor, size: torch.Size) -> Tensor:
    """A map (1, H, W) as a picture (3, *size); what the stage does not see is black."""
    return F.interpolate(values.unsqueeze(1), size, mode="nearest")[0].expand(3, -1, -1).cpu()


def _labels(row: Sequence[Tensor]) -> Tensor:
    """A strip (3, LABEL_HEIGHT, W) with the name of each picture of a row above it."""
    strip = Image.new("RGB", (sum(picture.shape[2] for picture in row), LABEL_HEIGHT), "white")
    draw, left = ImageDraw.Draw(strip), 0
    for name, picture in zip(COLUMNS, row, strict=True):
        draw.text((left + 2, 1), name, fill="black")
        left += picture.shape[2]
    return torch.from_numpy(np.array(strip)).permute(2, 0, 1).float() / 255


def _write_png(path: Path, picture: Tensor) -> None:
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    with replacing(path) as unfinished:
        Image.fromarray(pixels).save(unfinished, format="PNG")
