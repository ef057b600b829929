"""Fusers under the host's memory management."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management as memory
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...cnc_core.checkpoints import load_fusers
from ...cnc_core.condition_maps import DEPTH, kind_of_map
from ...cnc_core.config import FuserConfig
from .patchers import core_patcher


@dataclass(frozen=True, eq=False)
class HostFusers:
    """What a CNC_FUSERS connection carries: the networks of one checkpoint, each in a ModelPatcher."""

    local_fuser: ModelPatcher | None
    global_fuser: ModelPatcher | None
    config: FuserConfig
    metadata: dict[str, str]
    compute_dtype: torch.dtype
    name: str

    @property
    def patcher(self) -> ModelPatcher | None:
        """One of the networks: by this name newer hosts know a model among what nodes give."""
        return self.local_fuser or self.global_fuser

    def get_models(self) -> list[ModelPatcher]:
        """Return all networks, which newer hosts keep at hand while a workflow uses them."""
        return [network for network in (self.local_fuser, self.global_fuser) if network is not None]


@dataclass(frozen=True, eq=False)
class Tokens:
    """What a CNC_TOKENS connection carries: the exemplars' tokens (B, N, D) before lambda; None if left out."""

    fg: Tensor | None
    bg: Tensor | None


def load(path: str | Path, *, disable_dynamic: bool = False) -> HostFusers:
    """Load a checkpoint for the host's devices and precision. Raises CheckpointError for another kind of file.

    disable_dynamic: for newer hosts, in plain ModelPatchers.
    """
    load_device, offload_device = memory.get_torch_device(), memory.unet_offload_device()
    supported = [torch.float16, torch.bfloat16, torch.float32]
    dtype = memory.unet_dtype(device=load_device, supported_dtypes=supported)
    compute_dtype = memory.unet_manual_cast(dtype, load_device, supported) or dtype
    operations = comfy.ops.pick_operations(dtype, compute_dtype, disable_fast_fp8=True)
    fusers = load_fusers(path, operations=operations, dtype=dtype)

    def patcher(name: str) -> ModelPatcher | None:
        network = getattr(fusers, name)
        if network is None:
            return None
        return core_patcher(network, load_device, offload_device, _network, path, name, disable_dynamic=disable_dynamic)

    return HostFusers(
        patcher("local_fuser"),
        patcher("global_fuser"),
        fusers.config,
        fusers.metadata,
        compute_dtype,
        Path(path).name,
    )


def _network(path: str | Path, name: str, *, disable_dynamic: bool = False) -> ModelPatcher:
    """Load one network of a checkpoint, ``local_fuser`` or ``global_fuser``, that is known to be there."""
    network: ModelPatcher = getattr(load(path, disable_dynamic=disable_dynamic), name)
    return network


def warn_of_other_maps(fusers: HostFusers, **maps: Tensor | None) -> None:
    """Log where a map (B, C, H, W) is of another kind than those that the fusers were trained on.

    A file that does not say had depth, as the released ones.
    """
    trained = fusers.metadata.get("conditions", DEPTH)
    for name, values in maps.items():
        kind = None if values is None else kind_of_map(values)
        if kind not in (None, trained):
            logging.warning(
                "Compose and Conquer: %s was trained on %s maps, and %s looks like a %s map: the picture will not "
                "follow it. Give it %s maps, or load fusers that were trained on %s.",
                fusers.name, trained, name, kind, trained, kind,
            )  # fmt: skip


def exemplar_tokens(fusers: HostFusers, fg_embed: Tensor | None, bg_embed: Tensor | None) -> Tokens:
    """Run the global fuser on CLIP embeddings (B, D) and return the tokens on the host's intermediate device."""
    patcher = fusers.global_fuser
    if patcher is None:
        raise ValueError(
            f"{fusers.name} has no global fuser (keys 'global_adapter.*'), so it cannot take exemplars; load a "
            "checkpoint with one, as the released cnc_v1.ckpt or global_fuser_v1.ckpt"
        )
    memory.load_models_gpu([patcher])

    def to_device(embed: Tensor | None) -> Tensor | None:
        return None if embed is None else embed.to(patcher.load_device, fusers.compute_dtype)

    def back(tokens: Tensor | None) -> Tensor | None:
        return None if tokens is None else tokens.to(memory.intermediate_device(), torch.float32)

    network: Any = patcher.model
    with torch.no_grad():
        fg, bg = network(to_device(fg_embed), to_device(bg_embed))
    return Tokens(back(fg), back(bg))
