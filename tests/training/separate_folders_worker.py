"""One process of a run on two machines without a shared folder: each has an ``out`` of its own.

Arguments: a config, and for process 1 another prepared set or "". Writes what it ended with to OUT_RANK/result.pt.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from training.config import ConfigError, load_config
from training.train import TrainConfig, Trainer
from training.train.loop import end_processes

if __name__ == "__main__":
    rank = int(os.environ["RANK"])
    config = load_config(TrainConfig, Path(sys.argv[1]))
    config = replace(config, out=config.out.with_name(f"{config.out.name}_{rank}"))
    if rank and sys.argv[2]:
        config = replace(config, data=(Path(sys.argv[2]),))
    trainer = Trainer(config)
    try:
        result = trainer.run()
        found = {"steps": result.steps, "weights": {n: p.detach() for n, p in trainer.parameters.items()}}
    except ConfigError as error:
        found = {"refused": str(error)}
    config.out.mkdir(exist_ok=True)
    torch.save(found, config.out / "result.pt")
    end_processes()
