"""Inpainting, splitting and placing on a real server: what they make, what they say, what they do not do twice."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from devtools.server import Run, Server

from ..perception import onnx_files

HEIGHT, WIDTH = 96, 160
Prompt = dict[str, dict[str, object]]
TABLE = {
    "CnC_InpaintBackground": (["image", "mask", "inpainter", "dilation"], [], ["image"]),
    "CnC_SplitLayers": (
        ["image", "saliency", "inpainter", "threshold", "dilation"],
        ["mask"],
        ["foreground", "background", "mask"],
    ),
    "CnC_PlaceLayer": (
        ["background", "foreground", "mask", "x", "y", "scale", "rotation", "flip"], [], ["image", "mask"],
    ),
}  # fmt: skip


def disc() -> np.ndarray:
    """(H, W) of bool: a disc left of the middle."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (y - 50) ** 2 + (x - 60) ** 2 < 30**2


def scene() -> np.ndarray:
    """(H, W, 3) of 8 bits: a red disc on a grey ramp."""
    ramp = np.linspace(40, 200, WIDTH).astype(np.uint8)
    picture = np.repeat(np.broadcast_to(ramp, (HEIGHT, WIDTH))[..., None], 3, axis=2).copy()
    picture[disc()] = (220, 30, 20)
    return picture


@pytest.fixture(scope="module")
def layers(comfy: Path) -> Iterator[Server]:
    """A server with pictures of all kinds and with inpainting models, right ones and wrong ones."""
    server = Server(comfy)
    shutil.copytree(Path(__file__).with_name("array_pack"), server.base / "custom_nodes" / "array_pack")
    Image.fromarray(scene()).save(server.input / "scene.png")
    alpha = np.where(disc(), 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack((scene(), alpha))).save(server.input / "disc.png")
    Image.fromarray(scene()[16:80, 30:94]).save(server.input / "small.png")
    Image.fromarray(scene()[:1, :1]).save(server.input / "pixel.png")
    np.save(server.input / "huge.npy", np.broadcast_to(np.float32(0.2), (1, 6000, 8000, 1)))
    np.save(server.input / "nan.npy", np.full((1, 8, 8, 3), np.nan, dtype=np.float32))
    np.save(server.input / "grey.npy", scene()[None, ..., :1].astype(np.float32) / 255)
    np.save(server.input / "rgba.npy", np.dstack((scene() / 255, disc()))[None].astype(np.float32))
    folder = server.models / "inpaint"
    onnx_files.migan_pipeline(folder / "migan.onnx")
    (folder / "truncated.onnx").write_bytes((folder / "migan.onnx").read_bytes()[:200])
    onnx_files.mean_of_channels(folder / "isnet.onnx")
    save_file({"cond_stage_model.transformer.x": torch.zeros(2)}, folder / "sd.safetensors")
    with server as running:
        yield running


def node(class_type: str, **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs}


def shown(run: Run, node_id: str) -> np.ndarray:
    """The pictures that a node saved or previewed, (B, H, W, 3) of 8 bits."""
    assert run.error is None, run.error
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in run.images(node_id)])


def split(image: str, *, mask: list[object] | None = None, **changes: object) -> Prompt:
    """LoadImage -> Split Layers -> three saved pictures."""
    inputs = {
        "image": ["1", 0], "saliency": "mini", "inpainter": "telea", "threshold": 0.5, "dilation": 40, **changes,
    }  # fmt: skip
    if mask is not None:
        inputs["mask"] = mask
    return {
        "1": node("LoadImage", image=image),
        "2": node("CnC_SplitLayers", **inputs),
        "3": node("SaveImage", images=["2", 0], filename_prefix="foreground"),
        "4": node("SaveImage", images=["2", 1], filename_prefix="background"),
        "5": node("MaskToImage", mask=["2", 2]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="mask"),
    }


def filled(array: str, *, mask: float | None = None, inpainter: str = "telea", image: str = "disc.png") -> Prompt:
    """Inpaint Background of an array (or, without one, of a file), by the disc or a mask of one value."""
    picture = node("LoadArray", name=array) if array else node("LoadImage", image=image)
    whole = node("SolidMask", value=mask or 0.0, width=WIDTH, height=HEIGHT)
    return {
        "1": node("LoadImage", image="disc.png"),
        "2": picture,
        "3": whole,
        "4": node(
            "CnC_InpaintBackground",
            image=["2", 0],
            mask=["1", 1] if mask is None else ["3", 0],
            inpainter=inpainter,
            dilation=40,
        ),
        "5": node("ImageScale", image=["4", 0], upscale_method="area", width=WIDTH, height=HEIGHT, crop="disabled"),
        "6": node("SaveImage", images=["5", 0], filename_prefix="filled"),
    }


@pytest.mark.parametrize("node_id", TABLE)
def test_ids_inputs_and_outputs_are_those_of_the_design(layers: Server, node_id: str) -> None:
    required, optional, outputs = TABLE[node_id]
    info = layers.object_info()[node_id]
    assert list(info["input"]["required"]) == required
    assert list(info["input"].get("optional", {})) == optional
    assert info["output_name"] == outputs
    assert info["display_name"] and info["description"] and info["category"].startswith("Compose and Conquer/")
    for kind in ("required", "optional"):
        for name, (_, options) in info["input"].get(kind, {}).items():
            assert options.get("tooltip"), name
    assert all(info["output_tooltips"])


def test_the_combo_lists_the_files_that_there_are(layers: Server) -> None:
    options = layers.object_info()["CnC_InpaintBackground"]["input"]["required"]["inpainter"][1]["options"]
    assert options == ["telea", "navier-stokes", "isnet.onnx", "migan.onnx", "truncated.onnx", "sd.safetensors"]


@pytest.mark.parametrize("inpainter", ["telea", "navier-stokes", "migan.onnx"])
def test_a_mask_splits_the_picture_exactly(layers: Server, inpainter: str) -> None:
    run = layers.run(split("disc.png", mask=["1", 1], inpainter=inpainter))
    foreground, background, mask = shown(run, "3")[0], shown(run, "4")[0], shown(run, "6")[0]
    np.testing.assert_array_equal(mask[..., 0] > 127, disc())
    np.testing.assert_array_equal(foreground, np.where(disc()[..., None], scene(), 0))
    y, x = np.nonzero(disc())
    around = np.zeros_like(disc())
    around[max(0, y.min() - 4) : y.max() + 5, max(0, x.min() - 4) : x.max() + 5] = True
    np.testing.assert_array_equal(background[~around], scene()[~around])
    redness = background[disc()].astype(int)
    assert (redness[:, 0] - redness[:, 1]).max() < 20
    np.testing.assert_array_equal(shown(run, "2"), np.stack((foreground, background)))


def test_without_a_mask_the_object_is_found_and_a_new_threshold_finds_it_anew_but_runs_no_network(
    layers: Server,
) -> None:
    salience, refined, triplet = "2.0.0.1_salience", "2.0.0.2_mask", "2.0.0.3_split"
    first = layers.run(split("scene.png", dilation=0))
    assert first.error is None
    assert {salience, refined, triplet} <= set(first.executed)
    assert shown(first, "3").shape == shown(first, "4").shape == (1, HEIGHT, WIDTH, 3)

    second = layers.run(split("scene.png", dilation=0, threshold=0.55))
    assert second.error is None
    assert salience not in second.executed
    assert refined in second.executed

    third = layers.run(split("scene.png", dilation=4, threshold=0.55))
    assert third.error is None
    assert not {salience, refined} & set(third.executed)
    assert triplet in third.executed


def test_with_a_mask_a_new_threshold_changes_nothing_and_fills_nothing_again(layers: Server) -> None:
    first = layers.run(split("disc.png", mask=["1", 1], threshold=0.6))
    second = layers.run(split("disc.png", mask=["1", 1], threshold=0.7))
    assert "2.0.0.3_split" in first.executed and "2.0.0.3_split" not in second.executed
    assert second.error is None


def test_the_empty_mask_of_a_picture_without_alpha_is_no_mask(layers: Server) -> None:
    with_socket = layers.run(split("scene.png", mask=["1", 1], dilation=0))
    without = layers.run(split("scene.png", dilation=0))
    np.testing.assert_array_equal(shown(with_socket, "6"), shown(without, "6"))


def test_a_picture_of_64_by_64_ends_too(layers: Server) -> None:
    run = layers.run(split("small.png", mask=["1", 1], dilation=0))
    np.testing.assert_array_equal(shown(run, "4")[0], scene()[16:80, 30:94])
    assert not shown(run, "3").any()


def test_batches(layers: Server) -> None:
    def prompt(images: int, masks: int) -> Prompt:
        return {
            "1": node("LoadImage", image="disc.png"),
            "2": node("RepeatImageBatch", image=["1", 0], amount=images),
            "3": node("MaskToImage", mask=["1", 1]),
            "4": node("RepeatImageBatch", image=["3", 0], amount=masks),
            "5": node("ImageToMask", image=["4", 0], channel="red"),
            "6": node("CnC_InpaintBackground", image=["2", 0], mask=["5", 0], inpainter="migan.onnx", dilation=20),
            "7": node("SaveImage", images=["6", 0], filename_prefix="batch"),
        }

    one = shown(layers.run(prompt(1, 1)), "7")
    for images, masks in ((3, 1), (1, 3), (3, 3)):
        np.testing.assert_array_equal(shown(layers.run(prompt(images, masks)), "7"), np.repeat(one, 3, axis=0))
    error = layers.run(prompt(2, 3)).error
    assert error is not None and "image has 2 pictures and mask has 3" in error


def test_a_mask_of_another_size_is_fitted(layers: Server) -> None:
    prompt = split("scene.png", mask=["9", 0], dilation=0) | {
        "7": node("SolidMask", value=0.0, width=8, height=8),
        "8": node("SolidMask", value=1.0, width=4, height=8),
        "9": node("MaskComposite", destination=["7", 0], source=["8", 0], x=0, y=0, operation="add"),
    }
    foreground = shown(layers.run(prompt), "3")[0]
    np.testing.assert_array_equal(foreground[:, : WIDTH // 2 - 12], scene()[:, : WIDTH // 2 - 12])
    assert not foreground[:, WIDTH // 2 + 12 :].any()


@pytest.mark.parametrize("array", ["grey.npy", "rgba.npy"])
def test_grey_and_alpha_are_taken(layers: Server, array: str) -> None:
    background = shown(layers.run(filled(array)), "6")[0]
    expected = scene() if array == "rgba.npy" else scene()[..., :1]
    far = np.zeros_like(disc())
    far[:, 110:] = True
    assert (background[far] == np.broadcast_to(expected, scene().shape)[far]).all()


def test_an_empty_mask_leaves_the_picture(layers: Server) -> None:
    np.testing.assert_array_equal(shown(layers.run(filled("", mask=0.0, image="scene.png")), "6")[0], scene())


def test_one_pixel(layers: Server) -> None:
    kept = shown(layers.run(filled("", mask=0.4, image="pixel.png")), "6")[0]
    assert (kept == scene()[0, 0]).all()


@pytest.mark.slow
def test_a_huge_picture_is_filled(layers: Server) -> None:
    """8000 x 6000, of one grey: so is what is filled in."""
    run = layers.run(filled("huge.npy", inpainter="navier-stokes"))
    assert (np.abs(shown(run, "6").astype(int) - 51) <= 1).all()


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (filled("nan.npy"), ["not a number", "VAE"]),
        (filled("", mask=1.0), ["covers a whole picture of 160 x 96", "Lower the dilation"]),
        (filled("", mask=1.0, image="pixel.png"), ["covers a whole picture of 1 x 1"]),
        (filled("", inpainter="isnet.onnx"), ["isnet.onnx is no inpainting model", "migan_pipeline_v2.onnx"]),
        (filled("", inpainter="truncated.onnx"), ["truncated.onnx is no ONNX model"]),
        (filled("", inpainter="sd.safetensors"), ["plain Stable Diffusion 1.5 checkpoint", "big-lama"]),
    ],
)
def test_what_does_not_work_is_said(layers: Server, prompt: Prompt, words: list[str]) -> None:
    error = layers.run(prompt).error
    assert error is not None
    for word in words:
        assert word in error


def test_an_unknown_inpainter_is_refused_with_what_there_is(layers: Server) -> None:
    error = layers.run(filled("", inpainter="../secret.onnx")).error
    assert error is not None
    # Newer hosts check the value against the list before anything runs.
    assert "not in list" in error.lower() or "telea, navier-stokes, isnet.onnx" in error


def placed(**changes: object) -> Prompt:
    """The disc of one picture on a grey one of another size."""
    inputs = {
        "background": ["2", 0], "foreground": ["1", 0], "mask": ["1", 1], "x": 75.5 / 300, "y": 48.5 / HEIGHT,
        "scale": 1.0, "rotation": 0.0, "flip": "none", **changes,
    }  # fmt: skip
    return {
        "1": node("LoadImage", image="disc.png"),
        "2": node("EmptyImage", width=300, height=HEIGHT, batch_size=1, color=0x808080),
        "3": node("CnC_PlaceLayer", **inputs),
        "4": node("SaveImage", images=["3", 0], filename_prefix="placed"),
        "5": node("MaskToImage", mask=["3", 1]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="mask"),
        "7": node("RepeatImageBatch", image=["2", 0], amount=2),
        "8": node("RepeatImageBatch", image=["1", 0], amount=3),
    }


def test_a_layer_is_placed_and_its_mask_follows(layers: Server) -> None:
    run = layers.run(placed())
    picture, mask = shown(run, "4")[0], shown(run, "6")[0][..., 0]
    y, x = np.mgrid[:HEIGHT, :300]
    expected = (y - 48) ** 2 + (x - 75) ** 2 < 30**2
    np.testing.assert_array_equal(mask == 255, expected)
    np.testing.assert_array_equal(mask == 0, ~expected)
    np.testing.assert_array_equal(picture, np.where(expected[..., None], np.uint8([220, 30, 20]), np.uint8(128)))
    np.testing.assert_array_equal(shown(run, "3")[0], picture)
    turned = layers.run(placed(rotation=45.0, flip="horizontal"))
    assert np.abs(shown(turned, "6")[0].astype(int) - shown(run, "6")[0]).mean() < 4


def test_layers_of_batches_and_outside(layers: Server) -> None:
    one = shown(layers.run(placed()), "4")
    np.testing.assert_array_equal(shown(layers.run(placed(background=["7", 0])), "4"), np.repeat(one, 2, axis=0))
    error = layers.run(placed(background=["7", 0], foreground=["8", 0])).error
    assert error is not None and "2 backgrounds and 3 foregrounds" in error
    outside = layers.run(placed(x=2.0))
    assert (shown(outside, "4") == 128).all() and not shown(outside, "6").any()
    error = layers.run(placed(mask=["9", 0]) | {"9": node("SolidMask", value=0.5, width=8, height=8)}).error
    assert error is not None and "nothing above 0.5" in error
