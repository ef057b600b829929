"""Targets beside what run folders hold, and the recipes of the evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.config import ConfigError, load_config
from training.evaluate.depth import DepthConfig
from training.evaluate.folder import RunFolder
from training.evaluate.generate import GenerateConfig
from training.evaluate.order import OrderConfig
from training.evaluate.style import StyleConfig
from training.evaluate.targets import TargetsConfig, read, targets

RECIPES = {
    "evaluate_order_equal_depth": OrderConfig,
    "evaluate_modes": StyleConfig,
    "evaluate_conflicting_text": StyleConfig,
    "evaluate_conflicting_exemplars": StyleConfig,
    "evaluate_depth_versions": DepthConfig,
    "generate_conflicting_text": GenerateConfig,
    "generate_conflicting_exemplars": GenerateConfig,
    "generate_table_1": GenerateConfig,
}


def test_recipes_are_configs(root: Path) -> None:
    folder = root / "training" / "recipes"
    named = {path.stem for kind in ("evaluate", "generate") for path in folder.glob(f"{kind}_*.toml")}
    assert named == set(RECIPES)
    for name, config in RECIPES.items():
        load_config(config, folder / f"{name}.toml")


def told(mean: float, half: float = 0.01) -> dict[str, Any]:
    return {"mean": mean, "low": mean - half, "high": mean + half, "count": 500}


def order(arm: str, way: str, mean: float, less: float | None = None) -> dict[str, Any]:
    beside = None if less is None else told(less)
    return {
        "arm": arm, "way": way, "caption": "full", "exemplars": "off", "both": told(mean), "against_less_this": beside
    }  # fmt: skip


def test_every_target_stands_in_the_table_met_or_missed_or_not_measured(tmp_path: Path) -> None:
    rows = [
        order("main", "as asked", 0.96), order("main", "roles exchanged", 0.94), order("main", "maps exchanged", 0.91),
        order("ablation", "roles exchanged", 0.5, 0.44), order("ablation", "as asked", 0.9, 0.06),
        {**order("main", "as asked", 0.2), "caption": "empty"},
    ]  # fmt: skip
    RunFolder(tmp_path).finish("order", {"equal_depth": False, "rows": rows}, "")
    lines = {line.what: line for line in targets(read((tmp_path,)), TargetsConfig())}
    met = {what: line.met for what, line in lines.items() if line.reached is not None}
    assert met == {
        "order, as asked: success, %": True,
        "order, roles exchanged: success, %": False,
        "order, maps exchanged: success, %": True,
        "order, roles exchanged: above ablation, points": True,
        "order, as asked: above ablation, points": False,
    }
    assert lines["order, roles exchanged: above single_max, points"].cells()[-1] == "not measured"
    assert lines["order, roles exchanged: success, %"].cells() == [
        "order, roles exchanged: success, %", "at least 95", "94.0 [93.0, 95.0]", "500", "no"
    ]  # fmt: skip
    assert len(lines) == 6 + 8 + 3 + 4 + 8 + 8, "those of order, regions, leakage, curves, depth and layers"
    others = targets(read((tmp_path,)), TargetsConfig(main="ablation", ablation="local_ablation", single_max="main"))
    assert [line.reached and line.reached.mean for line in others[:3]] == [0.9, 0.5, None]
    assert [line.what for line in others[3:6]] == [
        "order, roles exchanged: above local_ablation, points", "order, as asked: above local_ablation, points",
        "order, roles exchanged: above main, points",
    ]  # fmt: skip


def test_layers_are_judged_by_their_number_and_condition(tmp_path: Path) -> None:
    runs = []
    for layers, order in ((3, 0.91), (4, 0.79)):
        runs.append(tmp_path / str(layers))
        rows = {
            "main: layers, as asked": {"all pairs": told(order), "material, mean": told(0.96), "leakage": told(0.02)},
            "main: z-buffer, as asked": {"first row less this, all pairs": told(0.4)},
            "other: layers, reversed": {"all pairs": told(0.99)},
        }
        RunFolder(runs[-1]).finish("layers", {"layers": layers, "rows": rows}, "")
    lines = targets(read(tuple(runs)), TargetsConfig())
    assert {line.what: line.met for line in lines if line.reached is not None} == {
        "3 layers, as asked: all neighbouring pairs in order, %": True,
        "4 layers, as asked: all neighbouring pairs in order, %": False,
        "3 layers, as asked: order above a z-buffered map, points": True,
        "3 layers, as asked: layers that show their material, %": True,
        "3 layers, as asked: another layer's material in a layer, %": True,
    }


def test_equal_depths_and_other_style_settings_are_other_measures(tmp_path: Path) -> None:
    RunFolder(tmp_path).finish("order", {"equal_depth": True, "rows": [order("main", "as asked", 1.0)]}, "")
    style = {"caption": "full", "same_maps": False, "same_exemplar": False, "arms": {"main": {"conflicting": {}}}}
    RunFolder(tmp_path).finish("style", style, "")
    assert all(line.reached is None for line in targets(read((tmp_path,)), TargetsConfig()))


def test_the_foregrounds_change_counts_in_either_direction(tmp_path: Path) -> None:
    curve = {
        "share, rank correlation": 0.95, "share, the other's change over it": told(-0.2),
        "cosine, rank correlation": 0.5, "cosine, the other's change over it": told(0.005),
    }  # fmt: skip
    style = {
        "caption": "empty", "same_maps": False, "same_exemplar": False, "scenes": 500,
        "arms": {"main": {"lambda_bg": curve}},
    }  # fmt: skip
    RunFolder(tmp_path).finish("style", style, "")
    found = [line for line in targets(read((tmp_path,)), TargetsConfig()) if line.reached is not None]
    assert [line.met for line in found] == [True, False, False, True]
    assert found[3].reached is not None and found[3].reached.low == 0.0, "its interval holds no change at all"


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run folder"):
        read((tmp_path,))
    (tmp_path / "results.json").write_text(json.dumps({}))
    assert read((tmp_path,)) == {}
