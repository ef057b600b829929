"""A model in an ONNX file, run by ONNX Runtime, as a network from tensor to tensor.

ONNX Runtime is an extra: it is imported when such a model is loaded. What a session holds is freed with
the network that owns it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from ..command_lines import pip_install
from .estimator import PerceptionError

Array = np.ndarray[Any, Any]
Feed = Callable[[Array], Mapping[str, Array]]
"""From what an estimator's `prepare` made to the model's inputs by name."""

_PROVIDERS = {
    "cuda": ("CUDAExecutionProvider", "MIGraphXExecutionProvider", "ROCMExecutionProvider"),
    "mps": ("CoreMLExecutionProvider",),
    "privateuseone": ("DmlExecutionProvider",),
    "xpu": ("OpenVINOExecutionProvider",),
}
"""Execution providers for torch's device types (torch built for ROCm calls its devices cuda)."""

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class OnnxNetwork(nn.Module):
    """An ONNX model's first output for a batch: (B, ...) in, (B, ...) in float32 out, on the input's device.

    path: the model file. device: what the host computes on; the provider that fits it is used where this
    onnxruntime has one, else the CPU's. feed: the model's inputs, where it has more than one or wants other
    numbers than floats. one_by_one: run it picture by picture, which is done anyway where the file has a
    fixed batch of one.

    Raises PerceptionError where onnxruntime is not installed, or cannot read the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: torch.device | str | None = None,
        feed: Feed | None = None,
        one_by_one: bool = False,
    ) -> None:
        super().__init__()
        self.session = _session(path, torch.device(device or "cpu"))
        self.nbytes = path.stat().st_size
        self.inputs: dict[str, Any] = {entry.name: entry for entry in self.session.get_inputs()}
        self.outputs: dict[str, Any] = {entry.name: entry for entry in self.session.get_outputs()}
        self._feed = feed or self._floats
        self._one_by_one = one_by_one or any(entry.shape and entry.shape[0] == 1 for entry in self.inputs.values())

    def forward(self, prepared: Tensor) -> Tensor:
        """(B, ...) to (B, ...)."""
        array = prepared.detach().cpu().numpy()
        parts = [array[index : index + 1] for index in range(len(array))] if self._one_by_one else [array]
        output = np.concatenate([self._run(part) for part in parts])
        return torch.from_numpy(output.astype(np.float32, copy=False)).to(prepared.device)

    def _run(self, array: Array) -> Array:
        output: Array = self.session.run([next(iter(self.outputs))], dict(self._feed(array)))[0]
        return output

    def _floats(self, array: Array) -> Mapping[str, Array]:
        (entry,) = self.inputs.values()
        return {entry.name: array.astype(_FLOATS.get(entry.type, np.float32), copy=False)}


def described(entries: Mapping[str, Any]) -> str:
    """A model's inputs or outputs in words, for an error."""
    return ", ".join(f"{name} {entry.type}{tuple(entry.shape)}" for name, entry in entries.items())


def _session(path: Path, device: torch.device) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise PerceptionError(
            f"{path.name} is an ONNX model, and onnxruntime cannot be imported ({error}): install it with "
            f"`{pip_install('onnxruntime')}` (onnxruntime-gpu for an NVIDIA card, "
            f"onnxruntime-directml for Windows without one)"
        ) from error
    there = onnxruntime.get_available_providers()
    wanted = [name for name in _PROVIDERS.get(device.type, ()) if name in there]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # An arena keeps what the largest run took: 1.7 GB for an IS-Net at 1024, which no host knows of. Without it
    # the peak is half as high, and a picture takes 1.1 s in place of 0.8.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3  # errors; its warnings are about how the model was exported
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[*wanted, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes of errors share no other base
        raise PerceptionError(f"{path} is no ONNX model that onnxruntime can read: {str(error).strip()}") from error
