"""Estimators inside ComfyUI: their folder, their networks in its memory management, its progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import comfy.model_management as management
import comfy.ops
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from torch import Tensor

from ...cnc_core import perception
from .folders import register_folder

_FOLDERS: dict[perception.Kind, tuple[str, set[str]]] = {
    "depth": ("depth_estimation", {".safetensors", ".bin", ".pt", ".pth"}),
    "saliency": ("saliency", {".onnx", ".pth"}),
    "selection": ("sam2", {".safetensors"}),
    "inpainting": ("inpaint", {".onnx", ".safetensors", ".pt", ".pth", ".ckpt"}),
}
"""The host's name of each kind's folder, under `models`, and what a model's files may end in."""

_HALF: frozenset[perception.Kind] = frozenset({"depth"})
"""The kinds whose networks are loaded in half precision where the host would use it."""

E = TypeVar("E")

_ACTIVATIONS = 256
"""Bytes at work for each byte of a network's input: an estimate that holds for the larger transformers."""


_PIECE = 8
"""Pictures that go through a network together on a card: enough to fill it, few enough to be interrupted soon."""


@dataclass(frozen=True)
class HostedEstimator(Generic[E]):
    """An estimator whose network the host may move, and drop."""

    estimator: E
    patcher: ModelPatcher | None

    def run(self, prepared: Tensor, *more: Tensor) -> Tensor:
        """Run the network where the host wants it; the output comes back to where images are kept.

        prepared: the pictures, which say how much memory is at work; as many go through together as fit. more: what
        else the network takes, for all of them at once.
        """
        if self.patcher is None:
            raise ValueError("an estimator without a network has nothing to run")
        one = prepared[:1].nelement() * prepared.element_size() * _ACTIVATIONS
        management.load_models_gpu([self.patcher], memory_required=one * len(prepared))
        device = self.patcher.load_device
        fits = len(prepared) if more else max(1, int(management.get_free_memory(device) // one))
        outputs: list[Tensor] = [
            self.patcher.model(part.to(device), *(tensor.to(device) for tensor in more)).to(
                management.intermediate_device()
            )
            for part in prepared.split(fits)
        ]
        return torch.cat(outputs)


_Key = tuple[str, str, Path | None, int]
_hosted: dict[_Key, HostedEstimator[Any]] = {}
"""What has been loaded and not yet been dropped, so that two nodes share one network."""


def register_perception() -> None:
    """Add a folder under ``models`` for each kind of estimator to the host's."""
    for folder, endings in _FOLDERS.values():
        register_folder(folder, endings)


def estimator_names(kind: perception.Kind) -> list[str]:
    """The estimators of a kind that there are: the built-in ones and those in the user's folders."""
    return perception.available(kind, _folders(kind))


def depth_estimator(name: str) -> HostedEstimator[perception.MapEstimator]:
    """The depth estimator of this name. Raises PerceptionError where it cannot be had."""
    return _host("depth", name)


def saliency_estimator(name: str) -> HostedEstimator[perception.MapEstimator]:
    """The salience estimator of this name. Raises PerceptionError where it cannot be had."""
    return _host("saliency", name)


def selector(name: str) -> HostedEstimator[perception.Selector]:
    """The selector of this name. Raises PerceptionError where it cannot be had."""
    return _host("selection", name)


def inpainter(name: str) -> HostedEstimator[perception.Inpainter]:
    """The inpainter of this name. Raises PerceptionError where it cannot be had."""
    return _host("inpainting", name)


def each(count: int) -> Iterator[int]:
    """0 to count - 1, with the host's progress bar, and an end when the user interrupts."""
    bar = comfy.utils.ProgressBar(count)
    for index in range(count):
        management.throw_exception_if_processing_interrupted()
        yield index
        bar.update(1)


def pieces(count: int) -> Iterator[slice]:
    """The parts of a batch that go through a network together, with progress and interruption as `each` has them.

    On a CPU that is one picture at a time: more together are no faster there, and take more memory.
    """
    size = 1 if management.is_device_cpu(management.get_torch_device()) else _PIECE
    bar = comfy.utils.ProgressBar(count)
    for first in range(0, count, size):
        management.throw_exception_if_processing_interrupted()
        yield slice(first, first + size)
        bar.update(min(size, count - first))


def _folders(kind: perception.Kind) -> list[Path]:
    return [Path(path) for path in folder_paths.get_folder_paths(_FOLDERS[kind][0])]


def _host(kind: perception.Kind, name: str) -> HostedEstimator[Any]:
    folders = _folders(kind)
    path = perception.model_path(kind, name, folders)
    key = (kind, name, path, _changed(path))
    if key in _hosted:
        return _hosted[key]
    device = management.get_torch_device()
    offload_device = management.unet_offload_device()
    # An ONNX session stays where it was made, so it is made where it computes.
    made_on = device if path is not None and path.suffix.lower() == ".onnx" else offload_device
    half = kind in _HALF and management.should_use_fp16(device)
    dtype = torch.float16 if half else torch.float32
    estimator = perception.load(kind, name, folders, operations=comfy.ops.manual_cast, dtype=dtype, device=made_on)
    network = estimator.network
    if network is None:
        return HostedEstimator(estimator, None)
    # What holds its weights outside of torch says how large they are.
    size = getattr(network, "nbytes", 0)
    patcher = ModelPatcher(network, load_device=device, offload_device=offload_device, size=size)
    hosted = HostedEstimator(estimator, patcher)

    def let_go(_: ModelPatcher, unload: bool) -> None:
        # Where the host unloads a model, for its room or because the user asks, what is kept here goes as well. Not
        # where it detaches one to load it again, as it does at each use. It goes with the next garbage collection,
        # since this function and the patcher hold each other, and the host makes one when it has unloaded: freed at
        # once, a network would have the host change the list of its models in the middle of its walk over it.
        if unload and _hosted.get(key) is hosted:
            del _hosted[key]

    patcher.add_callback(CallbacksMP.ON_DETACH, let_go)
    _hosted[key] = hosted
    return hosted


def _changed(path: Path | None) -> int:
    """When the model was last written, so that a new file under an old name is read."""
    return path.stat().st_mtime_ns if path is not None and path.exists() else 0
