"""Salience networks in ONNX files: U2-Net, IS-Net and BiRefNet as they are exported in public.

| family | told by what the file gives | else by a name that begins with |
| --- | --- | --- |
| U2-Net, U2-Net-p | seven maps: the fused one and six sides | u2net, silueta |
| IS-Net (DIS) | six maps, with or without six feature maps | isnet |
| IS-Net for anime | | isnet-anime, isnetis |
| BiRefNet | `output_image` for `input_image` | birefnet |

A map is an output of one channel. The input's size is the file's own where it is fixed, else the family's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .estimator import PerceptionError
from .onnx import OnnxNetwork, described
from .salience import BIREFNET, ISNET, ISNET_ANIME, U2NET, Family, SalienceEstimator

_BY_MAPS = {7: U2NET, 6: ISNET}

_BY_NAME = (
    ("u2net", U2NET),
    ("silueta", U2NET),
    ("isnet-anime", ISNET_ANIME),
    ("isnetis", ISNET_ANIME),
    ("isnet", ISNET),
    ("birefnet", BIREFNET),
)
"""Beginnings of file names, in lower case with hyphens; the first that fits counts."""


def load_onnx_salience(path: Path, *, device: torch.device | str | None = None) -> SalienceEstimator:
    """The salience estimator in an ONNX file.

    device: what it computes on. Raises PerceptionError where onnxruntime is missing, the file is no ONNX model,
    does not turn one picture into one map, or its family cannot be told.
    """
    network = OnnxNetwork(path, device=device)
    inputs, first = list(network.inputs.values()), next(iter(network.outputs.values()))
    if len(inputs) != 1 or not _is_like(inputs[0].shape, 3) or not _is_like(first.shape, 1):
        raise PerceptionError(
            f"{path} is no salience model: it makes {described(network.outputs)} of {described(network.inputs)}; "
            f"expected one map (B, 1, height, width) of one picture (B, 3, height, width)"
        )
    height, width = inputs[0].shape[2:]
    fixed = isinstance(height, int) and isinstance(width, int)
    return SalienceEstimator(network, _family(path, network), (height, width) if fixed else None)


def _family(path: Path, network: OnnxNetwork) -> Family:
    if list(network.inputs) == ["input_image"] and list(network.outputs) == ["output_image"]:
        return BIREFNET
    maps = sum(len(entry.shape) == 4 and entry.shape[1] == 1 for entry in network.outputs.values())
    if maps in _BY_MAPS:
        return _BY_MAPS[maps]
    name = path.name.lower().replace("_", "-")
    for beginning, family in _BY_NAME:
        if name.startswith(beginning):
            return family
    raise PerceptionError(
        f"{path} is a salience model of a family that neither the file nor its name tells. If it is one of "
        f"{', '.join(sorted({family.name for _, family in _BY_NAME}))}, let its name begin with "
        f"{', '.join(beginning for beginning, _ in _BY_NAME)}"
    )


def _is_like(shape: list[Any], channels: int) -> bool:
    return len(shape) == 4 and (shape[1] == channels or not isinstance(shape[1], int))
