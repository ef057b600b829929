"""Depth models of the transformers library, in their real formats with made-up weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from cnc_core.perception import (
    PerceptionError,
    available,
    depth_map,
    estimate,
    load_depth,
    load_transformers_depth,
)
from devtools.launch import complete_torchvision


@pytest.fixture(scope="module", autouse=True)
def quiet_transformers() -> None:
    complete_torchvision()
    pytest.importorskip("transformers")
    logging.getLogger("transformers").setLevel(logging.ERROR)


def make_dpt(folder: Path) -> Path:
    """A DPT, the architecture of the release's depth model, at a tiny size."""
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    torch.manual_seed(0)
    config = DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
    )
    DPTForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def make_depth_anything(folder: Path, **options: object) -> Path:
    """A Depth Anything V2 at a tiny size."""
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessor,
    )

    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=70,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
        **options,
    )
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(
        size={"height": 70, "width": 70},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("depth_estimation")
    make_dpt(folder / "dpt-large")
    make_depth_anything(folder / "depth-anything" / "small")
    return folder


def expected(folder: Path, image: torch.Tensor) -> torch.Tensor:
    """What the library's own pipeline says of one picture given as 8-bit, (H, W)."""
    from PIL import Image
    from transformers import pipeline

    estimator = pipeline("depth-estimation", model=str(folder), device="cpu")
    return estimator(Image.fromarray((image * 255).round().byte().numpy()))["predicted_depth"]


@pytest.mark.parametrize("name", ["dpt-large", "depth-anything/small"])
def test_loads_keeps_the_size_and_agrees_with_the_librarys_pipeline(models: Path, name: str) -> None:
    estimator = load_depth(name, [models])
    image = (torch.rand(2, 48, 90, 3) * 255).round() / 255
    raw = estimate(estimator, image)
    assert raw.shape == (2, 48, 90)
    for index in range(2):
        reference = expected(models / name, image[index])
        assert (raw[index] - reference).norm() / reference.norm() < 1e-5


def test_release_preprocessing_takes_no_mean_out(models: Path) -> None:
    estimator = load_depth("dpt-large", [models])
    image = (torch.rand(1, 64, 64, 3) * 255).round() / 255
    assert torch.allclose(estimator.prepare(image, preprocessing="release"), image.movedim(-1, 1), atol=1e-6)
    assert torch.allclose(estimator.prepare(image), image.movedim(-1, 1) * 2 - 1, atol=1e-5)


def test_metric_models_are_turned_near_is_large(tmp_path: Path) -> None:
    folder = make_depth_anything(tmp_path / "metric", depth_estimation_type="metric", max_depth=20)
    estimator = load_transformers_depth(folder)
    distance = torch.tensor([[[1.0, 2.0], [4.0, 8.0]]])
    near = estimator.finish(distance, 2, 2)
    assert torch.allclose(near, 1 / distance)


def test_depth_map_through_a_real_architecture(models: Path) -> None:
    depth = depth_map(load_depth("dpt-large", [models]), torch.rand(1, 33, 47, 3))
    assert depth.shape == (1, 33, 47) and depth.min() == 0 and depth.max() == 1


def test_models_are_found_by_their_files(models: Path, tmp_path: Path) -> None:
    (models / "notes").mkdir(exist_ok=True)
    assert available("depth", [tmp_path / "missing", models]) == ["mini", "depth-anything/small", "dpt-large"]


def test_a_name_that_was_not_found_is_never_a_path(models: Path) -> None:
    for name in ("../secret", str(models / "dpt-large"), "notes"):
        with pytest.raises(PerceptionError, match=r"there is mini, depth-anything/small, dpt-large.*into"):
            load_depth(name, [models])


def test_wrong_folders_are_told(models: Path, tmp_path: Path) -> None:
    folder = make_dpt(tmp_path / "broken")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(PerceptionError, match=r"preprocessor_config\.json"):
        load_transformers_depth(folder)

    folder = make_dpt(tmp_path / "foreign")
    (folder / "model.safetensors").write_bytes((models / "depth-anything" / "small" / "model.safetensors").read_bytes())
    with pytest.raises(PerceptionError, match="different models"):
        load_transformers_depth(folder)

    folder = make_dpt(tmp_path / "cut")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(PerceptionError, match=r"does not load as a depth model.*incomplete metadata"):
        load_transformers_depth(folder)


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    folder = make_dpt(tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "remote_depth"
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForDepthEstimation": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nConfig = Model = object\n")
    with pytest.raises(PerceptionError, match="remote"):
        load_transformers_depth(folder)
    assert not (tmp_path / "ran").exists()
