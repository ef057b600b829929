"""The local fuser: two depth maps in separate streams steer a clone of the U-Net's encoder (paper section 3.1).

The released code differs from the paper in one place: its depth streams are plain convolutions, not ResNet blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import FUSED, Kernel, Kernels
from .blocks import (
    Block,
    Operations,
    ResBlock,
    encoder_blocks,
    middle_block,
    time_embed,
    timestep_embedding,
    zeroed,
)
from .config import FuserConfig
from .guidance import Guidance
from .guided_tokens import GuidedContext, GuidedTokens

DEPTH_SCALE = 8
"""Pixels of a depth map for each latent pixel."""

Modulation = tuple[Tensor, Tensor]
"""1 + gamma and beta of one feature denormalisation, each (B, C, h, w)."""


@dataclass(frozen=True, eq=False)
class DepthEncoding:
    """All that the local fuser needs of the depth maps: neither x nor the timestep nor the text enters it.

    features: for each level (B, inject_channels, h, w), at 1, 1/2, 1/4 and 1/8 of the latent's size.
    modulations: for each level those of the injected res block's two norms.
    """

    features: tuple[Tensor, ...]
    modulations: tuple[tuple[Modulation, Modulation], ...]


class FeatureExtractor(nn.Module):
    """Two depth maps, each through a stream of its own, to one feature map a level."""

    def __init__(self, config: FuserConfig, operations: Operations, **factory: Any) -> None:
        super().__init__()

        def stream() -> nn.Sequential:
            layers: list[nn.Module] = []
            channels = config.local_channels
            for out_channels, stride in ((32, 1), (64, 2), (64, 1), (64, 2)):
                conv = operations.Conv2d(channels, out_channels, 3, stride=stride, padding=1, **factory)
                layers += [conv, nn.SiLU()]
                channels = out_channels
            return nn.Sequential(*layers)

        self.fg_extractor = stream()
        self.bg_extractor = stream()
        self.extractors = nn.ModuleList()
        self.zero_convs = nn.ModuleList()
        channels = 2 * 64
        for out_channels in config.inject_channels:
            conv = operations.Conv2d(channels, out_channels, 3, stride=2, padding=1, **factory)
            self.extractors.append(nn.Sequential(conv, nn.SiLU()))
            self.zero_convs.append(zeroed(operations.Conv2d(out_channels, out_channels, 3, padding=1, **factory)))
            channels = out_channels

    def forward(self, fg_depth: Tensor, bg_depth: Tensor) -> tuple[Tensor, ...]:
        """Map two (B, local_channels, 8h, 8w) to one feature map for each level, the first h x w."""
        h = torch.cat([self.fg_extractor(fg_depth), self.bg_extractor(bg_depth)], dim=1)
        features = []
        for extractor, zero_conv in zip(self.extractors, self.zero_convs, strict=True):
            h = extractor(h)
            features.append(zero_conv(h))
        return tuple(features)


class FeatureDenormalization(nn.Module):
    """FDN: a group norm without parameters, scaled and shifted by what depth features say, place by place."""

    def __init__(self, channels: int, feature_channels: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.conv_gamma = operations.Conv2d(feature_channels, channels, 3, padding=1, **factory)
        self.conv_beta = operations.Conv2d(feature_channels, channels, 3, padding=1, **factory)

    def modulation(self, features: Tensor) -> Modulation:
        """Return 1 + gamma and beta, (B, C, h, w), of the features (B, feature_channels, h, w)."""
        return 1 + self.conv_gamma(features), self.conv_beta(features)

    def forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        """Map x (B, C, h, w) to norm(x) * (1 + gamma) + beta; B is a multiple of the modulation's batch."""
        gain, shift = modulation
        normed = F.group_norm(x, 32, eps=1e-5)
        if gain.shape[0] not in (1, x.shape[0]):
            return torch.addcmul(shift, normed.unflatten(0, (-1, gain.shape[0])), gain).flatten(0, 1)
        return torch.addcmul(shift, normed, gain)


class InjectedResBlock(ResBlock):
    """A res block of the U-Net with FDN in place of its two group norms."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        feature_channels: int,
        time_dim: int,
        operations: Operations,
        **factory: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, time_dim, operations, **factory)
        self.norm_in = FeatureDenormalization(in_channels, feature_channels, operations, **factory)
        self.norm_out = FeatureDenormalization(out_channels, feature_channels, operations, **factory)
        self.in_layers[0] = nn.Identity()
        self.out_layers[0] = nn.Identity()

    def modulations(self, features: Tensor) -> tuple[Modulation, Modulation]:
        """Return what both norms make of the features (B, feature_channels, h, w)."""
        return self.norm_in.modulation(features), self.norm_out.modulation(features)

    def forward(self, x: Tensor, emb: Tensor, modulations: tuple[Modulation, Modulation]) -> Tensor:  # type: ignore[override]
        """Map x (B, C_in, h, w), emb (B, time_dim) to (B, C_out, h, w)."""
        h = self.in_layers(self.norm_in(x, modulations[0])) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(self.norm_out(h, modulations[1]))


class LocalFuser(nn.Module):
    """ControlNet's scheme with two depth streams: 13 residuals for the frozen U-Net.

    Keys of the state dict are the released ones without ``local_adapter.``. Layers come from ``operations``,
    with ``dtype`` and ``device`` passed to each.
    """

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
        self.feature_extractor = FeatureExtractor(config, operations, **factory)
        self.input_blocks = encoder_blocks(config, operations, **factory)
        self._level_of: dict[int, int] = {}
        channels = config.model_channels
        for level, out_channels in enumerate(config.channels):
            index = 1 + level * (config.num_res_blocks + 1)
            injected = InjectedResBlock(
                channels, out_channels, config.inject_channels[level], config.time_dim, operations, **factory
            )
            self.input_blocks[index] = Block([injected, *list(self.input_blocks[index].children())[1:]])
            self._level_of[index] = level
            channels = out_channels
        self.zero_convs = nn.ModuleList()
        channels = config.model_channels
        for index in range(len(self.input_blocks)):
            if index:
                channels = config.channels[(index - 1) // (config.num_res_blocks + 1)]
            self.zero_convs.append(nn.Sequential(zeroed(operations.Conv2d(channels, channels, 1, **factory))))
        self.middle_block = middle_block(config, operations, **factory)
        self.middle_block_out = nn.Sequential(zeroed(operations.Conv2d(channels, channels, 1, **factory)))

    def encode_depth(self, fg_depth: Tensor | None, bg_depth: Tensor | None) -> DepthEncoding:
        """Compute what depends on depth alone, once for a whole sampling run.

        Each map is (B or 1, local_channels, 8h, 8w) in [0, 1], near = 1, for a latent of h x w; None stands
        for an absent layer, a map of zeros. Raises ValueError if both are None or their shapes differ.
        """
        given = fg_depth if fg_depth is not None else bg_depth
        if given is None:
            raise ValueError("the local fuser needs a foreground depth map, a background depth map or both")
        fg_depth = torch.zeros_like(given) if fg_depth is None else fg_depth
        bg_depth = torch.zeros_like(given) if bg_depth is None else bg_depth
        for name, depth in (("fg_depth", fg_depth), ("bg_depth", bg_depth)):
            if depth.ndim != 4 or depth.shape[1] != self.config.local_channels:
                raise ValueError(
                    f"{name} must be (B, {self.config.local_channels}, H, W), got shape {tuple(depth.shape)}"
                )
        if fg_depth.shape[2:] != bg_depth.shape[2:]:
            raise ValueError(
                f"both depth maps must have one size, got {tuple(fg_depth.shape[2:])} for fg_depth and "
                f"{tuple(bg_depth.shape[2:])} for bg_depth"
            )
        batch = max(fg_depth.shape[0], bg_depth.shape[0])
        features: tuple[Tensor, ...] = self.feature_extractor(*_to_batch(batch, fg_depth=fg_depth, bg_depth=bg_depth))
        injected = [module for module in self.input_blocks.modules() if isinstance(module, InjectedResBlock)]
        modulations = [block.modulations(feature) for block, feature in zip(injected, features, strict=True)]
        return DepthEncoding(features, tuple(modulations))

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        fg_depth: Tensor | None = None,
        bg_depth: Tensor | None = None,
        *,
        guidance: Guidance | GuidedTokens | None = None,
        depth: DepthEncoding | None = None,
        attention: tuple[Kernel, Kernel] = FUSED,
    ) -> list[Tensor]:
        """Return the 13 residuals: one for each skip connection of the U-Net, then the middle block's.

        x (B, in_channels, h, w), timesteps (B,), context (B, T, context_dim) the text alone; depth maps as in
        :meth:`encode_depth`, or its result as ``depth``; where x holds several runs of their batch, one after
        the other as cond and uncond are, the maps serve each. The guidance brings the exemplars' tokens.
        attention: the kernels of self- and cross-attention. Raises ValueError where a depth map is not exactly
        8 times the latent's size.
        """
        if depth is None:
            depth = self.encode_depth(fg_depth, bg_depth)
        self._check(x, depth)
        kernels = Kernels(*attention)
        guided_context = GuidedContext(context, guidance)
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(x.dtype))
        residuals = []
        h = x
        for index, (layers, zero_conv) in enumerate(zip(self.input_blocks, self.zero_convs, strict=True)):
            level = self._level_of.get(index)
            modulations = None if level is None else depth.modulations[level]
            h = layers(h, emb, guided_context, kernels, modulations=modulations)
            residuals.append(zero_conv(h))
        h = self.middle_block(h, emb, guided_context.of("middle"), kernels)
        residuals.append(self.middle_block_out(h))
        return residuals

    def _check(self, x: Tensor, depth: DepthEncoding) -> None:
        if x.ndim != 4 or x.shape[1] != self.config.in_channels:
            raise ValueError(f"x must be (B, {self.config.in_channels}, h, w), got shape {tuple(x.shape)}")
        feature = depth.features[0]
        if feature.shape[2:] != x.shape[2:]:
            raise ValueError(
                f"depth maps must be exactly {DEPTH_SCALE} times the latent, {DEPTH_SCALE * x.shape[2]} x "
                f"{DEPTH_SCALE * x.shape[3]} for this latent of {x.shape[2]} x {x.shape[3]}; these were made for "
                f"one of {feature.shape[2]} x {feature.shape[3]}"
            )
        if x.shape[0] % feature.shape[0]:
            raise ValueError(f"depth maps of batch {feature.shape[0]} do not fit a latent of batch {x.shape[0]}")


def _to_batch(batch: int, **depths: Tensor) -> list[Tensor]:
    """Expand the maps to one batch, contiguous: with channels last, as images come, each step copies weights."""
    for name, depth in depths.items():
        if depth.shape[0] not in (1, batch):
            raise ValueError(f"{name} has batch {depth.shape[0]}, expected 1 or {batch}")
    return [depth.expand(batch, -1, -1, -1).contiguous() for depth in depths.values()]
