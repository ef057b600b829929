"""What `train` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.config import option

Stage = Literal["local", "global", "joint"]
EPOCHS: dict[Stage, int] = {"local": 28, "global": 24, "joint": 9}
"""The paper's, section 4.1."""


@dataclass(frozen=True)
class TrainConfig:
    """One stage of training: what it starts from and sees, how it learns, what it keeps. Defaults are the paper's."""

    stage: Stage = option("local and global train one fuser each, joint trains both on")
    data: tuple[Path, ...] = option("the prepared set; several are read as one, in this order")
    base: Path = option("the frozen base model: a Stable Diffusion 1.5 checkpoint in one file")
    out: Path = option("the run's folder; a run that was interrupted goes on from its last checkpoint there")
    fusers: tuple[Path, ...] = option(
        "start from these fusers; without: local clones the base's encoder, global starts anew, joint needs both",
        default=(),
    )
    verify: bool = option("check the checksum of each shard of the set when it is first read", default=True)
    text_encoder: str | None = option("'mini' or a folder; by default the one that prepared the set", default=None)

    epochs: int | None = option("how often the set is seen; by default 28, 24 or 9 by stage", default=None)
    steps: int | None = option("stop after so many steps instead", default=None)
    batch: int = option("samples a step, over all devices together", default=32)
    micro_batch: int | None = option("samples a device takes at once; the rest is accumulated", default=None)
    learning_rate: float = option("of AdamW, after the warm-up", default=1e-5)
    weight_decay: float = option("of AdamW", default=0.01)
    warm_up: int = option("steps in which the rate rises from 0", default=0)
    schedule: Literal["constant", "cosine"] = option("of the rate, after the warm-up", default="constant")
    clip: float = option("largest norm of the gradient; 0 for none", default=0.0)
    optimizer: Literal["adamw", "adamw8bit"] = option("8 bits need bitsandbytes and a GPU", default="adamw")
    ema: float = option("decay of averaged weights, which are then what is kept; 0 for none", default=0.0)
    min_snr: float = option("gamma of min-SNR loss weights; 0 for none", default=0.0)
    prediction: Literal["eps", "v"] | None = option(
        "what the base predicts; by default what its file says, else eps", default=None
    )
    seed: int = option("of order, noise, timesteps, drops, captions and fresh weights", default=0)

    condition: Literal["depth", "canny"] = option("what the set's two maps are", default="depth")
    streams: Literal["disentangled", "source"] = option(
        "source: the depth of I_s in both streams, the ablation of the paper's Figure 3", default="disentangled"
    )
    drop_text: float = option("probability of leaving a text out", default=0.1)
    drop_fg_depth: float = option("of leaving a foreground map out", default=0.1)
    drop_bg_depth: float = option("of leaving a background map out", default=0.1)
    drop_fg_embed: float = option("of leaving a foreground exemplar out", default=0.1)
    drop_bg_embed: float = option("of leaving a background exemplar out", default=0.1)
    keep_all: float = option("probability of keeping all five, whatever theirs are", default=0.0)
    drop_all: float = option("probability of leaving all five out", default=0.0)
    guidance_mode: Literal["release", "paper"] = option("how the mask acts on the tokens' attention", default="release")
    mask_resize: Literal["area", "release"] = option("how the mask gets to an attention layer's size", default="area")
    encoder_gradient: bool = option(
        "global, joint: let the frozen encoder's attention teach the tokens too, as the paper's Algorithm 1 lists; "
        "the released weights were taught by the decoder's (and the clone's) alone",
        default=False,
    )

    mixed_precision: Literal["no", "bf16", "fp16"] = option("of computation; trained weights stay fp32", default="no")
    gradient_checkpointing: bool = option("compute activations again to save memory", default=False)
    compile: bool = option("compile the networks", default=False)
    tf32: bool = option("multiply fp32 matrices as TF32 on a GPU", default=False)
    device: Literal["auto", "cpu"] = option("auto takes a GPU where there is one", default="auto")
    threads: int | None = option("of computation on a CPU", default=None)

    save_every: int = option("steps between checkpoints, each validated", default=1000)
    keep: int = option("keep so many of the last checkpoints, beside the best", default=3)
    held_out: int = option("samples never trained on, for the validation loss and the grids", default=64)
    grid_every: int = option("steps between grids of results, from step 0; 0 for none", default=1000)
    grid_samples: int = option("rows of a grid", default=4)
    grid_steps: int = option("DDIM steps of a grid's results", default=20)
    grid_cfg: float = option("classifier-free guidance of a grid's results", default=7.0)
    autoencoder: str | None = option(
        "decodes the grids: 'mini', a folder or an SD 1.5 file; by default the one that prepared the set", default=None
    )
    tensorboard: bool = option("write TensorBoard's files", default=True)

    def __post_init__(self) -> None:
        for name in ("batch", "save_every", "keep", "grid_samples", "grid_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1; got {getattr(self, name)}")
        for name in ("epochs", "steps", "micro_batch", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1; got {getattr(self, name)}")
        for name in ("warm_up", "held_out", "grid_every", "clip", "min_snr", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is not negative; got {getattr(self, name)}")
        for name in (*DROPS, "keep_all", "drop_all"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, in [0, 1]; got {getattr(self, name)}")
        if self.keep_all + self.drop_all > 1:
            raise ValueError(f"keep_all and drop_all exclude each other: {self.keep_all} and {self.drop_all} exceed 1")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is in [0, 1); got {self.ema}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is positive; got {self.learning_rate}")
        if len(self.fusers) > 2:
            raise ValueError(f"fusers names at most two files, a local and a global fuser; got {len(self.fusers)}")
        if not self.data:
            raise ValueError("data names no prepared set")
        if self.stage == "joint" and not self.fusers:
            raise ValueError("stage joint needs fusers: a merged file, or a local and a global one")
        if self.streams == "source" and self.condition != "depth":
            raise ValueError("streams 'source' is an ablation of condition 'depth'")

    def total_steps(self, samples: int) -> int:
        """How many steps the run has, on a set of so many training samples."""
        return self.steps or max(1, (self.epochs or EPOCHS[self.stage]) * samples // self.batch)


DROPS = ("drop_text", "drop_fg_depth", "drop_bg_depth", "drop_fg_embed", "drop_bg_embed")
