"""`python -m training evaluate depth`: reconstruction, and how well each layer's depth is kept.

All conditions of an unseen scene, exemplars too, are given to the model; an estimator reads the depth of what it makes.
The error is the mean absolute one against the true inverse distance, which is spread to [0, 1] over the picture, after
the best scale and shift of each layer on its own: inside M for the foreground, outside for the background. Beside it
stand the error with one scale and shift for the whole picture, and the estimator's own errors on true renders.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from training.config import ConfigError, from_arguments, option
from training.config import add_arguments as add_options
from training.files import file_hash
from training.mini.finished import mini_net
from training.mini.render import Layers
from training.mini.scenes import SEEDS, Scene, draw_scenes

from .folder import Part, Row, RunFolder, markdown, run_measure, slug, write_png
from .layers import chosen, rendered
from .order import Caption, caption_of
from .sampling import Arm, Request
from .settings import Common
from .sheet import strip, write_strips
from .statistics import Estimate, difference, estimate

DepthVersion = Literal["v1", "v2", "v3"]
ESTIMATOR = Path("models/mini/depth.safetensors")
ERRORS = ("foreground", "background", "foreground, one alignment", "background, one alignment")


@dataclass(frozen=True)
class DepthConfig(Common):
    """Depth of reconstructions."""

    caption: Caption = option("the scene's caption", default="full")
    versions: tuple[DepthVersion, ...] = option(
        "of the foreground's map: depth of I_s, of I_f, or M times depth of I_s (Figure 17; as the release's demo; "
        "appendix A.4 can be read as M times depth of I_f)",
        default=("v2",),
    )
    exemplars: bool = option("give I_s and I_b as exemplars", default=True)
    estimator: Path = option("the depth estimator's file", default=ESTIMATOR)
    pictures: int = option("write the first N true renders and results as PNGs, for `evaluate tables`", default=0)


def aligned_error(found: Tensor, truth: Tensor, measured: Tensor, by: Tensor) -> Tensor:
    """Mean absolute error (B,) of depth maps (B, 1, H, W) inside `measured`, after the least-squares scale (at least 0)
    and shift inside `by`; both regions (B, 1, H, W) in {0, 1}. NaN where a region is empty."""
    axes = (1, 2, 3)
    count = by.sum(axes, keepdim=True)
    found_mean, true_mean = ((values * by).sum(axes, keepdim=True) / count for values in (found, truth))
    offset = (found - found_mean) * by
    spread = offset.square().sum(axes, keepdim=True)
    scale = ((offset * truth).sum(axes, keepdim=True) / spread.clamp(min=1e-12)).clamp(min=0)
    aligned = scale * (found - found_mean) + true_mean
    return ((aligned - truth).abs() * measured).sum(axes) / measured.sum(axes)


def errors(found: Tensor, layers: Layers) -> dict[str, Tensor]:
    """The four errors of depth maps (B, 1, H, W), each (B,)."""
    truth, front, behind, everywhere = layers.depth, layers.mask, 1 - layers.mask, torch.ones_like(layers.mask)
    return {
        "foreground": aligned_error(found, truth, front, front),
        "background": aligned_error(found, truth, behind, behind),
        "foreground, one alignment": aligned_error(found, truth, front, everywhere),
        "background, one alignment": aligned_error(found, truth, behind, everywhere),
    }


class Reader:
    """The depth estimator: the mean of what it reads in a picture and in its mirror image."""

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        if not path.exists():
            raise ConfigError(f"there is no depth estimator {path}: give --estimator")
        self.network, self.hash = mini_net(path).to(device), file_hash(path)

    @torch.no_grad()
    def lines(self, pictures: Tensor, layers: Layers, indices: list[int]) -> list[Row]:
        """A line for each picture (B, 3, H, W): its errors."""
        columns = {name: values.tolist() for name, values in errors(self.read(pictures), layers).items()}
        return [
            {"scene": i, **{name: round(values[k], 5) for name, values in columns.items()}}
            for k, i in enumerate(indices)
        ]

    @torch.no_grad()
    def read(self, pictures: Tensor) -> Tensor:
        """Depth maps (B, 1, H, W) in [0, 1] of pictures (B, 3, H, W)."""
        return torch.cat([self._read(part) for part in pictures.split(64)])

    def _read(self, pictures: Tensor) -> Tensor:
        both: Tensor = self.network(pictures) + self.network(pictures.flip(-1)).flip(-1)
        return (both / 2).clamp(0, 1)


def versioned(layers: Layers, version: DepthVersion) -> Layers:
    """The layers with another version of the foreground's depth map, as the nodes make it."""
    maps = {"v1": layers.depth, "v2": layers.fg_depth, "v3": layers.depth * layers.mask}
    return replace(layers, fg_depth=maps[version])


def run(config: DepthConfig, arm: Arm, reader: Reader, scenes: list[Scene], layers: Layers, name: str) -> Part:
    """Reconstruct all scenes and read their depth."""
    part = Part()
    for first in range(0, len(scenes), config.at_once):
        rows = slice(first, min(first + config.at_once, len(scenes)))
        these, places = chosen(layers, rows), list(range(rows.start, rows.stop))
        captions = [caption_of(scene, config.caption) for scene in scenes[rows]]
        exemplars = (these.image, these.background, these.mask) if config.exemplars else ()
        pictures = arm.sample(Request(captions, places, *arm.maps(these), *exemplars), config.sampling)
        part.add(reader.lines(pictures, these, places), pictures)
        _write(config, name, places, pictures)
    return part


def _write(config: DepthConfig, name: str, places: list[int], pictures: Tensor) -> None:
    folder = config.out / "pictures" / slug(name.replace(" ", "_"))
    for place, picture in zip(places, pictures, strict=True):
        if place < config.pictures:
            folder.mkdir(parents=True, exist_ok=True)
            write_png(folder / f"{place:05d}.png", picture)


def measure(config: DepthConfig) -> Row:
    """Run all arms; returns what goes into results.json."""
    arms, reader, folder = config.start(), Reader(config.estimator, config.on), RunFolder(config.out)
    scenes = draw_scenes(SEEDS["test"], range(config.count))
    layers = rendered(scenes, config.on)
    _write(config, "true renders", list(range(config.count)), layers.image)
    found = {"true renders": reader.lines(layers.image, layers, list(range(config.count)))}
    strips = [("true renders", strip(layers.image)), ("true depth", strip(layers.depth))]
    for arm, version in ((arm, version) for arm in arms for version in config.versions):
        inputs = {
            "arm": arm.key(), "sampling": vars(config.sampling), "scenes": config.count, "caption": config.caption,
            "exemplars": config.exemplars, "estimator": reader.hash, "pictures": config.pictures, "version": version,
            "mirrored": True,
        }  # fmt: skip
        name = arm.name if len(config.versions) == 1 else f"{arm.name}, {version}"
        compute = partial(run, config, arm, reader, scenes, versioned(layers, version), name)
        found[name] = folder.part(f"depth {name}", inputs, compute)
        print(f"depth {name}: {_words(found[name])}", flush=True)
        strips.append((name, folder.strip(f"depth {name}")))
    against = config.compared(arms)
    against = against if against in found else f"{against}, {config.versions[0]}"
    arms_found: Row = {}
    for name, rows in found.items():
        arms_found[name] = {error: vars(estimate(values(rows, error))) for error in ERRORS}
        if name not in ("true renders", against):
            arms_found[name]["against_less_this"] = {
                error: vars(difference(values(found[against], error), values(rows, error))) for error in ERRORS
            }
    results: Row = {
        "scenes": config.count, "seed": SEEDS["test"], "sampling": vars(config.sampling), "caption": config.caption,
        "exemplars": config.exemplars, "against": against, "arms": arms_found,
    }  # fmt: skip
    write_strips(folder, "depth", strips)
    folder.finish("depth", results, _table(config, results))
    return results


def values(rows: list[Row], error: str) -> list[float]:
    """One error of every scene."""
    return [row[error] for row in rows]


def _words(rows: list[Row]) -> str:
    return ", ".join(f"{name} {estimate(values(rows, name)).mean:.4f}" for name in ERRORS)


def _table(config: DepthConfig, results: Row) -> str:
    header = [
        "picture",
        *(f"{name}, MAE [95 %]" for name in ERRORS),
        f"{results['against']} less this: foreground",
        "background",
    ]
    lines = []
    for name, told in results["arms"].items():
        beside = told.get("against_less_this")
        more = [Estimate(**beside[error]).number() for error in ERRORS[:2]] if beside else ["", ""]
        lines.append([name, *(Estimate(**told[error]).number() for error in ERRORS), *more])
    return (
        f"## Depth of reconstructions\n\n{config.count} scenes of seed {SEEDS['test']}, caption {config.caption}, "
        f"{'with' if config.exemplars else 'without'} exemplars, DDIM {config.steps} steps, CFG {config.cfg}. As "
        f"shares of the picture's range of inverse distance; on true renders the error is the estimator's own.\n\n"
        f"{markdown(header, lines)}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_options(parser, DepthConfig)


def main(arguments: argparse.Namespace) -> None:
    """Run the measure and print its table."""
    run_measure(from_arguments(DepthConfig, arguments), "depth", measure)
