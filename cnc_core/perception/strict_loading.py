"""A file's weights into a network, where every name and shape has to be accounted for."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn as nn

from ..file_kinds import seems_to_be
from ..weight_files import CheckpointError, open_weights
from .estimator import PerceptionError

_COUNTER = "num_batches_tracked"
"""A BatchNorm's count of training steps, which old files lack and which nothing but training reads."""


def load_strictly(network: nn.Module, path: Path, what: str) -> None:
    """Give a network the weights of a file, .safetensors or of torch.save, as they are there.

    network: may be on the meta device; its tensors become the file's. what: its name in error messages. Raises
    PerceptionError for a file that cannot be read, and for one with missing or unknown names or other shapes.
    """
    expected = network.state_dict()
    try:
        weights = open_weights(path, tuple({f"{name.partition('.')[0]}." for name in expected}))
    except CheckpointError as error:
        raise PerceptionError(f"{error}; expected the weights of {what}") from error
    counters = {name: torch.tensor(0) for name in expected if name.endswith(_COUNTER)}
    state = counters | weights.shapes
    missing = [name for name in expected if name not in state]
    unknown = [name for name in weights.names if name not in expected]
    reshaped = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    wrong = {"missing": missing, "unknown": unknown, "of another shape": reshaped}
    if any(wrong.values()):
        found = "; ".join(
            f"{len(names)} weights are {kind}, such as {', '.join(names[:3])}" for kind, names in wrong.items() if names
        )
        guess = "" if expected.keys() & weights.shapes.keys() else f": it is {seems_to_be(weights.names)}"
        raise PerceptionError(f"{path} does not hold {what}{guess} ({found})")
    try:
        network.load_state_dict(counters | weights.tensors, assign=True)
    except CheckpointError as error:
        raise PerceptionError(f"{error}; expected the weights of {what}") from error
