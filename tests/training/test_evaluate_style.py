"""Style by regions: who is judged, on which pixels, and that leakage is seen where it was planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.config import ConfigError
from training.evaluate import judge as judging
from training.evaluate import style
from training.evaluate.exemplars import Stage, cast
from training.evaluate.folder import Row
from training.evaluate.judge import Judge, JudgeConfig, accuracy, network, shares
from training.evaluate.layers import CLASSES, class_map, classes, ground_mask, regions, rendered
from training.evaluate.sampling import Arm
from training.evaluate.style import REGIONS, StyleConfig, conflicting, curve, judged
from training.mini.scenes import SEEDS, draw_scenes
from training.mini.world import BACKDROPS


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage.build(4)


@pytest.fixture(scope="module")
def main_arm(root: Path) -> Arm:
    return Arm.load(root / "models" / "mini", root / "models" / "mini")


def test_exemplars_conflict_with_the_layout_and_with_each_other(stage: Stage) -> None:
    given = stage.cast
    everyone = zip(given.layouts, given.fg, given.bg, given.other_fg, given.other_bg, strict=True)
    for layout, fg, bg, other_fg, other_bg in everyone:
        materials = [layout.front.material, layout.back.material, fg.front.material, bg.back.material]
        assert len(set(materials)) == 4
        assert bg.ground not in (layout.ground, fg.ground) and bg.backdrop not in (layout.backdrop, fg.backdrop)
        assert other_fg.front.material not in materials and other_bg.back.material not in materials
        assert other_bg.ground != bg.ground and other_bg.backdrop != bg.backdrop
    again = cast(2)[0]
    assert again.fg[0].caption == given.fg[0].caption and again.indices == given.indices[:2]


def test_the_ground_ends_where_the_render_has_it_end() -> None:
    scenes = draw_scenes(SEEDS["segmenter"], range(24))
    layers, ground = rendered(scenes), ground_mask(scenes)
    for k, scene in enumerate(scenes):
        free = 1 - layers.back_mask[k, 0]
        nearer = layers.bg_depth[k, 0] > layers.bg_depth[k, 0].amin() + 0.004  # the backdrop is the farthest of all
        differing = ((nearer.float() != ground[k, 0]) * free).sum(1)  # some where the object's outline is mixed in
        rows = (differing > 0.3 * free.sum(1)).sum()
        assert rows <= 1, f"{BACKDROPS[scene.backdrop].name}: {rows} rows, more than the one at the horizon"


def test_regions_cover_the_picture_once_and_name_what_is_there(stage: Stage) -> None:
    found = regions(stage.layers, stage.cast.layouts)
    assert tuple(found) == REGIONS
    assert torch.equal(torch.stack(list(found.values())).sum(0), torch.ones_like(stage.layers.mask))
    labels = class_map(stage.layers, stage.cast.layouts)
    for k, scene in enumerate(stage.cast.layouts):
        for name, index in classes(scene).items():
            assert (labels[k][found[name][k, 0] > 0] == index).all()
            assert CLASSES[index] in scene.caption


def test_shares_are_counts_over_the_region() -> None:
    found = torch.tensor([[[0, 0, 3], [3, 3, 5]]])
    region = torch.tensor([[[[1.0, 1, 1], [1, 0, 0]]]])
    share = shares(found, region)[0]
    assert share[0] == 0.5 and share[3] == 0.5 and share.sum() == 1
    assert shares(found, torch.zeros_like(region)).sum() == 0


class Oracle(Judge):
    """Answers with given labels, whatever the picture."""

    def __init__(self, labels: torch.Tensor) -> None:
        self.labels, self.hash = labels, "oracle"

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.labels


def ideal(stage: Stage) -> torch.Tensor:
    """The labels of pictures in which each region shows its own exemplar."""
    labels = torch.zeros_like(stage.layers.mask[:, 0], dtype=torch.long)
    cast = stage.cast
    asked = [classes(*who) for who in zip(cast.layouts, cast.fg, cast.bg, strict=True)]
    for name, region in regions(stage.layers, cast.layouts).items():
        values = torch.tensor([row[name] for row in asked])[:, None, None]
        labels = torch.where(region[:, 0] > 0, values, labels)
    return labels


def lines(stage: Stage, arm: Arm, labels: torch.Tensor) -> list[Row]:
    return judged(Oracle(labels), arm, stage, slice(0, 4), stage.layers.image)


def test_what_each_exemplar_shows_in_its_region_is_right_without_leakage(stage: Stage, main_arm: Arm) -> None:
    for row in lines(stage, main_arm, ideal(stage)):
        assert all(row[f"{name}, right"] and row[f"{name}, share"] == 1 for name in REGIONS)
        assert row["background, share"] == 1
        assert row["background in the foreground"] == row["foreground in the background"] == 0


def test_true_renders_of_what_is_asked_show_it_everywhere_and_hardly_leak(
    stage: Stage, main_arm: Arm, root: Path
) -> None:
    judge = Judge.load(root / judging.PATH)
    found = {other: style.answered(judge, main_arm, stage, other).rows for other in (None, "fg", "bg")}
    for row in found[None]:
        assert row["foreground, right"] and row["background object, right"]
        assert row["sky, right"], "a wall in place of a sky covers some of the ground, but not the other way round"
    wrong = [row["foreground, right"] for row in found["fg"]] + [row["background object, right"] for row in found["bg"]]
    assert not any(wrong), "an unrelated exemplar is another one"
    for name, values in style.leaks(found[None], found).items():
        assert abs(values.mean()) < 0.06, name


def test_planted_leakage_is_measured_in_either_direction(stage: Stage, main_arm: Arm) -> None:
    labels, cast, inside = ideal(stage), stage.cast, stage.layers.mask[:, 0] > 0
    for k, (fg, bg) in enumerate(zip(cast.fg, cast.bg, strict=True)):
        places = inside[k].nonzero()[::3]  # a third of the foreground takes the background object's material
        labels[k, places[:, 0], places[:, 1]] = bg.back.material
        places = (~inside[k]).nonzero()[::10]  # a tenth of the rest the foreground's
        labels[k, places[:, 0], places[:, 1]] = fg.front.material
    rows = lines(stage, main_arm, labels)
    floor = lines(stage, main_arm, ideal(stage))
    found = conflicting(rows, floor, floor)
    for name, share in (("background in the foreground", 1 / 3), ("foreground in the background", 0.1)):
        assert found[name]["mean"] == pytest.approx(share, abs=0.005)
    assert all(row["foreground, right"] for row in rows), "the majority is still right"
    itself = conflicting(rows, rows, rows)
    assert itself["background in the foreground"]["mean"] == 0, "what an unrelated exemplar shows as well is the floor"


def test_an_outline_out_of_place_is_no_leakage_away_from_it(stage: Stage, main_arm: Arm) -> None:
    labels, mask = ideal(stage), stage.layers.mask
    inner = -torch.nn.functional.max_pool2d(-mask, 5, 1, 2)
    outer = torch.nn.functional.max_pool2d(mask, 5, 1, 2)
    for k, (fg, bg) in enumerate(zip(stage.cast.fg, stage.cast.bg, strict=True)):
        labels[k][(mask - inner)[k, 0] > 0] = bg.back.material
        labels[k][(outer - mask)[k, 0] > 0] = fg.front.material
    for row in lines(stage, main_arm, labels):
        assert row["background in the foreground"] > 0.05 and row["foreground in the background"] > 0.005
        assert row["background deep in the foreground"] == row["foreground far from its outline"] == 0


def test_skies_and_walls_are_told_apart_by_what_the_depth_map_has(stage: Stage) -> None:
    one = stage.cast.of_one_kind
    for agrees, layout, bg in zip(one, stage.cast.layouts, stage.cast.bg, strict=True):
        assert agrees == (("wall" in BACKDROPS[layout.backdrop].name) == ("wall" in BACKDROPS[bg.backdrop].name))
    found = style.by_kind([{"sky, right": right} for right in (True, True, False, False)], [True, True, True, False])
    assert found["sky, right, of one kind"]["mean"] == pytest.approx(2 / 3)
    assert found["sky, right, of two kinds"]["mean"] == 0


def test_the_layouts_own_look_is_wrong_everywhere(stage: Stage, main_arm: Arm) -> None:
    for row in lines(stage, main_arm, class_map(stage.layers, stage.cast.layouts)):
        assert not any(row[f"{name}, right"] for name in REGIONS)


def test_cosines_are_of_the_masked_picture_and_the_exemplar(stage: Stage, main_arm: Arm) -> None:
    (row, *_) = lines(stage, main_arm, ideal(stage))
    picture, mask = stage.layers.image[:1], stage.layers.mask[:1]
    for name, part, exemplar in (
        ("foreground", picture * mask, stage.fg[:1]), ("background", picture * (1 - mask), stage.bg[:1])
    ):  # fmt: skip
        one, other = main_arm.mini.embed(part)[0], main_arm.mini.embed(exemplar)[0]
        assert row[f"{name}, cosine"] == pytest.approx(float(one @ other / one.norm() / other.norm()), abs=1e-4)


def made_curve(background: list[float], foreground: list[float]) -> Row:
    rng = np.random.default_rng(0)
    points = {}
    for value, bg, fg in zip((0.0, 0.5, 1.0, 1.5, 2.0), background, foreground, strict=True):
        noise = 0.01 * rng.normal(size=(200, 2))
        points[value] = [
            {**dict.fromkeys(style.CURVES, 0.0), "background, share": bg + a, "foreground, share": fg + b,
             "background, cosine": bg + a, "foreground, cosine": fg + b}
            for a, b in noise
        ]  # fmt: skip
    return curve(points, "lambda_bg")


def test_a_rising_curve_has_rank_correlation_one_whatever_comes_after_the_target_range() -> None:
    found = made_curve([0.1, 0.4, 0.7, 0.9, 0.2], [0.95, 0.95, 0.94, 0.93, 0.1])
    assert found["share, rank correlation"] == 1.0
    assert found["share, rise"]["mean"] == pytest.approx(0.8, abs=0.01)
    assert found["share, the other's change over it"]["mean"] == pytest.approx(-0.025, abs=0.005)


def test_a_foreground_that_follows_the_background_is_seen() -> None:
    found = made_curve([0.1, 0.4, 0.7, 0.9, 0.9], [0.9, 0.5, 0.3, 0.8, 0.8])
    assert found["share, the other's change over it"]["mean"] == pytest.approx(-0.6 / 0.8, abs=0.02), (
        "even if it returns"
    )


def test_a_judge_learns_from_the_segmenters_scenes(root: Path, tmp_path: Path) -> None:
    config = JudgeConfig(
        models=root / "models" / "mini", out=tmp_path / "judge.safetensors", scenes=12, steps=12, batch=4, tested=4,
        device="cpu",
    )  # fmt: skip
    judging.write(config, judging.train(config))
    judge = Judge.load(config.out)
    scenes = draw_scenes(SEEDS["segmenter"], range(12))
    layers = rendered(scenes)
    pixels = accuracy(judge, layers.image, layers, scenes)["pixels"]
    torch.manual_seed(0)
    untrained = accuracy(Judge(network()), layers.image, layers, scenes)["pixels"]
    assert pixels > untrained + 0.1
    assert config.out.stat().st_size < 2_000_000


def test_a_judge_of_other_classes_and_a_missing_one_are_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = JudgeConfig(models=root / "models" / "mini", out=tmp_path / "judge.safetensors")
    with pytest.raises(ConfigError, match="evaluate judge"):
        Judge.load(config.out)
    judging.write(config, network())
    monkeypatch.setattr(judging, "CLASSES", ("other", "classes"))
    with pytest.raises(ConfigError, match="other classes"):
        Judge.load(config.out)


def test_lambdas_have_to_rise_within_the_range() -> None:
    with pytest.raises(ValueError, match="rising"):
        StyleConfig(lambdas=(1.0, 0.5))
    with pytest.raises(ValueError, match="at least two"):
        StyleConfig(lambdas=(1.0, 2.0))


def test_a_run_writes_tables_curves_and_sheets_and_is_resumed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mini, judge = root / "models" / "mini", tmp_path / "judge.safetensors"
    judging.write(JudgeConfig(models=mini, out=judge), network())
    config = StyleConfig(
        arms=(mini,), lacking=mini, judge=judge, out=tmp_path / "run", limit=2, steps=1, cfg=1.0, lambdas=(0.0, 1.0),
        rows=("conflicting", "lambda_bg"), device="cpu",
    )  # fmt: skip
    first = style.measure(config)
    assert {path.name for path in config.out.glob("*.png")} == {"style.png", "style_main_lambda_bg.png"}
    assert "judge on" in (config.out / "style.md").read_text()

    def never(*_: object) -> None:
        raise AssertionError("sampled again")

    monkeypatch.setattr(Arm, "sample", never)
    assert style.measure(config) == first
    with pytest.raises(AssertionError, match="again"):
        style.measure(replace(config, caption="full"))


def test_one_exemplar_for_both_asks_for_all_that_it_shows(stage: Stage, main_arm: Arm) -> None:
    one = stage.with_one_exemplar()
    assert torch.equal(one.bg, stage.fg)
    labels = torch.zeros_like(stage.layers.mask[:, 0], dtype=torch.long)
    for name, region in regions(stage.layers, stage.cast.layouts).items():
        values = torch.tensor([classes(fg)[name] for fg in stage.cast.fg])[:, None, None]
        labels = torch.where(region[:, 0] > 0, values, labels)
    assert all(row[f"{name}, right"] for row in lines(one, main_arm, labels) for name in REGIONS)


def test_leakage_stands_beside_that_of_the_model_without_the_mask(root: Path, tmp_path: Path) -> None:
    mini, judge, without = root / "models" / "mini", tmp_path / "judge.safetensors", tmp_path / "no_mask"
    judging.write(JudgeConfig(models=mini, out=judge), network())
    without.mkdir()
    (without / "arm.json").write_text('{"name": "no_mask", "conditions": "layers", "mask": false}')
    config = StyleConfig(
        arms=(mini, without), lacking=mini, judge=judge, out=tmp_path / "run", limit=2, steps=1, cfg=1.0,
        rows=("conflicting",), device="cpu",
    )  # fmt: skip
    found = style.measure(config)
    beside = found["leakage over that without the mask"]
    assert list(beside) == ["main", style.ANSWERS]
    assert set(beside["main"]) == {*style.LEAKS, *(f"{name}{style.LESS}" for name in style.LEAKS)}
    assert set(beside[style.ANSWERS]) == set(style.LEAKS), "less their own, nothing is left"
    assert (tmp_path / "run" / "style.md").read_text().count(f"| {style.ANSWERS}") == 2
    both = [found["arms"][arm]["conflicting"]["background, cosine"]["mean"] for arm in ("main", "no_mask")]
    assert both[0] != both[1], "the mask acts"


def test_the_shipped_judge_is_right_on_true_renders(root: Path) -> None:
    judge = Judge.load(root / judging.PATH)
    scenes = draw_scenes(SEEDS["test"], range(60))
    layers = rendered(scenes)
    right = accuracy(judge, layers.image, layers, scenes)
    assert sum(right[name] for name in REGIONS) / 4 >= 0.98, right
