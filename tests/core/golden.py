"""The released modules' golden values, and the rule that makes the weights behind them.

The values were measured once, on the CPU in fp32, with the released code at a small size; its weights follow from
their keys alone, so that no weight file is needed to compare with it.
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from cnc_core import FuserConfig

State = dict[str, Tensor]

DATA = Path(__file__).resolve().parents[1] / "data"


@dataclass(frozen=True)
class Golden:
    """values: ``in.*`` and ``out.*``. The other fields are the settings that they were measured with."""

    values: dict[str, Tensor]
    config: FuserConfig
    seed: int
    steps: int
    lambda_fg: float
    lambda_bg: float
    cfg: float

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]


@functools.cache
def golden() -> Golden:
    """Read the golden file."""
    with safe_open(DATA / "golden_small.safetensors", framework="pt") as file:
        values = {name: file.get_tensor(name) for name in file.keys()}
        facts = file.metadata()
    return Golden(
        values,
        FuserConfig(**json.loads(facts["config"])),
        seed=int(facts["seed"]),
        steps=int(facts["steps"]),
        lambda_fg=float(facts["lambda_fg"]),
        lambda_bg=float(facts["lambda_bg"]),
        cfg=float(facts["guidance"]),
    )


def made_weight(key: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Make the tensor of one full released key, such as ``local_adapter.time_embed.0.weight``.

    Noise seeded by the key's CRC: kernels and matrices scaled by their fan-in, gains around 1, biases around 0.
    """
    noise = torch.randn(shape, generator=torch.Generator().manual_seed((zlib.crc32(key.encode()) + seed) % 2**31))
    if len(shape) > 1:
        return noise / math.sqrt(math.prod(shape[1:]))
    return noise * 0.1 + (1 if key.endswith("weight") else 0)


def made_state(module: nn.Module, prefix: str, seed: int = 0) -> State:
    """Make the weights of a module under its own keys, which are the released ones after ``prefix``."""
    return {key: made_weight(prefix + key, tuple(value.shape), seed) for key, value in module.state_dict().items()}


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm."""
    return float((value.double() - expected.double()).norm() / expected.double().norm())


def of(state: State, *prefixes: str) -> State:
    """Return the tensors whose names begin with one of the prefixes."""
    return {key: value for key, value in state.items() if key.startswith(prefixes)}
