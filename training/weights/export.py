"""Joining fusers that were trained apart, and writing fusers in the forms that others read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cnc_core import CheckpointError, Fusers, load_fusers, read_checkpoint
from cnc_core.weight_files import open_weights

from .base import few, read_base
from .fuser_files import PARTS, check_ending, state_of, write_fusers

Precision = Literal["fp32", "fp16", "bf16"]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_ABOUT_WEIGHTS = ("format", "format_version", "config")


def merge_fusers(local: Path, global_: Path, target: Path, *, say: Callable[[str], None] = print) -> Fusers:
    """Write one file with the local fuser of one and the global fuser of another: where the joint stage starts.

    Raises CheckpointError where one of them is not there, or the two do not belong to one base model.
    """
    check_ending(target)
    first, second = load_fusers(local), load_fusers(global_)
    if first.local_fuser is None:
        raise CheckpointError(f"{local} holds no local fuser, only a global one")
    if second.global_fuser is None:
        raise CheckpointError(f"{global_} holds no global fuser, only a local one")
    if first.config.context_dim != second.config.context_dim:
        raise CheckpointError(
            f"the fusers belong to different base models: {local} has text states of {first.config.context_dim} "
            f"channels, {global_} of {second.config.context_dim}"
        )
    config = dataclasses.replace(first.config, global_tokens=second.config.global_tokens)
    fusers = Fusers(first.local_fuser, second.global_fuser, config, _joined_facts(first.metadata, second.metadata))
    write_fusers(target, fusers)
    keys = [len(module.state_dict()) for module in (first.local_fuser, second.global_fuser)]
    say(f"{target}: {keys[0]} tensors of the local fuser in {local}, {keys[1]} of the global fuser in {global_}")
    return fusers


def export_fusers(
    source: Path,
    target: Path,
    *,
    precision: Precision | None = None,
    base: Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Write a file of fusers again: as safetensors, or as the release's ``.ckpt``, by the target's ending.

    precision: of the floats written, by default the widest of the source. base: a Stable Diffusion 1.5 checkpoint
    whose tensors a ``.ckpt`` gets as well, as the released ones have. Every key is checked, in the source and in what
    was written. Raises CheckpointError for a source that is not whole, and for what a form cannot hold.
    """
    check_ending(target)
    if base is not None and target.suffix == ".safetensors":
        raise CheckpointError("a base model is only written into a .ckpt; a .safetensors holds the fusers alone")
    fusers = load_fusers(source, dtype=DTYPES[precision] if precision else None)
    own = state_of(fusers)
    if overflown := [name for name, tensor in own.items() if not torch.isfinite(tensor).all()]:
        raise CheckpointError(f"{len(overflown)} tensors are not finite in {precision or source} ({few(overflown)})")
    others = _others(base) if target.suffix == ".ckpt" else {}
    write_fusers(target, fusers, others)
    written, _, _ = read_checkpoint(target, num_heads=fusers.config.num_heads)
    wrong = [name for name in own if name not in written or not torch.equal(written[name], own[name])]
    if wrong or len(written) != len(own):
        raise CheckpointError(f"{target} was written, but reads back otherwise: {few(wrong)}; is the disk sound?")
    told = [f"{sum(n.startswith(prefix) for n in own)} tensors of the {part}" for prefix, part in PARTS.items()]
    rest = f", {len(others)} of {base}" if base else ""
    dtypes = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in own.values()}))
    say(f"{target}: {', '.join(told)}{rest}; {dtypes}, {target.stat().st_size / 1e6:.1f} MB, read back")


def _others(base: Path | None) -> dict[str, Tensor]:
    """The base model's tensors."""
    if base is None:
        return {}
    read_base(base)
    weights = open_weights(base, ("",))
    return {name: tensor for name, tensor in weights.tensors.items() if not name.startswith(tuple(PARTS))}


def _joined_facts(local: dict[str, str], global_: dict[str, str]) -> dict[str, str]:
    """Facts on which both agree or of which one speaks stay; others are told apart. Raises CheckpointError."""
    local, global_ = ({k: v for k, v in facts.items() if k not in _ABOUT_WEIGHTS} for facts in (local, global_))
    for name in ("prediction_type", "num_heads"):
        if name in local and name in global_ and local[name] != global_[name]:
            raise CheckpointError(f"the local fuser has {name} {local[name]!r}, the global one {global_[name]!r}")
    facts = {}
    for name in {**local, **global_}:
        if name == "stage":
            continue
        if local.get(name, global_.get(name)) == global_.get(name, local.get(name)):
            facts[name] = local.get(name, global_.get(name, ""))
        else:
            facts |= {f"local_{name}": local[name], f"global_{name}": global_[name]}
    return {**facts, "stage": "merged"}
