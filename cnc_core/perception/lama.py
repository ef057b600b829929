"""LaMa (Suvorov et al., WACV 2022), and whatever else `spandrel` reads that inpaints.

Spandrel, which every ComfyUI brings, has the architecture; the weights are a file of the user's: big-lama as
a TorchScript program (`big-lama.pt`), as the authors' checkpoint, or as safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..command_lines import pip_install
from ..file_kinds import seems_to_be
from ..weight_files import CheckpointError, open_weights
from .estimator import PerceptionError
from .inpaint import stack, unstack, working_size
from .torchscript import is_torchscript, torchscript_weights

_MARK = "1.bn_l.running_mean"
"""What a key of LaMa's generator ends in, in all files; what is before it differs."""

_SPANDRELS = "model.model."
"""What spandrel has before it."""


class SpandrelInpainter:
    """An inpainting network of spandrel's for pictures of any size.

    network: takes (B, 4, h, w), the picture and its hole; h and w as `requirements` wants them. Pictures
    longer than `max_side` are filled at that size: the network needs 20 s and 2 GB for 1536 x 1152 on two
    cores, and was trained at 256.
    """

    def __init__(self, network: nn.Module, requirements: Any, *, max_side: int = 1024) -> None:
        self.network = network
        self.requirements = requirements
        self.max_side = max_side

    def prepare(self, image: Tensor, hole: Tensor) -> Tensor:
        """(B, H, W, 3) and (B, H, W) to (B, 4, h, w), padded by reflection as spandrel does."""
        stacked = stack(image, hole, max_side=self.max_side)
        height, width = stacked.shape[2:]
        right, below = self.requirements.get_padding(width, height)
        reflected = (0, min(right, width - 1), 0, min(below, height - 1))
        stacked = F.pad(stacked, reflected, mode="reflect")
        return F.pad(stacked, (0, right - reflected[1], 0, below - reflected[3]), mode="replicate")

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """(B, 3, h, w) to (B, height, width, 3)."""
        h, w = working_size(height, width, self.max_side)
        return unstack(output[..., :h, :w], height, width)


class _Stacked(nn.Module):
    """Picture and hole in one tensor, for a network that takes them apart."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, stacked: Tensor) -> Tensor:
        filled: Tensor = self.model(stacked[:, :3], stacked[:, 3:])
        return filled


def load_spandrel(path: Path, *, device: torch.device | str | None = None) -> SpandrelInpainter:
    """The inpainting model in a file of weights, in float32.

    No code of the file is run. Raises PerceptionError where spandrel is missing, or the file is damaged or
    holds something else.
    """
    try:
        import spandrel
    except ImportError as error:
        raise PerceptionError(
            f"{path.name} is read by spandrel, which cannot be imported ({error}): install it with "
            f"`{pip_install('spandrel')}`"
        ) from error
    try:
        state = torchscript_weights(path) if is_torchscript(path) else open_weights(path, ("",)).tensors
    except CheckpointError as error:
        raise PerceptionError(str(error)) from error
    expected = "expected an inpainting model that spandrel knows, such as LaMa (big-lama)"
    state = _as_spandrel_names_it(state)
    try:
        found = spandrel.ModelLoader(device).load_from_state_dict(state)
    except spandrel.UnsupportedModelError as error:
        raise PerceptionError(f"{path} is {seems_to_be(state)}; {expected}") from error
    except Exception as error:  # each architecture fails in its own way on weights that are not quite its own
        raise PerceptionError(f"{path} cannot be loaded: {str(error)[:300]}; {expected}") from error
    if not isinstance(found, spandrel.MaskedImageModelDescriptor):
        raise PerceptionError(
            f"{path} is a {found.architecture.name} model, which does not inpaint ({found.purpose}); {expected}"
        )
    if (found.input_channels, found.output_channels) != (3, 3):
        raise PerceptionError(
            f"{path} inpaints {found.input_channels} channels to {found.output_channels}; expected 3 to 3"
        )
    network = _Stacked(found.model).eval().requires_grad_(False)
    return SpandrelInpainter(network.float(), found.size_requirements)


def _as_spandrel_names_it(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """LaMa's generator alone, under spandrel's names; other files as they are.

    The authors' checkpoint holds the discriminator and the networks of the loss as well.
    """
    prefixes = [name.removesuffix(_MARK) for name in state if name.endswith(f"model.{_MARK}")]
    if len(prefixes) != 1:
        return state
    return {
        _SPANDRELS + name.removeprefix(prefixes[0]): value
        for name, value in state.items()
        if name.startswith(prefixes[0])
    }
