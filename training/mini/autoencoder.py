"""The autoencoder in TAESD's layout, trained narrow and widened to that layout without a change.

A released TAESD has 64 channels everywhere and three blocks at each middle size. On a CPU most of
its time goes into the large sizes, so there the trained network has fewer channels and blocks; the
missing ones are zeros in the file, which leaves what the network computes as it is: a channel of
zeros adds nothing, and a block of zeros passes on what a ReLU has left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

WIDTH = 64  # of the released layout
BLOCKS = (1, 3, 3, 3)  # of the released layout, from the picture's size to the latent's
LATENT_CHANNELS = 4
# What the host divides by after encoding, so that its SD 1.5 latent format ends at our unit variance.
VAE_SCALE = 0.18215


@dataclass(frozen=True)
class Widths:
    """Channels and blocks at 1, 1/2, 1/4 and 1/8 of the picture's size."""

    channels: tuple[int, int, int, int] = (WIDTH, WIDTH, WIDTH, WIDTH)
    blocks: tuple[int, int, int, int] = BLOCKS


def _conv(n_in: int, n_out: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1, **options)  # type: ignore[arg-type]


class Block(nn.Module):
    """relu(x + three convolutions of x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(channels, channels), nn.ReLU(), _conv(channels, channels), nn.ReLU(), _conv(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Passing(nn.Module):
    """Stands where the released layout has a block that this network leaves out."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class SoftClamp(nn.Module):
    """tanh(x / 3) * 3, as at the start of TAESD's decoder."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _blocks(widths: Widths, level: int) -> list[nn.Module]:
    kept, total = widths.blocks[level], BLOCKS[level]
    return [Block(widths.channels[level]) if k < kept else Passing() for k in range(total)]


class Autoencoder(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] to latents (B, 4, H/8, W/8) of about unit variance, and back."""

    def __init__(self, encoder: Widths | None = None, decoder: Widths | None = None) -> None:
        super().__init__()
        encoder, decoder = encoder or Widths(), decoder or Widths()
        c = encoder.channels
        self.taesd_encoder = nn.Sequential(_conv(3, c[0]), *_blocks(encoder, 0))
        for level in (1, 2, 3):
            self.taesd_encoder.append(_conv(c[level - 1], c[level], stride=2, bias=False))
            self.taesd_encoder.extend(_blocks(encoder, level))
        self.taesd_encoder.append(_conv(c[3], LATENT_CHANNELS))
        c = decoder.channels
        self.taesd_decoder = nn.Sequential(SoftClamp(), _conv(LATENT_CHANNELS, c[3]), nn.ReLU(), *_blocks(decoder, 3))
        for level in (2, 1, 0):
            self.taesd_decoder.extend([nn.Upsample(scale_factor=2), _conv(c[level + 1], c[level], bias=False)])
            self.taesd_decoder.extend(_blocks(decoder, level))
        self.taesd_decoder.append(_conv(c[0], 3))

    def encode(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to the diffusion model's latent."""
        return self.taesd_encoder(picture)

    def decode(self, latent: Tensor) -> Tensor:
        """The diffusion model's latent to a picture, not clamped."""
        return self.taesd_decoder(latent)

    def released_layout(self) -> dict[str, Tensor]:
        """The weights in TAESD's own shapes, with the host's scale and shift."""
        state = {}
        mine = self.state_dict()
        for key, full in Autoencoder().state_dict().items():
            wide = torch.zeros_like(full)
            if key in mine:
                part = mine[key]
                wide[tuple(slice(0, n) for n in part.shape)] = part
            state[key] = wide
        state["vae_scale"], state["vae_shift"] = torch.tensor(VAE_SCALE), torch.tensor(0.0)
        return state
