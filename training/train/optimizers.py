"""The optimizers that a run can be told."""

from __future__ import annotations

import torch
from torch import nn

from ..config import ConfigError
from .config import TrainConfig


def make_optimizer(config: TrainConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a config. Raises ConfigError where its package is not installed."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError(
            "8-bit AdamW needs bitsandbytes: `pip install bitsandbytes`, or this package's extra `eight-bit`"
        ) from error
    return AdamW8bit(parameters, config.learning_rate, weight_decay=config.weight_decay)
