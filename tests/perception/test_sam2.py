"""One object by points and a box: SAM 2 against the library's own way to run it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cnc_core.perception import Box, PerceptionError, Point, available, load_selector, parse_box, parse_points, select

from .sam2_files import write_sam2

HEIGHT, WIDTH = 90, 140
ON, OFF = Point(40, 30), Point(100, 70, inside=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models/sam2 with a tiny model, and the same named as the public ones."""
    folder = tmp_path_factory.mktemp("sam2")
    write_sam2(folder / "tiny")
    write_sam2(folder / "video", video=True)
    return folder


def pictures(batch: int = 1) -> Tensor:
    """Of 8 bits, as files are; half of each is another colour."""
    eight_bits = torch.randint(0, 120, (batch, HEIGHT, WIDTH, 3), generator=torch.Generator().manual_seed(0))
    eight_bits[:, :, WIDTH // 2 :] += 100
    return eight_bits / 255


def by_the_library(folder: Path, image: Tensor, points: tuple[Point, ...], box: Box | None) -> np.ndarray:
    """The mask as the documentation of transformers has it, from a PIL picture."""
    from transformers import Sam2Model, Sam2Processor

    processor, model = Sam2Processor.from_pretrained(folder), Sam2Model.from_pretrained(folder).eval()
    picture = Image.fromarray((image * 255).round().byte().numpy())
    prompts = {}
    if points:
        prompts["input_points"] = [[[[point.x, point.y] for point in points]]]
        prompts["input_labels"] = [[[1 if point.inside else 0 for point in points]]]
    if box:
        prompts["input_boxes"] = [[[box.left, box.top, box.right, box.bottom]]]
    inputs = processor(images=picture, return_tensors="pt", **prompts)
    alone = len(points) == 1 and box is None
    with torch.no_grad():
        outputs = model(**inputs, multimask_output=alone)
    masks = processor.post_process_masks(outputs.pred_masks, inputs["original_sizes"])[0][0]
    return masks[int(outputs.iou_scores[0, 0].argmax())].numpy()


@pytest.mark.parametrize(
    ("points", "box"),
    [
        ((ON,), None),
        ((ON, OFF, Point(60.5, 12)), None),
        ((), Box(10, 15, 80, 75)),
        ((OFF,), Box(10, 15, 80, 75)),
    ],
)
def test_the_mask_is_the_librarys_own(models: Path, points: tuple[Point, ...], box: Box | None) -> None:
    image = pictures()
    mask = select(load_selector("tiny", [models]), image, points, box)
    expected = by_the_library(models / "tiny", image[0], points, box)
    assert 0.02 < expected.mean() < 0.98
    np.testing.assert_array_equal(mask[0].numpy(), expected)


def test_the_public_folders_name_and_extra_weights_change_nothing(models: Path) -> None:
    image = pictures()
    assert available("selection", [models]) == ["tiny", "video"]
    tiny, video = (select(load_selector(name, [models]), image, (ON,)) for name in ("tiny", "video"))
    assert torch.equal(tiny, video)


def test_what_is_asked_matters_and_a_batch_is_asked_the_same(models: Path) -> None:
    selector = load_selector("tiny", [models])
    image = torch.cat((pictures(), pictures().flip(2)))
    together = select(selector, image, (ON, OFF))
    assert together.shape == (2, HEIGHT, WIDTH) and set(together.unique().tolist()) == {0.0, 1.0}
    for index in range(2):
        assert torch.equal(together[index : index + 1], select(selector, image[index : index + 1], (ON, OFF)))
    other = select(selector, image, (Point(OFF.x, OFF.y), Point(ON.x, ON.y, inside=False)))
    assert not torch.equal(together, other)


def test_points_and_boxes_are_read_as_they_are_written() -> None:
    assert parse_points("320,240") == (Point(320, 240),)
    assert parse_points(" 1 , 2 ;-3,4.5;\n+5,6\n;") == (Point(1, 2), Point(3, 4.5, inside=False), Point(5, 6))
    assert parse_points("  \n") == ()
    assert parse_box("1, 2,30.5,40") == Box(1, 2, 30.5, 40)
    assert parse_box(" ") is None


@pytest.mark.parametrize("text", ["5", "1,2,3", "1;2", "1,-2", "x,y", "1,2 3,4", "nan,1", "1e3,2", "[[1,2]]"])
def test_what_is_no_point_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no point: points are written x,y; x,y; -x,y"):
        parse_points(f"10,20; {text}")


def test_points_are_counted_and_errors_are_short() -> None:
    assert len(parse_points("1,2;" * 256)) == 256
    with pytest.raises(ValueError, match="257 points are too many: give at most 256"):
        parse_points("1,2;" * 257)
    for read in (parse_points, parse_box):
        with pytest.raises(ValueError) as told:
            read("x" * 100_000)
        assert len(str(told.value)) < 300


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "-1,2,3,4", "1 2 3 4"])
def test_what_is_no_box_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="is no box: a box is written x1,y1,x2,y2"):
        parse_box(text)


@pytest.mark.parametrize(
    ("points", "box", "message"),
    [
        ((), None, "nothing shows the object"),
        ((OFF,), None, "nothing shows the object"),
        ((ON, Point(140, 3)), None, r"140,3 is outside of the picture of 140 x 90"),
        ((), Box(0, 0, 141, 50), "box 0,0,141,50 has to be .* 140 x 90"),
        ((), Box(50, 0, 50, 50), "not empty"),
    ],
)
def test_what_shows_nothing_in_the_picture_is_told(
    models: Path, points: tuple[Point, ...], box: Box | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        select(load_selector("tiny", [models]), pictures(), points, box)


def another_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "depth_anything"}))


def cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200_000])


def without_its_decoder(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in state.items() if not key.startswith("mask_decoder.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (another_type, "'depth_anything'; expected a SAM 2"),
        (cut_short, "does not load as a SAM 2"),
        (without_its_decoder, r"lack \d+ that its config\.json asks for, such as mask_decoder"),
        (lambda folder: (folder / "processor_config.json").unlink(), "does not load as a SAM 2"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json cannot be read"),
    ],
)
def test_a_folder_of_something_else_is_told(tmp_path: Path, harm: Callable[[Path], object], message: str) -> None:
    harm(write_sam2(tmp_path / "model"))
    with pytest.raises(PerceptionError, match=message):
        load_selector("model", [tmp_path])


def test_without_transformers_the_user_is_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PerceptionError, match=r"transformers 4\.56 or newer.*-m pip install"):
        load_selector("tiny", [models])


def test_without_a_model_the_user_is_told_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(PerceptionError, match=rf"there is none\. To have more, put the folder of a SAM 2.*{tmp_path}"):
        load_selector("sam2", [tmp_path])
