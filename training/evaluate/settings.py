"""What all measures of models on the Mini's world take, and what they make of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from training.config import ConfigError, option

from .sampling import Arm, Settings, Variant

MODELS = Path("models/mini")
RUNS = Path("runs/evaluate")
EQUAL_BUDGET = "together"
"""The arm that is trained like the shipped model, as long as the baselines."""


@dataclass(frozen=True)
class Common:
    """Fields of every measure's config."""

    arms: tuple[Path, ...] = option("folders of models to measure, the first the main one", default=(MODELS,))
    lacking: Path = option("where files come from that an arm's folder lacks", default=MODELS)
    variants: tuple[Variant, ...] = option("the first arm once more, used otherwise", default=())
    against: str | None = option(
        "the arm that the others are compared with; default: `together`, of the baselines' budget, where it is "
        "measured, else the first", default=None,
    )  # fmt: skip
    out: Path = option("the run folder; what it holds of the same inputs is not made again", default=RUNS)
    scenes: int = option("unseen scenes to measure on", default=500)
    limit: int | None = option("measure on the first N of them alone", default=None)
    steps: int = option("DDIM steps", default=20)
    cfg: float = option("classifier-free guidance", default=2.5)
    bf16: bool = option("compute in bf16", default=False)
    device: str = option("where to compute: cpu, cuda; auto takes cuda where there is one", default="auto")
    batch: int | None = option("pictures at a time (default: 16 on a processor, 256 on a card)", default=None)
    threads: int = option("threads on a processor", default=2)

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        if not self.arms:
            raise ValueError("arms: give at least one folder")
        for name in ("scenes", "limit", "steps", "batch", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")

    @property
    def count(self) -> int:
        """How many scenes are measured."""
        return min(self.scenes, self.limit or self.scenes)

    @property
    def on(self) -> torch.device:
        """The device."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    @property
    def at_once(self) -> int:
        """How many pictures go through the networks together."""
        return self.batch or (16 if self.on.type == "cpu" else 256)

    @property
    def sampling(self) -> Settings:
        """How pictures are sampled."""
        return Settings(self.steps, self.cfg, self.bf16)

    def compared(self, arms: list[Arm]) -> str:
        """The name of the arm that the others are compared with."""
        names = [arm.name for arm in arms]
        if self.against is None:
            return EQUAL_BUDGET if EQUAL_BUDGET in names else names[0]
        if self.against not in names:
            raise ConfigError(f"against: there is no arm {self.against!r} among {', '.join(names)}")
        return self.against

    def start(self) -> list[Arm]:
        """Load all arms, with the first one's variants after it. Raises ConfigError."""
        loaded = [Arm.load(folder, self.lacking, self.on) for folder in self.arms]
        arms = [loaded[0], *(loaded[0].variant(kind) for kind in self.variants), *loaded[1:]]
        names = [arm.name for arm in arms]
        if len(set(names)) < len(names):
            raise ConfigError(f"two arms have the same name: {', '.join(names)}; give one another in its arm.json")
        return arms
