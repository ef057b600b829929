"""When regions act in one sampling run, and how strongly: evaluated from its sigmas once, looked up on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...cnc_core.guidance import Schedule

_HALVINGS = 30


class RunSchedule:
    """The schedules of a run's regions. Several threads may look them up, each on a device of its own.

    Args:
        schedules: one for each of R regions.
        sigmas: the run's, falling.
        percent_to_sigma: the model's, which falls from percent 0 to 1.
    """

    def __init__(
        self, schedules: Sequence[Schedule], sigmas: Tensor, percent_to_sigma: Callable[[float], float]
    ) -> None:
        steps = sorted({float(sigma) for sigma in sigmas})
        curved = any(schedule.curve for schedule in schedules)
        percents = [_percent(sigma, percent_to_sigma) if curved else 0.0 for sigma in steps]
        ends = [(percent_to_sigma(s.start_percent), percent_to_sigma(s.end_percent)) for s in schedules]
        tables = (
            torch.tensor(steps),
            torch.tensor([[schedule.factor(percent) for schedule in schedules] for percent in percents]),
            torch.tensor(ends, dtype=torch.float32),
        )
        self._tables = {tables[0].device: tables}

    def at(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return each region's factor at a sigma (1,), and whether it acts, 0 or 1: both (R,), on sigma's device.

        Between two of the run's sigmas the factors are linear in sigma.
        """
        if sigma.device not in self._tables:
            steps, factors, ends = next(iter(self._tables.values()))
            self._tables[sigma.device] = (steps.to(sigma.device), factors.to(sigma.device), ends.to(sigma.device))
        steps, factors, ends = self._tables[sigma.device]
        sigma = sigma.float()
        after = torch.searchsorted(steps, sigma).clamp(min=1, max=len(steps) - 1)
        low, high = steps[after - 1], steps[after]
        share = ((sigma - low) / (high - low)).clamp(0, 1)
        acts = (sigma <= ends[:, 0]) & (sigma >= ends[:, 1])
        return torch.lerp(factors[after - 1], factors[after], share[:, None])[0], acts.float()


def _percent(sigma: float, percent_to_sigma: Callable[[float], float]) -> float:
    """Return the percent of the sampling at which the model has this sigma."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if percent_to_sigma(middle) > sigma:
            low = middle
        else:
            high = middle
    return (low + high) / 2
