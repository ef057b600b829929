"""Small ONNX models in their real file format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, tuple[int, list[int | str]]],
    weights: dict[str, object] | None = None,
) -> Path:
    """A model of these nodes; inputs and outputs are (element type, shape) by name, weights are numpy arrays."""
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
        [helper.make_tensor_value_info(name, *value) for name, value in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def mean_of_channels(path: Path, *, batch: int | str = "batch", element: int = TensorProto.FLOAT) -> Path:
    """(B, 3, h, w) to (B, 1, h, w): the mean over the channels."""
    shape: list[int | str] = [batch, 3, "height", "width"]
    node = helper.make_node("ReduceMean", ["input"], ["output"], axes=[1], keepdims=1)
    return write(path, [node], {"input": (element, shape)}, {"output": (element, [batch, 1, "height", "width"])})


def migan_pipeline(path: Path) -> Path:
    """MI-GAN's interface with a simple filling: the mean of what is known, over all that comes in one call.

    `image` uint8 (B, 3, H, W) and `mask` uint8 (B, 1, H, W), 0 in the hole, to `result` uint8 (B, 3, H, W).
    """
    nodes = [
        helper.make_node("Cast", ["mask"], ["known"], to=TensorProto.BOOL),
        helper.make_node("Cast", ["known"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["image"], ["colours"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["colours", "ones"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "axes"], ["sum"]),
        helper.make_node("ReduceSum", ["ones", "axes"], ["count"]),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Where", ["known", "colours", "mean"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["result"], to=TensorProto.UINT8),
    ]
    picture: list[int | str] = ["batch_size", 3, "height", "width"]
    mask: list[int | str] = ["batch_size", 1, "height", "width"]
    inputs = {"image": (TensorProto.UINT8, picture), "mask": (TensorProto.UINT8, mask)}
    outputs = {"result": (TensorProto.UINT8, picture)}
    return write(path, nodes, inputs, outputs, {"axes": np.array([0, 2, 3], dtype=np.int64)})
