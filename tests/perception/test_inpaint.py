"""Inpainting: what is known stays to the bit, what is hidden does not show through."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnc_core.perception import (
    DILATION,
    FEATHER,
    Inpainter,
    OpenCVInpainter,
    PerceptionError,
    dilate,
    inpaint,
    load_inpainter,
)

from . import lama_files, onnx_files

METHODS = ["telea", "navier-stokes"]
INPAINTERS = [*METHODS, "migan.onnx", "lama.safetensors"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a small model of each kind of file."""
    folder = tmp_path_factory.mktemp("inpaint")
    onnx_files.migan_pipeline(folder / "migan.onnx")
    lama = lama_files.write_safetensors(lama_files.make_lama(), folder / "lama.safetensors")
    yield folder
    lama.unlink()  # 200 MB


@pytest.fixture(params=INPAINTERS)
def painter(request: pytest.FixtureRequest, models: Path) -> Inpainter:
    return load_inpainter(request.param, [models])


class White:
    """Fills with white, so that the picture shows how much of each pixel was filled."""

    network = None

    def prepare(self, image: Tensor, hole: Tensor) -> Tensor:
        return torch.ones_like(image)

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        return output


def ramp(height: int, width: int) -> Tensor:
    """A smooth picture, (1, H, W, 3)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack((y, x, (x + y) / 2), dim=-1)[None]


def square(height: int, width: int, *, size: int, top: int, left: int) -> Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, max(0, top) : top + size, max(0, left) : left + size] = 1
    return mask


@pytest.mark.parametrize(("height", "width", "dilation"), [(64, 90, 50), (40, 30, 0), (20, 20, 130), (512, 16, 64)])
def test_dilation_is_a_square_brush_scaled_to_the_shorter_side(height: int, width: int, dilation: int) -> None:
    mask = (torch.rand(2, height, width, generator=torch.Generator().manual_seed(0)) > 0.995).float()
    radius = round(dilation / 2 * min(height, width) / 512)
    expected = np.zeros(mask.shape, dtype=np.float32)
    for batch, y, x in mask.nonzero().tolist():
        expected[batch, max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1] = 1
    np.testing.assert_array_equal(dilate(mask, dilation).numpy(), expected)


def test_a_wide_brush_on_a_large_picture_is_quick() -> None:
    mask = square(4096, 4096, size=100, top=1990, left=2000)
    began = time.monotonic()
    hole = dilate(mask, 512)
    assert time.monotonic() - began < 2
    assert torch.equal(hole, square(4096, 4096, size=100 + 2 * 2048, top=1990 - 2048, left=2000 - 2048))


def test_a_brush_wider_than_the_picture_covers_it() -> None:
    mask = square(30, 90, size=1, top=3, left=80)
    assert all(torch.equal(dilate(mask, wide), torch.ones_like(mask)) for wide in (4000, 1e300))


def test_the_releases_brush_at_512() -> None:
    hole = dilate(square(512, 600, size=1, top=200, left=300), 50)
    assert hole.sum() == 51**2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_known_pixels_come_back_to_the_bit_and_the_object_is_gone(painter: Inpainter, dtype: torch.dtype) -> None:
    clean = ramp(96, 128) / 2
    mask = square(96, 128, size=20, top=30, left=50)
    dirty = torch.where(mask[..., None] > 0, torch.ones(3), clean).to(dtype)
    filled = inpaint(painter, dirty, mask)
    hole = dilate(mask) > 0
    assert torch.equal(filled[~hole], dirty[~hole])
    assert filled[mask > 0].max() < 0.99
    assert filled.dtype == dirty.dtype and filled.shape == dirty.shape


@pytest.mark.parametrize("method", METHODS)
def test_what_was_smooth_is_smooth_again(method: str) -> None:
    clean = ramp(96, 128)
    mask = square(96, 128, size=20, top=30, left=50)
    dirty = torch.where(mask[..., None] > 0, torch.ones(3), clean)
    filled = inpaint(load_inpainter(method), dirty, mask, dilation=20)
    assert (filled - clean)[mask > 0].abs().mean() < 0.1 * (dirty - clean)[mask > 0].abs().mean()


def test_what_is_in_the_hole_does_not_matter(painter: Inpainter) -> None:
    clean = ramp(40, 40)
    mask = square(40, 40, size=9, top=10, left=20)
    first, second = (
        inpaint(painter, torch.where(mask[..., None] > 0, torch.full((3,), value), clean), mask, dilation=30)
        for value in (0.0, 1.0)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("height", "width", "dilation", "expected_width"),
    [(512, 600, DILATION, FEATHER), (512, 600, 6, 3), (1024, 1030, 40, 2 * FEATHER), (100, 300, DILATION, 3)],
)
def test_the_fill_fades_in_just_inside_the_holes_edge_and_is_whole_on_the_object(
    height: int, width: int, dilation: float, expected_width: int
) -> None:
    mask = square(height, width, size=height // 3, top=height // 4, left=0)
    mask[:, height // 2, width - 20] = 1
    hole = dilate(mask, dilation)
    filled = inpaint(White(), torch.zeros(1, height, width, 3), mask, dilation=dilation)[..., 0]
    assert (filled[mask > 0] == 1).all()
    inside = F.pad(hole, [expected_width + 2] * 4, value=1)
    distance = torch.full_like(hole, float("inf"))
    reach = range(-expected_width - 2, expected_width + 3)
    for dy in reach:  # every known pixel within reach, one direction after the other
        for dx in reach:
            top, left = expected_width + 2 + dy, expected_width + 2 + dx
            known = inside[:, top : top + height, left : left + width] == 0
            distance = distance.where(~known, distance.clamp(max=(dy**2 + dx**2) ** 0.5))
    expected = (distance / (expected_width + 1)).clamp(max=1)
    assert torch.allclose(filled, expected, atol=1e-5)
    assert ((filled > 0) == (hole > 0)).all()


def test_without_dilation_the_edge_is_hard() -> None:
    mask = square(512, 512, size=100, top=50, left=90)
    filled = inpaint(White(), torch.zeros(1, 512, 512, 3), mask, dilation=0)
    assert torch.equal(filled[..., 0], mask)


def test_a_soft_mask_is_the_object_above_a_half() -> None:
    soft = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    image = ramp(64, 64)
    assert torch.equal(
        inpaint(load_inpainter("telea"), image, soft, dilation=0),
        inpaint(load_inpainter("telea"), image, (soft > 0.5).float(), dilation=0),
    )
    assert torch.equal(dilate(torch.full((1, 4, 4), 0.5), 0), torch.zeros(1, 4, 4))


@pytest.mark.parametrize("method", METHODS)
def test_big_pictures_are_filled_at_the_working_size(method: str) -> None:
    clean = ramp(90, 210)
    mask = square(90, 210, size=30, top=30, left=90)
    dirty = torch.where(mask[..., None] > 0, torch.ones(3), clean)
    filled = inpaint(OpenCVInpainter(method, max_side=64), dirty, mask, dilation=0)
    assert torch.equal(filled[mask == 0], dirty[mask == 0])
    assert (filled - clean)[mask > 0].abs().max() < 0.15


def test_an_empty_mask_changes_nothing() -> None:
    image = ramp(20, 30)
    assert torch.equal(inpaint(load_inpainter("telea"), image, torch.full((1, 20, 30), 0.5)), image)
    pixel = torch.rand(1, 1, 1, 3)
    assert torch.equal(inpaint(load_inpainter("telea"), pixel, torch.zeros(1, 1, 1)), pixel)


def test_pictures_of_a_batch_do_not_meet(painter: Inpainter) -> None:
    images = torch.cat((ramp(32, 32), 1 - ramp(32, 32)))
    masks = torch.cat((square(32, 32, size=8, top=4, left=4), square(32, 32, size=5, top=20, left=9)))
    together = inpaint(painter, images, masks)
    for index in range(2):
        one = inpaint(painter, images[index : index + 1], masks[index : index + 1])
        assert torch.allclose(together[index : index + 1], one, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "mask", "dilation", "message"),
    [
        (ramp(8, 8), torch.ones(1, 8, 8), 0, "covers a whole picture of 8 x 8"),
        (ramp(64, 64), square(64, 64, size=60, top=2, left=2), 50, "Lower the dilation"),
        (ramp(8, 8), torch.zeros(1, 4, 4), 0, r"\(1, 4, 4\).*\(1, 8, 8, 3\)"),
        (ramp(8, 8), torch.zeros(2, 8, 8), 0, r"\(2, 8, 8\)"),
        (ramp(8, 8), torch.zeros(1, 8, 8), -1, "dilation"),
        (ramp(8, 8), torch.zeros(1, 8, 8), float("nan"), "0 or more; got nan"),
        (ramp(8, 8), torch.zeros(1, 8, 8), float("inf"), "0 or more; got inf"),
        (torch.zeros(1, 8, 8, 4), torch.zeros(1, 8, 8), 0, r"\(1, 8, 8, 4\)"),
        (torch.full((1, 8, 8, 3), float("inf")), torch.zeros(1, 8, 8), 0, "192 values"),
    ],
)
def test_bad_input_is_named(image: Tensor, mask: Tensor, dilation: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inpaint(load_inpainter("telea"), image, mask, dilation=dilation)


def test_an_inpainter_that_returns_no_numbers_is_caught() -> None:
    class Broken(White):
        def finish(self, output: Tensor, height: int, width: int) -> Tensor:
            return output * float("nan")

    with pytest.raises(ValueError, match="not numbers: its file is damaged"):
        inpaint(Broken(), ramp(64, 64), square(64, 64, size=9, top=9, left=9))


def test_an_unknown_inpainter_is_told_what_there_is() -> None:
    with pytest.raises(PerceptionError, match=r"lama.*telea, navier-stokes"):
        load_inpainter("lama")


def test_without_opencv_the_user_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(PerceptionError, match=r"need OpenCV.*-m pip install opencv-python"):
        inpaint(load_inpainter("telea"), ramp(8, 8), square(8, 8, size=2, top=3, left=3), dilation=0)
