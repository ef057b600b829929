"""Going on with a run: what the main process finds in its folder is what every process takes, or all refuse.

What a run began with is in the header of its weights, so that nothing beside a checkpoint is needed to check it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cnc_core import read_checkpoint
from cnc_core.checkpoints import GLOBAL, LOCAL

from ..config import ConfigError
from .checkpoints import Checkpoints
from .config import TrainConfig
from .processes import from_main, tensors_from_main

OF_A_MACHINE = frozenset(
    {"data", "base", "out", "fusers", "text_encoder", "autoencoder", "verify", "threads", "tensorboard"}
)
"""Fields that may differ between the machines of one run: where things are, by paths, and what does not matter."""
FREE = OF_A_MACHINE | {
    "epochs", "steps", "micro_batch", "prediction", "gradient_checkpointing", "compile", "tf32", "device", "save_every",
    "keep", "grid_every", "grid_samples", "grid_steps", "grid_cfg",
}  # fmt: skip
"""Fields that may differ where a run goes on: they change neither its batches nor its losses, but for rounding, or
what they stand for is compared itself."""
_MODELS = {"base_sha256": "the base model", "text_encoder_sha256": "the text encoder"}
_PREFIXES = {LOCAL: "local_fuser.", GLOBAL: "global_fuser."}


@dataclass(frozen=True, eq=False)
class RunState:
    """What a run has reached. path: of the weights, as the main process names it. weights: of the fusers, by the
    network's names. tensors and metadata: of the state file."""

    path: Path
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def load_run(
    accelerator: Any, checkpoints: Checkpoints, config: TrainConfig, facts: Mapping[str, str], samples: int
) -> RunState | None:
    """Read the main process's last checkpoint into every process.

    Args:
        accelerator: the run's.
        checkpoints: those of the run's folder; only the main process looks there.
        config: what the run is told now.
        facts: what its checkpoints' headers are to say, such as the base model's SHA-256.
        samples: training samples of the set, from which the number of steps follows.

    Returns:
        What it has reached, None where it has not begun.

    Raises:
        ConfigError: in all processes, where the run began with another config, set or model.
        CheckpointError: in all processes, for a damaged checkpoint.
    """
    found: list[RunState] = []

    def read() -> tuple[Path, dict[str, Any]] | None:
        latest = checkpoints.latest()
        if latest is None:
            return None
        stored, _, header = read_checkpoint(latest.weights)
        check_same_run(header, config, facts, samples)
        weights = {_own_name(name): tensor for name, tensor in stored.items()}
        found.append(RunState(latest.weights, weights, *latest.read_state()))
        return latest.weights, found[0].metadata

    reached = from_main(accelerator, read)
    if reached is None:
        return None
    state = found[0] if found else RunState(reached[0], {}, {}, reached[1])
    weights, tensors = (tensors_from_main(accelerator, part) for part in (state.weights, state.tensors))
    return dataclasses.replace(state, weights=weights, tensors=tensors)


def check_same_run(header: Mapping[str, str], config: TrainConfig, facts: Mapping[str, str], samples: int) -> None:
    """Raise ConfigError where the run of a checkpoint with this header is not the one that the config describes."""
    if header.get("data_content", facts["data_content"]) != facts["data_content"]:
        sets = ", ".join(map(str, config.data))
        raise ConfigError(
            f"{config.out} was trained on other sets than {sets}, or on those before one was prepared again; choose "
            f"another out"
        )
    before: dict[str, str] = json.loads(header.get("training", "{}"))
    changed = [
        f"{name} was {before[name]} and is {value}"
        for name, value in vars(config).items()
        if name not in FREE and before.get(name, str(value)) != str(value)
    ]
    for name, about in (*_MODELS.items(), ("prediction_type", "what the base predicts")):
        if header.get(name, facts[name]) != facts[name]:
            changed.append(f"{about} was another ({name} was {header[name]} and is {facts[name]})")
    if (
        config.schedule == "cosine"
        and before
        and (first := _steps(before, config, samples)) != (now := config.total_steps(samples))
    ):
        changed.append(f"the cosine schedule went over {first} steps and now over {now}")
    if changed:
        raise ConfigError(
            f"{config.out} holds a run that began otherwise: {'; '.join(changed)}. Go on with its own config, or "
            f"choose another out"
        )


def settings_of_all(config: TrainConfig, facts: Mapping[str, str], total: int) -> dict[str, str]:
    """What has to be the same in every process of a run, as texts."""
    same = {name: str(value) for name, value in vars(config).items() if name not in OF_A_MACHINE}
    return {**same, **{name: facts[name] for name in ("data_content", *_MODELS)}, "steps in all": str(total)}


def _steps(before: Mapping[str, str], config: TrainConfig, samples: int) -> int:
    """How many steps a run had that began with these fields."""
    steps, epochs = (int(before[name]) if name in before else None for name in ("steps", "epochs"))
    return dataclasses.replace(config, steps=steps, epochs=epochs).total_steps(samples)


def _own_name(name: str) -> str:
    """A released key as the stage's network names it."""
    prefix = next(key for key in _PREFIXES if name.startswith(key))
    return _PREFIXES[prefix] + name.removeprefix(prefix)
