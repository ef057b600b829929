"""SAM 2 of the transformers library, from a folder on this machine: one object by points and a box.

"SAM 2: Segment Anything in Images and Videos", Ravi et al., 2024. The library's own processor makes the network's
input and resizes its output. Nothing is downloaded and no code that comes with a model is run. The library is
imported when a model is loaded, not before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..command_lines import pip_install
from .estimator import PerceptionError
from .selection import Box, Point

MODEL_TYPES = frozenset({"sam2", "sam2_video"})
"""In config.json. The public folders are of the second type; its parts for video are left out."""


class _MaskLogits(nn.Module):
    """SAM 2 from tensors to the logits of one mask.

    A host's memory management sets attributes that the library's own class keeps read-only.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, points: Tensor, labels: Tensor, boxes: Tensor) -> Tensor:
        """(B, 3, h, w), points (B, 1, N, 2), labels (B, 1, N), boxes (B, 0 or 1, 4) to (B, 1, h / 4, w / 4).

        One point alone may mean a part or the whole: of the three masks for it the best by the network's own
        score is taken, as its authors advise.
        """
        ambiguous = points.shape[2] == 1 and boxes.shape[1] == 0
        found = self.model(
            pixel_values=pixel_values,
            input_points=points if points.shape[2] else None,
            input_labels=labels if points.shape[2] else None,
            input_boxes=boxes if boxes.shape[1] else None,
            multimask_output=ambiguous,
        )
        best = found.iou_scores[:, 0].argmax(dim=-1)
        masks: Tensor = found.pred_masks[:, 0]
        return masks[torch.arange(len(masks), device=masks.device), best][:, None]


class TransformersSam2:
    """A SAM 2 of the transformers library behind the boundary of `estimator.Selector`.

    model: a `Sam2Model`; processor: a `Sam2Processor`.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.network: nn.Module = _MaskLogits(model)
        self.processor = processor

    def prepare(self, image: Tensor, points: tuple[Point, ...], box: Box | None) -> tuple[Tensor, ...]:
        """(B, H, W, 3) in [0, 1] with points and a box in pixels to what the network takes."""
        pictures = list((image.movedim(-1, 1).float().clamp(0.0, 1.0) * 255.0).round().byte())
        count = len(pictures)
        prompts: dict[str, Any] = {}
        if points:
            prompts["input_points"] = [[[[point.x, point.y] for point in points]]] * count
            prompts["input_labels"] = [[[int(point.inside) for point in points]]] * count
        if box is not None:
            prompts["input_boxes"] = [[[box.left, box.top, box.right, box.bottom]]] * count
        made = self.processor(images=pictures, return_tensors="pt", **prompts)
        return (
            made["pixel_values"],
            made.get("input_points", torch.empty(count, 1, 0, 2)),
            made.get("input_labels", torch.empty(count, 1, 0, dtype=torch.long)),
            made.get("input_boxes", torch.empty(count, 0, 4)),
        )

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """(B, 1, h, w) to a mask (B, height, width) of 0 and 1."""
        sizes = [(height, width)] * len(output)
        masks = self.processor.post_process_masks(list(output.float()[:, None]), sizes)
        return torch.stack([mask.reshape(height, width).float() for mask in masks])


def load_transformers_sam2(
    folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> TransformersSam2:
    """A SAM 2 from its folder: config.json, the processor's configuration and model.safetensors.

    dtype: float32 where not given. Raises PerceptionError where transformers is missing or too old, and where the
    folder holds another model, lacks a file, or its weights are not the config's.
    """
    from safetensors import SafetensorError

    try:
        from transformers import Sam2Model, Sam2Processor
    except ImportError as error:
        raise PerceptionError(
            f"the SAM 2 in {folder} needs transformers 4.56 or newer ({error}): install it with "
            f"`{pip_install('-U', 'transformers')}`"
        ) from error
    kind = _model_type(folder)
    if kind not in MODEL_TYPES:
        raise PerceptionError(
            f"{folder} holds a model of type {kind!r}; expected a SAM 2, such as the folder of "
            f"facebook/sam2.1-hiera-tiny"
        )
    try:
        processor = Sam2Processor.from_pretrained(str(folder), local_files_only=True)
        model, report = Sam2Model.from_pretrained(
            str(folder), output_loading_info=True, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise PerceptionError(
            f"{folder} does not load as a SAM 2: {str(error).strip()} It needs config.json, "
            f"preprocessor_config.json and model.safetensors of one SAM 2 in the transformers format"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise PerceptionError(
            f"the weights in {folder} lack {len(missing)} that its config.json asks for, such as "
            f"{', '.join(missing[:3])}: the files belong to different models, or a download was cut short"
        )
    model = model.to(dtype=dtype or torch.float32, device=device)
    return TransformersSam2(model.eval().requires_grad_(False), processor)


def _model_type(folder: Path) -> Any:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PerceptionError(f"{folder}/config.json cannot be read: {error}") from error
    return config.get("model_type") if isinstance(config, dict) else None
