"""Depth of reconstructions: alignment by layers, and the estimator's own error on true renders."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from training.config import ConfigError
from training.depth_quality import aligned
from training.evaluate import depth
from training.evaluate.depth import DepthConfig, Reader, aligned_error, errors
from training.evaluate.layers import rendered
from training.mini.render import Layers
from training.mini.scenes import SEEDS, draw_scenes


@pytest.fixture(scope="module")
def layers() -> Layers:
    return rendered(draw_scenes(SEEDS["test"], range(6)))


def test_the_error_is_that_of_the_one_by_one_alignment(layers: Layers) -> None:
    found = layers.depth * 0.7 + 0.2 * torch.rand(layers.depth.shape, generator=torch.Generator().manual_seed(0))
    got = aligned_error(found, layers.depth, layers.mask, layers.mask)
    for k in range(6):
        inside = layers.mask[k] > 0
        one, true = found[k][inside].double(), layers.depth[k][inside].double()
        assert float(got[k]) == pytest.approx(float((aligned(one, true) - true).abs().mean()), abs=1e-5)


def test_scale_and_shift_of_a_layer_do_not_count_but_of_one_layer_against_the_other_do(layers: Layers) -> None:
    moved = torch.where(layers.mask > 0, 0.3 * layers.depth - 0.2, layers.depth)
    found = errors(moved, layers)
    assert found["foreground"].max() < 1e-5 and found["background"].max() < 1e-5
    assert found["foreground, one alignment"].min() > 0.02, "the foreground has gone back"
    same = errors(2 * layers.depth + 1, layers)
    assert all(value.max() < 1e-5 for value in same.values())


def test_a_layer_turned_inside_out_is_not_rescued(layers: Layers) -> None:
    found = errors(1 - layers.depth, layers)
    flat = errors(torch.zeros_like(layers.depth), layers)
    assert torch.allclose(found["background"], flat["background"], atol=1e-5) and flat["background"].min() > 0.05


def test_the_estimator_is_better_on_true_renders_than_on_others(root: Path, layers: Layers) -> None:
    reader = Reader(root / "models" / "mini" / "depth.safetensors")
    own = reader.lines(layers.image, layers, list(range(6)))
    others = reader.lines(layers.image.roll(1, 0), layers, list(range(6)))
    for name in depth.ERRORS:
        assert sum(row[name] for row in own) < sum(row[name] for row in others)
    assert sum(row["background"] for row in own) / 6 < 0.05
    with pytest.raises(ConfigError, match="estimator"):
        Reader(root / "no.safetensors")


def test_a_picture_and_its_mirror_image_are_read_alike(root: Path, layers: Layers) -> None:
    reader = Reader(root / "models" / "mini" / "depth.safetensors")
    mirrored = Layers(**{field.name: getattr(layers, field.name).flip(-1) for field in fields(Layers)})
    one, other = (reader.lines(seen.image, seen, list(range(6))) for seen in (layers, mirrored))
    for row, mirror in zip(one, other, strict=True):
        assert row == pytest.approx(mirror, abs=2e-5)


def test_a_run_compares_arms_and_writes_pictures_for_the_tables(root: Path, tmp_path: Path) -> None:
    mini, other = root / "models" / "mini", tmp_path / "single_max"
    other.mkdir()
    (other / "arm.json").write_text('{"name": "single_max", "conditions": "max"}')
    config = DepthConfig(
        arms=(mini, other), lacking=mini, out=tmp_path / "run", limit=2, steps=1, cfg=1.0, pictures=1, device="cpu",
        estimator=mini / "depth.safetensors",
    )  # fmt: skip
    found = depth.measure(config)["arms"]
    assert list(found) == ["true renders", "main", "single_max"]
    assert set(found["single_max"]["against_less_this"]) == set(depth.ERRORS)
    for name in ("true_renders", "main", "single_max"):
        assert [path.name for path in (tmp_path / "run" / "pictures" / name).iterdir()] == ["00000.png"]
