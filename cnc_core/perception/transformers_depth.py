"""Depth models of the transformers library, from a folder on this machine.

The library's own image processor makes the network's input and resizes its output, so a model behaves
as its authors meant. Nothing is downloaded and no code that comes with a model is run. The library is
imported when a model is loaded, not before.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from .estimator import PerceptionError, Preprocessing

METRIC_MODELS = frozenset({"depth_pro", "glpn", "prompt_depth_anything", "zoedepth"})
"""Model types that return a distance; the others return relative disparity, where near is large."""

UNUSED_WEIGHTS = "neck.fusion_stage.layers.0.residual_layer1."
"""DPT's first fusion layer has no residual to add: the public DPT files lack these weights."""

_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


def find_models(folders: list[Path]) -> dict[str, Path]:
    """Models in these folders and below, by their path relative to the folder that holds them.

    A model is a folder with a `config.json` and a weights file. The first of two same names wins.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for config in sorted(folder.rglob("config.json")):
            model = config.parent
            if any(next(model.glob(pattern), None) for pattern in _WEIGHT_FILES):
                name = model.name if model == folder else model.relative_to(folder).as_posix()
                found.setdefault(name, model)
    return found


class _PredictedDepth(nn.Module):
    """A depth model as tensor to tensor.

    A host's memory management sets attributes that the library's own class keeps read-only.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, h, w) to (B, h', w')."""
        depth: Tensor = self.model(pixel_values=pixel_values).predicted_depth
        return depth


class TransformersDepth:
    """A depth model of the transformers library behind the boundary of `estimator`.

    model: a `...ForDepthEstimation`; processor: its image processor.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.network: nn.Module = _PredictedDepth(model)
        self.processor = processor
        config = model.config
        self.metric = config.model_type in METRIC_MODELS or getattr(config, "depth_estimation_type", None) == "metric"

    def prepare(self, image: Tensor, *, preprocessing: Preprocessing = "model") -> Tensor:
        """(B, H, W, 3) in [0, 1] to (B, 3, h, w), resized as the model wants.

        "release" leaves out the mean and deviation, as the released weights were trained. The processor
        gets 8-bit pictures, as in the library's own pipeline: it rounds to 8 bits when it resizes those.
        """
        options = {"do_normalize": False} if preprocessing == "release" else {}
        pictures = (image.movedim(-1, 1).float().clamp(0.0, 1.0) * 255.0).round().byte()
        made = self.processor(images=list(pictures), return_tensors="pt", **options)
        pixel_values: Tensor = made["pixel_values"]
        return pixel_values

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """(B, h, w) to disparity (B, height, width), near is large."""
        from transformers.modeling_outputs import DepthEstimatorOutput

        sizes = [(height, width)] * output.shape[0]
        options = {"source_sizes": sizes} if self._pads() else {}
        results = self.processor.post_process_depth_estimation(
            DepthEstimatorOutput(predicted_depth=output.float()), target_sizes=sizes, **options
        )
        depth = torch.stack([result["predicted_depth"].reshape(height, width) for result in results])
        return 1.0 / depth.clamp(min=1e-3) if self.metric else depth

    def _pads(self) -> bool:
        """Whether the processor must know the picture's size to cut its padding off, as ZoeDepth's."""
        return "source_sizes" in inspect.signature(self.processor.post_process_depth_estimation).parameters


def load_transformers_depth(
    folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> TransformersDepth:
    """A depth model from its folder: config.json, preprocessor_config.json and the weights.

    dtype: float32 where not given. Raises PerceptionError where the folder holds no depth model that
    this transformers knows, lacks a file, or its weights are not the config's.
    """
    from safetensors import SafetensorError

    try:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation
    except ImportError as error:
        raise PerceptionError(
            f"the depth model in {folder} needs the transformers library, which cannot be imported: {error}"
        ) from error
    offline = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoImageProcessor.from_pretrained(str(folder), **offline)
        model, report = AutoModelForDepthEstimation.from_pretrained(str(folder), output_loading_info=True, **offline)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise PerceptionError(
            f"{folder} does not load as a depth model: {str(error).strip()} It needs config.json, "
            f"preprocessor_config.json and model.safetensors of one depth model that transformers knows, "
            f"such as Depth Anything V2 or DPT"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(UNUSED_WEIGHTS))
    if missing:
        raise PerceptionError(
            f"the weights in {folder} lack {len(missing)} that its config.json asks for, such as "
            f"{', '.join(missing[:3])}: the files belong to different models, or a download was cut short"
        )
    if not hasattr(processor, "post_process_depth_estimation"):
        raise PerceptionError(
            f"{folder}/preprocessor_config.json names {type(processor).__name__}, which is not the image "
            f"processor of a depth model"
        )
    model = model.to(dtype=dtype or torch.float32, device=device)
    return TransformersDepth(model.eval().requires_grad_(False), processor)
