"""`python -m training evaluate order`: does the requested object stand in front?

On unseen scenes whose two objects overlap: as asked (A in front of B, all conditions from that
scene), with the roles exchanged (the same layout rendered with B in front, all conditions anew), and
both without the local fuser. A success is both measures of `occlusion` naming the requested object.
Scenes are chosen by their true renders, before anything is sampled.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training.mini.finished import FinishedMini
from training.mini.render import Layers, render
from training.mini.scenes import SEEDS, Scene, draw_scene

from .occlusion import large_enough, verdict

SAMPLE_SEED = 977
Sampler = Callable[[Layers, list[str], int], Tensor]


@dataclass(frozen=True)
class Chosen:
    """The scenes that count, and how they were found."""

    scenes: list[Scene]
    drawn: int
    too_small: int
    misread: int  # large enough, but the measures misread a true render

    def words(self) -> str:
        """One line on the choice."""
        large = self.drawn - self.too_small
        return (
            f"{len(self.scenes)} scenes of seed {SEEDS['test']}: {self.drawn} drawn, {self.too_small} with too small "
            f"regions, {self.misread} of {large} discarded since a true render was misread "
            f"(ceiling of the measure {1 - self.misread / large:.3f})"
        )


def choose(count: int, size: int = 128) -> Chosen:
    """The first `count` test scenes that are large enough and whose true renders pass in both orders."""
    scenes: list[Scene] = []
    drawn = too_small = misread = 0
    while len(scenes) < count:
        scene = draw_scene(SEEDS["test"], drawn)
        drawn += 1
        layers, exchanged = render([scene], size), render([scene.exchanged()], size)
        a, b = layers.mask[0, 0], layers.back_mask[0, 0]
        if not large_enough(a, b):
            too_small += 1
        elif verdict(layers.image[0], a, b).says(True) and verdict(exchanged.image[0], a, b).says(False):
            scenes.append(scene)
        else:
            misread += 1
    return Chosen(scenes, drawn, too_small, misread)


@dataclass(frozen=True)
class Score:
    """Successes of one arm."""

    both: int
    colour: int
    edge: int
    count: int

    def words(self) -> str:
        """Shares, and the counts behind them."""
        n = self.count
        return f"{self.both / n:.3f} ({self.both}/{n}; kNN alone {self.colour / n:.3f}, edge alone {self.edge / n:.3f})"


def score(scenes: Sequence[Scene], sampler: Sampler, *, exchanged: bool, batch: int = 10) -> Score:
    """Sample every scene in one order and count who stands in front."""
    both = colour = edge = 0
    for first in range(0, len(scenes), batch):
        part = list(scenes[first : first + batch])
        plain = render(part)
        asked = [scene.exchanged() for scene in part] if exchanged else part
        layers = render(asked) if exchanged else plain
        pictures = sampler(layers, [scene.caption for scene in asked], first)
        for picture, a, b in zip(pictures, plain.mask[:, 0], plain.back_mask[:, 0], strict=True):
            found = verdict(picture, a, b)
            both += found.says(not exchanged)
            colour += found.colour != exchanged
            edge += found.edge != exchanged
    return Score(both, colour, edge, len(scenes))


def mini_sampler(
    mini: FinishedMini, steps: int, cfg: float, *, local_fuser: bool, exemplars: bool = False, bf16: bool = False
) -> Sampler:
    """Sampling with the Mini's text and depth, with exemplars if asked; noise is a function of the
    scene's place alone."""

    def sample(layers: Layers, captions: list[str], first: int) -> Tensor:
        noise = torch.stack(
            [
                torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(SAMPLE_SEED * 100_000 + first + k))
                for k in range(len(captions))
            ]
        )
        depths = (layers.fg_depth, layers.bg_depth) if local_fuser else (None, None)
        return mini.sample(
            noise,
            captions,
            *depths,
            fg_embed=mini.embed(layers.image) if exemplars else None,
            bg_embed=mini.embed(layers.background) if exemplars else None,
            mask=layers.mask if exemplars else None,
            steps=steps,
            cfg=cfg,
            bf16=bf16,
        )

    return sample


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--models", type=Path, default=Path("models/mini"))
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--fuser", choices=("both", "with", "without"), default="both", help="which arms to run")
    parser.add_argument("--exemplars", action="store_true", help="give I_s and I_b as exemplars, too")
    parser.add_argument("--bf16", action="store_true", help="compute in bf16: faster where the processor has it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sheet", type=Path, help="write a PNG of some results here")


def main(arguments: argparse.Namespace) -> None:
    """Run the measure and print it."""
    torch.set_num_threads(arguments.threads)
    chosen = choose(arguments.scenes)
    print(chosen.words(), flush=True)
    mini = FinishedMini.load(arguments.models)
    print(f"DDIM {arguments.steps} steps, CFG {arguments.cfg}, noise seed {SAMPLE_SEED}, {json.dumps(mini.facts)}")
    for with_fuser in {"with": (True,), "without": (False,), "both": (True, False)}[arguments.fuser]:
        sampler = mini_sampler(
            mini,
            arguments.steps,
            arguments.cfg,
            local_fuser=with_fuser,
            exemplars=arguments.exemplars,
            bf16=arguments.bf16,
        )
        for exchanged in (False, True):
            name = "roles exchanged" if exchanged else "as asked"
            arm = "" if with_fuser else ", without the local fuser"
            print(f"{name}{arm}: {score(chosen.scenes, sampler, exchanged=exchanged).words()}", flush=True)
    if arguments.sheet:
        from .sheet import write_sheet

        write_sheet(arguments.sheet, mini, chosen.scenes[:12], arguments.steps, arguments.cfg)
