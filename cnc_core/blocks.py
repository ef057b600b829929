"""The building blocks of Stable Diffusion 1.5's U-Net, under the key names of its single-file checkpoints.

``operations`` is the namespace that layers come from: ``torch.nn``, or a host's own layers of the same names.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Kernels
from .config import ATTENTION_LEVELS, FuserConfig
from .guided_tokens import GuidedContext

Operations = Any
"""A namespace with Conv2d, Linear, GroupNorm and LayerNorm."""


def timestep_embedding(timesteps: Tensor, channels: int) -> Tensor:
    """Return the sinusoidal embedding (B, channels) of timesteps (B,), in fp32: lower precision loses steps."""
    half = channels // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half)
    angles = timesteps.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def zeroed(module: nn.Module) -> nn.Module:
    """Return the module with all its parameters zero: a new branch starts without effect."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class GEGLU(nn.Module):
    """A linear layer whose second half gates the first through GELU."""

    def __init__(self, in_dim: int, out_dim: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.proj = operations.Linear(in_dim, 2 * out_dim, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_dim) to (..., out_dim)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU to four times the width, then a linear layer to ``out_dim``."""

    def __init__(self, dim: int, out_dim: int, operations: Operations, *, dropout: float = 0.0, **factory: Any) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GEGLU(dim, 4 * dim, operations, **factory),
            nn.Dropout(dropout),
            operations.Linear(4 * dim, out_dim, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to (..., out_dim)."""
        return self.net(x)


class Attention(nn.Module):
    """The projections of one attention layer; ``forward`` gives q, k and v, :meth:`project` ends it."""

    def __init__(self, dim: int, context_dim: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.to_q = operations.Linear(dim, dim, bias=False, **factory)
        self.to_k = operations.Linear(context_dim, dim, bias=False, **factory)
        self.to_v = operations.Linear(context_dim, dim, bias=False, **factory)
        self.to_out = nn.Sequential(operations.Linear(dim, dim, **factory), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q (B, Lq, C), k and v (B, Lk, C)."""
        return self.to_q(x), self.to_k(context), self.to_v(context)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention with soft guidance, feed-forward; each with a residual."""

    def __init__(self, dim: int, heads: int, context_dim: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.heads = heads
        self.attn1 = Attention(dim, dim, operations, **factory)
        self.ff = FeedForward(dim, dim, operations, **factory)
        self.attn2 = Attention(dim, context_dim, operations, **factory)
        self.norm1 = operations.LayerNorm(dim, **factory)
        self.norm2 = operations.LayerNorm(dim, **factory)
        self.norm3 = operations.LayerNorm(dim, **factory)

    def forward(self, x: Tensor, context: GuidedContext, height: int, width: int, kernels: Kernels) -> Tensor:
        """Map x (B, height * width, C) to the same shape."""
        normed = self.norm1(x)
        q, k, v = self.attn1(normed, normed)
        x = x + self.attn1.to_out(kernels.self_attention(q, k, v, self.heads))
        q, k, v = self.attn2(self.norm2(x), context.states)
        attended = context.attend(q, k, v, self.heads, height, width, kernels.cross_attention)
        x = x + self.attn2.to_out(attended)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A transformer block over the pixels of a feature map, with 1x1 convolutions around it."""

    def __init__(self, channels: int, heads: int, context_dim: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(32, channels, eps=1e-6, **factory)
        self.proj_in = operations.Conv2d(channels, channels, 1, **factory)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, heads, context_dim, operations, **factory)])
        self.proj_out = zeroed(operations.Conv2d(channels, channels, 1, **factory))

    def forward(self, x: Tensor, context: GuidedContext, kernels: Kernels) -> Tensor:
        """Map x (B, C, H, W) to the same shape."""
        height, width = x.shape[-2:]
        h = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2).contiguous()  # else each layer copies it
        for block in self.transformer_blocks:
            h = block(h, context, height, width, kernels)
        return x + self.proj_out(h.transpose(1, 2).unflatten(2, (height, width)).contiguous())


class ResBlock(nn.Module):
    """Two normalised convolutions with the time embedding added between them, and a skip connection."""

    def __init__(
        self, in_channels: int, out_channels: int, time_dim: int, operations: Operations, **factory: Any
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            operations.GroupNorm(32, in_channels, **factory),
            nn.SiLU(),
            operations.Conv2d(in_channels, out_channels, 3, padding=1, **factory),
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), operations.Linear(time_dim, out_channels, **factory))
        self.out_layers = nn.Sequential(
            operations.GroupNorm(32, out_channels, **factory),
            nn.SiLU(),
            nn.Dropout(0.0),
            zeroed(operations.Conv2d(out_channels, out_channels, 3, padding=1, **factory)),
        )
        self.skip_connection: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.skip_connection = operations.Conv2d(in_channels, out_channels, 1, **factory)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, C_in, H, W), emb (B, time_dim) to (B, C_out, H, W)."""
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Downsample(nn.Module):
    """Halve height and width, rounding up, by a convolution."""

    def __init__(self, channels: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.op = operations.Conv2d(channels, channels, 3, stride=2, padding=1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, ceil(H / 2), ceil(W / 2))."""
        return self.op(x)


class Upsample(nn.Module):
    """Enlarge to a given size by nearest neighbours and a convolution."""

    def __init__(self, channels: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, padding=1, **factory)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        """Map (B, C, H, W) to (B, C, *size)."""
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


class Block(nn.ModuleList):
    """One block of the U-Net: modules in order, each given the inputs that it takes."""

    def forward(
        self,
        h: Tensor,
        emb: Tensor,
        context: GuidedContext,
        kernels: Kernels,
        *,
        modulations: Any = None,
        size: torch.Size | None = None,
    ) -> Tensor:
        """Map h (B, C_in, H, W) to (B, C_out, *); size is what an upsampling goes to.

        modulations: what a res block in which depth is injected takes beside the rest.
        """
        for layer in self:
            if isinstance(layer, ResBlock):
                h = layer(h, emb) if modulations is None else layer(h, emb, modulations)
            elif isinstance(layer, SpatialTransformer):
                h = layer(h, context, kernels)
            elif isinstance(layer, Upsample):
                h = layer(h, size)
            else:
                h = layer(h)
        return h


def encoder_blocks(config: FuserConfig, operations: Operations, **factory: Any) -> nn.ModuleList:
    """Return Stable Diffusion's input blocks."""
    channels = config.model_channels
    blocks = [Block([operations.Conv2d(config.in_channels, channels, 3, padding=1, **factory)])]
    for level, out_channels in enumerate(config.channels):
        for _ in range(config.num_res_blocks):
            layers: list[nn.Module] = [ResBlock(channels, out_channels, config.time_dim, operations, **factory)]
            channels = out_channels
            if level < ATTENTION_LEVELS:
                layers.append(SpatialTransformer(channels, config.num_heads, config.context_dim, operations, **factory))
            blocks.append(Block(layers))
        if level < len(config.channels) - 1:
            blocks.append(Block([Downsample(channels, operations, **factory)]))
    return nn.ModuleList(blocks)


def middle_block(config: FuserConfig, operations: Operations, **factory: Any) -> Block:
    """Return Stable Diffusion's middle block: a res block, a transformer, a res block."""
    channels = config.channels[-1]
    return Block(
        [
            ResBlock(channels, channels, config.time_dim, operations, **factory),
            SpatialTransformer(channels, config.num_heads, config.context_dim, operations, **factory),
            ResBlock(channels, channels, config.time_dim, operations, **factory),
        ]
    )


def time_embed(config: FuserConfig, operations: Operations, **factory: Any) -> nn.Sequential:
    """Return the two-layer network on the sinusoidal time embedding."""
    return nn.Sequential(
        operations.Linear(config.model_channels, config.time_dim, **factory),
        nn.SiLU(),
        operations.Linear(config.time_dim, config.time_dim, **factory),
    )
