"""What an artist connects by mistake, and odd pictures, to the nodes that select, split and place, on a real server.

The same for salience, masks, depth and inpainting is beside their other tests.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from devtools.server import Run, Server

from ..perception.sam2_files import write_sam2

HEIGHT, WIDTH = 64, 96
Prompt = dict[str, dict[str, object]]


def scene() -> np.ndarray:
    """(H, W, 3) of floats: a bright square on a dark ground, in grey."""
    picture = np.full((HEIGHT, WIDTH, 3), 0.25, np.float32)
    picture[20:40, 30:60] = 0.75
    return picture


@pytest.fixture(scope="module")
def odd(comfy: Path) -> Iterator[Server]:
    """A server with odd pictures, a selector, and a folder that is none."""
    server = Server(comfy)
    shutil.copytree(Path(__file__).with_name("array_pack"), server.base / "custom_nodes" / "array_pack")
    square = np.zeros((HEIGHT, WIDTH, 1), np.float32)
    square[20:40, 30:60] = 1
    arrays = {
        "scene": scene(),
        "square": np.repeat(square, 3, axis=2),
        "rgba": np.dstack((scene(), square)),
        "grey": scene()[..., :1],
        "two": scene()[..., :2],
        "nan": scene() * np.float32(np.nan),
        "pixel": scene()[:1, :1],
    }
    for name, array in arrays.items():
        np.save(server.input / f"{name}.npy", array[None])
    write_sam2(server.models / "sam2" / "tiny")
    wrong = write_sam2(server.models / "sam2" / "wrong")
    (wrong / "config.json").write_text(json.dumps({"model_type": "depth_anything"}))
    with server as running:
        yield running


def node(class_type: str, **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs}


SOURCES: Prompt = {
    **{name: node("LoadArray", name=f"{name}.npy") for name in ("scene", "rgba", "grey", "two", "nan", "pixel")},
    "square picture": node("LoadArray", name="square.npy"),
    "square": node("ImageToMask", image=["square picture", 0], channel="red"),
    "nan mask": node("ImageToMask", image=["nan", 0], channel="red"),
    "empty": node("SolidMask", value=0.0, width=WIDTH, height=HEIGHT),
    "full": node("SolidMask", value=1.0, width=WIDTH, height=HEIGHT),
    "huge": node("EmptyImage", width=8000, height=6000, batch_size=1, color=0xC83C14),
    "two pictures": node("RepeatImageBatch", image=["scene", 0], amount=2),
    "three masks": node("ImageToMask", image=["three", 0], channel="red"),
    "three": node("RepeatImageBatch", image=["square picture", 0], amount=3),
}


def posted(maker: dict[str, object]) -> Prompt:
    """What a node makes, brought to the scene's size and saved."""
    made: list[object] = ["made", 0]
    prompt = SOURCES | {"made": maker}
    if maker["class_type"] == "CnC_SelectObject":
        prompt["as picture"], made = node("MaskToImage", mask=made), ["as picture", 0]
    fitted = node("ImageScale", image=made, upscale_method="area", width=WIDTH, height=HEIGHT, crop="disabled")
    return prompt | {"fitted": fitted, "saved": node("SaveImage", images=["fitted", 0], filename_prefix="odd")}


def place(**changes: str) -> Prompt:
    inputs = {"background": "scene", "foreground": "scene", "mask": "square", **changes}
    options = {"x": 0.5, "y": 0.5, "scale": 1.0, "rotation": 0.0, "flip": "none"}
    return posted(node("CnC_PlaceLayer", **{name: [source, 0] for name, source in inputs.items()}, **options))


def split(image: str = "scene", mask: str = "square", dilation: int = 8) -> Prompt:
    options = {"saliency": "mini", "inpainter": "telea", "threshold": 0.5, "dilation": dilation}
    return posted(node("CnC_SplitLayers", image=[image, 0], mask=[mask, 0], **options))


def select(image: str = "scene", estimator: str = "tiny", points: str = "0,0") -> Prompt:
    return posted(node("CnC_SelectObject", image=[image, 0], estimator=estimator, points=points))


def shown(run: Run) -> np.ndarray:
    """(B, H, W, 3) of 8 bits."""
    assert run.error is None, run.error
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in run.images("saved")])


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (place(background="nan"), "the background has 18432 values that are not a number"),
        (place(foreground="nan"), "the foreground has 18432 values that are not a number"),
        (place(mask="nan mask"), "the mask has 6144 values that are not a number"),
        (place(mask="empty"), "nothing above 0.5: there is no object to place"),
        (place(foreground="two"), "foreground must be a picture"),
        (place(background="two pictures", mask="three masks"), "2 backgrounds"),
        (split("nan"), "the picture has 18432 values that are not a number"),
        (split(mask="nan mask"), "the mask has 6144 values that are not a number"),
        (split(mask="full"), "covers a whole picture of 96 x 64 pixels"),
        (split("two"), "(1, 64, 96, 2)"),
        (split("two pictures", mask="three masks"), "image has 2 pictures and mask has 3, which do not go together"),
        (select("two"), "(1, 64, 96, 2)"),
        (select(estimator="wrong"), "holds a model of type 'depth_anything'; expected a SAM 2"),
    ],
)
def test_what_cannot_be_is_told(odd: Server, prompt: Prompt, words: str) -> None:
    error = odd.run(prompt).error
    assert error is not None and words in error, error


@pytest.mark.parametrize("file", ["rgba", "grey"])
def test_alpha_is_left_out_and_grey_is_repeated(odd: Server, file: str) -> None:
    for plain, other in (
        (place(), place(background=file)),
        (place(), place(foreground=file)),
        (split(), split(file)),
        (select(points="40,30"), select(file, points="40,30")),
    ):
        np.testing.assert_array_equal(shown(odd.run(other)), shown(odd.run(plain)))


def test_a_whole_picture_is_placed_and_nothing_is_split_off(odd: Server) -> None:
    placed = shown(odd.run(place(mask="full", background="square picture")))
    np.testing.assert_array_equal(placed[0], (scene() * 255).astype(np.uint8))
    assert not shown(odd.run(split(mask="empty"))).any()


def test_a_single_pixel(odd: Server) -> None:
    colours = [shown(odd.run(prompt)) for prompt in (place(background="pixel"), split("pixel"), select("pixel"))]
    assert all(colour.shape == (1, HEIGHT, WIDTH, 3) and colour.std() == 0 for colour in colours)


@pytest.mark.slow
@pytest.mark.parametrize(
    "prompt", [place(background="huge"), place(foreground="huge"), split("huge"), select("huge")],
    ids=["place on", "place", "split", "select"],
)  # fmt: skip
def test_48_megapixels(odd: Server, prompt: Prompt) -> None:
    assert shown(odd.run(prompt)).shape == (1, HEIGHT, WIDTH, 3)
