"""Small ONNX models in their real file format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
