"""I_b by Stable Diffusion's inpainting model, as the paper makes it (section 3.2 and appendix A.2).

The paper prefers it to LaMa, whose fill often keeps the object's shape in the depth of I_b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnc_core.perception.inpaint import stack

from .encoders import EncoderError


def is_diffusion(name: str) -> bool:
    """Whether an inpainter's name is a folder in the layout of diffusers."""
    return (Path(name) / "model_index.json").is_file()


@dataclass(frozen=True, eq=False)
class DiffusionInpainter:
    """Fills the hole with what the prompt says; noise follows from a seed for each picture, whatever the batch.

    pipeline: diffusers' StableDiffusionInpaintPipeline. Pictures are multiples of 8 pixels.
    """

    pipeline: Any
    prompt: str
    negative_prompt: str
    steps: int
    cfg: float
    seeds: tuple[int, ...] = ()

    network = None

    def seeded(self, seeds: Sequence[int]) -> DiffusionInpainter:
        """The inpainter for a batch of so many pictures."""
        return replace(self, seeds=tuple(seeds))

    def prepare(self, image: Tensor, hole: Tensor) -> Tensor:
        """(B, H, W, 3) and (B, H, W) to (B, 4, H, W)."""
        return stack(image, hole, max_side=max(image.shape[1:3]))

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """What `prepare` returned, sampled from noise and decoded, to (B, height, width, 3) in [0, 1]."""
        count = len(output)
        if len(self.seeds) != count:
            raise ValueError(f"{count} pictures need as many seeds, got {len(self.seeds)}")
        sampled = self.pipeline(
            prompt=[self.prompt] * count,
            negative_prompt=[self.negative_prompt] * count,
            image=output[:, :3],
            mask_image=output[:, 3:],
            height=height,
            width=width,
            strength=1.0,
            num_inference_steps=self.steps,
            guidance_scale=self.cfg,
            generator=[torch.Generator().manual_seed(seed) for seed in self.seeds],
            output_type="pt",
        )
        return sampled.images.float().movedim(1, -1)


def load_diffusion_inpainter(
    folder: str, device: str, dtype: torch.dtype, *, prompt: str, negative_prompt: str, steps: int, cfg: float
) -> DiffusionInpainter:
    """Read a folder such as stable-diffusion-v1-5/stable-diffusion-inpainting. Raises EncoderError."""
    try:
        from diffusers import StableDiffusionInpaintPipeline
    except ImportError as error:
        raise EncoderError(f"the inpainter {folder} needs diffusers: `pip install diffusers transformers`") from error
    try:
        pipeline = StableDiffusionInpaintPipeline.from_pretrained(
            folder, local_files_only=True, safety_checker=None, requires_safety_checker=False
        ).to(device, dtype)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise EncoderError(f"{folder} cannot be loaded as a pipeline for inpainting: {error}") from error
    channels = pipeline.unet.config.in_channels
    if channels != 9:
        raise EncoderError(f"{folder} is no inpainting model: its U-Net takes {channels} channels, 9 are expected")
    pipeline.set_progress_bar_config(disable=True)
    return DiffusionInpainter(pipeline, prompt, negative_prompt, steps, cfg)
