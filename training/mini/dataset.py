"""What the diffusion stages read: latents and embeddings of every scene, made once, beside its depth maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .autoencoder import Autoencoder
from .cache import SceneCache
from .clip import ImageEncoder
from .model import Conditions
from .stage_encoders import described
from .words import rows as token_rows
from .words import tokenize, used_ids


def empty_tokens(batch: int) -> Tensor:
    """The empty caption, (B, 77)."""
    place = {token: k for k, token in enumerate(used_ids())}
    return torch.tensor([[place[token] for token in tokenize("")]]).expand(batch, -1)


@torch.no_grad()
def _computed(path: Path, scenes: SceneCache, field: str, function: Callable[[Tensor], Tensor]) -> np.ndarray:
    """An array on disk that is a function of a field of every scene, computed where it is missing."""
    if not path.exists():
        parts = []
        for first in range(0, scenes.ready, 16):
            pictures = scenes.read(field, np.arange(first, min(first + 16, scenes.ready)))
            with torch.autocast("cpu", torch.bfloat16):
                parts.append(function(pictures).float())
            if first % 1600 == 0:
                print(f"{path.name} {first}/{scenes.ready}", flush=True)
        temporary = path.with_suffix(".new.npy")
        np.save(temporary, torch.cat(parts).numpy())
        temporary.replace(path)
    values: np.ndarray = np.load(path)
    return values


class Dataset:
    """Rows of scenes in the form that the diffusion stages take."""

    def __init__(self, scenes: SceneCache, autoencoder: Autoencoder, encoder: ImageEncoder | None) -> None:
        self.scenes, self.rows = scenes, scenes.ready
        self.latents = _computed(scenes.folder / "latents.npy", scenes, "image", autoencoder.encode)
        self.embeds: dict[str, np.ndarray] = {}
        if encoder is not None:
            for field in ("image", "background"):
                path = scenes.folder / f"{field}_embeds.npy"
                self.embeds[field] = _computed(path, scenes, field, lambda x: encoder(encoder.prepare(x)))

    def latent(self, rows: np.ndarray) -> Tensor:
        """Latents (B, 4, 16, 16) of I_s."""
        return torch.from_numpy(self.latents[rows]).float()

    def tokens(self, rows: np.ndarray) -> Tensor:
        """Captions (B, 77)."""
        return token_rows(described(self.scenes, rows)[1])

    def conditions(self, rows: np.ndarray) -> Conditions:
        """Everything that these scenes ask for, depth version v2, nothing dropped."""
        fg_depth = self.scenes.read("fg_depth", rows)
        return Conditions(
            tokens=self.tokens(rows),
            fg_depth=fg_depth,
            bg_depth=self.scenes.read("bg_depth", rows),
            fg_embed=torch.from_numpy(self.embeds["image"][rows]) if self.embeds else None,
            bg_embed=torch.from_numpy(self.embeds["background"][rows]) if self.embeds else None,
            mask=(fg_depth > 0).float(),
        )
