"""`python -m training evaluate judge`: train the network that tells what a pixel shows.

A judge of style must not be one of the measured model's parts. This one is trained on scenes of the seed "segmenter",
which neither the model nor the test sees, on true renders and on what the autoencoder makes of them, so that decoded
pictures are nothing new to it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cnc_core.perception.mini import MiniNet
from training.config import ConfigError, from_arguments, option
from training.config import add_arguments as add_options
from training.files import file_hash, replacing
from training.mini.autoencoder import Autoencoder
from training.mini.finished import FinishedMini
from training.mini.render import Layers
from training.mini.scenes import SEEDS, Scene, draw_scenes

from .layers import CLASSES, SIZE, class_map, classes, regions, rendered

MODELS = Path("models/mini")
PATH = Path("models/evaluation/judge.safetensors")
LATENT_NOISE = 0.1  # added to latents in training: what a diffusion model leaves there
_KEPT = 256  # scenes rendered at a time


@dataclass(frozen=True)
class JudgeConfig:
    """Training of the judge."""

    models: Path = option("the model whose autoencoder makes the decoded pictures", default=MODELS)
    out: Path = option("the judge's file", default=PATH)
    scenes: int = option("scenes to train on", default=8192)
    steps: int = option("training steps", default=4000)
    batch: int = option("pictures a step", default=48)
    learning_rate: float = option("of AdamW, at its highest", default=3e-3)
    tested: int = option("unseen scenes of the test's seed to measure on", default=500)
    device: str = option("where to compute: cpu, cuda; auto takes cuda where there is one", default="auto")
    threads: int = option("threads on a processor", default=2)


def network() -> MiniNet:
    """Pictures (B, 3, H, W) in [0, 1] to logits of CLASSES (B, 24, H, W): `MiniNet` with another head."""
    model = MiniNet()
    model.head = nn.Conv2d(model.head.in_channels, len(CLASSES), 3, padding=1)
    return model


class Judge:
    """A trained judge."""

    def __init__(self, model: MiniNet, hashed: str = "") -> None:
        self.model, self.hash = model.eval().requires_grad_(False), hashed

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> Judge:
        """Read its file. Raises ConfigError where there is none, or one of other classes."""
        if not path.exists():
            raise ConfigError(f"there is no judge {path}: train it by `python -m training evaluate judge --out {path}`")
        with safe_open(path, "pt") as opened:
            told = json.loads((opened.metadata() or {}).get("classes", "[]"))
        if tuple(told) != CLASSES:
            raise ConfigError(f"{path} judges other classes than the world has now: train it anew")
        model = network()
        model.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
        return cls(model.to(device), file_hash(path))

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """The class of every pixel of pictures (B, 3, H, W), (B, H, W)."""
        return torch.cat([self.model(part).argmax(1) for part in pictures.split(128)])


def shares(found: Tensor, region: Tensor) -> Tensor:
    """Of each class its share of a region's pixels, (B, classes): found (B, H, W), region (B, 1, H, W) in {0, 1}."""
    counts = torch.zeros(len(found), len(CLASSES), device=found.device)
    counts.scatter_add_(1, found.flatten(1), region.flatten(1))
    return counts / counts.sum(1, keepdim=True).clamp(min=1)


@torch.no_grad()
def accuracy(judge: Judge, pictures: Tensor, layers: Layers, scenes: Sequence[Scene]) -> dict[str, float]:
    """The share of regions whose majority is named right, each region alone and pixels of all."""
    found, wanted = judge(pictures), [classes(scene) for scene in scenes]
    right: dict[str, float] = {}
    for name, region in regions(layers, scenes).items():
        named = shares(found, region).argmax(1)
        asked = torch.tensor([row[name] for row in wanted], device=named.device)
        seen = region.mean((1, 2, 3)) > 0.014
        right[name] = float((named == asked)[seen].float().mean())
    right["pixels"] = float((found == class_map(layers, scenes)).float().mean())
    return right


def train(config: JudgeConfig) -> MiniNet:
    """Train to the end of the plan; what chance decides follows from the seed."""
    device = torch.device(_device(config.device))
    torch.manual_seed(SEEDS["segmenter"])
    model = network().to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    pictures, truth = _data(config, device)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, config.steps, pct_start=0.1)
    chance = torch.Generator().manual_seed(SEEDS["segmenter"])
    for step in range(config.steps):
        rows = torch.randint(len(pictures), (config.batch,), generator=chance).to(device)
        seen, labels = pictures[rows].float() / 255, truth[rows % len(truth)].long()
        if torch.rand((), generator=chance) < 0.5:
            seen, labels = seen.flip(-1), labels.flip(-1)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(seen.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
        if (step + 1) % 100 == 0 or step + 1 == config.steps:
            right = (logits.argmax(1) == labels).float().mean().item()
            print(f"judge {step + 1}/{config.steps} loss {loss.item():.4f} pixels right {right:.4f}", flush=True)
    return model


@torch.no_grad()
def decode(autoencoder: Autoencoder, pictures: Tensor, noise: float = 0.0) -> Tensor:
    """Pictures through the autoencoder, with normal noise on the latents."""
    latent = autoencoder.encode(pictures)
    return autoencoder.decode(latent + noise * torch.randn_like(latent)).float().clamp(0, 1)


@torch.no_grad()
def _data(config: JudgeConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Bytes of pictures (2N, 3, 128, 128), true renders and then the same decoded, and classes (N, 128, 128)."""
    autoencoder = FinishedMini.load(config.models).to(device).autoencoder
    pictures, decoded, truth = [], [], []
    for first in range(0, config.scenes, _KEPT):
        scenes = draw_scenes(SEEDS["segmenter"], range(first, min(first + _KEPT, config.scenes)))
        layers = rendered(scenes, device)
        pictures.append(_bytes(layers.image))
        with torch.autocast(device.type, torch.bfloat16):
            decoded += [_bytes(decode(autoencoder, part, LATENT_NOISE)) for part in layers.image.split(16)]
        truth.append(class_map(layers, scenes).byte())
        print(f"scenes {first + len(scenes)}/{config.scenes}", flush=True)
    return torch.cat((*pictures, *decoded)), torch.cat(truth)


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().byte()


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def write(config: JudgeConfig, model: MiniNet) -> None:
    """Write it in half precision, with what made it in the header."""
    config.out.parent.mkdir(parents=True, exist_ok=True)
    told = {
        "classes": json.dumps(CLASSES), "seed": str(SEEDS["segmenter"]), "scenes": str(config.scenes),
        "steps": str(config.steps), "size": str(SIZE),
        "autoencoder": file_hash(config.models / "autoencoder.safetensors"),
    }  # fmt: skip
    with replacing(config.out) as unfinished:
        save_file(
            {name: weight.half().cpu().contiguous() for name, weight in model.state_dict().items()}, unfinished, told
        )
        unfinished.chmod(0o644)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_options(parser, JudgeConfig)


def main(arguments: argparse.Namespace) -> None:
    """Train, write and measure on unseen scenes."""
    config = from_arguments(JudgeConfig, arguments)
    torch.set_num_threads(config.threads)
    write(config, train(config))
    device = _device(config.device)
    judge, autoencoder = Judge.load(config.out, device), FinishedMini.load(config.models).to(device).autoencoder
    scenes = draw_scenes(SEEDS["test"], range(config.tested))
    layers = rendered(scenes, device)
    decoded = torch.cat([decode(autoencoder, part) for part in layers.image.split(32)])
    for name, pictures in (("true renders", layers.image), ("decoded", decoded)):
        right = accuracy(judge, pictures, layers, scenes)
        print(f"{name}: " + ", ".join(f"{region} {share:.4f}" for region, share in right.items()), flush=True)
