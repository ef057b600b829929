"""Networks in the class that the host's own are in, with a way to load them once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_patcher
import torch
from comfy.model_patcher import ModelPatcher


def core_patcher(
    network: torch.nn.Module,
    load_device: torch.device,
    offload_device: torch.device,
    again: Callable[..., ModelPatcher],
    *args: Any,
    disable_dynamic: bool = False,
) -> ModelPatcher:
    """Return the ModelPatcher of a network whose layers are the host's, of the class that its own networks have.

    Newer hosts load all networks of a run dynamically, or none if one of them is in a plain ModelPatcher.

    Args:
        network: the network.
        load_device: where it computes.
        offload_device: where it waits.
        again: loads the network once more, as newer hosts do for a second device and for what cannot be dynamic.
        *args: what ``again`` is called with, beside ``disable_dynamic`` where that is asked for.
        disable_dynamic: take a plain ModelPatcher.
    """
    kind = ModelPatcher if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", ModelPatcher)
    return reloadable(kind(network, load_device=load_device, offload_device=offload_device), again, *args)


def reloadable(patcher: ModelPatcher, again: Callable[..., ModelPatcher], *args: Any) -> ModelPatcher:
    """Tell newer hosts how to load a network once more, as in :func:`core_patcher`, and return its patcher."""
    patcher.cached_patcher_init = (again, args)
    return patcher
