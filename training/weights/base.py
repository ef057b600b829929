"""The frozen base model: the U-Net of a Stable Diffusion 1.5 single-file checkpoint."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from cnc_core import CheckpointError, FuserConfig, UNet
from cnc_core.checkpoints import header_config
from cnc_core.file_kinds import seems_to_be
from cnc_core.weight_files import open_weights

State = dict[str, Tensor]
Prediction = Literal["eps", "v"]

PREFIX = "model.diffusion_model."
_PARTS = ("time_embed.", "input_blocks.", "middle_block.", "output_blocks.", "out.")
_PREDICTIONS: dict[str, Prediction] = {"eps": "eps", "epsilon": "eps", "v": "v", "v_prediction": "v"}


@dataclass(frozen=True, eq=False)
class Base:
    """A base model's U-Net.

    state: its tensors, mapped from the file, under SD's keys without ``model.diffusion_model.``. prediction: what it
    predicts, if the file's header says so.
    """

    state: State
    config: FuserConfig
    prediction: Prediction | None = None

    def unet(self, dtype: torch.dtype | None = None) -> UNet:
        """The network with these weights, in eval mode and frozen: no parameter takes a gradient."""
        unet = UNet(self.config, device="meta")
        unet.load_state_dict(
            {name: tensor.to(dtype or torch.float32) for name, tensor in self.state.items()}, assign=True
        )
        return unet.eval().requires_grad_(False)


def read_base(path: Path) -> Base:
    """Read the U-Net of a single-file checkpoint (.safetensors or .ckpt), or a U-Net alone under the same keys.

    The config is the header's where there is one (as CnC-Mini's U-Net has), else it follows from the shapes. Raises
    CheckpointError, which says what the file seems to be, for what is not exactly a U-Net of Stable Diffusion 1.5's
    kind: 2.x, XL and inpainting models among them.
    """
    weights = open_weights(path, (PREFIX, *_PARTS))
    state = {n.removeprefix(PREFIX): t for n, t in weights.tensors.items() if n.startswith(PREFIX)} or weights.tensors
    if "input_blocks.0.0.weight" not in state or not any(name.startswith("output_blocks.") for name in state):
        raise CheckpointError(
            f"{path} seems to be {seems_to_be(weights.names)}; expected a Stable Diffusion 1.5 checkpoint in one file, "
            f"with keys under {PREFIX}"
        )
    try:
        config = _config(state, weights.metadata)
        problems = differences(state, shapes(UNet(config, device="meta")))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds a U-Net that cannot be used: {error}") from error
    if problems:
        raise CheckpointError(
            f"{path} is no U-Net of Stable Diffusion 1.5's kind ({seems_to_be(weights.names)}): {'; '.join(problems)}"
        )
    return Base(state, config, _prediction(weights.metadata))


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a module's state."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def differences(state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """In words, how a state's keys and shapes differ from the wanted ones; nothing where they are equal."""
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    misshapen = [
        f"{name} {tuple(tensor.shape)} instead of {wanted[name]}"
        for name, tensor in state.items()
        if name in wanted and tuple(tensor.shape) != wanted[name]
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    return [f"{len(names)} keys {what} ({few(names)})" for what, names in found if names]


def few(names: Sequence[str], count: int = 3) -> str:
    """The first names of a list, for a message."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _config(state: State, metadata: Mapping[str, str]) -> FuserConfig:
    if "config" in metadata:
        told = header_config(metadata)
        known = {field.name for field in dataclasses.fields(FuserConfig)}
        return FuserConfig(**{name: value for name, value in told.items() if name in known})
    first, in_channels = state["input_blocks.0.0.weight"].shape[:2]
    if in_channels != FuserConfig.in_channels:
        raise ValueError(f"it takes {in_channels} channels, an inpainting or pix2pix model; 4 are expected")
    downsamples = [name for name in state if re.fullmatch(r"input_blocks\.\d+\.0\.op\.weight", name)]
    if len(downsamples) != 3 or first != FuserConfig.model_channels:
        raise ValueError(f"it has {len(downsamples) + 1} levels from {first} channels on, and no config in its header")
    context_dim = state["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    return FuserConfig(context_dim=context_dim)


def _prediction(metadata: Mapping[str, str]) -> Prediction | None:
    told = metadata.get("prediction_type") or metadata.get("modelspec.prediction_type")
    return _PREDICTIONS.get(told) if told else None
