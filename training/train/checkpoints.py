"""A run's checkpoints: weights as anyone loads them, and beside them what going on to the bit takes.

    checkpoints/step_00001000.safetensors          the fusers, averaged where the run averages
    checkpoints/step_00001000.state.safetensors    optimizer, and the weights in training where those are averaged
    best.safetensors                               a copy of the one with the lowest validation loss

The weights are written first: a state file says that its checkpoint is whole.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cnc_core import CheckpointError, Fusers, save_fusers

from ..files import replacing

_WITHIN = "."
_STATE = re.compile(r"step_(\d+)\.state\.safetensors")


@dataclass(frozen=True, eq=False)
class Saved:
    """A whole checkpoint on disk."""

    step: int
    weights: Path
    state: Path

    def read_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The state's tensors and its facts. Raises CheckpointError for a damaged file."""
        try:
            with safe_open(self.state, framework="pt") as file:
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
                return tensors, json.loads((file.metadata() or {})["facts"])
        except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
            raise CheckpointError(
                f"{self.state} is damaged ({error}): remove it, and the run goes on from the checkpoint before"
            ) from error


class Checkpoints:
    """The checkpoints of one run's folder, of which the last `keep` stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder / "checkpoints", keep
        self.best = folder / "best.safetensors"

    def weights(self, step: int) -> Path:
        """Where the weights of a step are."""
        return self.folder / f"step_{step:08d}.safetensors"

    def all(self) -> list[Saved]:
        """All whole checkpoints, oldest first."""
        found = []
        for path in self.folder.glob("step_*"):
            if match := _STATE.fullmatch(path.name):
                weights = self.weights(int(match[1]))
                if weights.exists():
                    found.append(Saved(int(match[1]), weights, path))
        return sorted(found, key=lambda saved: saved.step)

    def latest(self) -> Saved | None:
        """Where to go on."""
        return max(self.all(), key=lambda saved: saved.step, default=None)

    def clean(self) -> None:
        """Make the folder, and remove what a killed run was writing there; all else stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("step_*.new"):
            path.unlink()

    def save(
        self,
        step: int,
        fusers: Fusers,
        metadata: Mapping[str, str],
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        *,
        is_best: bool,
    ) -> Saved:
        """Write a checkpoint whole or not at all, and then remove the oldest. Raises OSError where the disk is full."""
        weights = self.weights(step)
        state = weights.with_suffix(".state.safetensors")
        with replacing(weights) as path:
            save_fusers(path, fusers, metadata)
        if is_best:
            with replacing(self.best) as path:
                shutil.copyfile(weights, path)
        with replacing(state) as path:
            save_file(_apart(tensors), path, metadata={"facts": json.dumps(facts)})
        for old in self.all()[: -self.keep]:
            old.state.unlink()
            old.weights.unlink()
        return Saved(step, weights, state)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as named tensors, and what is in it that is no tensor."""
    flat = _flat(optimizer.state_dict()["state"], "optimizer")
    tensors = {name: value for name, value in flat.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in flat.items() if name not in tensors}


def restore_optimizer(optimizer: torch.optim.Optimizer, values: Mapping[str, Any]) -> None:
    """Put what `optimizer_tensors` has taken back into an optimizer of the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        first, *names = key.split(_WITHIN)
        if first == "optimizer":
            place = state.setdefault(int(names[0]), {})
            for name in names[1:-1]:
                place = place.setdefault(name, {})
            place[names[-1]] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _flat(nested: Mapping[Any, Any], name: str) -> dict[str, Any]:
    """The values of nested mappings under the path of their keys: 8-bit Adam has mappings within a parameter's."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        path = f"{name}{_WITHIN}{key}"
        found |= _flat(value, path) if isinstance(value, Mapping) else {path: value}
    return found


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, contiguous, none sharing memory with another, as safetensors wants them."""
    seen: set[int] = set()
    out = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        if tensor.numel() and tensor.data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.data_ptr())
        out[name] = tensor
    return out
