"""Tiny ONNX models with the inputs and outputs that the public salience files have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from . import onnx_files

CHANNELS = np.array([0.5, 0.3, 0.2], dtype=np.float32)
"""What each model makes of a picture: this weighted sum of its channels, as its first map's logits."""


def write_salience(
    path: Path,
    *,
    maps: int = 1,
    features: int = 0,
    side: int | str = 32,
    names: tuple[str, str] = ("input", "output"),
    sigmoid: bool = True,
) -> Path:
    """A model of `maps` maps, the first being the weighted channels, the others zeros, and `features` of 4 channels."""
    given, first = names
    nodes = [helper.make_node("Conv", [given, "weights"], ["logits"])]
    nodes.append(helper.make_node("Sigmoid" if sigmoid else "Identity", ["logits"], [first]))
    shape: list[int | str] = [1, 1, side, side]
    outputs: dict[str, tuple[int, list[int | str]]] = {first: (TensorProto.FLOAT, shape)}
    for index in range(1, maps):
        nodes.append(helper.make_node("Sub", ["logits", "logits"], [f"map{index}"]))
        outputs[f"map{index}"] = (TensorProto.FLOAT, shape)
    for index in range(features):
        nodes.append(helper.make_node("Concat", ["logits"] * 4, [f"feature{index}"], axis=1))
        outputs[f"feature{index}"] = (TensorProto.FLOAT, [1, 4, side, side])
    inputs = {given: (TensorProto.FLOAT, [1, 3, side, side])}
    return onnx_files.write(path, nodes, inputs, outputs, {"weights": CHANNELS.reshape(1, 3, 1, 1)})


def u2net(path: Path) -> Path:
    """The fused map and six sides, as rembg's u2net.onnx."""
    return write_salience(path, maps=7)


def isnet(path: Path) -> Path:
    """Six maps and six features, as rembg's isnet-general-use.onnx and imgly's."""
    return write_salience(path, maps=6, features=6)


def birefnet(path: Path) -> Path:
    """One map without its sigmoid, under the names of the authors' export."""
    return write_salience(path, names=("input_image", "output_image"), sigmoid=False)
