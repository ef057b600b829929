"""Making the checkpoints of Compose and Conquer: data, training stages and evaluation.

What `python -m training` does in a shell, functions do in a notebook, each with a typed config:

    import training

    training.prepare.prepare(training.prepare.PrepareConfig(out=Path("set"), source="folder", data=Path("pictures")))
    training.train.train_stage(training.train.TrainConfig("local", data=(Path("set"),), base=..., out=Path("run")))
    training.weights.merge_fusers(Path("local.safetensors"), Path("global.safetensors"), Path("both.safetensors"))

`training.prepared` reads sets, `training.weights` converts, merges and exports, `training.evaluate` measures.
"""

from __future__ import annotations

import importlib
from types import ModuleType

PARTS = ("evaluate", "mini", "prepare", "prepared", "train", "weights")


def __getattr__(name: str) -> ModuleType:
    """The parts, imported when they are first asked for."""
    if name in PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
