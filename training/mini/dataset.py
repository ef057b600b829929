"""What the diffusion stages read: latents and embeddings of every scene, made once, beside its depth maps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .autoencoder import Autoencoder
from .cache import SceneCache
from .clip import ImageEncoder
from .loop import mixed
from .words import rows as token_rows


def empty_tokens(batch: int) -> Tensor:
    """The empty caption, (B, 77)."""
    return token_rows([""]).expand(batch, -1)


@torch.no_grad()
def _computed(scenes: SceneCache, field: str, function: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of a field of every scene."""
    parts = []
    for rows in torch.arange(scenes.ready, device=scenes.device).split(16 if scenes.device.type == "cpu" else 256):
        with mixed(scenes.device):
            parts.append(function(scenes.read(field, rows)).float())
    return torch.cat(parts)


class Dataset:
    """Rows of scenes in the form that the diffusion stages take."""

    def __init__(self, scenes: SceneCache, autoencoder: Autoencoder, encoder: ImageEncoder) -> None:
        self.scenes = scenes
        self.latents = _computed(scenes, "image", autoencoder.encode)  # (N, 4, 16, 16), of I_s
        self.source_embeds = _computed(scenes, "image", lambda x: encoder(encoder.prepare(x)))  # (N, 96), of I_s
        self.background_embeds = _computed(scenes, "background", lambda x: encoder(encoder.prepare(x)))  # of I_b
