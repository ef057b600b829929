"""Stable Diffusion 1.5's U-Net, for training: it takes the local fuser's residuals and soft guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .attention import FUSED, Kernel, Kernels
from .blocks import (
    Block,
    Operations,
    ResBlock,
    SpatialTransformer,
    Upsample,
    encoder_blocks,
    middle_block,
    time_embed,
    timestep_embedding,
    zeroed,
)
from .config import ATTENTION_LEVELS, FuserConfig
from .guidance import Guidance
from .guided_tokens import GuidedContext, GuidedTokens


class Encoded(NamedTuple):
    """What the decoder continues from: the middle block's output, the skip connections, the time embedding."""

    middle: Tensor
    skips: tuple[Tensor, ...]
    emb: Tensor


class UNet(nn.Module):
    """The frozen base model. Keys of the state dict are SD's without ``model.diffusion_model.``."""

    def __init__(
        self,
        config: FuserConfig,
        *,
        operations: Operations = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        factory: dict[str, Any] = {"dtype": dtype, "device": device}
        self.time_embed = time_embed(config, operations, **factory)
        self.input_blocks = encoder_blocks(config, operations, **factory)
        self.middle_block = middle_block(config, operations, **factory)
        self.output_blocks = _decoder_blocks(config, operations, **factory)
        self.out = nn.Sequential(
            operations.GroupNorm(32, config.model_channels, **factory),
            nn.SiLU(),
            zeroed(operations.Conv2d(config.model_channels, config.in_channels, 3, padding=1, **factory)),
        )

    def encode(self, x: Tensor, timesteps: Tensor, context: GuidedContext, kernels: Kernels = FUSED) -> Encoded:
        """Run the encoder and the middle block; training may do so without gradient."""
        context = context.of("input")
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(x.dtype))
        skips = []
        h = x
        for layers in self.input_blocks:
            h = layers(h, emb, context, kernels)
            skips.append(h)
        return Encoded(self.middle_block(h, emb, context.of("middle"), kernels), tuple(skips), emb)

    def decode(
        self,
        encoded: Encoded,
        context: GuidedContext,
        residuals: Sequence[Tensor] | None = None,
        kernels: Kernels = FUSED,
    ) -> Tensor:
        """Run the decoder, with the residuals added to the skip connections and to the middle's output."""
        h, skips, emb = encoded
        context = context.of("output")
        if residuals is not None:
            if len(residuals) != len(skips) + 1:
                raise ValueError(f"expected {len(skips) + 1} residuals, got {len(residuals)}")
            h = h + residuals[-1]
            skips = tuple(skip + residual for skip, residual in zip(skips, residuals[:-1], strict=True))
        for index, layers in enumerate(self.output_blocks):
            h = torch.cat([h, skips[-1 - index]], dim=1)
            size = skips[-2 - index].shape[2:] if index + 1 < len(skips) else None
            h = layers(h, emb, context, kernels, size=size)
        return self.out(h)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        *,
        residuals: Sequence[Tensor] | None = None,
        guidance: Guidance | GuidedTokens | None = None,
        attention: tuple[Kernel, Kernel] = FUSED,
    ) -> Tensor:
        """Return the prediction (B, in_channels, h, w), eps or v as the weights were trained.

        x (B, in_channels, h, w), timesteps (B,), context (B, T, context_dim) the text alone; residuals are
        the local fuser's 13; the guidance brings the exemplars' tokens.
        """
        kernels = Kernels(*attention)
        guided_context = GuidedContext(context, guidance)
        return self.decode(self.encode(x, timesteps, guided_context, kernels), guided_context, residuals, kernels)


def _decoder_blocks(config: FuserConfig, operations: Operations, **factory: Any) -> nn.ModuleList:
    """Return Stable Diffusion's output blocks, each taking one skip connection."""
    skips = [config.model_channels]
    for level, channels in enumerate(config.channels):
        skips += [channels] * config.num_res_blocks
        if level < len(config.channels) - 1:
            skips.append(channels)
    blocks = []
    channels = config.channels[-1]
    for level, out_channels in reversed(list(enumerate(config.channels))):
        for index in range(config.num_res_blocks + 1):
            layers: list[nn.Module] = [
                ResBlock(channels + skips.pop(), out_channels, config.time_dim, operations, **factory)
            ]
            channels = out_channels
            if level < ATTENTION_LEVELS:
                layers.append(SpatialTransformer(channels, config.num_heads, config.context_dim, operations, **factory))
            if level and index == config.num_res_blocks:
                layers.append(Upsample(channels, operations, **factory))
            blocks.append(Block(layers))
    return nn.ModuleList(blocks)
