"""A stage's networks: the frozen U-Net with the fusers that steer it, and what goes through them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cnc_core import FuserConfig, GlobalFuser, Guidance, LocalFuser, Region, UNet
from cnc_core.blocks import Block
from cnc_core.guidance import Mode, Resize
from cnc_core.guided_tokens import GuidedContext


@dataclass(frozen=True, eq=False)
class Conditions:
    """What a batch is steered by. text (B, T, C); depth maps (B, 8h, 8w) and mask (B, 8h, 8w) in [0, 1];
    embeddings (B, D). Zeros stand for what is left out."""

    text: Tensor
    fg_depth: Tensor
    bg_depth: Tensor
    fg_embed: Tensor
    bg_embed: Tensor
    mask: Tensor


class SampleDropout(nn.Module):
    """Dropout whose random numbers are given, so that each sample has its own: `uniform` (B, width) in [0, 1)."""

    def __init__(self, p: float, width: int) -> None:
        super().__init__()
        self.p, self.width = p, width
        self.uniform: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, width) to the same shape."""
        if not self.training:
            return x
        if self.uniform is None:
            raise RuntimeError("dropout needs its numbers while training: set `uniform`")
        return x * (self.uniform >= self.p) / (1 - self.p)


class StageNetwork(nn.Module):
    """What a stage trains, in one module: a fuser that is None takes no part in it.

    The U-Net takes no gradient itself. Its encoder and middle block run without one, but for encoder_gradient, which
    lets the exemplars' tokens learn from its attention too; gradients for the residuals and the tokens go through
    its decoder alone.
    """

    def __init__(
        self,
        unet: UNet,
        local_fuser: LocalFuser | None,
        global_fuser: GlobalFuser | None,
        *,
        mode: Mode = "release",
        resize: Resize = "area",
        encoder_gradient: bool = False,
    ) -> None:
        super().__init__()
        self.unet = unet.requires_grad_(False)
        self.local_fuser, self.global_fuser = local_fuser, global_fuser
        self.mode, self.resize, self.encoder_gradient = mode, resize, encoder_gradient
        self.dropouts = _own_dropouts(global_fuser) if global_fuser is not None else []

    @property
    def config(self) -> FuserConfig:
        """Of all its networks."""
        return self.unet.config

    @property
    def dropout_width(self) -> int:
        """How many uniform numbers a sample's dropout takes."""
        return sum(dropout.width for dropout in self.dropouts)

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name, in a fixed order."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def forward(self, x: Tensor, timesteps: Tensor, conditions: Conditions, dropout: Tensor | None = None) -> Tensor:
        """Return the prediction (B, 4, h, w), as the base model was trained.

        x (B, 4, h, w), timesteps (B,); dropout (B, dropout_width) uniform in [0, 1), needed in training mode.
        """
        guidance = self._guidance(conditions, dropout)
        residuals = None
        if self.local_fuser is not None:
            maps = (self._map(conditions.fg_depth), self._map(conditions.bg_depth))
            residuals = self.local_fuser(x, timesteps, conditions.text, *maps, guidance=guidance)
        context = GuidedContext(conditions.text, guidance)
        learns = self.encoder_gradient and self.global_fuser is not None and torch.is_grad_enabled()
        with torch.set_grad_enabled(learns):
            encoded = self.unet.encode(x, timesteps, context)
        return self.unet.decode(encoded, context, residuals)

    def checkpoint_blocks(self) -> None:
        """Keep only each block's input for the backward pass, and compute the rest again there."""
        for block in self.modules():
            if isinstance(block, Block):
                block.forward = partial(  # type: ignore[method-assign]
                    checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
                )

    def _guidance(self, conditions: Conditions, dropout: Tensor | None) -> Guidance | None:
        if self.global_fuser is None:
            return None
        if dropout is not None:
            widths = [layer.width for layer in self.dropouts]
            for layer, uniform in zip(self.dropouts, dropout.split(widths, dim=1), strict=True):
                layer.uniform = uniform
        fg_tokens, bg_tokens = self.global_fuser(conditions.fg_embed, conditions.bg_embed)
        foreground = Region(fg_tokens, conditions.mask.unsqueeze(1))
        return Guidance((foreground, Region(bg_tokens, None)), self.mode, self.resize)

    def _map(self, depth: Tensor) -> Tensor:
        return depth.unsqueeze(1).expand(-1, self.config.local_channels, -1, -1)


def _own_dropouts(fuser: GlobalFuser) -> list[SampleDropout]:
    """Put a SampleDropout in the place of each dropout of the global fuser; the state's keys stay."""
    dropouts = []
    for stack in (module for module in fuser.modules() if isinstance(module, nn.Sequential)):
        for place, layer in enumerate(stack):
            if isinstance(layer, nn.Dropout) and layer.p > 0:
                own = SampleDropout(layer.p, stack[place + 1].get_parameter("weight").shape[1])
                stack[place] = own
                dropouts.append(own)
    return dropouts
