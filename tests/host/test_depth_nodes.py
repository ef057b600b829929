"""Depth on a real server: every kind of model, odd pictures and masks, and what is said of wrong files."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from devtools.server import Run, Server

from ..perception.models import make_depth_anything, make_dpt, make_midas

HEIGHT, WIDTH = 96, 160
MODELS = ("mini", "mask-and-ground-plane", "depth-anything/tiny", "dpt", "midas_v21_small_256.pt")
Prompt = dict[str, dict[str, object]]


def disc() -> np.ndarray:
    """(H, W) of bool."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (y - 50) ** 2 + (x - 60) ** 2 < 30**2


def scene() -> np.ndarray:
    """(H, W, 3) of 8 bits: a red disc on a grey ramp."""
    ramp = np.linspace(40, 200, WIDTH).astype(np.uint8)
    picture = np.repeat(np.broadcast_to(ramp, (HEIGHT, WIDTH))[..., None], 3, axis=2).copy()
    picture[disc()] = (220, 30, 20)
    return picture


@pytest.fixture(scope="module")
def depth_server(comfy: Path) -> Iterator[Server]:
    """A server with pictures of all kinds, and with models: in their real formats, and wrong ones."""
    server = Server(comfy)
    shutil.copytree(Path(__file__).with_name("array_pack"), server.base / "custom_nodes" / "array_pack")
    Image.fromarray(np.dstack((scene(), np.where(disc(), 0, 255).astype(np.uint8)))).save(server.input / "disc.png")
    Image.fromarray(scene()).save(server.input / "scene.png")
    Image.fromarray(scene()[:1, :1]).save(server.input / "pixel.png")
    for name, array in {
        "nan": np.full((1, 8, 8, 3), np.nan),
        "two": np.zeros((1, 8, 8, 2)),
        "grey": scene()[None, ..., :1] / 255,
        "rgba": np.dstack((scene() / 255, disc()))[None],
    }.items():
        np.save(server.input / f"{name}.npy", array.astype(np.float32))
    models = server.models / "depth_estimation"
    make_dpt(models / "dpt")
    weights = make_dpt(models / "constant") / "model.safetensors"
    zeros = {name: torch.zeros_like(value) for name, value in load_file(weights).items()}
    save_file(zeros, weights, metadata={"format": "pt"})
    make_depth_anything(models / "depth-anything" / "tiny")
    midas = make_midas(models / "midas_v21_small_256.pt")
    wrong = models / "wrong"
    wrong.mkdir()
    (wrong / "cut.pt").write_bytes(midas.read_bytes()[:100_000])
    diffusion = {
        "cond_stage_model.transformer.text_model.final_layer_norm.bias": torch.zeros(768),
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3),
    }
    torch.save({"state_dict": diffusion}, wrong / "sd.pt")
    save_file(diffusion, wrong / "sd.safetensors")
    folder = make_dpt(models / "wrong-dpt")
    save_file(diffusion, folder / "model.safetensors", metadata={"format": "pt"})
    with server as running:
        yield running


def node(class_type: str, **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs}


def depth(
    estimator: str, version: str = "v1", file: str = "disc.png", *, mask: list[object] | None = None, **more: object
) -> Prompt:
    """A picture, its depth map, and the map saved."""
    options = {"preprocessing": "model", "clip_percent": 0.0, "invert": False, **more}
    given = {} if mask is None else {"mask": mask}
    return {
        "1": node("LoadArray", name=file) if file.endswith(".npy") else node("LoadImage", image=file),
        "2": node("CnC_DepthMap", image=["1", 0], estimator=estimator, version=version, **options, **given),
        "3": node("SaveImage", images=["2", 0], filename_prefix="depth"),
    }


def shown(run: Run, node_id: str = "3") -> np.ndarray:
    """The maps that a node saved, (B, H, W) of 8 bits."""
    assert run.error is None, run.error
    pictures = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in run.images(node_id)]
    assert all((picture == picture[..., :1]).all() for picture in pictures)
    return np.stack(pictures)[..., 0]


@pytest.mark.parametrize("preprocessing", ["model", "release"])
@pytest.mark.parametrize("estimator", MODELS)
def test_every_kind_of_model_is_listed_and_gives_what_the_core_gives(
    depth_server: Server, estimator: str, preprocessing: str
) -> None:
    from cnc_core.perception import depth_map, load_depth

    assert estimator in depth_server.object_info()["CnC_DepthMap"]["input"]["required"]["estimator"][1]["options"]
    loaded = load_depth(estimator, [depth_server.models / "depth_estimation"])
    picture = torch.from_numpy(scene()).float()[None] / 255
    mask = torch.from_numpy(disc()).float()[None]
    for version in ("v1", "v2", "v3"):
        prompt = depth(estimator, version, preprocessing=preprocessing, mask=["1", 1])
        ours = depth_map(loaded, picture, version=version, mask=mask, preprocessing=preprocessing)
        assert np.abs(shown(depth_server.run(prompt)) - 255 * ours.numpy()).max() <= 1.01
        assert ours.std() > 0.01


def test_a_version_that_needs_a_mask_tells_the_user(depth_server: Server) -> None:
    for prompt in (depth("mini", "v2"), depth("mini", "v2", "scene.png", mask=["1", 1])):
        error = depth_server.run(prompt).error
        assert error is not None and "v2" in error and "no mask" in error


def test_an_unknown_estimator_is_refused_with_what_there_is(depth_server: Server) -> None:
    error = depth_server.run(depth("../../secret")).error
    assert error is not None
    # Newer hosts check the value against the list before anything runs.
    assert "not in list" in error.lower() or all(name in error for name in MODELS)


@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize("estimator", ["mini", "mask-and-ground-plane", "dpt"])
def test_an_empty_mask_is_no_object_and_a_full_one_all(depth_server: Server, estimator: str, version: str) -> None:
    maps = {}
    for value in (0.0, 1.0):
        prompt = depth(estimator, version, "scene.png", mask=["4", 0])
        prompt["4"] = node("SolidMask", value=value, width=8, height=8)
        maps[value] = shown(depth_server.run(prompt))
    assert not maps[0.0].any()
    assert maps[1.0].min() == 0 and maps[1.0].max() == 255
    if estimator != "mask-and-ground-plane":
        np.testing.assert_array_equal(maps[1.0], shown(depth_server.run(depth(estimator, "v1", "scene.png"))))


@pytest.mark.parametrize("file", ["rgba.npy", "grey.npy"])
def test_alpha_is_left_out_and_grey_repeated(depth_server: Server, file: str) -> None:
    picture = np.load(depth_server.input / file)[..., :3]
    np.save(depth_server.input / "rgb.npy", np.repeat(picture, 3 // picture.shape[-1], axis=-1))
    found = shown(depth_server.run(depth("mini", file=file)))
    expected = shown(depth_server.run(depth("mini", file="rgb.npy")))
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("file", "message"), [("nan.npy", "192 values that are not a number"), ("two.npy", "(1, 8, 8, 2)")]
)
def test_pictures_that_are_none_are_told(depth_server: Server, file: str, message: str) -> None:
    error = depth_server.run(depth("mini", file=file)).error
    assert error is not None and message in error


@pytest.mark.parametrize("estimator", MODELS)
def test_a_single_pixel_is_a_map_of_one_zero(depth_server: Server, estimator: str) -> None:
    np.testing.assert_array_equal(shown(depth_server.run(depth(estimator, file="pixel.png"))), np.zeros((1, 1, 1)))


@pytest.mark.parametrize("options", [{}, {"invert": True}, {"clip_percent": 5.0}])
def test_a_model_that_sees_no_depth_gives_zeros(depth_server: Server, options: dict[str, object]) -> None:
    prompt = depth("constant", file="scene.png", **options)
    prompt["4"] = node("ImageInvert", image=["2", 0])  # a file has no other value than 0 for what is not a number
    prompt["3"]["inputs"] = {"images": ["4", 0], "filename_prefix": "depth"}
    np.testing.assert_array_equal(shown(depth_server.run(prompt)), np.full((1, HEIGHT, WIDTH), 255))


def test_a_picture_of_48_million_pixels(depth_server: Server) -> None:
    prompt = depth("mini", "v2", mask=["4", 0])
    prompt["1"] = node("EmptyImage", width=8000, height=6000, batch_size=1, color=0xC83C14)
    prompt["4"] = node("SolidMask", value=1.0, width=80, height=60)
    prompt["5"] = node("ImageScale", image=["2", 0], width=80, height=60, upscale_method="area", crop="disabled")
    prompt["3"]["inputs"] = {"images": ["5", 0], "filename_prefix": "depth"}
    assert shown(depth_server.run(prompt)).shape == (1, 60, 80)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("wrong/sd.pt", ("does not hold MiDaS v2.1 small", "a plain Stable Diffusion 1.5 checkpoint")),
        ("wrong/sd.safetensors", ("does not hold MiDaS v2.1 small", "a plain Stable Diffusion 1.5 checkpoint")),
        ("wrong/cut.pt", ("cut short or damaged", "MiDaS v2.1 small")),
        ("wrong-dpt", ("lack", "the files belong to different models")),
    ],
)
def test_files_of_the_wrong_kind_are_told(depth_server: Server, name: str, parts: tuple[str, ...]) -> None:
    error = depth_server.run(depth(name)).error
    assert error is not None and all(part in error for part in parts), error


def test_a_batch_is_as_one_by_one_and_must_fit_its_masks(depth_server: Server) -> None:
    def prompt(images: int, masks: int) -> Prompt:
        made = depth("midas_v21_small_256.pt", "v2", mask=["7", 0])
        made["2"]["inputs"]["image"] = ["4", 0]
        made["4"] = node("RepeatImageBatch", image=["1", 0], amount=images)
        made["5"] = node("MaskToImage", mask=["1", 1])
        made["6"] = node("RepeatImageBatch", image=["5", 0], amount=masks)
        made["7"] = node("ImageToMask", image=["6", 0], channel="red")
        return made

    one = shown(depth_server.run(prompt(1, 1)))
    for images, masks in ((3, 1), (1, 3), (3, 3)):
        found = shown(depth_server.run(prompt(images, masks)))
        np.testing.assert_array_equal(found, np.repeat(one, 3, axis=0))
    error = depth_server.run(prompt(2, 3)).error
    assert error is not None and "image has 2 pictures and mask has 3" in error


def test_what_did_not_change_is_not_run_again(depth_server: Server) -> None:
    first = depth_server.run(depth("dpt", "v3", mask=["1", 1], clip_percent=1.5))
    again = depth_server.run(depth("dpt", "v3", mask=["1", 1], clip_percent=1.5))
    changed = depth_server.run(depth("dpt", "v3", mask=["1", 1], clip_percent=2.5))
    assert "2" in first.executed and "2" not in again.executed and "2" in changed.executed


# What the server cannot show: called in this process.


def test_a_batch_through_the_hosts_layers_is_what_plain_ones_give(host, tmp_path: Path) -> None:
    import folder_paths

    from cnc_core.perception import estimate, load_depth

    make_midas(tmp_path / "midas.pt")
    paths, endings = folder_paths.folder_names_and_paths["depth_estimation"]
    folder_paths.folder_names_and_paths["depth_estimation"] = ([*paths, str(tmp_path)], endings)
    try:
        hosted = host.pack.part("nodes.host.perception").depth_estimator("midas.pt")
    finally:
        folder_paths.folder_names_and_paths["depth_estimation"] = (paths, endings)
    image = torch.rand(3, 64, 96, 3)
    found = host.pack.part("cnc_core.perception").estimate(hosted.estimator, image, run=hosted.run)
    plain = estimate(load_depth("midas.pt", [tmp_path]), image)
    assert (found - plain).norm() / plain.norm() < 1e-5


def test_pieces_cover_a_batch_and_stop_when_the_user_interrupts(host) -> None:
    import comfy.model_management as management

    pieces = host.pack.part("nodes.host.perception").pieces
    assert [index for piece in pieces(11) for index in range(11)[piece]] == list(range(11))
    seen = []
    with pytest.raises(management.InterruptProcessingException):
        for piece in pieces(50):
            seen.append(piece)
            if len(seen) == 2:
                management.interrupt_current_processing()
    assert len(seen) == 2
