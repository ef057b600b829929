"""What is asked of a model, and models ("arms") that are measured on equal inputs and from the same noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from cnc_core import Guidance, Region
from cnc_core.guidance import Mode
from training.config import ConfigError
from training.files import file_hash
from training.mini.finished import FinishedMini, Repeated
from training.mini.render import Layers

SEED = 977  # of the noise
Kind = Literal["layers", "whole", "z", "max", "none"]
KINDS = ("layers", "whole", "z", "max", "none")
Variant = Literal["no_fuser", "paper_mode", "lambda_0"]


@dataclass(frozen=True)
class Request:
    """What a batch of pictures is asked for. Maps and mask (B, 1, H, W) in [0, 1], exemplars (B, 3, H, W) in [0, 1]
    or None, lambdas (B,) or one number. `places` give each picture its noise."""

    captions: list[str]
    places: list[int]
    fg_depth: Tensor | None = None
    bg_depth: Tensor | None = None
    fg_exemplar: Tensor | None = None
    bg_exemplar: Tensor | None = None
    mask: Tensor | None = None
    lambda_fg: Tensor | float = 1.0
    lambda_bg: Tensor | float = 1.0


@dataclass(frozen=True)
class Settings:
    """How a picture is sampled: DDIM steps, classifier-free guidance, and bf16 in place of fp32."""

    steps: int = 20
    cfg: float = 2.5
    bf16: bool = False
    seed: int = SEED


@dataclass(frozen=True)
class Arm:
    """A model and how it is conditioned.

    conditions: "layers" gives its two streams the maps of the two layers; "whole" the map of the whole picture in
    both; "z" and "max" one map in the background's stream, the whole picture's or the greater of the two layers', and
    zeros in the foreground's; "none" runs without the local fuser. mask: whether the exemplars are kept to their
    regions. strength multiplies both lambdas.
    """

    name: str
    mini: FinishedMini
    conditions: Kind = "layers"
    mask: bool = True
    mode: Mode = "release"
    strength: float = 1.0
    files: str = ""  # what they hold, for keys of cached results

    @classmethod
    def load(cls, folder: Path, lacking: Path, device: torch.device | str = "cpu") -> Arm:
        """Read a folder such as models/mini, with an `arm.json` where it is not conditioned like the shipped model.

        Files that the folder lacks come from `lacking`. Raises ConfigError for a folder that is no model.
        """
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder} of a model")
        told = _told(folder)
        try:
            mini = FinishedMini.load(folder, lacking).to(device)
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise ConfigError(f"{folder} cannot be read as an arm (unet, fusers, text_encoder ...): {error}") from error
        files = {path.name: file_hash(path) for path in (*lacking.glob("*.safetensors"), *folder.glob("*.safetensors"))}
        default = "main" if folder.resolve() == lacking.resolve() else folder.name
        return cls(
            told.get("name", default), mini, told.get("conditions", "layers"), told.get("mask", True),
            files=json.dumps(files, sort_keys=True),
        )  # fmt: skip

    def variant(self, kind: Variant) -> Arm:
        """The same weights, used otherwise."""
        changes: dict[Variant, dict[str, object]] = {
            "no_fuser": {"conditions": "none"},
            "paper_mode": {"mode": "paper"},
            "lambda_0": {"strength": 0.0},
        }
        return replace(self, name=f"{self.name}, {kind}", **changes[kind])  # type: ignore[arg-type]

    def key(self) -> dict[str, object]:
        """All that decides what it makes."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "mini"}

    def maps(self, layers: Layers, exchanged: bool = False) -> tuple[Tensor | None, Tensor | None]:
        """The maps of its foreground and background stream; exchanged: the layers' two maps change places."""
        fg_depth, bg_depth = layers.fg_depth, layers.bg_depth
        if exchanged:
            fg_depth, bg_depth = bg_depth, fg_depth
        if self.conditions == "layers":
            return fg_depth, bg_depth
        if self.conditions == "whole":
            return layers.depth, layers.depth
        if self.conditions == "none":
            return None, None
        one = layers.depth if self.conditions == "z" else torch.maximum(fg_depth, bg_depth)
        return torch.zeros_like(one), one

    def sample(self, request: Request, settings: Settings) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] on the device of its networks.

        The unconditional half keeps all but the text, as in the release.
        """
        device = next(self.mini.unet.parameters()).device
        size = next((m.shape[-2:] for m in (request.bg_depth, request.mask) if m is not None), torch.Size((128, 128)))
        return self.mini.steered(
            initial_noise(request.places, settings.seed, size).to(device), request.captions, request.fg_depth,
            request.bg_depth, partial(self._guidance, request), steps=settings.steps, cfg=settings.cfg,
            bf16=settings.bf16,
        )  # fmt: skip

    def _guidance(self, request: Request, repeated: Repeated) -> Guidance | None:
        if request.fg_exemplar is None or request.bg_exemplar is None or request.mask is None:
            return None
        pictures = (request.fg_exemplar, request.bg_exemplar)
        tokens = self.mini.global_fuser(*(self.mini.embed(repeated(picture)) for picture in pictures))
        count = len(request.captions)
        lambdas = [
            repeated(torch.as_tensor(value, dtype=torch.float32).expand(count)[:, None, None]) * self.strength
            for value in (request.lambda_fg, request.lambda_bg)
        ]
        fg_tokens, bg_tokens = (token * weight for token, weight in zip(tokens, lambdas, strict=True))
        mask = repeated(request.mask) if self.mask else None  # two regions without a mask cover all
        return Guidance((Region(fg_tokens, mask), Region(bg_tokens, None)), mode=self.mode)


def initial_noise(places: list[int], seed: int, size: Sequence[int]) -> Tensor:
    """Noise (B, 4, H / 8, W / 8): a function of the seed and the picture's place alone."""
    shape = (4, size[0] // 8, size[1] // 8)
    return torch.stack(
        [torch.randn(*shape, generator=torch.Generator().manual_seed(seed * 100_000 + place)) for place in places]
    )


def _told(folder: Path) -> dict[str, Any]:
    path = folder / "arm.json"
    if not path.exists():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if told.get("conditions", "layers") not in KINDS or not isinstance(told.get("mask", True), bool):
        raise ConfigError(f"{path}: conditions must be one of {', '.join(KINDS)} and mask true or false, got {told}")
    return dict(told)
