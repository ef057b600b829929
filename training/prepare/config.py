"""What `prepare` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cnc_core.perception import DILATION, PREPROCESSING, VERSIONS, Preprocessing, Version
from training.config import option

from .diffusion_inpaint import is_diffusion
from .sources import CocoSource, FolderSource, PickAPicSource, ReleaseSource, SceneSource, Source, TarSource

GIVEN = "given"
"""In place of an estimator's name: the layer is the source's own."""
PROMPT = "empty scenery, highly detailed, no people"
"""The paper's, appendix A.2."""
NEGATIVE = "people, person, animal, object, text, watermark, blurry, low quality"
NO_TEXT = "none"
"""In place of a text encoder's name: captions are kept, their states are not."""


@dataclass(frozen=True)
class PrepareConfig:
    """One prepared set: its source, how pictures become triplets and conditions, and how the work is done."""

    out: Path = option("the folder of the prepared set; an interrupted set is gone on with")
    source: Literal["folder", "coco", "pickapic", "webdataset", "scenes", "release"] = option("the kind of source")
    data: Path | None = option("the source's pictures, parquet files or tars", default=None)
    masks: Path | None = option("folder: masks of the same names", default=None)
    captions: Path | None = option("folder: a .csv, .tsv or .jsonl table; coco: captions_*.json", default=None)
    labels: Path | None = option("coco: the folder of label maps", default=None)
    label_numbering: Literal["stuffthingmaps", "category ids"] = option(
        "coco: what the label maps store", default="stuffthingmaps"
    )
    ties: Literal["skip", "first", "both"] = option("pickapic: rows without a preference", default="skip")
    banned_words: tuple[str, ...] = option("pickapic: leave out prompts with these", default=())
    scenes: int = option("scenes: how many", default=1000)
    split: Literal["train", "test"] = option("scenes: of which seed", default="train")
    limit: int | None = option("take only the first so many items", default=None)

    size: int = option("pixels on each side, a multiple of 64", default=512)
    crop: Literal["centre", "random"] = option("which square of a picture", default="centre")
    min_side: int | None = option("leave out pictures with a shorter side; by default half of size", default=None)

    mask: str = option("a salience estimator by name, or 'given'", default=GIVEN)
    mask_threshold: float = option("salience above this is the object", default=0.5)
    min_object: float = option("leave out pictures whose object covers no larger share", default=0.0)
    inpainter: str = option(
        "an inpainter by name, a folder with Stable Diffusion's inpainting model in diffusers' layout, or 'given' (the "
        "source's background)",
        default="telea",
    )
    inpaint_prompt: str = option("Stable Diffusion: what is there instead", default=PROMPT)
    inpaint_negative: str = option("Stable Diffusion: what is not there", default=NEGATIVE)
    inpaint_steps: int = option("Stable Diffusion: sampling steps", default=25)
    inpaint_cfg: float = option("Stable Diffusion: classifier-free guidance", default=10.0)
    dilation: float = option("how wide a brush grows the hole, in pixels at 512", default=float(DILATION))
    condition: Literal["depth", "canny"] = option("what the local fuser is to see", default="depth")
    depth: str = option("a depth estimator by name, or 'given'", default="mini")
    fg_version: Version = option("the foreground depth's version", default="v2")
    preprocessing: Preprocessing = option("of the estimators' input", default="model")
    source_depth: bool = option("keep the depth of the whole picture too", default=False)
    models: tuple[Path, ...] = option("folders with estimators, such as ComfyUI's models/depth", default=())

    autoencoder: str = option("'mini', a folder in diffusers' layout, or an SD 1.5 file", default="mini")
    deviation: bool = option("keep the latents' deviation too", default=False)
    image_encoder: str = option("'mini', or the folder of a CLIP vision model with projection", default="mini")
    text_encoder: str = option("'mini', a folder with text_encoder and tokenizer, or 'none'", default="mini")
    max_captions: int = option("keep the states of so many captions a picture", default=5)

    seed: int = option("of what is drawn, such as random crops", default=0)
    pictures: bool = option("keep lossless PNGs beside the arrays", default=True)
    shard_size: int = option("items a shard", default=512)
    batch_size: int = option("pictures that go through the networks together", default=8)
    max_broken: int = option("stop when more items than this are broken", default=100)
    engine: Literal["local", "ray"] = option("this process, or Ray's machines", default="local")
    workers: int = option("threads that decode (local), or actors a stage (ray)", default=2)
    threads: int | None = option("of each network's computation on a CPU; all cores where not given", default=None)
    device: str = option("cpu, cuda, or cuda:N; auto takes a GPU where there is one", default="auto")
    precision: Literal["fp32", "fp16", "bf16"] = option("of the encoders", default="fp32")

    def __post_init__(self) -> None:
        if self.size <= 0 or self.size % 64:
            raise ValueError(f"size is a multiple of 64, the U-Net halves its latents three times; got {self.size}")
        for name in ("shard_size", "batch_size", "workers", "max_captions", "scenes", "inpaint_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1; got {getattr(self, name)}")
        if self.max_captions > 255:
            raise ValueError(f"max_captions is at most 255; got {self.max_captions}")
        if not 0 <= self.min_object < 1 or not 0 <= self.mask_threshold < 1:
            raise ValueError(
                f"min_object and mask_threshold are in [0, 1); got {self.min_object}, {self.mask_threshold}"
            )
        needed = {"scenes": (), "coco": ("data", "labels", "captions")}.get(self.source, ("data",))
        if missing := [name for name in needed if getattr(self, name) is None]:
            raise ValueError(f"source {self.source} needs {', '.join(missing)}")
        if self.fg_version not in VERSIONS or self.preprocessing not in PREPROCESSING:
            raise ValueError(f"there is no version {self.fg_version} with preprocessing {self.preprocessing}")
        if self.condition == "canny" and self.source_depth:
            raise ValueError("source_depth is for the condition depth")

    @property
    def smallest_side(self) -> int:
        """The shorter side that a picture needs: one enlarged more than twice would teach its blur."""
        return self.size // 2 if self.min_side is None else self.min_side

    def facts(self) -> dict[str, Any]:
        """The fields that the samples depend on, as the manifest keeps them."""
        names: tuple[str, ...] = (
            "size", "crop", "min_side", "mask_threshold", "min_object", "dilation", "fg_version", "preprocessing",
            "max_captions", "seed", "pictures", "batch_size", "threads", "precision",
        )  # fmt: skip
        if is_diffusion(self.inpainter):
            names += ("inpaint_prompt", "inpaint_negative", "inpaint_steps", "inpaint_cfg")
        return {**{name: getattr(self, name) for name in names}, "min_side": self.smallest_side}


def open_source(config: PrepareConfig) -> Source:
    """The source that a config names. Raises SourceError where it is not one."""
    data = config.data or Path()
    if config.source == "scenes":
        return SceneSource(config.scenes, config.size, config.split)
    if config.source == "coco":
        return CocoSource(data, config.labels or Path(), config.captions or Path(), config.label_numbering)
    if config.source == "pickapic":
        return PickAPicSource(data, config.ties, config.banned_words)
    if config.source == "webdataset":
        return TarSource(data)
    if config.source == "release":
        return ReleaseSource(data)
    return FolderSource(data, config.masks, config.captions)
