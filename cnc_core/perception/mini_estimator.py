"""The Mini's own depth and salience: `MiniNet` behind the boundary of `estimator`.

Trained on CnC-Mini's procedural world at 128 pixels; good there, and not meant for photographs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .estimator import PerceptionError, Preprocessing
from .mini import STRIDE, MiniNet

SIDE = 128
"""The shorter side, in pixels, at which the network was trained."""

WEIGHTS = {"depth": "depth.safetensors", "saliency": "salience.safetensors"}
"""The Mini's files by kind, under `models/mini`."""


class MiniEstimator:
    """`MiniNet` for pictures of any size, as depth or as salience."""

    def __init__(self, kind: Literal["depth", "saliency"], network: MiniNet) -> None:
        self.kind = kind
        self.network: nn.Module = network

    def prepare(self, image: Tensor, *, preprocessing: Preprocessing = "model") -> Tensor:
        """(B, H, W, 3) in [0, 1] to (B, 3, h, w), about 128 on the shorter side.

        The network takes raw [0, 1] values, so both kinds of preprocessing are the same. Pictures more
        than four times as long as wide are squeezed.
        """
        del preprocessing
        height, width = image.shape[1:3]
        scale = SIDE / min(height, width)
        size = [STRIDE * max(1, round(min(side * scale, 4 * SIDE) / STRIDE)) for side in (height, width)]
        picture = image.movedim(-1, 1).float().clamp(0.0, 1.0)
        if [height, width] == size:
            return picture
        return F.interpolate(picture, size=size, mode="bilinear", align_corners=False, antialias=True)

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """(B, 1, h, w) raw to (B, height, width): disparity in [0, 1] as it was trained, or salience in [0, 1]."""
        if self.kind == "depth":
            output = output.clamp(0.0, 1.0)  # what it was trained to give; beyond is overshoot at contours
        if output.shape[2:] != (height, width):
            output = F.interpolate(output, size=(height, width), mode="bilinear", align_corners=False)
        value = output[:, 0]
        return value.sigmoid() if self.kind == "saliency" else value


def load_mini(
    kind: Literal["depth", "saliency"],
    path: Path,
    *,
    operations: Any = nn,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> MiniEstimator:
    """The Mini's estimator from its weights file.

    dtype: float32 where not given, since the file's half precision is for its size alone. Raises
    PerceptionError where the file is missing, or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise PerceptionError(
            f"the Mini's {kind} weights are not at {path}: the file comes with the pack, so the copy "
            f"is incomplete. Install the pack again"
        )
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise PerceptionError(f"{path} is no safetensors file, or is cut short: {error}") from error
    network = MiniNet(operations=operations, dtype=dtype or torch.float32, device=device)
    expected = network.state_dict()
    wrong = sorted(
        key
        for key in expected.keys() | state.keys()
        if key not in expected or key not in state or expected[key].shape != state[key].shape
    )
    if wrong:
        raise PerceptionError(
            f"{path} does not hold the Mini's {kind} network: {len(wrong)} weights are missing, unknown or "
            f"of another shape, such as {', '.join(wrong[:3])}"
        )
    network.load_state_dict(state)
    return MiniEstimator(kind, network.eval().requires_grad_(False))
