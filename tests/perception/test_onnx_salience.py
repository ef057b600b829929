"""Salience from ONNX files: each family's own preprocessing, told by the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch import Tensor

from cnc_core.perception import PerceptionError, available, estimate, load_saliency

from . import onnx_files, salience_files

SIDE = 32


def pictures(batch: int = 2, height: int = SIDE, width: int = SIDE) -> Tensor:
    return 0.8 * torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(0))


def expected(image: Tensor, mean: object, std: object, *, by_maximum: bool = False) -> np.ndarray:
    """What the tiny models make of pictures of their own size, in float64."""
    values = image.numpy().astype(np.float64)
    if by_maximum:
        values = values / values.max(axis=(1, 2, 3), keepdims=True)
    logits = ((values - np.asarray(mean)) / np.asarray(std)) @ salience_files.CHANNELS.astype(np.float64)
    return 1 / (1 + np.exp(-logits))


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
BY_FILE = {
    "u2net": (salience_files.u2net, {**IMAGENET, "by_maximum": True}),
    "isnet": (salience_files.isnet, {"mean": 0.5, "std": 1.0}),
    "birefnet": (salience_files.birefnet, IMAGENET),
}
BY_NAME = {
    "U2Net_human_seg.onnx": {**IMAGENET, "by_maximum": True},
    "silueta.onnx": {**IMAGENET, "by_maximum": True},
    "isnet-general-use.onnx": {"mean": 0.5, "std": 1.0},
    "isnet-anime.onnx": {"mean": 0.0, "std": 1.0},
}


@pytest.mark.parametrize("family", BY_FILE)
def test_a_family_is_told_by_what_the_file_gives(tmp_path: Path, family: str) -> None:
    write, preprocessing = BY_FILE[family]
    write(tmp_path / "model.onnx")
    salience = estimate(load_saliency("model.onnx", [tmp_path]), pictures())
    np.testing.assert_allclose(salience.numpy(), expected(pictures(), **preprocessing), atol=1e-6)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_file_that_gives_one_map_alone_is_told_by_its_name(tmp_path: Path, name: str) -> None:
    salience_files.write_salience(tmp_path / name)
    salience = estimate(load_saliency(name, [tmp_path]), pictures())
    np.testing.assert_allclose(salience.numpy(), expected(pictures(), **BY_NAME[name]), atol=1e-6)


@pytest.mark.parametrize("write", [salience_files.u2net, salience_files.isnet, salience_files.birefnet])
def test_release_preprocessing_is_the_raw_picture(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    write(tmp_path / "model.onnx")
    salience = estimate(load_saliency("model.onnx", [tmp_path]), pictures(), preprocessing="release")
    np.testing.assert_allclose(salience.numpy(), expected(pictures(), mean=0.0, std=1.0), atol=1e-6)


@pytest.mark.parametrize(("side", "works_at"), [(48, (48, 48)), ("side", (320, 320))])
def test_the_network_works_at_the_files_size_or_else_the_familys(
    tmp_path: Path, side: int | str, works_at: tuple[int, int]
) -> None:
    salience_files.write_salience(tmp_path / "u2netp.onnx", side=side)
    estimator = load_saliency("u2netp.onnx", [tmp_path])
    assert estimator.prepare(pictures(1, 50, 20)).shape[2:] == works_at


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 300), (90, 40)])
def test_any_size_comes_back_in_range(tmp_path: Path, height: int, width: int) -> None:
    salience_files.isnet(tmp_path / "model.onnx")
    salience = estimate(load_saliency("model.onnx", [tmp_path]), pictures(3, height, width))
    assert salience.shape == (3, height, width)
    assert 0 <= salience.min() and salience.max() <= 1


def test_an_even_picture_is_even_wherever_it_is_resized(tmp_path: Path) -> None:
    salience_files.isnet(tmp_path / "model.onnx")
    grey = torch.full((1, 45, 77, 3), 0.25)
    salience = estimate(load_saliency("model.onnx", [tmp_path]), grey)
    torch.testing.assert_close(salience, torch.sigmoid(torch.tensor(-0.25)).expand(1, 45, 77))


def test_a_black_picture_is_no_division_by_nothing(tmp_path: Path) -> None:
    salience_files.u2net(tmp_path / "model.onnx")
    salience = estimate(load_saliency("model.onnx", [tmp_path]), torch.zeros(1, 8, 8, 3))
    assert torch.isfinite(salience).all()


def test_files_below_a_folder_are_listed_beside_the_built_in_ones(tmp_path: Path) -> None:
    salience_files.isnet(tmp_path / "general" / "isnet.onnx")
    (tmp_path / "notes.txt").write_text("no model")
    names = available("saliency", [tmp_path])
    assert "mini" in names and "general/isnet.onnx" in names and "notes.txt" not in names


def inpainting(path: Path) -> Path:
    picture, mask = (TensorProto.UINT8, [1, 3, 8, 8]), (TensorProto.UINT8, [1, 1, 8, 8])
    node = onnx_files.helper.make_node("Max", ["image", "mask"], ["result"])
    return onnx_files.write(path, [node], {"image": picture, "mask": mask}, {"result": picture})


def lacking_its_sigmoid(path: Path) -> Path:
    return salience_files.write_salience(path, maps=6, sigmoid=False)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("migan.onnx", inpainting, r"migan\.onnx is no salience model.*of image tensor\(uint8\)\(1, 3, 8, 8\), mask"),
        ("removal.onnx", salience_files.write_salience, r"removal\.onnx.*neither the file nor its name.*begin with"),
        ("model.onnx", lacking_its_sigmoid, r"from -0\.\d+.*without its last sigmoid"),
        ("truncated.onnx", lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch"), "no ONNX model"),
    ],
)
def test_the_wrong_file_is_told(tmp_path: Path, name: str, write: Callable[[Path], object], message: str) -> None:
    write(tmp_path / name)
    with pytest.raises(PerceptionError, match=message):
        estimate(load_saliency(name, [tmp_path]), pictures())
