"""What the diffusion stages read: latents and embeddings of every scene, made once, beside its depth maps.

On a CPU they take minutes and are kept in the scenes' folder, for the next stage and for a run that was stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..files import replacing
from .autoencoder import Autoencoder
from .cache import SceneCache
from .clip import ImageEncoder
from .loop import mixed
from .words import rows as token_rows

if TYPE_CHECKING:
    from .layered_data import LayeredDataset


def empty_tokens(batch: int) -> Tensor:
    """The empty caption, (B, 77)."""
    return token_rows([""]).expand(batch, -1)


@torch.no_grad()
def _computed(scenes: SceneCache, field: str, function: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of a field of every scene."""
    parts = []
    at_once = 4 if scenes.device.type == "cpu" else 256  # few pictures stay in a processor's cache
    for rows in torch.arange(scenes.ready, device=scenes.device).split(at_once):
        with mixed(scenes.device):
            parts.append(function(scenes.read(field, rows)).float())
    return torch.cat(parts)


class Dataset:
    """Rows of scenes in the form that the diffusion stages take."""

    def __init__(self, scenes: SceneCache, autoencoder: Autoencoder, encoder: ImageEncoder) -> None:
        self.scenes = scenes
        self.layered: LayeredDataset | None = None
        kept, key = scenes.folder / "encoded.pt", f"{scenes.seed} {scenes.ready} {networks_hash(autoencoder, encoder)}"
        on_cpu = scenes.device.type == "cpu"
        saved = torch.load(kept, weights_only=True) if on_cpu and kept.exists() else {}
        if saved.get("key") != key:
            saved = {
                "key": key,
                "latents": _computed(scenes, "image", autoencoder.encode),
                "source": _computed(scenes, "image", lambda x: encoder(encoder.prepare(x))),
                "background": _computed(scenes, "background", lambda x: encoder(encoder.prepare(x))),
            }
            if on_cpu:
                with replacing(kept) as unfinished:
                    torch.save(saved, unfinished)
        self.latents: Tensor = saved["latents"]  # (N, 4, 16, 16), of I_s
        self.source_embeds: Tensor = saved["source"]  # (N, 96), of I_s
        self.background_embeds: Tensor = saved["background"]  # (N, 96), of I_b


def networks_hash(*networks: nn.Module) -> str:
    """A hash of their weights: all that decides what they make."""
    total = hashlib.sha256()
    for network in networks:
        for name, value in network.state_dict().items():
            total.update(name.encode())
            total.update(value.cpu().numpy().tobytes())
    return total.hexdigest()
