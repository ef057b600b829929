"""Depth models of the transformers library, from a folder on this machine.

The library's own image processor makes the network's input and resizes its output, so a model behaves
as its authors meant. Nothing is downloaded and no code that comes with a model is run. The library is
imported when a model is loaded, not before.
"""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..command_lines import pip_install
from .estimator import PerceptionError, Preprocessing

METRIC_MODELS = frozenset({"depth_pro", "glpn", "prompt_depth_anything", "zoedepth"})
"""Model types that return a distance; the others return relative disparity, where near is large."""

UNUSED_WEIGHTS = "neck.fusion_stage.layers.0.residual_layer1."
"""DPT's first fusion layer has no residual to add: the public DPT files lack these weights."""

MAX_PIXELS = 1536 * 1536
"""The most pixels of a picture that a network sees, which is what Depth Pro sees of every picture.

Most image processors resize to a fixed size or near it; one without a resize of its own takes all there is.
"""

MAX_RATIO = 8
"""Image processors that keep the aspect ratio fail where the shorter side would come out at less than one patch."""

MIN_SIDE = 16
"""ZoeDepth's image processor fails where its mirrored border is as wide as the picture."""

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
        dtype = next(self.model.parameters()).dtype
        depth: Tensor = self.model(pixel_values=pixel_values.to(dtype)).predicted_depth
        return depth


class TransformersDepth:
    """A depth model of the transformers library behind the boundary of `estimator`.

    model: a `...ForDepthEstimation`; processor: its image processor.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.network: nn.Module = _PredictedDepth(model)
        self.processor = processor
        self.metric = _is_metric(model.config)

    def prepare(self, image: Tensor, *, preprocessing: Preprocessing = "model") -> Tensor:
        """(B, H, W, 3) in [0, 1] to (B, 3, h, w), resized as the model wants, to at most `MAX_PIXELS`.

        Smaller pictures than `MIN_SIDE` and longer ones than `MAX_RATIO` times their width are stretched. "release"
        leaves out the mean and deviation, as the released weights were trained. The processor
        gets 8-bit pictures, as in the library's own pipeline: it rounds to 8 bits when it resizes those.
        """
        options = {"do_normalize": False} if preprocessing == "release" else {}
        pictures = image.movedim(-1, 1).float()
        fitted = _fitted(image.shape[1], image.shape[2])
        if pictures.shape[2:] != fitted:
            pictures = F.interpolate(pictures, size=fitted, mode="bilinear", align_corners=False, antialias=True)
        pictures = pictures.clamp(0.0, 1.0).mul_(255.0).round_().byte()
        made = self.processor(images=list(pictures), return_tensors="pt", **options)
        pixel_values: Tensor = made["pixel_values"]
        height, width = pixel_values.shape[2:]
        scale = math.sqrt(MAX_PIXELS / (height * width))
        if scale >= 1.0:
            return pixel_values
        step = getattr(self.processor, "ensure_multiple_of", None) or 1
        size = [max(step, int(side * scale) // step * step) for side in (height, width)]
        return F.interpolate(pixel_values, size=size, mode="bilinear", align_corners=False, antialias=True)

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """(B, h, w) to disparity (B, height, width), near is large."""
        from transformers.modeling_outputs import DepthEstimatorOutput

        sizes = [(height, width)] * output.shape[0]
        options = {"source_sizes": [_fitted(height, width)] * len(sizes)} if self._pads() else {}
        results = self.processor.post_process_depth_estimation(
            DepthEstimatorOutput(predicted_depth=output.float()), target_sizes=sizes, **options
        )
        depth = torch.stack([result["predicted_depth"].reshape(height, width) for result in results])
        return 1.0 / depth.clamp(min=1e-3) if self.metric else depth

    def _pads(self) -> bool:
        """Whether the processor must know the picture's size to cut its padding off, as ZoeDepth's."""
        return "source_sizes" in inspect.signature(self.processor.post_process_depth_estimation).parameters


def _is_metric(config: Any) -> bool:
    """Whether a model returns a distance."""
    return config.model_type in METRIC_MODELS or getattr(config, "depth_estimation_type", None) == "metric"


def _fitted(height: int, width: int) -> tuple[int, int]:
    """The size at which the processor gets a picture: its own, but for shapes that processors fail at."""
    height, width = max(height, MIN_SIDE), max(width, MIN_SIDE)
    return min(height, MAX_RATIO * width), min(width, MAX_RATIO * height)


def load_transformers_depth(
    folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> TransformersDepth:
    """A depth model from its folder: config.json, preprocessor_config.json and the weights.

    dtype: float32 where not given, and for models that return a distance, whose inverse magnifies what half
    precision loses. Raises PerceptionError where the folder holds no depth model that
    this transformers knows, lacks a file, or its weights are not the config's.
    """
    from safetensors import SafetensorError

    try:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation
    except ImportError as error:
        raise PerceptionError(
            f"the depth model in {folder} needs the transformers library, which cannot be imported ({error}): install "
            f"it with `{pip_install('transformers')}`"
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
    model = model.to(dtype=torch.float32 if _is_metric(model.config) else dtype or torch.float32, device=device)
    return TransformersDepth(model.eval().requires_grad_(False), processor)
