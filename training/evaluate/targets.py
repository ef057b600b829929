"""`python -m training evaluate targets`: what run folders have measured, beside what CnC-Mini was to reach.

    python -m training evaluate targets --runs runs/order runs/style runs/lambda runs/depth --out runs

The shipped model is judged alone; differences are of the model with the baselines' budget (`against` of the runs).
What no run has measured stays in the table, with a dash.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.config import ConfigError, from_arguments, option
from training.config import add_arguments as add_options
from training.files import replacing

from .folder import Row, markdown
from .settings import RUNS
from .statistics import Estimate
from .style import LESS


@dataclass(frozen=True)
class TargetsConfig:
    """Measured figures beside their targets."""

    runs: tuple[Path, ...] = option("run folders", default=(RUNS,))
    main: str = option("the shipped model's arm", default="main")
    ablation: str = option("the arm that was trained without disentanglement", default="ablation")
    single_max: str = option("the arm with one map, the larger of the layers'", default="single_max")
    out: Path = option("the folder of targets.md", default=RUNS)


@dataclass(frozen=True)
class Line:
    """One target: at least `wanted` of the reached figure, or at most where `most`."""

    what: str
    wanted: float
    reached: Estimate | None
    most: bool = False
    percent: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the mean meets the target; None where it was not measured."""
        if self.reached is None:
            return None
        return self.reached.mean <= self.wanted if self.most else self.reached.mean >= self.wanted

    def cells(self) -> list[str]:
        """As a row of the table."""
        wanted = f"{'at most' if self.most else 'at least'} {100 * self.wanted if self.percent else self.wanted:g}"
        if self.reached is None:
            return [self.what, wanted, "-", "-", "not measured"]
        found = self.reached.share() if self.percent else self.reached.number()
        return [self.what, wanted, found, str(self.reached.count), "yes" if self.met else "no"]


def read(runs: tuple[Path, ...]) -> dict[str, list[Row]]:
    """The results of all runs by measure. Raises ConfigError for a folder without any."""
    found: dict[str, list[Row]] = {}
    for run in runs:
        path = run / "results.json"
        if not path.exists():
            raise ConfigError(f"{run} holds no results.json: it is no run folder, or its run has not ended")
        for name, results in json.loads(path.read_text(encoding="utf-8")).items():
            found.setdefault(name, []).append(results)
    return found


def targets(found: dict[str, list[Row]], config: TargetsConfig) -> list[Line]:
    """All targets, in the order in which they were set."""
    main = config.main
    return [
        *_order(found, config),
        *_style(found, main),
        *_curves(found, main),
        *_depth(found, config),
        *_layers(found, main),
    ]


def _estimate(told: Row | None) -> Estimate | None:
    return None if told is None or told["mean"] is None else Estimate(**told)


def _order(found: dict[str, list[Row]], config: TargetsConfig) -> Iterator[Line]:
    lines = {
        (row["arm"], row["way"], row["caption"], row["exemplars"]): row
        for results in found.get("order", []) if not results["equal_depth"] for row in results["rows"]
    }  # fmt: skip
    for exemplars in ("off", "on"):
        words = {"off": "", "on": ", with exemplars"}[exemplars]
        if exemplars == "on" and not any(key[3] == "on" for key in lines):
            continue

        def told(arm: str, way: str, field: str, exemplars: str = exemplars) -> Estimate | None:
            return _estimate(lines.get((arm, way, "full", exemplars), {}).get(field))

        for way, wanted in (("as asked", 0.95), ("roles exchanged", 0.95), ("maps exchanged", 0.9)):
            yield Line(f"order, {way}{words}: success, %", wanted, told(config.main, way, "both"))
        for arm, way, wanted in (
            (config.ablation, "roles exchanged", 0.3), (config.ablation, "as asked", 0.1),
            (config.single_max, "roles exchanged", 0.2),
        ):  # fmt: skip
            yield Line(f"order, {way}{words}: above {arm}, points", wanted, told(arm, way, "against_less_this"))


def _plain_style(found: dict[str, list[Row]]) -> list[Row]:
    return [
        r for r in found.get("style", []) if r["caption"] == "empty" and not r["same_maps"] and not r["same_exemplar"]
    ]


def _style(found: dict[str, list[Row]], main: str) -> Iterator[Line]:
    runs = [r for r in _plain_style(found) if "conflicting" in r["arms"].get(main, {})]
    told = runs[-1]["arms"][main]["conflicting"] if runs else {}
    for region, wanted in (("foreground", 0.95), ("background object", 0.9), ("ground", 0.85), ("sky", 0.8)):
        count = runs[-1]["scenes"] if runs else 0
        right = runs[-1]["judge"]["true renders"][region] if runs else None
        judge = None if right is None else Estimate(right, right, right, count)
        yield Line(f"the judge on true renders, {region}, %", 0.98, judge)
        yield Line(f"style, {region}, %", wanted, _estimate(told.get(f"{region}, right")))
    beside = runs[-1]["leakage over that without the mask"].get(main, {}) if runs else {}
    leak = "background in the foreground"
    for name in (leak, f"{leak}{LESS}", "background deep in the foreground"):
        yield Line(f"leakage, {name}: over that without the mask", 1 / 3, _estimate(beside.get(name)), True, False)


def _curves(found: dict[str, list[Row]], main: str) -> Iterator[Line]:
    runs = [r for r in _plain_style(found) if "lambda_bg" in r["arms"].get(main, {})]
    told = runs[-1]["arms"][main]["lambda_bg"] if runs else {}
    for kind in ("share", "cosine"):
        value = told.get(f"{kind}, rank correlation")
        correlation = None if value is None else Estimate(value, value, value, runs[-1]["scenes"])
        yield Line(f"lambda_bg to 1.5 and the background's {kind}: rank correlation", 0.9, correlation, percent=False)
        change = _estimate(told.get(f"{kind}, the other's change over it"))
        size = None if change is None else _magnitude(change)
        what = f"the foreground's change over the background's, {kind}"
        yield Line(what, 0.1, size, most=True, percent=False)


def _magnitude(value: Estimate) -> Estimate:
    """Of a figure that may be negative, how far it is from 0."""
    low, high = sorted((abs(value.low), abs(value.high)))
    return Estimate(abs(value.mean), 0.0 if value.low <= 0 <= value.high else low, high, value.count)


def _depth(found: dict[str, list[Row]], config: TargetsConfig) -> Iterator[Line]:
    runs = found.get("depth", [])
    arms = runs[-1]["arms"] if runs else {}
    for layer in ("foreground", "background"):
        own = _estimate(arms.get("true renders", {}).get(layer))
        yield Line(f"depth of true renders, {layer}: the estimator's error", 0.03, own, most=True, percent=False)
        error = _estimate(arms.get(config.main, {}).get(layer))
        yield Line(f"depth of reconstructions, {layer}: error", 0.05, error, most=True, percent=False)
        for arm in (config.ablation, config.single_max):
            less = _estimate(arms.get(arm, {}).get("against_less_this", {}).get(layer))
            yield Line(f"depth of reconstructions, {layer}: less that of {arm}", 0.0, less, most=True, percent=False)


def _layers(found: dict[str, list[Row]], main: str) -> Iterator[Line]:
    rows = {
        (results["layers"], name.removeprefix(f"{main}: ")): row
        for results in found.get("layers", []) for name, row in results["rows"].items() if name.startswith(f"{main}: ")
    }  # fmt: skip

    def told(layers: int, row: str, figure: str) -> Estimate | None:
        return _estimate(rows.get((layers, row), {}).get(figure))

    for layers, condition, wanted in ((3, "as asked", 0.9), (3, "reversed", 0.88), (4, "as asked", 0.8)):
        reached = told(layers, f"layers, {condition}", "all pairs")
        yield Line(f"{layers} layers, {condition}: all neighbouring pairs in order, %", wanted, reached)
    above = told(3, "z-buffer, as asked", "first row less this, all pairs")
    yield Line("3 layers, as asked: order above a z-buffered map, points", 0.3, above)
    for condition, wanted in (("as asked", 0.95), ("looks", 0.93)):
        reached = told(3, f"layers, {condition}", "material, mean")
        yield Line(f"3 layers, {condition}: layers that show their material, %", wanted, reached)
    leakage = told(3, "layers, as asked", "leakage")
    yield Line("3 layers, as asked: another layer's material in a layer, %", 0.03, leakage, most=True)
    both = told(2, "layers, ambiguous caption, words by layer", "material, all")
    yield Line("2 layers, ambiguous caption, words by layer: both materials, %", 0.95, both)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_options(parser, TargetsConfig)


def main(arguments: argparse.Namespace) -> None:
    """Write and print the table."""
    config = from_arguments(TargetsConfig, arguments)
    lines = targets(read(config.runs), config)
    header = ["measured", "target", "reached [95 %]", "scenes", "met"]
    table = f"## Targets\n\n{markdown(header, [line.cells() for line in lines])}"
    config.out.mkdir(parents=True, exist_ok=True)
    with replacing(config.out / "targets.md") as unfinished:
        unfinished.write_text(table, encoding="utf-8")
    print(table)
