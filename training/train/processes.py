"""What spreads a run over processes, and what they share: one decides, and the others take what it has."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..config import ConfigError
from .config import TrainConfig

T = TypeVar("T")


def make_accelerator(config: TrainConfig) -> Any:
    """What spreads a run over its processes. Raises ConfigError without accelerate, and for fp16 on a CPU."""
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs
    except ImportError as error:
        raise ConfigError(
            "training needs accelerate: `pip install accelerate`, or this package's extra `training`"
        ) from error
    AcceleratorState._reset_state()  # a notebook may train a second stage, in another precision
    kwargs = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, cpu=config.device == "cpu", kwargs_handlers=[kwargs]
    )
    if config.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ConfigError("fp16 needs a GPU, and training would run on a CPU: give --mixed-precision bf16, or no")
    return accelerator


def from_main(accelerator: Any, call: Callable[[], T]) -> T:
    """Call in the main process alone; every process gets its result, or raises its error.

    Args:
        accelerator: the run's.
        call: gives something small that can be pickled.

    Returns:
        The result of the main process.
    """
    from accelerate.utils import broadcast_object_list

    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = call()
        except Exception as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    result, failure = outcome
    if failure is not None:
        raise failure
    return result


def tensors_from_main(accelerator: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The main process's tensors in every process; what the others give does not matter."""
    if accelerator.num_processes == 1:
        return dict(tensors)
    from accelerate.utils import broadcast

    layout = from_main(accelerator, lambda: {name: (t.shape, t.dtype) for name, t in tensors.items()})
    received = {}
    for name, (shape, dtype) in layout.items():
        own = tensors[name] if accelerator.is_main_process else torch.empty(shape, dtype=dtype)
        received[name] = broadcast(own.to(accelerator.device)).cpu()
    return received


def check_alike(accelerator: Any, settings: Mapping[str, str]) -> None:
    """Raise ConfigError in all processes where one has other settings than the main one."""
    from accelerate.utils import gather_object

    main, *others = gather_object([dict(settings)])
    for process, other in enumerate(others, 1):
        differing = [name for name in {**main, **other} if main.get(name) != other.get(name)]
        if differing:
            values = "; ".join(f"{name} is {main.get(name)} and {other.get(name)}" for name in differing)
            raise ConfigError(
                f"processes 0 and {process} do not train the same: {values}. Give every machine the same config, "
                f"prepared sets and models"
            )


def end_processes(code: int = 0) -> None:
    """End each process of a run on several with this exit code when all are done; the last thing that each does.

    Each ends at once. Where Python takes its time over it, the communication threads of one may meet the closed
    connections of another and abort the process. A run on one process goes on.
    """
    from accelerate import PartialState

    state = PartialState()
    if state.num_processes == 1:
        return
    state.wait_for_everyone()
    state.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
