"""Sampling runs of the host that stand open, so that their steps can be taken in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.samplers
import torch

from .contenders import Contender

CFG = 7.5
SIGMA = 5.0
"""A noise level from the middle of a run."""

Step = Callable[[], None]
Clock = Callable[[], float]


def with_open_runs(contenders: Sequence[Contender], size: int, body: Callable[[list[Step]], None]) -> None:
    """Call ``body`` with one function a contender, each of which takes a step of that contender's run.

    A step is what the host does for one: cond and uncond in one batch, with all wrappers, patches and controls.
    Every run is the host's own, opened inside the one before it, with its models loaded and its caches made.
    """

    def opened(steps: list[Step]) -> None:
        if len(steps) == len(contenders):
            body(steps)
        else:
            _run(contenders[len(steps)], size, lambda step: opened([*steps, step]))

    with torch.inference_mode():
        opened([])


def _run(contender: Contender, size: int, use: Callable[[Step], None]) -> None:
    """Open one run at size x size pixels and hand its step to ``use``."""

    def sampler(model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any, **_: Any) -> torch.Tensor:
        sigma = sigmas[:1].expand(x.shape[0])
        use(lambda: model(x, sigma, **extra_args))
        return x

    guider = comfy.samplers.CFGGuider(contender.model)
    guider.set_conds(contender.positive, contender.negative)
    guider.set_cfg(CFG)
    latent = torch.zeros(1, 4, size // 8, size // 8)
    sigmas = torch.tensor([SIGMA, 0.0])
    guider.sample(torch.randn_like(latent), latent, comfy.samplers.KSAMPLER(sampler), sigmas, seed=0)


def seconds(step: Step, clock: Clock) -> float:
    """Return the time of one step."""
    start = clock()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start
