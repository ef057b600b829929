"""Checkpoints of the fusers: the released ones, and our own in safetensors with their facts in the header.

Both hold the released keys, under ``local_adapter.`` and ``global_adapter.``; the base model that a released
file carries beside them is left alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .blocks import Operations
from .config import FuserConfig
from .file_kinds import FUSERS, seems_to_be
from .global_fuser import GlobalFuser
from .local_fuser import LocalFuser
from .weight_files import CheckpointError, open_weights

LOCAL, GLOBAL = "local_adapter.", "global_adapter."
FORMAT, FORMAT_VERSION = "cnc_fusers", 1
EXPECTED = (
    "expected Compose and Conquer fusers: a .safetensors or .ckpt file whose keys begin with "
    f"{LOCAL} or {GLOBAL}, as in cnc_v1.ckpt, local_fuser_v1.ckpt or global_fuser_v1.ckpt"
)
_MAX_CONFIG = 10_000
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

_WRAPPED = re.compile(
    r"((module|_orig_mod|model|state_dict)\.)*((local|global)_adapter\.)((module|_orig_mod)\.)*(?P<name>.*)"
)
"""A key as DataParallel, torch.compile, or a mapping around the weights leaves it."""
_PREFIXED = re.compile(r"(.+?\.)(local|global)_adapter\.")

State = dict[str, Tensor]
Network = TypeVar("Network", LocalFuser, GlobalFuser)


@dataclass(frozen=True, eq=False)
class Fusers:
    """The fusers of one checkpoint, either of which may be absent, their sizes and the header's strings."""

    local_fuser: LocalFuser | None
    global_fuser: GlobalFuser | None
    config: FuserConfig
    metadata: dict[str, str]


def load_fusers(
    path: str | os.PathLike[str],
    *,
    num_heads: int | None = None,
    operations: Operations = nn,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Fusers:
    """Build the fusers that a checkpoint holds, with its weights, in eval mode.

    Nothing is initialised and nothing copied that need not be: weights stay mapped from the file (which must
    not be overwritten in place meanwhile) unless ``dtype`` or ``device`` asks for others, tensor by tensor.
    Without ``dtype`` the file's is kept, the widest where it mixes several. ``requires_grad`` is as torch
    makes it, True. num_heads: as in :func:`read_checkpoint`, which also says what is raised.
    """
    state, config, metadata = read_checkpoint(path, num_heads=num_heads)
    if dtype is None:
        dtype = _widest(state)
    local_fuser = _built(LocalFuser, LOCAL, state, config, operations, dtype, device)
    global_fuser = _built(GlobalFuser, GLOBAL, state, config, operations, dtype, device)
    return Fusers(local_fuser, global_fuser, config, metadata)


def read_checkpoint(
    path: str | os.PathLike[str], *, num_heads: int | None = None
) -> tuple[State, FuserConfig, dict[str, str]]:
    """Return the fusers' tensors under their full released keys, the config, and the header's strings.

    The config follows from the shapes. What they do not show is taken from the header's, where there is one,
    else the released size: the number of heads (unless ``num_heads`` says it) and, in a file that has one
    fuser alone, what only the other one shows. Tensors are mapped from the file where its format allows.

    Keys that a wrapper has put ``module.``, ``_orig_mod.`` or ``model.`` before lose that.

    Raises CheckpointError, which says what the file seems to be, for one that is not exactly a local fuser,
    a global fuser or both.
    """
    weights = open_weights(path, (LOCAL, GLOBAL), rename=_without_wrappers)
    _check_version(path, weights.metadata)
    kind = seems_to_be(weights.names)
    if kind != FUSERS:
        prefixed = next(filter(None, map(_PREFIXED.match, weights.names)), None)
        if prefixed:
            raise CheckpointError(
                f"{path} holds fusers under the prefix {prefixed[1]}, which is not known; {EXPECTED}, with nothing or "
                "module., _orig_mod. or model. before that"
            )
        raise CheckpointError(f"{path} seems to be {kind}; {EXPECTED}")
    for name, tensor in weights.shapes.items():
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(f"{path} holds {name} in {tensor.dtype}; expected float32, float16 or bfloat16")
    try:
        config = _config(weights.shapes, weights.metadata, num_heads)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is a file of fusers that cannot be used: {error}") from error
    problems = _differences(weights.shapes, config)
    if problems:
        raise CheckpointError(f"{path} is not a whole file of fusers: {'; '.join(problems)}; get it again")
    return weights.tensors, config, weights.metadata


def save_fusers(path: str | os.PathLike[str], fusers: Fusers, metadata: Mapping[str, str]) -> None:
    """Write the fusers as safetensors under their released keys; a failure leaves an old file as it was.

    metadata: the caller's facts (licence, how the weights were trained), all strings; the header gets them
    with the format, its version and the config, which replace what the caller gives under those names.
    Raises ValueError where there is nothing to save or a fact is not a string.
    """
    state: State = {}
    for prefix, module in ((LOCAL, fusers.local_fuser), (GLOBAL, fusers.global_fuser)):
        if module is not None:
            state |= {prefix + name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    if not state:
        raise ValueError("there is no fuser to save: local_fuser and global_fuser are both None")
    for name, fact in metadata.items():
        if not isinstance(fact, str):
            raise ValueError(f"metadata must be strings, got {type(fact).__name__} for {name!r}")
    header = {
        **metadata,
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(dataclasses.asdict(fusers.config)),
    }
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(state, unfinished, metadata=header)
        unfinished.chmod(0o644)  # the library writes for its user alone
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _without_wrappers(name: str) -> str:
    """Return a fuser's key as it is released; other names as they are."""
    wrapped = _WRAPPED.fullmatch(name)
    return f"{wrapped[3]}{wrapped['name']}" if wrapped else name


def _widest(state: State) -> torch.dtype:
    """Return the one dtype that holds all the values: a network in plain torch runs in one."""
    dtypes = {tensor.dtype for tensor in state.values()}
    widest = dtypes.pop()
    for dtype in dtypes:
        widest = torch.promote_types(widest, dtype)
    return widest


def _built(
    network: type[Network],
    prefix: str,
    state: State,
    config: FuserConfig,
    operations: Operations,
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> Network | None:
    """Build one network around its tensors, which are taken out of the state."""
    names = [name for name in state if name.startswith(prefix)]
    if not names:
        return None
    module = network(config, operations=operations, dtype=dtype, device="meta")
    own = {name.removeprefix(prefix): state.pop(name).to(device=device, dtype=dtype) for name in names}
    module.load_state_dict(own, assign=True)
    return module.eval()


def _check_version(path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
    version = metadata.get("format_version", str(FORMAT_VERSION))
    if metadata.get("format") == FORMAT and version != str(FORMAT_VERSION):
        raise CheckpointError(
            f"{path} is in format version {version} of {FORMAT}; this code reads version {FORMAT_VERSION}: "
            "update Compose and Conquer"
        )


def _config(state: State, metadata: dict[str, str], num_heads: int | None) -> FuserConfig:
    """Derive the config; raise ValueError or TypeError where that is not possible."""
    told = header_config(metadata)
    known = {field.name for field in dataclasses.fields(FuserConfig)}
    sizes: dict[str, Any] = {name: value for name, value in told.items() if name in known}
    if any(name.startswith(GLOBAL) for name in state):
        sizes |= _global_sizes(state)
    if any(name.startswith(LOCAL) for name in state):
        sizes |= _local_sizes(state)
    if num_heads is not None:
        sizes["num_heads"] = num_heads
    return FuserConfig(**sizes)


def header_config(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the config that a header tells, {} without one. Raises ValueError for what is not a flat JSON object."""
    text = metadata.get("config", "{}")
    if len(text) > _MAX_CONFIG:
        raise ValueError(f"the header's config has {len(text)} characters, expected at most {_MAX_CONFIG}")
    try:
        told = json.loads(text)
    except RecursionError:
        raise ValueError("the header's config is nested too deeply") from None
    if not isinstance(told, dict):
        raise ValueError(f"the header's config must be a JSON object, got {type(told).__name__}")
    return told


def _shape(state: State, name: str, dims: int) -> torch.Size:
    if name not in state:
        raise ValueError(f"it lacks {name}, among {len(state)} tensors")
    shape = state[name].shape
    if len(shape) != dims or 0 in shape:
        raise ValueError(f"{name} has shape {tuple(shape)}, expected {dims} dimensions")
    return shape


def _global_sizes(state: State) -> dict[str, Any]:
    context_dim = _shape(state, f"{GLOBAL}norm1_fg.weight", 1)[0]
    width = _shape(state, f"{GLOBAL}ff2_fg.net.2.weight", 2)[0]
    return {"context_dim": context_dim, "global_tokens": width // context_dim}


def _local_sizes(state: State) -> dict[str, Any]:
    model_channels, in_channels = _shape(state, f"{LOCAL}input_blocks.0.0.weight", 4)[:2]
    downsamples = _blocks(state, r"0\.op\.weight")
    channels = [_shape(state, f"{LOCAL}input_blocks.{index}.0.op.weight", 4)[0] for index in downsamples]
    channels.append(_shape(state, f"{LOCAL}middle_block.0.out_layers.3.weight", 4)[0])
    if any(width % model_channels for width in channels):
        raise ValueError(f"its levels have {channels} channels, which are no multiples of {model_channels}")
    num_res_blocks = downsamples[0] - 1 if downsamples else _blocks(state, ".*")[-1]
    numbers, count = _blocks(state, ".*"), len(channels) * (num_res_blocks + 1)
    if numbers != list(range(count)):  # the network that is built must not be larger than the file
        raise ValueError(f"its {len(numbers)} input blocks are not numbered from 0 to {count - 1}")
    extractor = f"{LOCAL}feature_extractor."
    return {
        "in_channels": in_channels,
        "model_channels": model_channels,
        "channel_mult": tuple(width // model_channels for width in channels),
        "num_res_blocks": num_res_blocks,
        "context_dim": _shape(state, f"{LOCAL}middle_block.1.transformer_blocks.0.attn2.to_k.weight", 2)[1],
        "local_channels": _shape(state, f"{extractor}fg_extractor.0.weight", 4)[1],
        "inject_channels": tuple(
            _shape(state, f"{extractor}extractors.{level}.0.weight", 4)[0] for level in range(len(channels))
        ),
    }


def _blocks(state: State, layer: str) -> list[int]:
    """Return in order the indices, below 1000, of the input blocks that have a key like the pattern ``layer``."""
    pattern = re.compile(rf"{re.escape(LOCAL)}input_blocks\.(\d{{1,3}})\.{layer}")
    return sorted({int(found[1]) for found in map(pattern.fullmatch, state) if found})


def _differences(state: State, config: FuserConfig) -> list[str]:
    """Return in words how the state's keys and shapes differ from those of the fusers of this config."""
    wanted = {
        prefix + name: tuple(tensor.shape)
        for prefix, network in ((LOCAL, LocalFuser), (GLOBAL, GlobalFuser))
        if any(name.startswith(prefix) for name in state)
        for name, tensor in network(config, device="meta").state_dict().items()
    }
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    misshapen = [
        f"{name} {tuple(tensor.shape)} instead of {wanted[name]}"
        for name, tensor in state.items()
        if name in wanted and tuple(tensor.shape) != wanted[name]
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    return [f"{len(names)} keys {what} ({_few(names)})" for what, names in found if names]


def _few(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
