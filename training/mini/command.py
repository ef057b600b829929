"""`python -m training mini`: every stage of CnC-Mini in order, or one of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from cnc_core.perception.mini import MiniNet

from . import export, stage_autoencoder, stage_diffusion, stage_encoders, stage_perception
from .autoencoder import Autoencoder
from .cache import SceneCache
from .clip import ImageEncoder
from .dataset import Dataset
from .finished import FinishedMini
from .model import Mini

SCENES = 6900
FOLDER = Path(".cache/mini")
MODELS = Path("models/mini")


class Chain:
    """The stages of one folder; each finds there what earlier ones left."""

    def __init__(self, folder: Path, models: Path, resume: bool, scenes: int = SCENES) -> None:
        self.runs, self.models, self.resume = folder / "runs", models, resume
        self._folder, self._count = folder, scenes

    def scene_cache(self) -> SceneCache:
        """The training scenes."""
        return SceneCache(self._folder, "train", self._count)

    def scenes(self) -> None:
        """Render the training scenes."""
        self.scene_cache().fill()

    def _trained_autoencoder(self) -> Autoencoder:
        if self._finished("autoencoder"):
            return stage_autoencoder.narrowed(FinishedMini.load(self.models).autoencoder)
        return stage_autoencoder.restore(self.runs)

    def _trained_encoder(self) -> ImageEncoder | None:
        if self._finished("encoders"):
            return FinishedMini.load(self.models).image_encoder
        return stage_encoders.restore(self.runs).image if (self.runs / "encoders.pt").exists() else None

    def _finished(self, stage: str) -> bool:
        """Whether a stage's run is not in this folder, but its result is among the finished files."""
        return not (self.runs / f"{stage}.pt").exists() and (self.models / "unet.safetensors").exists()

    def autoencoder(self) -> None:
        """Pictures to latents and back."""
        scenes = self.scene_cache()
        model = stage_autoencoder.train(scenes, self.runs, self.resume)
        print("autoencoder:", stage_autoencoder.measure(model, scenes, np.arange(64)), flush=True)

    def decoder(self) -> None:
        """More of the decoder alone: the latents stay what the diffusion stages know."""
        scenes = self.scene_cache()
        model = stage_autoencoder.train_decoder(scenes, self.runs, self.resume)
        print("decoder:", stage_autoencoder.measure(model, scenes, np.arange(64)), flush=True)

    def encoders(self) -> None:
        """The image encoder, taught with a text encoder and attributes."""
        scenes = self.scene_cache()
        model = stage_encoders.train(scenes, self.runs, self.resume)
        print("encoders:", stage_encoders.measure(model, scenes, np.arange(512)), flush=True)

    def perception(self) -> None:
        """Depth and salience for the same world."""
        scenes = self.scene_cache()
        for kind in stage_perception.PLANS:
            stage_perception.train(kind, scenes, self.runs, self.resume)

    def depth_further(self) -> None:
        """More of depth, from this folder's run or else from the finished file."""
        if (self.runs / "depth.pt").exists():
            depth = stage_perception.restore("depth", self.runs)
        else:
            depth = MiniNet()
            finished = load_file(self.models / "depth.safetensors")
            depth.load_state_dict({name: weight.float() for name, weight in finished.items()})
        stage_perception.train_depth_further(depth, self.scene_cache(), self.runs, self.resume)

    def diffusion(self, name: str) -> None:
        """One of the stages base, local, global, joint."""
        model = self.model(stage_diffusion.BEFORE.get(name))
        encoder = self._trained_encoder() if stage_diffusion.RECIPES[name].guided else None
        data = Dataset(self.scene_cache(), self._trained_autoencoder(), encoder)
        stage_diffusion.train(name, model, data, self.runs, self.resume)

    def model(self, last: str | None) -> Mini:
        """The Mini as it stands after a stage and those before it; what is before the runs here, is finished."""
        torch.manual_seed(20)
        model, names = Mini(), []
        while last is not None:
            if self._finished(last):
                FinishedMini.load(self.models).put_into(model)
                break
            names.append(last)
            last = stage_diffusion.BEFORE.get(last)
        for name in reversed(names):
            stage_diffusion.restore(name, model, self.runs)
        return model.eval()

    def export(self) -> None:
        """Write what has been reached to the models' folder."""
        reached = [name for name in stage_diffusion.RECIPES if (self.runs / f"{name}.pt").exists()]
        export.write(self.runs, self.models, self.model(reached[-1] if reached else None), reached)

    def stages(self) -> dict[str, Callable[[], None]]:
        """All stages by name, in order."""
        diffusion = {name: (lambda name=name: self.diffusion(name)) for name in stage_diffusion.RECIPES}
        return {
            "scenes": self.scenes,
            "autoencoder": self.autoencoder,
            "encoders": self.encoders,
            "perception": self.perception,
            "depth_further": self.depth_further,
            **diffusion,
            "decoder": self.decoder,
            "export": self.export,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    names = list(Chain(FOLDER, MODELS, True).stages())
    parser.add_argument("--stage", choices=names, help="one stage alone (default: all, in order)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="rendered scenes and unfinished runs")
    parser.add_argument("--out", type=Path, default=MODELS, help="where the finished files go")
    parser.add_argument("--resume", choices=("automatic", "never"), default="automatic")
    parser.add_argument("--threads", type=int, default=2)


def main(arguments: argparse.Namespace) -> None:
    """Run the command."""
    torch.set_num_threads(arguments.threads)
    stages = Chain(arguments.folder, arguments.out, arguments.resume == "automatic").stages()
    for name in [arguments.stage] if arguments.stage else stages:
        print(f"stage {name}", flush=True)
        stages[name]()
