"""`python -m training evaluate style`: does each layer take its own exemplar's look, and only that?

The layout (depth maps, M) of an unseen scene, the foreground's exemplar from a second scene, the background's from a
third, no material, ground or backdrop of theirs shared (paper, Figures 15 and 16, for the Mini's world). A judge that
the model has never met names the class of every pixel. Measured:

- regions: the share of scenes whose majority in the foreground, the background object, the ground and the sky or wall
  is the one that the region's exemplar shows;
  A depth map tells a wall from the sky, so that an exemplar of the other kind contradicts it: that rate stands for
  either kind as well;
- leakage: the share of the foreground's pixels that show what the background's exemplar has, and of the other pixels
  that show the foreground exemplar's front material; less the same with an unrelated exemplar in that one's place; and
  so without what is within 3 pixels of M's outline, where an outline out of place looks like leakage. The judge sees
  some in true renders of what is asked for, too, where an outline mixes two colours: that stands beside it;
- curves over lambda_bg and lambda_fg: the judge's share and the cosine of appendix A.4, of the image encoder's
  embeddings of I_gen * M and I_gen * (1 - M) with those of the exemplars.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import add_arguments as add_options
from training.config import from_arguments, option
from training.mini.scenes import SEEDS

from .exemplars import Cast, Stage
from .folder import Part, Row, RunFolder, markdown, run_measure, slug
from .judge import PATH, Judge, accuracy, decode, shares
from .layers import chosen, classes, regions
from .order import Caption, caption_of
from .sampling import Arm, Request
from .settings import Common
from .sheet import strip, write_curves, write_strips
from .statistics import Estimate, estimate, rank_correlation, ratio

REGIONS = ("foreground", "background object", "ground", "sky")
OUTLINE = 3  # pixels: nearer to it, an outline that is out of place looks like leakage
TARGET_RANGE = 1.5  # of lambda, where curves are to rise
Asked = Literal["conflicting", "lambda_bg", "lambda_fg"]


@dataclass(frozen=True)
class StyleConfig(Common):
    """Style by regions, leakage, and curves over lambda."""

    rows: tuple[Asked, ...] = option("what is measured", default=("conflicting", "lambda_bg", "lambda_fg"))
    caption: Caption = option("the layout's caption, or none", default="empty")
    lambdas: tuple[float, ...] = option("points of the curves", default=(0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0))
    together: bool = option("move both lambdas at once in the curve lambda_bg (Figure 14)", default=False)
    same_maps: bool = option("give both streams the depth of the whole picture (Figures 7, 15 and 16)", default=False)
    same_exemplar: bool = option("the foreground's exemplar is the background's as well (Figure 14)", default=False)
    judge: Path = option("the judge's file", default=PATH)

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        super().__post_init__()
        if sum(value <= TARGET_RANGE for value in self.lambdas) < 2 or list(self.lambdas) != sorted(self.lambdas):
            raise ValueError(f"lambdas: expected at least two of at most {TARGET_RANGE}, rising, got {self.lambdas}")


def judged(judge: Judge, arm: Arm, stage: Stage, rows: slice, pictures: Tensor) -> list[Row]:
    """A line for each picture: each region's majority and the share of what was asked there, leakage, cosines."""
    layers, scenes = chosen(stage.layers, rows), stage.cast.layouts[rows]
    device = pictures.device
    found = judge(pictures)
    places = regions(layers, scenes)
    inside, outside = shares(found, layers.mask), shares(found, 1 - layers.mask)
    deep_inside, far_outside = (shares(found, 1 - grown(1 - region)) for region in (layers.mask, 1 - layers.mask))
    by_region = {name: shares(found, region) for name, region in places.items()}
    asked = [classes(*who) for who in zip(scenes, stage.cast.fg[rows], stage.cast.bg[rows], strict=True)]
    wanted = {name: torch.tensor([row[name] for row in asked], device=device) for name in REGIONS}

    def share(of: Tensor, name: str) -> Tensor:
        return of.gather(1, wanted[name][:, None])[:, 0]

    behind = torch.stack(
        [(places[name][:, 0] * (found == wanted[name][:, None, None])).sum((1, 2)) for name in REGIONS[1:]]
    ).sum(0)
    values: dict[str, Tensor] = {
        **{f"{name}, majority": of.argmax(1) for name, of in by_region.items()},
        **{f"{name}, share": share(of, name) for name, of in by_region.items()},
        "background, share": behind / (1 - layers.mask).sum((1, 2, 3)),
        "object's material in the foreground": share(inside, "background object"),
        "background in the foreground": torch.stack([share(inside, name) for name in REGIONS[1:]]).sum(0),
        "foreground in the background": share(outside, "foreground"),
        "background deep in the foreground": torch.stack([share(deep_inside, n) for n in REGIONS[1:]]).sum(0),
        "foreground far from its outline": share(far_outside, "foreground"),
        "foreground, cosine": _cosine(arm, pictures * layers.mask, stage.fg[rows]),
        "background, cosine": _cosine(arm, pictures * (1 - layers.mask), stage.bg[rows]),
    }
    columns = {name: [round(v, 5) for v in of.tolist()] for name, of in values.items()}
    lines = []
    for k, index in enumerate(stage.cast.indices[rows]):
        right = {f"{name}, right": int(columns[f"{name}, majority"][k]) == asked[k][name] for name in REGIONS}
        lines.append({"scene": index, **right, **{name: column[k] for name, column in columns.items()}})
    return lines


def grown(region: Tensor) -> Tensor:
    """A region (B, 1, H, W) with all that is within OUTLINE pixels of it."""
    return F.max_pool2d(region, 2 * OUTLINE + 1, 1, OUTLINE)


def _cosine(arm: Arm, pictures: Tensor, exemplars: Tensor) -> Tensor:
    return F.cosine_similarity(arm.mini.embed(pictures), arm.mini.embed(exemplars), dim=-1)


def run(
    config: StyleConfig, judge: Judge, arm: Arm, stage: Stage, *, lambda_fg: float = 1.0, lambda_bg: float = 1.0,
    other: Literal["fg", "bg"] | None = None,
) -> Part:  # fmt: skip
    """Sample all scenes with one pair of lambdas, or with an unrelated exemplar in one place, and judge them."""
    part = Part()
    fg, bg = stage.other_fg if other == "fg" else stage.fg, stage.other_bg if other == "bg" else stage.bg
    for first in range(0, len(stage.cast.layouts), config.at_once):
        rows = slice(first, min(first + config.at_once, len(stage.cast.layouts)))
        layers = chosen(stage.layers, rows)
        request = Request(
            [caption_of(scene, config.caption) for scene in stage.cast.layouts[rows]],
            list(range(rows.start, rows.stop)),
            *(replace(arm, conditions="whole") if config.same_maps else arm).maps(layers),
            fg[rows], bg[rows], layers.mask, lambda_fg, lambda_bg,
        )  # fmt: skip
        pictures = arm.sample(request, config.sampling)
        part.add(judged(judge, arm, stage, rows, pictures), pictures)
    return part


def answered(judge: Judge, arm: Arm, stage: Stage, other: Literal["fg", "bg"] | None = None) -> Part:
    """True renders of what is asked for, through an arm's autoencoder, judged as its pictures are."""
    part, pictures = Part(), stage.answers(other)
    for first in range(0, len(pictures), 16):
        rows = slice(first, min(first + 16, len(pictures)))
        seen = decode(arm.mini.autoencoder, pictures[rows])
        part.add(judged(judge, arm, stage, rows, seen), seen)
    return part


class _Run:
    """One run of the measure: finds parts and remembers their pictures for the sheet."""

    def __init__(self, config: StyleConfig) -> None:
        self.config, self.arms = config, config.start()
        self.judge = Judge.load(config.judge, config.on)
        self.stage = Stage.build(config.count, config.on)
        if config.same_exemplar:
            self.stage = self.stage.with_one_exemplar()
        self._leaks: dict[str, dict[str, np.ndarray]] = {}
        self.folder = RunFolder(config.out)
        stage = self.stage
        self.strips = [
            ("layout", strip(stage.layers.image)), ("M", strip(stage.layers.mask)),
            ("the foreground's exemplar, I_s", strip(stage.fg)), ("the background's exemplar, I_b", strip(stage.bg)),
        ]  # fmt: skip

    def ceiling(self) -> Row:
        """The judge on the layouts' true renders, as they are and through the autoencoder."""
        autoencoder, pictures = self.arms[0].mini.autoencoder, self.stage.layers.image
        decoded = torch.cat([decode(autoencoder, part) for part in pictures.split(16)])
        found = {
            name: accuracy(self.judge, seen, self.stage.layers, self.stage.cast.layouts)
            for name, seen in (("true renders", pictures), ("decoded true renders", decoded))
        }
        for name, right in found.items():
            print(
                f"judge on {name}: " + ", ".join(f"{region} {share:.4f}" for region, share in right.items()), flush=True
            )
        return found

    def found(self, arm: Arm, name: str, **how: Any) -> list[Row]:
        """A part of an arm."""
        config, title = self.config, f"style {arm.name} {name}"
        inputs = {
            "arm": arm.key(), "sampling": vars(config.sampling), "scenes": self.stage.cast.indices,
            "caption": config.caption, "judge": self.judge.hash, "same_maps": config.same_maps,
            "same_exemplar": config.same_exemplar, "version": 2, **how,
        }  # fmt: skip
        rows = self.folder.part(title, inputs, lambda: run(config, self.judge, arm, self.stage, **how))
        self.strips.append((f"{arm.name}: {name}", self.folder.strip(title)))
        right = ", ".join(f"{region} {100 * estimate(column(rows, region + ', right')).mean:.1f}" for region in REGIONS)
        print(f"{title}: {right}", flush=True)
        return rows

    def arm(self, arm: Arm) -> Row:
        """All that is asked of an arm."""
        told: Row = {}
        if "conflicting" in self.config.rows:
            rows = self.found(arm, "conflicting")
            floors = {other: self.found(arm, f"unrelated {other}", other=other) for other in ("fg", "bg")}
            told["conflicting"] = conflicting(rows, floors["fg"], floors["bg"])
            told["conflicting"] |= by_kind(rows, self.stage.cast.of_one_kind)
            self._leaks[arm.name] = leaks(rows, floors)
        for axis in ("lambda_bg", "lambda_fg"):
            if axis in self.config.rows:
                axes = ("lambda_fg", "lambda_bg") if self.config.together else (axis,)
                points = {
                    value: self.found(arm, f"{axis} {value:g}", **dict.fromkeys(axes, value))
                    for value in self.config.lambdas
                }
                told[axis] = curve(points, axis)
                lines = {name: told[axis][name] for name in CURVES}
                path = self.folder.path / f"style_{slug(arm.name)}_{axis}.png"
                write_curves(path, f"{arm.name}: {axis}", list(points), lines, axis, "mean over scenes")
        return told

    def answers(self) -> Row:
        """The leakage that the judge sees in true renders of what is asked for."""
        arm = self.arms[0]
        found = {
            other: self.folder.part(
                f"style {ANSWERS}, unrelated {other}" if other else f"style {ANSWERS}",
                {"arm": arm.key(), "scenes": self.stage.cast.indices, "judge": self.judge.hash,
                 "same_exemplar": self.config.same_exemplar, "version": 2},
                partial(answered, self.judge, arm, self.stage, other),
            )
            for other in (None, "fg", "bg")
        }  # fmt: skip
        self._leaks[ANSWERS] = leaks(found[None], found)
        return conflicting(found[None], found["fg"], found["bg"])

    def leaks_beside(self) -> Row:
        """Each arm's leakage over that of the arm which was trained without the mask, where that is measured; and the
        same less what the judge sees in true renders. Theirs stands beside: what perfect pictures would have."""
        without = next((arm.name for arm in self.arms if not arm.mask and arm.name in self._leaks), None)
        if without is None:
            return {}
        below, own = self._leaks[without], self._leaks[ANSWERS]
        found: Row = {}
        for arm, above in self._leaks.items():
            if arm == without:
                continue
            found[arm] = {name: vars(ratio(above[name], below[name])) for name in LEAKS}
            if arm != ANSWERS:
                found[arm] |= {
                    f"{name}{LESS}": vars(ratio(above[name] - own[name], below[name] - own[name])) for name in LEAKS
                }
        return found


def measure(config: StyleConfig) -> Row:
    """Run what is asked for every arm; returns what goes into results.json."""
    this = _Run(config)
    print(this.stage.cast.words(), flush=True)
    results: Row = {
        "scenes": config.count, "drawn": this.stage.cast.drawn, "seed": SEEDS["test"], "judge": this.ceiling(),
        "sampling": vars(config.sampling), "caption": config.caption, "same_maps": config.same_maps,
        "same_exemplar": config.same_exemplar, "arms": {arm.name: this.arm(arm) for arm in this.arms},
        ANSWERS: this.answers() if "conflicting" in config.rows else None,
        "leakage over that without the mask": this.leaks_beside(),
    }  # fmt: skip
    write_strips(this.folder, "style", this.strips)
    this.folder.finish("style", results, _table(config, this.stage.cast, results))
    return results


CURVES = (
    "foreground, share", "background, share", "foreground, cosine", "background, cosine",
    "background in the foreground", "foreground in the background",
)  # fmt: skip
LEAKS = {
    "background in the foreground": "bg", "object's material in the foreground": "bg",
    "foreground in the background": "fg", "background deep in the foreground": "bg",
    "foreground far from its outline": "fg",
}  # fmt: skip
"""Each leakage, and the exemplar that it comes from."""
ANSWERS = "true renders of what is asked for"
LESS = ", less that of true renders"


def column(rows: Sequence[Row], name: str) -> np.ndarray:
    """One value of every scene."""
    return np.array([float(row[name]) for row in rows])


def leaks(rows: Sequence[Row], floors: Mapping[Any, Sequence[Row]]) -> dict[str, np.ndarray]:
    """Every leakage less its floor, scene by scene; floors are those with an unrelated "fg" and "bg"."""
    return {name: column(rows, name) - column(floors[source], name) for name, source in LEAKS.items()}


def conflicting(rows: list[Row], other_fg: list[Row], other_bg: list[Row]) -> Row:
    """Regions, leakage with its floor subtracted scene by scene, and cosines."""
    floors = {"fg": other_fg, "bg": other_bg}
    found: Row = {f"{name}, right": vars(estimate(column(rows, f"{name}, right"))) for name in REGIONS}
    for name, values in leaks(rows, floors).items():
        found[name] = vars(estimate(values))
        found[f"{name}, floor"] = vars(estimate(column(floors[LEAKS[name]], name)))
    for name in ("foreground, cosine", "background, cosine"):
        found[name] = vars(estimate(column(rows, name)))
    return found


def by_kind(rows: Sequence[Row], of_one_kind: Sequence[bool]) -> Row:
    """The sky's or wall's rate where the exemplar has a wall as the layout has, or a sky as it has, and where not."""
    right, one = column(rows, "sky, right"), np.array(of_one_kind)
    return {
        f"sky, right, {name}": vars(estimate(right[chosen_])) if chosen_.any() else None
        for name, chosen_ in zip(KINDS, (one, ~one), strict=True)
    }


def curve(points: dict[float, list[Row]], axis: str) -> Row:
    """Means over lambda, with what the moved layer's curve does up to 1.5 and how far the other one's follows.

    rank correlation: of lambda and the means, and the mean of the scenes' own. change: the other layer's range of
    means over the moved one's rise from the smallest lambda to the greatest of at most 1.5.
    """
    found: Row = {"lambda": list(points)}
    for name in CURVES:
        found[name] = [float(column(rows, name).mean()) for rows in points.values()]
    moved, still = ("background", "foreground") if axis == "lambda_bg" else ("foreground", "background")
    values = [value for value in points if value <= TARGET_RANGE]
    for kind in ("share", "cosine"):
        table = {side: np.stack([column(points[v], f"{side}, {kind}") for v in values]) for side in (moved, still)}
        means = table[moved].mean(1)
        rise = table[moved][-1] - table[moved][0]
        follows = [ratio(row - table[still][0], rise) for row in table[still][1:]]
        change = max(follows, key=lambda one: abs(one.mean))
        found[f"{kind}, rank correlation"] = rank_correlation(values, list(means))
        found[f"{kind}, rank correlation of scenes"] = vars(
            estimate([rank_correlation(values, list(scene)) for scene in table[moved].T])
        )
        found[f"{kind}, rise"] = vars(estimate(rise))
        found[f"{kind}, the other's change over it"] = vars(change)
    return found


def _table(config: StyleConfig, found: Cast, results: Row) -> str:
    """Markdown of all of it."""
    words = [f"## Style\n\n{found.words()}. Caption: {config.caption}. DDIM {config.steps} steps, CFG {config.cfg}.\n"]
    header = ["judge on", *REGIONS, "pixels"]
    told = [
        [name, *(f"{100 * right[region]:.2f}" for region in header[1:])] for name, right in results["judge"].items()
    ]
    words.append(markdown(header, told))
    arms = {name: told["conflicting"] for name, told in results["arms"].items() if "conflicting" in told}
    if arms:
        header = ["arm", *(f"{name}, percent [95 %]" for name in REGIONS)]
        words.append(
            markdown(header, [[n, *(Estimate(**a[f"{r}, right"]).share() for r in REGIONS)] for n, a in arms.items()])
        )
        header = ["arm", "sky or wall, exemplar and depth map of one kind (scenes)", "of two kinds (scenes)"]
        words.append(markdown(header, [[n, *(_kind(a[f"sky, right, {k}"]) for k in KINDS)] for n, a in arms.items()]))
        header = ["arm", *(f"{name}, percent of pixels less the floor [95 %] (floor)" for name in LEAKS)]
        lines = [
            [n, *(f"{Estimate(**a[k]).share()} ({100 * a[k + ', floor']['mean']:.1f})" for k in LEAKS)]
            for n, a in {**arms, ANSWERS: results[ANSWERS]}.items()
        ]
        words.append(markdown(header, lines))
    beside = results["leakage over that without the mask"]
    if beside:
        header = ["arm", *(f"{name}, over the model without the mask [95 %]" for name in LEAKS)]
        lines = [
            [f"{arm}{less}", *(Estimate(**told[name + less]).number() for name in LEAKS)]
            for arm, told in beside.items()
            for less in ("", LESS)
            if not less or arm != ANSWERS
        ]
        words.append(markdown(header, lines))
    for name, arm in results["arms"].items():
        for axis in ("lambda_bg", "lambda_fg"):
            if axis in arm:
                words.append(_curve_words(name, axis, arm[axis]))
    return "\n".join(words)


KINDS = ("of one kind", "of two kinds")


def _kind(told: Row | None) -> str:
    return f"{Estimate(**told).share()} ({told['count']})" if told else "-"


def _curve_words(arm: str, axis: str, told: Row) -> str:
    header = [axis, *(f"{value:g}" for value in told["lambda"])]
    lines = [[name, *(f"{value:.3f}" for value in told[name])] for name in CURVES]
    notes = []
    for kind in ("share", "cosine"):
        scenes, rise, change = (
            Estimate(**told[f"{kind}, {name}"]).number()
            for name in ("rank correlation of scenes", "rise", "the other's change over it")
        )
        notes.append(
            f"By {kind}, up to {TARGET_RANGE}: rank correlation of the means {told[f'{kind}, rank correlation']:.3f}, "
            f"of scenes {scenes}; rise {rise}; the other layer's greatest change over it {change}."
        )
    return f"{arm}\n\n{markdown(header, lines)}\n" + "\n".join(notes) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_options(parser, StyleConfig)


def main(arguments: argparse.Namespace) -> None:
    """Run the measure and print its tables."""
    run_measure(from_arguments(StyleConfig, arguments), "style", measure)
