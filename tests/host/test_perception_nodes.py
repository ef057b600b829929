"""The perception nodes on a real server: what they make, what they say, what they do not do twice."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from devtools.server import Run, Server

HEIGHT, WIDTH = 96, 160
TABLE = {
    "CnC_InpaintBackground": (["image", "mask", "inpainter", "dilation"], [], ["image"]),
    "CnC_SplitLayers": (
        ["image", "saliency", "inpainter", "threshold", "dilation"],
        ["mask"],
        ["foreground", "background", "mask"],
    ),
    "CnC_DepthMap": (
        ["image", "estimator", "version", "preprocessing", "clip_percent", "invert"], ["mask"], ["depth"],
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
def pictures(server: Server) -> Server:
    """The server with three pictures: without alpha, with the disc as alpha's hole, and 64 x 64."""
    Image.fromarray(scene()).save(server.input / "scene.png")
    alpha = np.where(disc(), 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack((scene(), alpha))).save(server.input / "disc.png")
    Image.fromarray(scene()[16:80, 30:94]).save(server.input / "small.png")
    return server


def node(class_type: str, **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs}


def shown(run: Run, node_id: str) -> np.ndarray:
    """The pictures that a node saved, (B, H, W, 3) of 8 bits."""
    assert run.error is None, run.error
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in run.images(node_id)])


def split(image: str, *, mask: list[object] | None = None, **changes: object) -> dict[str, dict[str, object]]:
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


@pytest.mark.parametrize("node_id", TABLE)
def test_ids_inputs_and_outputs_are_those_of_the_design(server: Server, node_id: str) -> None:
    required, optional, outputs = TABLE[node_id]
    info = server.object_info()[node_id]
    assert list(info["input"]["required"]) == required
    assert list(info["input"].get("optional", {})) == optional
    assert info["output_name"] == outputs
    assert info["display_name"] and info["description"] and info["category"].startswith("Compose and Conquer/")
    for kind in ("required", "optional"):
        for name, (_, options) in info["input"].get(kind, {}).items():
            assert options.get("tooltip"), name
    assert all(info["output_tooltips"])


def test_a_mask_splits_the_picture_exactly(pictures: Server) -> None:
    run = pictures.run(split("disc.png", mask=["1", 1]))
    foreground, background, mask = shown(run, "3")[0], shown(run, "4")[0], shown(run, "6")[0]
    np.testing.assert_array_equal(mask[..., 0] > 127, disc())
    np.testing.assert_array_equal(foreground, np.where(disc()[..., None], scene(), 0))
    y, x = np.nonzero(disc())
    around = np.zeros_like(disc())
    around[max(0, y.min() - 4) : y.max() + 5, max(0, x.min() - 4) : x.max() + 5] = True
    np.testing.assert_array_equal(background[~around], scene()[~around])
    redness = background[disc()].astype(int)
    assert (redness[:, 0] - redness[:, 1]).max() < 20


def test_without_a_mask_the_object_is_found_and_a_new_threshold_finds_it_anew_but_runs_no_network(
    pictures: Server,
) -> None:
    salience, refined, filled = "2.0.0.1.0.0.1", "2.0.0.1.0.0.2", "2.0.0.2.0.0.1"
    first = pictures.run(split("scene.png", dilation=0))
    assert first.error is None
    assert {salience, refined, filled} <= set(first.executed)
    assert shown(first, "3").shape == shown(first, "4").shape == (1, HEIGHT, WIDTH, 3)

    second = pictures.run(split("scene.png", dilation=0, threshold=0.55))
    assert second.error is None
    assert salience not in second.executed
    assert refined in second.executed

    third = pictures.run(split("scene.png", dilation=4, threshold=0.55))
    assert third.error is None
    assert not {salience, refined} & set(third.executed)
    assert filled in third.executed


def test_the_empty_mask_of_a_picture_without_alpha_is_no_mask(pictures: Server) -> None:
    with_socket = pictures.run(split("scene.png", mask=["1", 1], dilation=0))
    without = pictures.run(split("scene.png", dilation=0))
    np.testing.assert_array_equal(shown(with_socket, "6"), shown(without, "6"))


def test_a_picture_of_64_by_64_ends_too(pictures: Server) -> None:
    run = pictures.run(split("small.png", mask=["1", 1], dilation=0))
    np.testing.assert_array_equal(shown(run, "4")[0], scene()[16:80, 30:94])
    assert not shown(run, "3").any()


def test_batches(pictures: Server) -> None:
    def prompt(images: int, masks: int) -> dict[str, dict[str, object]]:
        return {
            "1": node("LoadImage", image="disc.png"),
            "2": node("RepeatImageBatch", image=["1", 0], amount=images),
            "3": node("MaskToImage", mask=["1", 1]),
            "4": node("RepeatImageBatch", image=["3", 0], amount=masks),
            "5": node("ImageToMask", image=["4", 0], channel="red"),
            "6": node("CnC_InpaintBackground", image=["2", 0], mask=["5", 0], inpainter="navier-stokes", dilation=20),
            "7": node("SaveImage", images=["6", 0], filename_prefix="batch"),
        }

    one = shown(pictures.run(prompt(1, 1)), "7")
    for images, masks in ((3, 1), (1, 3), (3, 3)):
        np.testing.assert_array_equal(shown(pictures.run(prompt(images, masks)), "7"), np.repeat(one, 3, axis=0))
    error = pictures.run(prompt(2, 3)).error
    assert error is not None and "2 images and 3 masks" in error


def test_a_mask_of_another_size_is_fitted(pictures: Server) -> None:
    run = pictures.run(
        {
            "1": node("LoadImage", image="scene.png"),
            "2": node("SolidMask", value=0.0, width=8, height=8),
            "3": node("SolidMask", value=1.0, width=4, height=8),
            "4": node("MaskComposite", destination=["2", 0], source=["3", 0], x=0, y=0, operation="add"),
            "5": node(
                "CnC_SplitLayers", image=["1", 0], saliency="mini", inpainter="telea", threshold=0.5,
                dilation=0, mask=["4", 0],
            ),
            "6": node("SaveImage", images=["5", 0], filename_prefix="fitted"),
        }
    )  # fmt: skip
    foreground = shown(run, "6")[0]
    np.testing.assert_array_equal(foreground[:, : WIDTH // 2 - 12], scene()[:, : WIDTH // 2 - 12])
    assert not foreground[:, WIDTH // 2 + 12 :].any()


# What the server cannot show: called in this process.


@pytest.fixture
def part(host) -> Callable[[str], object]:
    return host.pack.part


def test_pictures_of_any_channels(part) -> None:
    pictures = part("nodes.host.pictures")
    image = torch.rand(2, 5, 7, 4)
    assert torch.equal(pictures.picture(image), image[..., :3])
    assert torch.equal(pictures.picture(image[0]), image[:1, ..., :3])
    grey = image[..., :1]
    assert torch.equal(pictures.picture(grey), torch.cat([grey] * 3, dim=-1))
    with pytest.raises(ValueError, match=r"\(2, 5, 7, 2\)"):
        pictures.picture(image[..., :2])


def test_pairs(part) -> None:
    pair = part("nodes.host.pictures").pair
    image, mask = torch.rand(2, 6, 8, 3), torch.rand(6, 8)
    images, masks = pair(image, mask)
    assert torch.equal(images, image) and torch.equal(masks, mask.expand(2, -1, -1))
    images, masks = pair(image[:1], torch.rand(3, 1, 12, 16))
    assert images.shape == (3, 6, 8, 3) and masks.shape == (3, 6, 8)
    with pytest.raises(ValueError, match="2 images and 3 masks"):
        pair(image, torch.rand(3, 6, 8))


def test_one_network_serves_all_nodes_until_the_host_lets_it_go(part) -> None:
    import comfy.model_management as management

    perception = part("nodes.host.perception")
    first = perception.depth_estimator("mini")
    image = torch.rand(1, 64, 64, 3)
    depth = part("cnc_core.perception").depth_map(first.estimator, image, run=first.run)
    assert perception.depth_estimator("mini") is first
    assert first.patcher in management.loaded_models()
    management.unload_all_models()
    assert first.patcher not in management.loaded_models()
    second = perception.depth_estimator("mini")
    assert second is not first
    again = part("cnc_core.perception").depth_map(second.estimator, image, run=second.run)
    assert torch.equal(depth, again)


def test_a_batch_stops_when_the_user_interrupts(part) -> None:
    import comfy.model_management as management

    seen = []
    with pytest.raises(management.InterruptProcessingException):
        for index in part("nodes.host.perception").each(5):
            seen.append(index)
            if index == 1:
                management.interrupt_current_processing()
    assert seen == [0, 1]


def test_the_depth_folder_is_added_beside_what_the_user_configured(part, tmp_path: Path) -> None:
    import folder_paths

    perception = part("nodes.host.perception")
    before = folder_paths.folder_names_and_paths.get("depth_estimation")
    try:
        folder_paths.folder_names_and_paths["depth_estimation"] = ([str(tmp_path)], {".onnx"})
        perception.register_perception()
        perception.register_perception()
        paths, extensions = folder_paths.folder_names_and_paths["depth_estimation"]
        assert [Path(path).name for path in paths] == [tmp_path.name, "depth_estimation"]
        assert {".onnx", ".safetensors"} <= extensions
    finally:
        if before is None:
            del folder_paths.folder_names_and_paths["depth_estimation"]
        else:
            folder_paths.folder_names_and_paths["depth_estimation"] = before
