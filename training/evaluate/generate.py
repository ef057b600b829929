"""`python -m training evaluate generate`: pictures of any base model, fusers and prepared set, as a folder of PNGs.

What `evaluate tables` measures. Table 1's columns are `--conditions depth`, `semantics` and `both`; the figures of the
paper's ablations are recipes (`training/recipes/evaluate_*.toml`). Beside the made pictures go the captions and, for
the regional cosines, M, and the true pictures and exemplars where the set has kept them:

    OUT/made/ID.png, captions.txt, masks/ID.png, true/ID.png, fg_exemplars/ID.png, bg_exemplars/ID.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from cnc_core import CheckpointError, GlobalFuser, Guidance, LocalFuser, Region, UNet, load_fusers
from cnc_core.guidance import Mode, Resize
from training.config import ConfigError, from_arguments, option
from training.config import add_arguments as add_options
from training.diffusion import Prediction, ddim, guided
from training.files import file_hash, only_run_in, replacing
from training.prepared import PreparedError, PreparedSet

from .folder import slug, write_png

if TYPE_CHECKING:
    from training.prepare.encoders import LatentDecoder

SEED = 977


@dataclass(frozen=True)
class GenerateConfig:
    """Sampling a prepared set with a full model."""

    data: Path = option("the prepared set")
    base: Path = option(
        "the base model: a Stable Diffusion 1.5 checkpoint in one file, or models/mini/unet.safetensors"
    )
    fusers: tuple[Path, ...] = option("files of the local and the global fuser, or one with both")
    out: Path = option("the folder of the pictures; those that it holds of the same config are not made again")
    conditions: Literal["depth", "semantics", "both"] = option("depth maps, exemplars, or both", default="both")
    depth_version: Literal["v1", "v2", "v3"] = option(
        "of the foreground's map: depth of I_s, depth of I_f, M times depth of I_s (Figure 17; the release's demo and "
        "the nodes do so, the paper's appendix A.4 can be read as M times depth of I_f)",
        default="v2",
    )
    same_maps: bool = option("the depth of I_s in both streams (Figures 7, 14, 15, 16)", default=False)
    same_exemplar: bool = option("I_s is the background's exemplar as well (Figure 14)", default=False)
    exemplars_from: int = option("take the exemplars of the sample this many places on", default=0)
    bg_exemplar_from: int | None = option("the background's alone (conflicting exemplars)", default=None)
    prompt: str | None = option("in place of the set's captions; an empty one for none", default=None)
    lambda_fg: float = option("of the foreground's exemplar", default=1.0)
    lambda_bg: float = option("of the background's exemplar", default=1.0)
    mode: Mode = option("of soft guidance", default="release")
    resize: Resize = option("of its mask", default="area")
    steps: int = option("DDIM steps", default=50)
    cfg: float = option("classifier-free guidance", default=7.0)
    batch: int = option("pictures at a time", default=4)
    limit: int | None = option("the first N samples alone", default=None)
    seed: int = option("of the noise", default=SEED)
    prediction: Literal["eps", "v"] | None = option(
        "what the base predicts (default: its header, else eps)", default=None
    )
    autoencoder: str | None = option("default: the one that prepared the set", default=None)
    text_encoder: str | None = option("for captions that the set has no states of; default: as above", default=None)
    device: str = option("where to compute: cpu, cuda; auto takes cuda where there is one", default="auto")
    threads: int = option("threads on a processor", default=2)

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        if not self.fusers:
            raise ValueError("fusers: give at least one file")
        for name in ("steps", "batch", "limit", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")

    @property
    def on(self) -> torch.device:
        """The device."""
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        return torch.device(chosen)


@dataclass(frozen=True, eq=False)
class Model:
    """The networks of a run, and what the base predicts."""

    unet: UNet
    local_fuser: LocalFuser | None
    global_fuser: GlobalFuser | None
    prediction: Prediction

    @classmethod
    def load(cls, config: GenerateConfig) -> Model:
        """Read the base and what the conditions need of the fusers. Raises CheckpointError for what does not fit."""
        from training.weights import read_base

        base = read_base(config.base)
        local_fuser: LocalFuser | None = None
        global_fuser: GlobalFuser | None = None
        for path in config.fusers:
            read = load_fusers(path, dtype=torch.float32, num_heads=base.config.num_heads)
            if (read.config.model_channels, read.config.context_dim) != (
                base.config.model_channels, base.config.context_dim
            ):  # fmt: skip
                raise CheckpointError(f"{path} was trained for a base of other sizes than {config.base}")
            local_fuser, global_fuser = local_fuser or read.local_fuser, global_fuser or read.global_fuser
        wants_depth, wants_exemplars = config.conditions != "semantics", config.conditions != "depth"
        for wanted, found, name in ((wants_depth, local_fuser, "local"), (wants_exemplars, global_fuser, "global")):
            if wanted and found is None:
                files = " and ".join(map(str, config.fusers))
                raise CheckpointError(f"conditions {config.conditions!r} need a {name} fuser, {files} hold none")
        return cls(
            base.unet().to(config.on),
            local_fuser.eval().to(config.on) if wants_depth and local_fuser else None,
            global_fuser.eval().to(config.on) if wants_exemplars and global_fuser else None,
            config.prediction or base.prediction or "eps",
        )


@dataclass(frozen=True, eq=False)
class Asked:
    """What a batch of B is asked for: text states and empty ones (B, 77, C), maps and mask (B, H, W), embeddings."""

    text: Tensor
    empty: Tensor
    fg_depth: Tensor
    bg_depth: Tensor
    mask: Tensor
    fg_embed: Tensor
    bg_embed: Tensor


@torch.no_grad()
def sample(model: Model, asked: Asked, noise: Tensor, config: GenerateConfig) -> Tensor:
    """Latents (B, 4, h, w); the unconditional half keeps all but the text, as in the release."""
    halves = 1 if config.cfg == 1 else 2
    context = torch.cat((asked.text, asked.empty))[: halves * len(noise)]

    def repeated(value: Tensor) -> Tensor:
        return value.repeat(halves, *[1] * (value.ndim - 1))

    depth = guidance = None
    if model.local_fuser is not None:
        channels = model.local_fuser.config.local_channels
        maps = (repeated(m)[:, None].expand(-1, channels, -1, -1) for m in (asked.fg_depth, asked.bg_depth))
        depth = model.local_fuser.encode_depth(*maps)
    if model.global_fuser is not None:
        fg_tokens, bg_tokens = model.global_fuser(repeated(asked.fg_embed), repeated(asked.bg_embed))
        foreground = Region(fg_tokens, repeated(asked.mask)[:, None], config.lambda_fg)
        guidance = Guidance((foreground, Region(bg_tokens, None, config.lambda_bg)), config.mode, config.resize)

    def predict(x: Tensor, timesteps: Tensor) -> Tensor:
        residuals = None
        if model.local_fuser is not None:
            residuals = model.local_fuser(x, timesteps, context, depth=depth, guidance=guidance)
        return model.unet(x, timesteps, context, residuals=residuals, guidance=guidance)

    run = predict if halves == 1 else guided(predict, config.cfg)
    *_, latent = ddim(run, noise, config.steps, model.prediction)
    return latent


class _Samples:
    """The samples of a set in the form that `sample` takes."""

    def __init__(self, config: GenerateConfig) -> None:
        from training.prepare.encoders import CaptionEncoder

        self.config, self.data = config, PreparedSet(config.data)
        arrays = self.data.manifest.arrays
        if (config.same_maps or config.depth_version != "v2") and "source_depth" not in arrays:
            raise PreparedError(f"{config.data} has no source_depth: prepare a set with `source_depth = true`")
        self.count = min(len(self.data), config.limit or len(self.data))
        name = config.text_encoder or self.model("text_encoder")
        self._encode: Callable[[list[str]], Tensor] = CaptionEncoder(name, str(config.on), torch.float32)
        self._empty = self._encode([""])[0]

    def model(self, part: str) -> str:
        """The name of what prepared the set. Raises PreparedError where it is not known."""
        name = self.data.manifest.models.get(part, {}).get("name")
        if name is None:
            given = f"--{part.replace('_', '-')}"
            raise PreparedError(f"{self.config.data} does not say which {part} prepared it: give {given}")
        return str(name)

    def caption(self, index: int) -> str:
        """What is said of a sample."""
        return self.data.captions(index)[0] if self.config.prompt is None else self.config.prompt

    def exemplars(self, index: int) -> tuple[int, int]:
        """The samples that the foreground's and the background's exemplar are taken of."""
        config = self.config
        behind = config.exemplars_from if config.bg_exemplar_from is None else config.bg_exemplar_from
        return (index + config.exemplars_from) % len(self.data), (index + behind) % len(self.data)

    def asked(self, indices: list[int]) -> Asked:
        """A batch."""
        config, device = self.config, self.config.on
        own = self.data.batch(indices, captions=[0] * len(indices))
        embeds = ("source_embed", "background_embed")
        fg, bg = (self.data.batch(side, names=embeds) for side in zip(*map(self.exemplars, indices), strict=True))
        told = own.get("text") if config.prompt is None else None
        text = self._encode([self.caption(i) for i in indices]) if told is None else told
        fg_depth = own["fg_depth" if config.depth_version == "v2" and not config.same_maps else "source_depth"]
        if config.depth_version == "v3" and not config.same_maps:
            fg_depth = fg_depth * own["mask"]
        bg_depth = own["source_depth"] if config.same_maps else own["bg_depth"]
        bg_embed = bg["source_embed"] if config.same_exemplar else bg["background_embed"]
        parts = (text, self._empty.expand_as(text), fg_depth, bg_depth, own["mask"], fg["source_embed"], bg_embed)
        return Asked(*(part.to(device) for part in parts))

    def noise(self, indices: list[int]) -> Tensor:
        """A function of the seed and the sample's number alone."""
        shape = self.data.manifest.arrays["latents"].shape
        made = [
            torch.randn(shape, generator=torch.Generator().manual_seed(self.config.seed * 100_000 + i)) for i in indices
        ]
        return torch.stack(made).to(self.config.on)


def _batches(indices: list[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(indices), size):
        yield indices[first : first + size]


def generate(config: GenerateConfig) -> None:
    """Make all pictures that are not there yet."""
    from training.prepare.encoders import LatentDecoder

    samples, model = _Samples(config), Model.load(config)
    _same_run(config, samples.data.content)
    made = config.out / "made"
    made.mkdir(exist_ok=True)
    names = {index: slug(samples.data.id(index)) for index in range(samples.count)}
    missing = [index for index in names if not (made / f"{names[index]}.png").exists()]
    decode = LatentDecoder(config.autoencoder or samples.model("autoencoder"), str(config.on), torch.float32)
    for indices in _batches(missing, config.batch):
        pictures = decode(sample(model, samples.asked(indices), samples.noise(indices), config))
        for index, picture in zip(indices, pictures, strict=True):
            _write_beside(config.out, names[index], samples, index, decode)
            write_png(made / f"{names[index]}.png", picture)
        print(f"{indices[-1] + 1}/{samples.count}", flush=True)
    with replacing(config.out / "captions.txt") as unfinished:
        lines = (f"{name}:{' '.join(samples.caption(index).split())}\n" for index, name in names.items())
        unfinished.write_text("".join(lines), encoding="utf-8")


def _same_run(config: GenerateConfig, content: str) -> None:
    """Raises ConfigError where the folder was begun with other settings, or with a set of another content."""
    config.out.mkdir(parents=True, exist_ok=True)
    free = ("out", "device", "threads", "batch", "limit")
    told = {name: value for name, value in asdict(config).items() if name not in free}
    told = json.loads(json.dumps(told, default=str))
    told["data_content"] = content
    told["hashes"] = [file_hash(path) for path in (config.base, *config.fusers)]
    path = config.out / "generated.json"
    if path.exists() and (begun := json.loads(path.read_text(encoding="utf-8"))) != told:
        different = [name for name in told if begun.get(name) != told[name]]
        raise ConfigError(f"{config.out} was begun with other settings ({', '.join(different)}): choose another folder")
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _write_beside(out: Path, name: str, samples: _Samples, index: int, decode: LatentDecoder) -> None:
    """The mask, and the true picture and exemplars: the set's own pictures, or its latents decoded for the former."""
    mask = samples.data.batch([index], names=("mask",))["mask"]
    latent = samples.data.batch([index], names=("latents",))["latents"]
    for folder, picture in (("masks", mask.expand(3, -1, -1)), ("true", decode(latent)[0])):
        (out / folder).mkdir(exist_ok=True)
        write_png(out / folder / f"{name}.png", picture)
    fg, bg = samples.exemplars(index)
    behind = "source.png" if samples.config.same_exemplar else "background.png"
    for folder, other, ending in (("fg_exemplars", fg, "source.png"), ("bg_exemplars", bg, behind)):
        content = samples.data.pictures(other).get(ending)
        if content is not None:
            (out / folder).mkdir(exist_ok=True)
            with replacing(out / folder / f"{name}.png") as unfinished:
                unfinished.write_bytes(content)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_options(parser, GenerateConfig)


def main(arguments: argparse.Namespace) -> None:
    """Make the pictures."""
    config = from_arguments(GenerateConfig, arguments)
    torch.set_num_threads(config.threads)
    with only_run_in(config.out):
        generate(config)
    print(f"{config.out / 'made'}: measure them by `python -m training evaluate tables --images {config.out / 'made'}`")
