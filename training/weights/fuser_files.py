"""Writing fusers in the format that a file's name ends in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cnc_core import CheckpointError, FuserConfig, Fusers, save_fusers
from cnc_core.checkpoints import GLOBAL, LOCAL

from ..files import replacing

PARTS = {LOCAL: "local fuser", GLOBAL: "global fuser"}


def check_ending(target: Path) -> None:
    """Raise CheckpointError for a file name that says no format."""
    if target.suffix not in (".safetensors", ".ckpt"):
        raise CheckpointError(f"{target} must end in .safetensors or .ckpt")


def write_fusers(target: Path, fusers: Fusers, others: Mapping[str, Tensor] | None = None) -> None:
    """Write fusers, and make the folder where it is missing.

    Args:
        target: a .safetensors with the fusers' header, or a .ckpt with the release's keys.
        fusers: what to write.
        others: tensors that a .ckpt gets as well, such as the base model's.

    Raises:
        CheckpointError: for another ending, and for fusers that a .ckpt cannot hold.
    """
    check_ending(target)
    if target.suffix == ".ckpt" and fusers.config.num_heads != FuserConfig.num_heads:
        raise CheckpointError(
            f"a .ckpt has no header to tell that there are {fusers.config.num_heads} heads; use .safetensors"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as path:
        if target.suffix == ".ckpt":
            torch.save({**state_of(fusers), **(others or {})}, path)
        else:
            save_fusers(path, fusers, fusers.metadata)


def state_of(fusers: Fusers) -> dict[str, Tensor]:
    """All tensors under the released keys."""
    modules = zip(PARTS, (fusers.local_fuser, fusers.global_fuser), strict=True)
    return {prefix + n: t for prefix, module in modules if module is not None for n, t in module.state_dict().items()}
