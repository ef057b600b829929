"""An exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The running mean of parameters, beside them."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._parameters = dict(parameters)
        self.means = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1; the decay itself rises over the first ones."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.means.values()), list(self._parameters.values()), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The means in the network, the weights in training aside."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def load(self, means: Mapping[str, Tensor]) -> None:
        """Take means of the same names."""
        for name, mean in self.means.items():
            mean.copy_(means[name])

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self.means[name] = self.means[name], parameter.data
