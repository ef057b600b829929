"""Fusers before training: the local one from Stable Diffusion's or Uni-ControlNet's weights, the global one anew.

As the release does it: whatever has the same name and shape in the source is copied; zero convolutions are zero, so
that training starts from the base model's own pictures; the rest is as torch initialises it. Of Stable Diffusion that
is the encoder and the middle block (paper section 3.1); Uni-ControlNet has all but the two depth streams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from cnc_core import CheckpointError, FuserConfig, Fusers, GlobalFuser, LocalFuser
from cnc_core.checkpoints import LOCAL
from cnc_core.weight_files import open_weights

from .base import State, few, read_base
from .fuser_files import check_ending, write_fusers

_STREAMS = ("feature_extractor.fg_extractor.", "feature_extractor.bg_extractor.")
_NOT_IN_SD = ("feature_extractor.", "zero_convs.", "middle_block_out.")
_UNI_MARK = f"{LOCAL}feature_extractor.pre_extractor."


@dataclass(frozen=True)
class Origins:
    """Where each tensor of a local fuser came from, and what the source had that found no place."""

    copied: tuple[str, ...]
    zero: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """For printing: how many of each, and which are fresh or unused."""
        return [
            f"copied from the source: {len(self.copied)} tensors",
            f"zero, so that training starts without effect: {len(self.zero)} ({_groups(self.zero)})",
            f"fresh, by torch's own initialisation: {len(self.fresh)} ({_groups(self.fresh)})",
            f"in the source and of no use here: {len(self.unused)} ({_groups(self.unused)})",
        ]


def convert(source: Path, target: Path, *, seed: int = 0, say: Callable[[str], None] = print) -> Origins:
    """Make an initial local fuser of a Stable Diffusion 1.5 or Uni-ControlNet file, and write it as the name ends.

    Raises CheckpointError for a file that is neither, or lacks one tensor that should have been copied.
    """
    check_ending(target)
    uni = open_weights(source, (LOCAL,))
    if any(name.startswith(_UNI_MARK) for name in uni.names):
        kind, state, config = "Uni-ControlNet", _without_prefix(uni.tensors), FuserConfig()
    else:
        base = read_base(source)
        kind, state, config = "Stable Diffusion 1.5", base.state, base.config
    fuser, origins = _initial(state, config, seed, _STREAMS if kind == "Uni-ControlNet" else None, str(source))
    facts = {"stage": "initial", "started_from": kind, "seed": str(seed)}
    write_fusers(target, Fusers(fuser, None, config, facts))
    say(f"{source} is a {kind} file; wrote an initial local fuser of {_count(fuser) / 1e6:.1f} M to {target}")
    for line in origins.lines():
        say(f"  {line}")
    return origins


def initial_local_fuser(state: State, config: FuserConfig, *, seed: int = 0) -> tuple[LocalFuser, Origins]:
    """A local fuser whose encoder and middle block are clones of a U-Net's, with this state and config.

    Raises CheckpointError where the state lacks a tensor of the clone.
    """
    return _initial(state, config, seed, None, "the base model")


def initial_global_fuser(config: FuserConfig, *, seed: int = 0) -> GlobalFuser:
    """A global fuser as torch initialises it: nothing has trained weights for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GlobalFuser(config)


def _initial(
    state: State, config: FuserConfig, seed: int, expected_fresh: tuple[str, ...] | None, source: str
) -> tuple[LocalFuser, Origins]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fuser = LocalFuser(config)
    own = fuser.state_dict()
    copied = tuple(name for name in own if name in state and state[name].shape == own[name].shape)
    rest = [name for name in own if name not in copied]
    lacking = [name for name in rest if not _may_be_fresh(name, expected_fresh)]
    if lacking:
        raise CheckpointError(
            f"{source} lacks {len(lacking)} tensors of the clone, or has other shapes: {few(lacking)}"
        )
    fuser.load_state_dict({name: state[name].float() for name in copied}, strict=False)
    zero = tuple(name for name in rest if not own[name].any())
    return fuser, Origins(
        copied,
        zero,
        fresh=tuple(name for name in rest if name not in zero),
        unused=tuple(name for name in state if name not in copied),
    )


def _may_be_fresh(name: str, expected: tuple[str, ...] | None) -> bool:
    if expected is not None:
        return name.startswith(expected)
    return name.startswith(_NOT_IN_SD) or ".norm_in." in name or ".norm_out." in name


def _without_prefix(tensors: State) -> State:
    return {name.removeprefix(LOCAL): tensor for name, tensor in tensors.items()}


def _groups(names: tuple[str, ...]) -> str:
    """The names' first parts, each once."""
    tops = dict.fromkeys(
        ".".join(name.split(".")[: 2 if name.startswith("feature_extractor") else 1]) for name in names
    )
    return few(list(tops), 8) or "none"


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
