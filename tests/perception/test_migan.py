"""MI-GAN in an ONNX file: what its pipeline is given, and what becomes of what it returns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cnc_core.perception import PerceptionError, inpaint, load_inpainter
from cnc_core.perception.migan import MIGAN, load_migan
from cnc_core.perception.onnx import OnnxNetwork

from . import onnx_files


@pytest.fixture(scope="module")
def migan(tmp_path_factory: pytest.TempPathFactory) -> MIGAN:
    return load_migan(onnx_files.migan_pipeline(tmp_path_factory.mktemp("migan") / "migan_pipeline_v2.onnx"))


def test_the_pipeline_sees_what_is_known_around_a_wider_hole(migan: MIGAN) -> None:
    """Its result is the mean of the known pixels: 100 of 255 there, 250 beside the hole and in it."""
    image = torch.full((1, 40, 60, 3), 100 / 255)
    mask = torch.zeros(1, 40, 60)
    mask[:, 16:24, 20:30] = 1
    image[:, 13:27, 17:33] = 250 / 255
    filled = inpaint(migan, image, mask, dilation=0)
    assert torch.allclose(filled[mask > 0], torch.tensor(100 / 255))


def test_the_hole_of_a_large_picture_is_wider_by_what_the_pipeline_mixes_when_it_shrinks(migan: MIGAN) -> None:
    image, hole = torch.rand(1, 1300, 20, 3), torch.zeros(1, 1300, 20)
    hole[:, 600:700] = 1
    given = migan.prepare(image, hole)[0, 3]
    rows = given[:, 0].nonzero()
    # 256 pixels for 1300 rows: one working pixel is made from less than 6 rows.
    assert 600 - rows.min() >= 6 + 2 and rows.max() - 699 >= 6 + 2


@pytest.mark.parametrize(("height", "width"), [(1, 9), (2, 2), (3, 40), (8, 100)])
def test_pictures_that_are_too_small_for_the_pipeline(migan: MIGAN, height: int, width: int) -> None:
    image = torch.rand(1, height, width, 3)
    mask = torch.zeros(1, height, width)
    mask[:, 0, 0] = 1
    small = MIGAN(migan.network, max_side=50)
    prepared = small.prepare(image, mask)
    assert min(prepared.shape[2:]) >= 16 and prepared.shape[3] <= max(16, 50)
    filled = inpaint(small, image, mask, dilation=0)
    assert filled.shape == image.shape
    assert torch.equal(filled[mask == 0], image[mask == 0])


def test_another_onnx_model_is_refused_with_what_it_is(tmp_path: Path) -> None:
    onnx_files.mean_of_channels(tmp_path / "isnet.onnx")
    with pytest.raises(
        PerceptionError, match=r"isnet\.onnx is no inpainting model.*input tensor\(float\).*migan_pipeline_v2"
    ):
        load_inpainter("isnet.onnx", [tmp_path])


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    whole = onnx_files.migan_pipeline(tmp_path / "migan.onnx").read_bytes()
    (tmp_path / "migan.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PerceptionError, match=r"migan\.onnx is no ONNX model"):
        load_inpainter("migan.onnx", [tmp_path])


def test_it_runs_picture_by_picture(migan: MIGAN) -> None:
    """The real pipeline fails on more than one; this one would mix them."""
    assert isinstance(migan.network, OnnxNetwork)
    stacked = torch.rand(3, 4, 20, 30)
    stacked[:, 3] = (stacked[:, 3] > 0.9).float()
    together = migan.network(stacked)
    assert torch.equal(together, torch.cat([migan.network(each[None]) for each in stacked]))
