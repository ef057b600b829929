"""MiDaS v2.1 small against the public definition's keys, and against values that it was measured to give.

The golden output was computed in float64 by the public network definition (isl-org/MiDaS with geffnet's encoder)
with the weights of `models.midas_state`. The authors' own file was not at hand.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import load_file, save_file

from cnc_core.perception import PerceptionError, available, depth_map, estimate, load_depth
from cnc_core.perception.midas import MidasEstimator, load_midas, network_size
from cnc_core.perception.registry import BUILT_IN
from devtools.launch import complete_torchvision

from .models import MIDAS_KEYS, make_depth_anything, make_midas, midas_state


@pytest.fixture(scope="module", autouse=True)
def timm() -> None:
    complete_torchvision()
    pytest.importorskip("timm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("depth_estimation")
    make_midas(folder / "midas_v21_small_256.pt")
    return folder


@pytest.fixture(scope="module")
def estimator(folder: Path) -> MidasEstimator:
    return load_midas(folder / "midas_v21_small_256.pt")


def test_every_key_and_shape_is_the_public_definitions(estimator: MidasEstimator) -> None:
    found = [f"{key}\t{'x'.join(map(str, value.shape))}" for key, value in estimator.network.state_dict().items()]
    assert sorted(found) == sorted(MIDAS_KEYS.read_text().splitlines())


def test_the_network_computes_what_the_public_definition_does(estimator: MidasEstimator, data: Path) -> None:
    golden = load_file(data / "midas_v21_small_golden.safetensors")["out"]
    seen = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = estimator.network(seen)[:1]
    assert (found - golden).norm() / golden.norm() < 1e-5


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (192, 256)), ((6000, 8000), (192, 256)), ((100, 40), (256, 96)), ((1, 1), (256, 256)),
     ((10, 2000), (32, 256))],
)  # fmt: skip
def test_the_network_sees_256_pixels(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network_size(*size) == expected


def test_pictures_are_resized_and_normalised_as_the_authors_do(estimator: MidasEstimator) -> None:
    image = torch.rand(1, 90, 120, 3)
    raw = torch.from_numpy(cv2.resize(image[0].numpy(), (256, 192), interpolation=cv2.INTER_CUBIC))
    assert torch.allclose(estimator.prepare(image, preprocessing="release")[0], raw.movedim(-1, 0), atol=1e-5)
    normal = (raw - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(estimator.prepare(image)[0], normal.movedim(-1, 0), atol=1e-4)


def test_a_batch_keeps_its_size_and_is_as_one_by_one(folder: Path) -> None:
    assert available("depth", [folder]) == [*BUILT_IN["depth"], "midas_v21_small_256.pt"]
    estimator = load_depth("midas_v21_small_256.pt", [folder])
    image = torch.rand(2, 70, 110, 3)
    together = estimate(estimator, image)
    assert together.shape == (2, 70, 110)
    for index in range(2):
        alone = estimate(estimator, image[index : index + 1])[0]
        assert (together[index] - alone).norm() / alone.norm() < 1e-5
    depth = depth_map(estimator, image)
    assert depth.amin() == 0 and depth.amax() == 1


def test_half_precision_and_safetensors(folder: Path, tmp_path: Path, estimator: MidasEstimator) -> None:
    save_file(midas_state(), tmp_path / "midas.safetensors")
    half = load_midas(tmp_path / "midas.safetensors", dtype=torch.float16)
    assert {value.dtype for value in half.network.parameters()} == {torch.float16}
    seen = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        full, found = estimator.network(seen), half.network(seen)
    assert found.dtype == torch.float16
    assert 0 < (found - full).norm() / full.norm() < 2e-2
    assert half.finish(found, 8, 9).dtype == torch.float32


def test_a_file_without_the_counters_of_training_loads(tmp_path: Path) -> None:
    state = {name: value for name, value in midas_state().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pt")
    load_midas(tmp_path / "old.pt")


def test_wrong_files_are_told(folder: Path, tmp_path: Path) -> None:
    state = midas_state()
    del state["scratch.layer1_rn.weight"]
    state["scratch.extra"] = torch.zeros(1)
    state["scratch.output_conv.4.weight"] = torch.zeros(2, 32, 1, 1)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(PerceptionError) as caught:
        load_midas(tmp_path / "other.pt")
    for part in (
        "1 weights are missing, such as scratch.layer1_rn.weight",
        "1 weights are unknown, such as scratch.extra",
        "scratch.output_conv.4.weight (2, 32, 1, 1) for (1, 32, 1, 1)",
    ):
        assert part in str(caught.value)

    torch.save({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)}, tmp_path / "sd.pt")
    with pytest.raises(PerceptionError, match=r"does not hold MiDaS.*it is a diffusion U-Net"):
        load_midas(tmp_path / "sd.pt")

    whole = (folder / "midas_v21_small_256.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PerceptionError, match=r"cut short or damaged.*expected the weights of MiDaS"):
        load_midas(tmp_path / "cut.pt")


def test_the_weights_of_a_transformers_folder_are_not_taken_for_midas(tmp_path: Path) -> None:
    make_depth_anything(tmp_path / "small")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "midas.pt").touch()
    assert available("depth", [tmp_path]) == [*BUILT_IN["depth"], "small", "sub/midas.pt"]


def test_without_timm_it_says_what_to_install(root: Path, folder: Path) -> None:
    script = (
        "import sys; sys.modules['timm'] = None\n"
        "from pathlib import Path\n"
        "from cnc_core.perception import PerceptionError, load_depth\n"
        "try:\n    load_depth('midas_v21_small_256.pt', [Path(sys.argv[1])])\n"
        "except PerceptionError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert f"{sys.executable} -m pip install timm" in done.stdout, done.stderr
