"""Training scenes of one to four solids in latents of several shapes, encoded once and kept in files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from cnc_core.depth_layers import DepthLayer, depth_streams

from ..files import replacing
from .autoencoder import Autoencoder
from .cache import to_bytes
from .clip import ImageEncoder
from .dataset import networks_hash
from .layered import MOST, LayeredPictures, LayeredScene, draw_layered_scene, render_layered
from .loop import Draw, mixed
from .words import rows as token_rows
from .words import word_count

SHAPES = ((128, 128), (128, 192), (192, 128), (192, 192))
"""Height and width in pixels. Half of the scenes and more are of the first."""
_BATCH = {"cpu": 4, "cuda": 64}  # small batches stay in a processor's cache


@dataclass(frozen=True)
class LayeredGroup:
    """G scenes of N solids, all of one shape."""

    latents: Tensor  # (G, 4, H / 8, W / 8), of the pictures
    fg_depth: Tensor  # (G, 1, H, W) bytes: the local fuser's two maps, as `cnc_core.depth_streams` makes them
    bg_depth: Tensor
    visible: Tensor  # (G, N, H, W) bytes, 255 where the solid shows
    captions: Tensor  # (G, 3, 77): with the solids' order, without it, and of the surroundings alone
    words: Tensor  # (G, N, 77): each solid's name
    word_counts: Tensor  # (G, N)
    materials: Tensor  # (G, N)
    backdrop_embeds: Tensor  # (G, 96), of the backdrop's picture without solids

    def __len__(self) -> int:
        return len(self.latents)

    def to(self, device: torch.device) -> LayeredGroup:
        """This on a device."""
        return LayeredGroup(*(getattr(self, field.name).to(device) for field in fields(self)))


@torch.no_grad()
def _encoded(
    scenes: Sequence[LayeredScene], size: tuple[int, int], autoencoder: Autoencoder, encoder: ImageEncoder,
    device: torch.device,
) -> LayeredGroup:  # fmt: skip
    with device:
        pictures = render_layered(scenes, size)
    streams = depth_streams(depth_layers_of(pictures))
    fg_depth, bg_depth = (torch.zeros_like(pictures.depth) if depth is None else depth for depth in streams)
    side = min(size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    square = pictures.backdrop[..., top : top + side, left : left + side]
    with mixed(device):
        latents = autoencoder.encode(pictures.image).float()
        embeds = encoder(encoder.prepare(square)).float()
    captions = [text for one in scenes for text in (one.caption, one.neutral_caption, one.surroundings_caption)]
    words = [text for one in scenes for text in one.names]
    return LayeredGroup(
        latents, to_bytes(fg_depth), to_bytes(bg_depth), to_bytes(pictures.visible),
        token_rows(captions).unflatten(0, (-1, 3)), token_rows(words).unflatten(0, (len(scenes), -1)),
        torch.tensor([word_count(text) for text in words]).unflatten(0, (len(scenes), -1)),
        torch.tensor([[solid.material for solid in one.solids] for one in scenes]), embeds,
    )  # fmt: skip


def depth_layers_of(pictures: LayeredPictures) -> list[DepthLayer]:
    """Rendered scenes as layers with masks and depths, the nearest first, the backdrop last."""
    masks, depths = (values.split(1, 1) for values in (pictures.masks, pictures.layer_depths))
    return [*map(DepthLayer, masks, depths), DepthLayer(None, pictures.backdrop_depth)]


class LayeredDataset:
    """Groups of scenes, one for each number of solids in each shape.

    Args:
        folder: Where groups are kept: one that is there for the same inputs is read, any other is made anew.
        seed: Of the scenes.
        count: How many scenes in all, about.
        autoencoder: Makes the latents.
        encoder: Makes the embeddings.
        device: Where they are made and kept.
    """

    def __init__(
        self, folder: Path, seed: int, count: int, autoencoder: Autoencoder, encoder: ImageEncoder,
        device: torch.device,
    ) -> None:  # fmt: skip
        self._device = device
        key = f"{seed} {networks_hash(autoencoder, encoder)} 1"
        self.groups: list[LayeredGroup] = []
        self.weights: list[float] = []
        for number, (size, solids) in enumerate(product(SHAPES, range(1, MOST + 1))):
            share = 0.64 / MOST if size == SHAPES[0] else 0.36 / (MOST * (len(SHAPES) - 1))
            wanted = max(1, round(count * share))
            path = folder / f"{solids}_{size[1]}x{size[0]}.pt"
            saved = torch.load(path, weights_only=True) if path.exists() else {}
            if saved.get("key") != f"{key} {wanted}":
                scenes = _scenes(seed, number * 1_000_000, wanted, solids, size)
                batch = _BATCH[device.type]
                parts = [_encoded(part, size, autoencoder, encoder, device) for part in _batches(list(scenes), batch)]
                saved = {
                    f.name: torch.cat([getattr(part, f.name).cpu() for part in parts]) for f in fields(LayeredGroup)
                }
                saved["key"] = f"{key} {wanted}"
                folder.mkdir(parents=True, exist_ok=True)
                with replacing(path) as unfinished:
                    torch.save(saved, unfinished)
                print(f"scenes of {solids} solids, {size[1]} x {size[0]}: {wanted}", flush=True)
            self.groups.append(LayeredGroup(*(saved[f.name] for f in fields(LayeredGroup))).to(device))
            self.weights.append(share)

    def draw(self, draw: Draw) -> LayeredGroup:
        """A group at random, in proportion to its scenes."""
        number = int((draw.uniform(1) < torch.tensor(self.weights, device=self._device).cumsum(0)).int().argmax())
        return self.groups[number]


def _scenes(seed: int, first: int, count: int, solids: int, size: tuple[int, int]) -> Iterator[LayeredScene]:
    short = min(size)
    for index in range(first, first + count):
        yield draw_layered_scene(seed, index, solids, across=size[1] / short, down=size[0] / short)


def _batches(scenes: list[LayeredScene], size: int) -> Iterator[list[LayeredScene]]:
    for first in range(0, len(scenes), size):
        yield scenes[first : first + size]
