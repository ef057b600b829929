"""`python -m training evaluate layers`: are several layers in order, and does each show what it was asked for?

Unseen scenes of two, three or four solids, each a layer with its own depth map and words before a backdrop without any
solid (`layered_scenes`). The caption of the whole picture names ground, sky and light alone.

Conditions:
    as asked: each layer has its own words.
    reversed: the same solids in the opposite order, all maps and masks computed anew.
    looks: each layer has an exemplar, and nothing has words.
    ambiguous caption, with words by layer: two solids and a caption that names both without their order.

Measured in each picture:
    order: of each neighbouring pair, whether both measures of `occlusion` see the nearer solid in front.
    material: of each layer, whether the segmenter finds the asked material in most of its visible part.
    leakage: the share of the layers' visible pixels, at least 3 pixels within their outlines, that show another layer's
        material; the mean over layers.
    depth: of each layer, the mean absolute error of the depth that an estimator reads in its visible part, after the
        best scale and shift there.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from cnc_core.depth_layers import TEXT_WEIGHT
from training.config import add_arguments as add_options
from training.config import from_arguments, option
from training.mini.layered import MOST, LayeredPictures, LayeredScene
from training.mini.scenes import SEEDS

from .depth import ESTIMATOR, Reader, aligned_error
from .folder import SHOWN, Part, Row, RunFolder, markdown, run_measure
from .judge import PATH, Judge, decode, shares
from .layered_sampling import LayeredRequest, Method, sample, word_lengths
from .layered_scenes import LayeredTrials, in_order, materials, outlines, select
from .sampling import Arm
from .settings import Common
from .sheet import strip, write_strips
from .statistics import difference, estimate
from .style import grown

Condition = Literal["as asked", "reversed", "looks", "ambiguous caption", "ambiguous caption, words by layer"]
CONDITIONS: tuple[Condition, ...] = ("as asked", "reversed", "looks")
TWO_SOLIDS: tuple[Condition, ...] = ("ambiguous caption", "ambiguous caption, words by layer")
TRUE = "true renders"


@dataclass(frozen=True)
class LayersConfig(Common):
    """Any number of layers: order, words, looks, leakage, depth."""

    layers: int = option(f"solids of a scene, 2 to {MOST}, each a layer", default=3)
    seed: int = option("of the scenes", default=SEEDS["test"])
    rows: tuple[Condition, ...] = option(
        "what is asked; default: as asked, reversed and looks, of two layers the ambiguous captions too", default=()
    )
    methods: tuple[Method, ...] = option(
        "how layers are given to a model; all but the first are measured as asked alone", default=("layers",)
    )
    text_weight: float = option("how many times its attention a layer's text gets", default=TEXT_WEIGHT)

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        super().__post_init__()
        if not 2 <= self.layers <= MOST:
            raise ValueError(f"layers: expected 2 to {MOST}, got {self.layers}")
        if self.layers != 2 and set(self.rows) & set(TWO_SOLIDS):
            raise ValueError(f"rows: an ambiguous caption is of two layers, got layers {self.layers}")
        if self.text_weight <= 0:
            raise ValueError(f"text_weight: expected more than 0, got {self.text_weight}")
        if not self.methods or ("closer ranges" in self.methods and self.layers != 3):
            raise ValueError(f"methods: give at least one; closer ranges are of 3 layers, got layers {self.layers}")

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What is asked of the first method."""
        return self.rows or (CONDITIONS + TWO_SOLIDS if self.layers == 2 else CONDITIONS)


@dataclass(frozen=True)
class Networks:
    """What judges pictures."""

    segmenter: Judge
    depth: Reader


def requests(trials: LayeredTrials, condition: Condition, batch: int) -> Iterator[tuple[list[int], LayeredRequest]]:
    """What is asked, a batch of scenes at a time, whose words are equally long: their places and the request."""
    scenes_asked, pictures = trials.scenes, trials.pictures
    if condition == "reversed":
        scenes_asked, pictures = [scene.reversed() for scene in trials.scenes], trials.reversed
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, scene in enumerate(scenes_asked):
        groups[word_lengths(scene)].append(place)
    for group in groups.values():
        for first in range(0, len(group), batch):
            places = group[first : first + batch]
            scenes = [scenes_asked[place] for place in places]
            captions = [_caption(scene, condition) for scene in scenes]
            words = condition in ("as asked", "reversed", TWO_SOLIDS[1])
            exemplars = trials.exemplar_pictures(places) if condition == "looks" else None
            yield places, LayeredRequest(scenes, pictures[places], captions, places, words, exemplars)


def _caption(scene: LayeredScene, condition: Condition) -> str:
    if condition == "looks":
        return ""
    return scene.neutral_caption if condition in TWO_SOLIDS else scene.surroundings_caption


def measured(
    networks: Networks, images: Tensor, scenes: Sequence[LayeredScene], pictures: LayeredPictures, indices: list[int]
) -> list[Row]:
    """A line for each image (B, 3, H, W) of what it shows, against the true renders of what was asked for."""
    named, wanted = networks.segmenter(images), materials(scenes, images.device)
    depth, shown = networks.depth.read(images), pictures.visible
    columns: dict[str, list[Any]] = {}
    for k, ordered in enumerate(zip(*in_order(outlines(pictures), images), strict=True), start=1):
        columns[f"pair {k}, {k + 1}"] = list(ordered)
    for k in range(wanted.shape[1]):
        visible = shown[:, k : k + 1]
        inner = 1 - grown(1 - visible)
        right = shares(named, visible).argmax(1) == wanted[:, k]
        others = torch.cat((wanted[:, :k], wanted[:, k + 1 :]), 1)
        leaked = shares(named, inner).gather(1, others).sum(1)
        errors = aligned_error(depth, pictures.depth, visible, visible)
        columns[f"material, layer {k + 1}"] = right.tolist()
        columns[f"leakage, layer {k + 1}"] = [round(value, 5) for value in leaked.tolist()]
        columns[f"depth, layer {k + 1}"] = [round(value, 5) for value in errors.tolist()]
    rows = zip(*columns.values(), strict=True)
    return [{"scene": index, **dict(zip(columns, row, strict=True))} for index, row in zip(indices, rows, strict=True)]


def run(
    config: LayersConfig, networks: Networks, arm: Arm, trials: LayeredTrials, method: Method, condition: Condition
) -> Part:
    """Sample all scenes as one condition asks for them, and measure."""
    lines: dict[int, Row] = {}
    shown: dict[int, Tensor] = {}
    for places, request in requests(trials, condition, config.at_once):
        images = sample(arm.mini, method, request, config.sampling, config.text_weight)
        indices = [trials.indices[place] for place in places]
        found = measured(networks, images, request.scenes, request.pictures, indices)
        lines.update(zip(places, found, strict=True))
        shown.update((place, image) for place, image in zip(places, images, strict=True) if place < SHOWN)
    return Part([lines[place] for place in sorted(lines)], [shown[place].cpu() for place in sorted(shown)])


def true_renders(networks: Networks, arm: Arm, trials: LayeredTrials, batch: int) -> Part:
    """True renders through an arm's autoencoder, measured as its pictures are: the best that a model can reach."""
    part = Part()
    for first in range(0, len(trials.scenes), batch):
        rows = slice(first, first + batch)
        images = decode(arm.mini.autoencoder, trials.pictures.image[rows])
        part.add(measured(networks, images, trials.scenes[rows], trials.pictures[rows], trials.indices[rows]), images)
    return part


def scores(lines: Sequence[Row]) -> dict[str, list[float]]:
    """Of each figure one value a scene."""

    def columns(kind: str) -> dict[str, list[float]]:
        return {name: [float(line[name]) for line in lines] for name in lines[0] if name.startswith(kind)}

    def over_layers(found: dict[str, list[float]], join: Callable[[Sequence[float]], float]) -> list[float]:
        return [join(scene) for scene in zip(*found.values(), strict=True)]

    pairs, right, leaked = columns("pair"), columns("material"), columns("leakage")
    return {
        "all pairs": over_layers(pairs, min), **pairs, "material, mean": over_layers(right, _mean),
        "material, all": over_layers(right, min), **right, "leakage": over_layers(leaked, _mean), **columns("depth"),
    }  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def measure(config: LayersConfig) -> Row:
    """Run all conditions of all arms and methods; returns what goes into results.json."""
    arms = config.start()
    networks = Networks(Judge.load(PATH, config.on), Reader(ESTIMATOR, config.on))
    trials = select(config.count, config.layers, config.seed, networks.segmenter, config.on)
    print(trials.words(), flush=True)
    folder = RunFolder(config.out)
    known = {
        "scenes": trials.indices, "seed": config.seed, "layers": config.layers, "segmenter": networks.segmenter.hash,
        "estimator": networks.depth.hash,
    }  # fmt: skip
    compute = partial(true_renders, networks, arms[0], trials, config.at_once)
    found = {TRUE: scores(folder.part(f"layers {TRUE}", {**known, "arm": arms[0].key()}, compute))}
    strips = [("true renders, as asked", strip(trials.pictures.image)), ("reversed", strip(trials.reversed.image))]
    for arm in arms:
        for method in config.methods:
            for condition in config.conditions if method == config.methods[0] else config.conditions[:1]:
                name = f"{arm.name}: {method}, {condition}"
                inputs = {
                    **known, "arm": arm.key(), "sampling": vars(config.sampling), "method": method,
                    "condition": condition, "text_weight": config.text_weight,
                }  # fmt: skip
                part = partial(run, config, networks, arm, trials, method, condition)
                found[name] = scores(folder.part(f"layers {name}", inputs, part))
                print(
                    f"{name}: order {estimate(found[name]['all pairs']).share()}, material "
                    f"{estimate(found[name]['material, mean']).share()}",
                    flush=True,
                )
                strips.append((name, folder.strip(f"layers {name}")))
    results = _results(config, trials, found)
    write_strips(folder, f"layers_{config.layers}", strips)
    folder.finish("layers", results, _table(config, trials, found))
    return results


def _results(config: LayersConfig, trials: LayeredTrials, found: dict[str, dict[str, list[float]]]) -> Row:
    rows = {}
    first = next(name for name in found if name != TRUE)
    for name, values in found.items():
        rows[name] = {figure: vars(estimate(one)) for figure, one in values.items()}
        if name not in (TRUE, first):
            rows[name]["first row less this, all pairs"] = vars(
                difference(found[first]["all pairs"], values["all pairs"])
            )
    return {
        "scenes": len(trials.scenes), "layers": config.layers, "seed": trials.seed, "drawn": trials.drawn,
        "too_small": trials.too_small, "misread": trials.misread, "ceiling": trials.ceiling,
        "sampling": vars(config.sampling), "text_weight": config.text_weight, "rows": rows,
    }  # fmt: skip


def _table(config: LayersConfig, trials: LayeredTrials, found: dict[str, dict[str, list[float]]]) -> str:
    figures = list(found[TRUE])
    lines = []
    for name, values in found.items():
        cells = []
        for figure in figures:
            one = estimate(values[figure])
            cells.append(one.number() if figure.startswith("depth") else one.share())
        lines.append([name, *cells])
    return (
        f"## Layers\n\n{trials.words()}. DDIM {config.steps} steps, CFG {config.cfg}, words with "
        f"{config.text_weight:g} times the attention. Percent [95 %]; depth as shares of the picture's range. Layer 1 "
        f"is the nearest.\n\n{markdown(['', *figures], lines)}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_options(parser, LayersConfig)
    parser.add_argument("--count", type=int, dest="scenes", default=argparse.SUPPRESS, help="the same as --scenes")


def main(arguments: argparse.Namespace) -> None:
    """Run the measure and print its table."""
    run_measure(from_arguments(LayersConfig, arguments), "layers", measure)
