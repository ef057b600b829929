"""What a stage starts from: base model, fusers, prepared set and text states, each checked against the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from cnc_core import CheckpointError, FuserConfig, GlobalFuser, LocalFuser, load_fusers

from ..config import ConfigError
from ..diffusion import Prediction
from ..files import file_hash
from ..prepared import PreparedError, PreparedSet
from ..weights import Base, initial_global_fuser, initial_local_fuser, read_base
from .config import TrainConfig
from .loader import Encode
from .networks import StageNetwork

Fuser = TypeVar("Fuser", LocalFuser, GlobalFuser)


@dataclass(frozen=True, eq=False)
class Start:
    """All that a run needs before its first step. facts: what a checkpoint's header tells of them."""

    network: StageNetwork
    prediction: Prediction
    facts: dict[str, str]


def begin(config: TrainConfig, data: PreparedSet, *, dtype: torch.dtype = torch.float32) -> Start:
    """Read the base model and make or read the stage's fusers.

    dtype: of the frozen base. Raises ConfigError, CheckpointError or PreparedError for what does not fit together.
    """
    base = read_base(config.base)
    if data.manifest.condition != config.condition:
        raise ConfigError(
            f"{data.name} holds {data.manifest.condition} maps, the config wants {config.condition}: give "
            f"--condition {data.manifest.condition}, or prepare a set of {config.condition}"
        )
    _check_sizes(data, base.config)
    text_encoder = _text_encoder(config, data)
    if config.prediction and base.prediction and config.prediction != base.prediction:
        raise ConfigError(f"{config.base} predicts {base.prediction} by its own header, not {config.prediction}")
    local_fuser, global_fuser, origins = _fusers(config, base)
    from ..prepare.encoders import encoder_path, model_facts

    network = StageNetwork(
        base.unet(dtype),
        local_fuser,
        global_fuser,
        mode=config.guidance_mode,
        resize=config.mask_resize,
        encoder_gradient=config.encoder_gradient,
    )
    prediction = config.prediction or base.prediction or "eps"
    facts = {
        "stage": config.stage,
        "conditions": config.condition,
        "streams": config.streams,
        "prediction_type": {"eps": "epsilon", "v": "v_prediction"}[prediction],
        "guidance_mode": config.guidance_mode,
        "base": config.base.name,
        "base_sha256": file_hash(config.base),
        "text_encoder_sha256": model_facts(text_encoder, encoder_path(text_encoder, "text_encoder"))["sha256"],
        "data_content": data.content,
        "started_from": origins,
    }
    return Start(network, prediction, facts)


def text_states(
    config: TrainConfig, data: PreparedSet, context_dim: int, device: torch.device
) -> tuple[Tensor, Encode]:
    """The states (77, C) of the empty text, and the encoder they come from.

    Raises PreparedError where neither the config nor the set names one, or it is not the base model's.
    """
    from ..prepare.encoders import CaptionEncoder

    name = _text_encoder(config, data)
    encoder = CaptionEncoder(name, str(device), torch.float32)
    empty = encoder([""])[0]
    if empty.shape[1] != context_dim:
        raise PreparedError(f"the text encoder {name} has {empty.shape[1]} channels, the base takes {context_dim}")
    return empty, encoder


def _text_encoder(config: TrainConfig, data: PreparedSet) -> str:
    """The text encoder's name. Raises PreparedError where neither the config nor the set has one."""
    name = config.text_encoder or data.manifest.models.get("text_encoder", {}).get("name")
    if name is None:
        raise PreparedError(f"{data.name} does not say which text encoder prepared it: give --text-encoder")
    return name


def _fusers(config: TrainConfig, base: Base) -> tuple[LocalFuser | None, GlobalFuser | None, str]:
    """The stage's fusers in fp32, each from the first file that holds it, and in words where they are from."""
    local_fuser: LocalFuser | None = None
    global_fuser: GlobalFuser | None = None
    for path in config.fusers:
        read = load_fusers(path, dtype=torch.float32, num_heads=base.config.num_heads)
        _check_fits(read.config, base.config, str(path))
        local_fuser, global_fuser = local_fuser or read.local_fuser, global_fuser or read.global_fuser
    origins = " and ".join(path.name for path in config.fusers)
    if config.stage == "local":
        if local_fuser is None and config.fusers:
            raise CheckpointError(f"{config.fusers[0]} holds no local fuser to train")
        if local_fuser is None:
            local_fuser, _ = initial_local_fuser(base.state, base.config, seed=config.seed)
        return _own(local_fuser), None, origins or "the base's encoder"
    if config.stage == "global":
        if global_fuser is None and config.fusers:
            raise CheckpointError(f"{config.fusers[0]} holds no global fuser to train")
        global_fuser = global_fuser or initial_global_fuser(base.config, seed=config.seed)
        return None, _own(global_fuser), origins or "nothing"
    if local_fuser is None or global_fuser is None:
        lacking = "local" if local_fuser is None else "global"
        raise CheckpointError(f"stage joint needs both fusers, {origins} hold no {lacking} one")
    return _own(local_fuser), _own(global_fuser), origins


def _own(fuser: Fuser) -> Fuser:
    """The fuser with tensors of its own: those mapped from a file are not to be written to."""
    fuser.load_state_dict({name: tensor.clone() for name, tensor in fuser.state_dict().items()}, assign=True)
    return fuser.requires_grad_(True)


def _check_sizes(data: PreparedSet, config: FuserConfig) -> None:
    arrays = data.manifest.arrays
    wanted = {
        "latents": (0, config.in_channels, "channels"),
        "text": (-1, config.context_dim, "channels of text states"),
        "source_embed": (0, config.context_dim, "channels of image embeddings"),
    }
    for name, (axis, size, what) in wanted.items():
        if name in arrays and arrays[name].shape[axis] != size:
            raise PreparedError(
                f"{data.name} has {arrays[name].shape[axis]} {what}, the base model takes {size}: the set was "
                f"prepared for another base model"
            )


def _check_fits(fusers: FuserConfig, base: FuserConfig, path: str) -> None:
    for name in ("in_channels", "model_channels", "channel_mult", "num_res_blocks", "context_dim"):
        if getattr(fusers, name) != getattr(base, name):
            raise CheckpointError(
                f"{path} has {name} {getattr(fusers, name)}, the base model {getattr(base, name)}: they do not fit"
            )
