"""Estimators inside ComfyUI: their folder, their networks in its memory management, its progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management as management
import comfy.ops
import comfy.utils
import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from torch import Tensor

from ...cnc_core import perception
from .folders import register_folder

DEPTH_FOLDER = "depth_estimation"
"""The host's name of the folder of depth models, under `models`."""

_ACTIVATIONS = 256
"""Bytes at work for each byte of a network's input: an estimate that holds for the larger transformers."""


@dataclass(frozen=True)
class HostedEstimator:
    """A depth or salience estimator whose network the host may move, and drop."""

    estimator: perception.MapEstimator
    patcher: ModelPatcher | None

    def run(self, prepared: Tensor) -> Tensor:
        """Run the network where the host wants it; the output comes back to where images are kept."""
        if self.patcher is None:
            raise ValueError("an estimator without a network has nothing to run")
        memory = prepared.nelement() * prepared.element_size() * _ACTIVATIONS
        management.load_models_gpu([self.patcher], memory_required=memory)
        output: Tensor = self.patcher.model(prepared.to(self.patcher.load_device))
        return output.to(management.intermediate_device())


_Key = tuple[str, Path, int]
_hosted: dict[_Key, HostedEstimator] = {}
"""What has been loaded and not yet been dropped, so that two nodes share one network."""


def register_depth_models() -> None:
    """Add ``models/depth_estimation`` to the host's folders."""
    register_folder(DEPTH_FOLDER, {".safetensors", ".bin"})


def depth_folders() -> list[Path]:
    """Where depth models are looked for."""
    return [Path(path) for path in folder_paths.get_folder_paths(DEPTH_FOLDER)]


def depth_names() -> list[str]:
    """The depth estimators that there are."""
    return perception.available("depth", depth_folders())


def depth_estimator(name: str) -> HostedEstimator:
    """The depth estimator of this name. Raises PerceptionError where it cannot be had."""
    folders = depth_folders()
    path = perception.model_path("depth", name, folders)
    return _host(
        ("depth", path, _changed(path)),
        lambda: perception.load_depth(
            name, folders, operations=comfy.ops.manual_cast, device=management.unet_offload_device()
        ),
    )


def saliency_estimator(name: str) -> HostedEstimator:
    """The salience estimator of this name. Raises PerceptionError where it cannot be had."""
    path = perception.model_path("saliency", name)
    return _host(
        ("saliency", path, _changed(path)),
        lambda: perception.load_saliency(
            name, operations=comfy.ops.manual_cast, device=management.unet_offload_device()
        ),
    )


def each(count: int) -> Iterator[int]:
    """0 to count - 1, with the host's progress bar, and an end when the user interrupts."""
    bar = comfy.utils.ProgressBar(count)
    for index in range(count):
        management.throw_exception_if_processing_interrupted()
        yield index
        bar.update(1)


def _host(key: _Key, load: Callable[[], perception.MapEstimator]) -> HostedEstimator:
    if key not in _hosted:
        estimator = load()
        if estimator.network is None:
            return HostedEstimator(estimator, None)
        patcher = ModelPatcher(
            estimator.network,
            load_device=management.get_torch_device(),
            offload_device=management.unet_offload_device(),
        )
        # The host unloads a model when it needs the room or the user asks for it: the cache lets go as well.
        patcher.add_callback(CallbacksMP.ON_DETACH, lambda *_: _hosted.pop(key, None))
        _hosted[key] = HostedEstimator(estimator, patcher)
    return _hosted[key]


def _changed(path: Path) -> int:
    """When the model was last written, so that a new file under an old name is read."""
    return path.stat().st_mtime_ns if path.exists() else 0
