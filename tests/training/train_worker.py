"""One process of `test_two_processes_do_what_one_does`: writes its first gradients and ten losses."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from training.config import load_config
from training.train import TrainConfig, Trainer
from training.train.loop import end_processes

if __name__ == "__main__":
    trainer = Trainer(load_config(TrainConfig, Path(sys.argv[1])))
    losses, order = [], []
    gradients = {}
    for step in range(10):
        batches = [trainer.loader.training(turns) for turns in trainer.own_turns(step)]
        if step == 0:
            trainer.gradients(batches)
            gradients = {name: parameter.grad.clone() for name, parameter in trainer.parameters.items()}
            trainer.optimizer.zero_grad(set_to_none=True)
        facts = trainer.train_step(batches)
        losses.append(facts["loss"])
        order.append(facts["order"])
    validation = trainer.validation_loss()
    if trainer.is_main:
        found = {"gradients": gradients, "losses": losses, "order": order, "validation": validation}
        torch.save({**found, "processes": trainer.accelerator.num_processes}, sys.argv[2])
    end_processes()
