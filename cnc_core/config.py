"""The hyper-parameters that the fusers and the U-Net share."""

from __future__ import annotations

from dataclasses import dataclass

ATTENTION_LEVELS = 3
"""Levels (of downsampling 1, 2 and 4) that have attention in Stable Diffusion 1.5; deeper ones have none."""


@dataclass(frozen=True)
class FuserConfig:
    """Sizes of a Compose and Conquer model; the defaults are those of the released checkpoints.

    ``local_channels`` counts the channels of one depth map, ``inject_channels`` those of the depth
    features of each level, ``global_tokens`` the tokens that one exemplar image becomes.
    """

    in_channels: int = 4
    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    num_heads: int = 8
    context_dim: int = 768
    local_channels: int = 3
    inject_channels: tuple[int, ...] = (192, 256, 384, 512)
    global_tokens: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel_mult", tuple(self.channel_mult))
        object.__setattr__(self, "inject_channels", tuple(self.inject_channels))
        if len(self.inject_channels) != len(self.channel_mult):
            raise ValueError(
                f"inject_channels {self.inject_channels} needs one entry for each level of "
                f"channel_mult {self.channel_mult}"
            )
        attended = [self.model_channels * m for m in self.channel_mult[:ATTENTION_LEVELS]]
        if any(channels % 32 or channels % self.num_heads for channels in [*attended, self.channels[-1]]):
            raise ValueError(
                f"the channels of every level, {self.channels}, must be multiples of 32 (group norm) and of "
                f"num_heads = {self.num_heads}"
            )

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.model_channels * m for m in self.channel_mult)

    @property
    def time_dim(self) -> int:
        """Width of the time embedding."""
        return 4 * self.model_channels
