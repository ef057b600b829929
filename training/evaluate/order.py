"""`python -m training evaluate order`: does the requested object stand in front?

On unseen scenes whose two objects A and B overlap, chosen by their true renders before anything is sampled:

- as asked: A in front of B, all conditions from that scene;
- roles exchanged: the same layout rendered with B in front, all conditions computed anew;
- maps exchanged: the two depth maps of the first scene change places, and the exemplars with them; M is what is seen
  of B once it is in front. The caption stays the first scene's.
- maps and caption exchanged: so, but the full caption is that of B in front.

Each with the full caption, with one that does not tell who is in front, and with none; with exemplars or without. A
success is both measures of `occlusion` naming the requested object.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from training.config import add_arguments as add_options
from training.config import from_arguments, option
from training.mini.render import Layers
from training.mini.scenes import SEEDS, Scene

from .choice import Chosen, choose
from .folder import Part, Row, RunFolder, markdown, run_measure, slug
from .layers import chosen
from .occlusion import Outlines
from .sampling import Arm, Request, Settings
from .settings import Common
from .sheet import strip, write_strips
from .statistics import Estimate, difference, estimate

Way = Literal["as asked", "roles exchanged", "maps exchanged", "maps and caption exchanged"]
WAYS: tuple[Way, ...] = ("as asked", "roles exchanged", "maps exchanged", "maps and caption exchanged")
Caption = Literal["full", "neutral", "shapes", "empty"]
Sampler = Callable[[Request], Tensor]
EQUAL_LEVEL = 0.75


@dataclass(frozen=True)
class OrderConfig(Common):
    """Who stands in front."""

    rows: tuple[Way, ...] = option("what is asked", default=WAYS)
    captions: tuple[Caption, ...] = option("with which captions", default=("full", "neutral", "empty"))
    exemplars: tuple[Literal["off", "on"], ...] = option("without I_s and I_b as exemplars, or with", default=("off",))
    equal_depth: bool = option("give both objects the same mean depth in their maps (Figure 10)", default=False)


def level(layers: Layers) -> Layers:
    """The same layers with both objects at one mean depth, each in its own map (paper, Figure 10)."""

    def levelled(depth: Tensor, shape: Tensor) -> Tensor:
        mean = (depth * shape).sum((1, 2, 3), keepdim=True) / shape.sum((1, 2, 3), keepdim=True).clamp(min=1)
        return torch.where(shape > 0, (depth - mean + EQUAL_LEVEL).clamp(0, 1), depth)

    return replace(
        layers,
        fg_depth=levelled(layers.fg_depth, layers.mask),
        bg_depth=levelled(layers.bg_depth, layers.back_mask),
    )


def wants_a(way: Way) -> bool:
    """Whether A is the object that has to be in front."""
    return way == "as asked"


def caption_of(scene: Scene, kind: Caption) -> str:
    """A scene in words: all of it, all but the order, its solids and their order alone, or nothing."""
    if kind == "empty":
        return ""
    if kind == "full":
        return scene.caption
    known = scene.attributes
    return known.neutral_caption() if kind == "neutral" else known.shapes_caption()


def captions_of(scenes: Sequence[Scene], way: Way, kind: Caption) -> list[str]:
    """What is said of the scenes."""
    told = [scene.exchanged() for scene in scenes] if way in ("roles exchanged", WAYS[3]) else scenes
    return [caption_of(scene, kind) for scene in told]


def requests(
    arm: Arm, found: Chosen, way: Way, caption: Caption, *, exemplars: bool, equal_depth: bool = False, batch: int
) -> Iterator[tuple[slice, Request]]:
    """What is asked of an arm, a batch of scenes at a time."""
    for first in range(0, len(found.scenes), batch):
        rows = slice(first, min(first + batch, len(found.scenes)))
        source = found.exchanged if way == "roles exchanged" else found.layers
        layers = chosen(source, rows)
        layers = level(layers) if equal_depth else layers
        swapped = way in WAYS[2:]
        fg_depth, bg_depth = arm.maps(layers, swapped)
        pictures = (layers.background, layers.image) if swapped else (layers.image, layers.background)
        request = Request(
            captions_of(found.scenes[rows], way, caption), list(range(rows.start, rows.stop)), fg_depth, bg_depth
        )
        if exemplars:
            mask = layers.back_mask if swapped else layers.mask
            request = replace(request, fg_exemplar=pictures[0], bg_exemplar=pictures[1], mask=mask)
        yield rows, request


def judged(outlines: Outlines, indices: list[int], pictures: Tensor) -> list[Row]:
    """A line for each picture: who is in front, to either measure (true: A)."""
    verdicts = outlines.verdicts(pictures)
    return [{"scene": i, "colour": v.colour, "edge": v.edge} for i, v in zip(indices, verdicts, strict=True)]


def score(rows: Sequence[Row], way: Way) -> dict[str, list[float]]:
    """What each scene's line says of a way of asking: both measures, and each alone."""
    wanted = wants_a(way)
    colour, edge = ([float(row[name] == wanted) for row in rows] for name in ("colour", "edge"))
    return {"both": [one * other for one, other in zip(colour, edge, strict=True)], "colour": colour, "edge": edge}


def run(
    arm: Arm, found: Chosen, way: Way, caption: Caption, settings: Settings, *,
    exemplars: bool, equal_depth: bool, batch: int,
) -> Part:  # fmt: skip
    """Sample all scenes in one way and judge them."""
    part, outlines = Part(), found.outlines
    asked = requests(arm, found, way, caption, exemplars=exemplars, equal_depth=equal_depth, batch=batch)
    for rows, request in asked:
        pictures = arm.sample(request, settings)
        part.add(judged(outlines[rows], found.indices[rows], pictures), pictures)
    return part


@dataclass(frozen=True)
class _Line:
    arm: str
    way: Way
    caption: Caption
    exemplars: str

    @property
    def words(self) -> str:
        return f"{self.way}, caption {self.caption}, exemplars {self.exemplars}"

    @property
    def name(self) -> str:
        return f"order {self.arm}: {self.words}"


_Scores = dict[_Line, dict[str, list[float]]]
"""Of each line both measures together and each alone, a value a scene."""


def measure(config: OrderConfig) -> Row:
    """Run all rows of all arms; returns what goes into results.json."""
    arms = config.start()
    found = choose(config.count, device=config.on)
    print(found.words(), flush=True)
    folder = RunFolder(config.out)
    scores: _Scores = {}
    for arm in arms:
        for exemplars in config.exemplars:
            for way in config.rows:
                for caption in config.captions if way != WAYS[3] else ("full",):
                    line = _Line(arm.name, way, caption, exemplars)
                    inputs = {
                        "arm": arm.key(), "sampling": vars(config.sampling), "scenes": found.indices,
                        "equal_depth": config.equal_depth,
                    }  # fmt: skip
                    compute = partial(
                        run, arm, found, way, caption, config.sampling, exemplars=exemplars == "on",
                        equal_depth=config.equal_depth, batch=config.at_once,
                    )  # fmt: skip
                    rows = folder.part(line.name, inputs, compute)
                    scores[line] = score(rows, way)
                    print(f"{line.name}: {estimate(scores[line]['both']).share()}", flush=True)
    against = config.compared(arms)
    results = _results(config, found, scores, against)
    folder.finish("order", results, _table(config, found, scores, against))
    _sheets(folder, list(scores), found)
    return results


def _results(config: OrderConfig, found: Chosen, scores: _Scores, against: str) -> Row:
    lines = []
    for line, found_scores in scores.items():
        parts = {name: vars(estimate(values)) for name, values in found_scores.items()}
        beside = _beside(scores, line, against)
        lines.append({**vars(line), **parts, "against_less_this": vars(beside) if beside else None})
    return {
        "scenes": len(found.scenes), "drawn": found.drawn, "too_small": found.too_small, "misread": found.misread,
        "ceiling": found.ceiling, "seed": SEEDS["test"], "sampling": vars(config.sampling),
        "equal_depth": config.equal_depth, "against": against, "rows": lines,
    }  # fmt: skip


def _beside(scores: _Scores, line: _Line, against: str) -> Estimate | None:
    """How much better the arm that others are compared with does than this line's."""
    other = replace(line, arm=against)
    return None if other == line else difference(scores[other]["both"], scores[line]["both"])


def _table(config: OrderConfig, found: Chosen, scores: _Scores, against: str) -> str:
    rows = []
    for line, found_scores in scores.items():
        both, colour, edge = (estimate(found_scores[name]) for name in ("both", "colour", "edge"))
        beside = _beside(scores, line, against)
        rows.append(
            [line.arm, line.way, line.caption, line.exemplars, f"{round(both.mean * both.count)}/{both.count}",
             both.share(), f"{100 * colour.mean:.1f}", f"{100 * edge.mean:.1f}", beside.share() if beside else ""]
        )  # fmt: skip
    header = [
        "arm",
        "asked",
        "caption",
        "exemplars",
        "successes",
        "percent [95 %]",
        "kNN",
        "edge",
        f"{against} less this",
    ]
    equal = "; both objects at the same depth in their maps" if config.equal_depth else ""
    return (
        f"## Order\n\n{found.words()}. DDIM {config.steps} steps, CFG {config.cfg}{equal}. A model with one map, or "
        "with the same map twice, has nothing to exchange: there `maps exchanged` changes the exemplars and M alone."
        f"\n\n{markdown(header, rows)}"
    )


def _sheets(folder: RunFolder, lines: list[_Line], found: Chosen) -> None:
    """order_ARM.png: the true renders in both orders, then the first pictures of every row."""
    true = [("true render, as asked", strip(found.layers.image)), ("exchanged", strip(found.exchanged.image))]
    for arm in dict.fromkeys(line.arm for line in lines):
        mine = [(line.words, folder.strip(line.name)) for line in lines if line.arm == arm]
        write_strips(folder, f"order_{slug(arm)}", [*true, *mine])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_options(parser, OrderConfig)


def main(arguments: argparse.Namespace) -> None:
    """Run the measure and print its table."""
    run_measure(from_arguments(OrderConfig, arguments), "order", measure)
