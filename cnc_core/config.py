"""The hyper-parameters that the fusers and the U-Net share."""

from __future__ import annotations

import dataclasses
import reprlib
from dataclasses import dataclass

ATTENTION_LEVELS = 3
"""Levels (of downsampling 1, 2 and 4) that have attention in Stable Diffusion 1.5; deeper ones have none."""

MAX_SIZE = 1 << 16
MAX_BLOCKS = 1000
"""Bounds of what is built, far above any network's sizes."""


@dataclass(frozen=True)
class FuserConfig:
    """Sizes of a Compose and Conquer model; the defaults are those of the released checkpoints.

    ``local_channels`` counts the channels of one depth map, ``inject_channels`` those of the depth
    features of each level, ``global_tokens`` the tokens that one exemplar image becomes.
    Raises ValueError for sizes that cannot be built.
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
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, tuple):
                sizes = tuple(value) if isinstance(value, list | tuple) else ()
                object.__setattr__(self, field.name, sizes)
                expected = f"whole numbers from 1 to {MAX_SIZE}"
            else:
                sizes, expected = (value,), f"a whole number from 1 to {MAX_SIZE}"
            if not sizes or any(type(size) is not int or not 1 <= size <= MAX_SIZE for size in sizes):
                raise ValueError(f"{field.name} must be {expected}, got {reprlib.repr(value)}")
        if self.channel_mult[0] != 1:
            raise ValueError(
                f"channel_mult must begin with 1, since the U-Net ends in model_channels; got {self.channel_mult[:9]}"
            )
        if max(self.channels) > MAX_SIZE or len(self.channel_mult) * (self.num_res_blocks + 1) > MAX_BLOCKS:
            raise ValueError(
                f"expected at most {MAX_SIZE} channels and {MAX_BLOCKS} blocks, got {max(self.channels)} channels and "
                f"{len(self.channel_mult)} levels of {self.num_res_blocks} res blocks"
            )
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
