"""Depth models of the transformers library, in their real formats with made-up weights."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
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
from cnc_core.perception.registry import BUILT_IN
from cnc_core.perception.transformers_depth import MAX_PIXELS
from devtools.launch import complete_torchvision

from .models import make_depth_anything, make_dpt, make_zoedepth


@pytest.fixture(scope="module", autouse=True)
def quiet_transformers() -> None:
    complete_torchvision()
    pytest.importorskip("transformers")
    logging.getLogger("transformers").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("depth_estimation")
    make_dpt(folder / "dpt-large")
    make_depth_anything(folder / "depth-anything" / "small")
    make_zoedepth(folder / "zoedepth")
    return folder


def expected(folder: Path, image: torch.Tensor, **options: object) -> torch.Tensor:
    """What the library's own pipeline says of one picture given as 8-bit, (H, W); options: of its processor."""
    from PIL import Image
    from transformers import AutoImageProcessor, pipeline

    processor = AutoImageProcessor.from_pretrained(folder, **options)
    estimator = pipeline("depth-estimation", model=str(folder), image_processor=processor, device="cpu")
    return estimator(Image.fromarray((image * 255).round().byte().numpy()))["predicted_depth"]


@pytest.mark.parametrize("preprocessing", ["model", "release"])
@pytest.mark.parametrize("size", [(48, 90), (130, 61), (64, 64)])
@pytest.mark.parametrize("name", ["dpt-large", "depth-anything/small", "zoedepth"])
def test_loads_keeps_the_size_and_agrees_with_the_librarys_pipeline(
    models: Path, name: str, size: tuple[int, int], preprocessing: str
) -> None:
    estimator = load_depth(name, [models])
    image = (torch.rand(2, *size, 3) * 255).round() / 255
    found = estimate(estimator, image, preprocessing=preprocessing)
    assert found.shape == (2, *size)
    options = {"do_normalize": False} if preprocessing == "release" else {}
    for index in range(2):
        reference = expected(models / name, image[index], **options)
        values = found[index]
        if name == "zoedepth":  # it gives metres, of which ours is the inverse, at most 1000
            values, reference = 1 / values, reference.clamp(min=1e-3)
        assert (values - reference).norm() / (reference - reference.mean()).norm() < 1e-5


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
    assert available("depth", [tmp_path / "missing", models]) == [
        *BUILT_IN["depth"],
        "depth-anything/small",
        "dpt-large",
        "zoedepth",
    ]


def test_a_name_that_was_not_found_is_never_a_path(models: Path) -> None:
    for name in ("../secret", str(models / "dpt-large"), "notes"):
        with pytest.raises(
            PerceptionError, match=r"there is mini, .*, depth-anything/small, dpt-large, zoedepth\..*into"
        ):
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


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (2000, 3)])
@pytest.mark.parametrize("name", ["dpt-large", "depth-anything/small", "zoedepth"])
def test_pictures_of_any_shape_come_back_at_their_size(models: Path, name: str, size: tuple[int, int]) -> None:
    depth = depth_map(load_depth(name, [models]), torch.rand(1, *size, 3))
    assert depth.shape == (1, *size) and torch.isfinite(depth).all()


def test_a_model_that_takes_pictures_as_they_are_sees_a_bounded_size(tmp_path: Path) -> None:
    folder = make_depth_anything(tmp_path / "any-size")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "do_resize": False}))
    estimator = load_transformers_depth(folder)
    image = torch.rand(1, 1400, 2800, 3)
    seen = estimator.prepare(image)
    assert 0.95 * MAX_PIXELS < seen.shape[2] * seen.shape[3] <= MAX_PIXELS
    assert seen.shape[2] % 14 == seen.shape[3] % 14 == 0
    assert abs(seen.shape[3] / seen.shape[2] - 2) < 0.03
    assert estimator.prepare(image[:, :70, :140]).shape == (1, 3, 70, 140)


@pytest.mark.parametrize("name", ["dpt-large", "depth-anything/small"])
def test_half_precision_is_near_to_full(models: Path, name: str) -> None:
    image = torch.rand(1, 40, 60, 3)
    full = estimate(load_depth(name, [models]), image)
    half = load_depth(name, [models], dtype=torch.float16)
    assert {value.dtype for value in half.network.parameters()} == {torch.float16}
    found = estimate(half, image)
    assert found.dtype == torch.float32
    assert 0 < (found - full).norm() / (full - full.mean()).norm() < 0.05


def test_models_that_give_a_distance_stay_in_full_precision(models: Path) -> None:
    half = load_depth("zoedepth", [models], dtype=torch.float16)
    assert {value.dtype for value in half.network.parameters()} == {torch.float32}


def test_without_transformers_it_says_what_to_install(root: Path, models: Path) -> None:
    script = (
        "import sys; sys.modules['transformers'] = None\n"
        "from pathlib import Path\n"
        "from cnc_core.perception import PerceptionError, load_depth\n"
        "try:\n    load_depth('dpt-large', [Path(sys.argv[1])])\n"
        "except PerceptionError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(models)]
    done = subprocess.run(command, cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert f"{sys.executable} -m pip install transformers" in done.stdout, done.stderr
