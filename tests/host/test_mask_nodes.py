"""Salience, masks and selection on a real server: what they make, what they say, what they do not do twice."""

from __future__ import annotations

import gc
import io
import json
import shutil
import time
import urllib.request
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from devtools.server import Run, Server

from ..perception import salience_files
from ..perception.sam2_files import write_sam2
from ..perception.test_onnx_salience import inpainting
from ..perception.test_u2net import made_state

HEIGHT, WIDTH = 96, 160
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
def masks_server(comfy: Path, data: Path) -> Iterator[Server]:
    """A server with pictures of all kinds, and with models: tiny ones, the real architecture, and the wrong ones."""
    server = Server(comfy)
    shutil.copytree(Path(__file__).with_name("array_pack"), server.base / "custom_nodes" / "array_pack")
    Image.fromarray(scene()).save(server.input / "scene.png")
    Image.fromarray(np.dstack((scene(), np.where(disc(), 0, 255).astype(np.uint8)))).save(server.input / "disc.png")
    Image.fromarray(scene()[:1, :1]).save(server.input / "pixel.png")
    Image.new("RGB", (8000, 6000), (200, 60, 20)).save(server.input / "huge.png", compress_level=1)
    np.save(server.input / "nan.npy", np.full((1, 8, 8, 3), np.nan, dtype=np.float32))
    np.save(server.input / "grey.npy", scene()[None, ..., :1].astype(np.float32) / 255)
    np.save(server.input / "rgba.npy", np.dstack((scene() / 255, disc()))[None].astype(np.float32))
    np.save(server.input / "two.npy", np.zeros((1, 8, 8, 2), dtype=np.float32))
    saliency = server.models / "saliency"
    salience_files.isnet(saliency / "isnet.onnx")
    torch.save(made_state(data, "u2netp"), saliency / "u2netp.pth")
    inpainting(saliency / "migan.onnx")
    (saliency / "truncated.onnx").write_bytes((saliency / "isnet.onnx").read_bytes()[:200])
    diffusion = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)}
    torch.save({"state_dict": diffusion}, saliency / "sd.pth")
    write_sam2(server.models / "sam2" / "tiny")
    with server as running:
        yield running


def node(class_type: str, **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs}


def shown(run: Run, node_id: str) -> np.ndarray:
    """The masks that a node previewed, (B, H, W) of 8 bits."""
    assert run.error is None, run.error
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("L")) for file in run.images(node_id)])


def loaded(file: str) -> dict[str, object]:
    return node("LoadArray", name=file) if file.endswith(".npy") else node("LoadImage", image=file)


def wanted(file: str, maker: dict[str, object]) -> Prompt:
    """A picture as node 1, what makes a mask of it as node 2, and someone who wants that mask."""
    return {"1": loaded(file), "2": maker, "9": node("Wanted", mask=["2", 0])}


def salience(estimator: str, file: str = "scene.png", *, preprocessing: str = "model") -> Prompt:
    inputs = {"image": ["1", 0], "estimator": estimator, "preprocessing": preprocessing}
    return wanted(file, node("CnC_SalienceMap", **inputs))


def refined(file: str = "disc.png", **changes: object) -> Prompt:
    options = {
        "threshold": 0.5, "grow": 0, "fill_holes": False, "largest_only": False, "feather": 0, "invert": False,
    }  # fmt: skip
    return wanted(file, node("CnC_RefineMask", mask=["1", 1], **{**options, **changes}))


def selected(file: str = "scene.png", *, points: str = "", **more: object) -> Prompt:
    inputs = {"image": ["1", 0], "estimator": "tiny", "points": points, **more}
    return wanted(file, node("CnC_SelectObject", **inputs))


def alive(server: Server, class_name: str) -> int:
    run = server.run({"1": node("CountAlive", class_name=class_name)})
    assert run.error is None
    return run.outputs["1"]["alive"][0]


@pytest.mark.parametrize("preprocessing", ["model", "release"])
@pytest.mark.parametrize("estimator", ["mini", "isnet.onnx", "u2netp.pth"])
def test_every_kind_of_model_is_listed_and_gives_what_the_core_gives(
    masks_server: Server, estimator: str, preprocessing: str
) -> None:
    from cnc_core.perception import estimate, load_saliency

    listed = masks_server.object_info()["CnC_SalienceMap"]["input"]["required"]["estimator"][1]["options"]
    assert listed[:2] == ["mini", "alpha"] and estimator in listed
    found = shown(masks_server.run(salience(estimator, preprocessing=preprocessing)), "2")
    picture = torch.from_numpy(scene()).float()[None] / 255
    ours = estimate(load_saliency(estimator, [masks_server.models / "saliency"]), picture, preprocessing=preprocessing)
    assert np.abs(found - 255 * ours.numpy()).max() <= 1.01
    assert ours.std() > 0.01


def test_two_nodes_share_one_session_which_is_gone_when_the_server_frees_memory(masks_server: Server) -> None:
    prompt = salience("isnet.onnx")
    prompt["3"] = node("CnC_SalienceMap", image=["1", 0], estimator="isnet.onnx", preprocessing="release")
    prompt["4"] = node("Wanted", mask=["3", 0])
    run = masks_server.run(prompt)
    assert run.error is None
    assert alive(masks_server, "InferenceSession") == 1

    body = json.dumps({"unload_models": True, "free_memory": True}).encode()
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{masks_server.url}/free", body, headers), timeout=30).close()
    deadline = time.monotonic() + 120
    while alive(masks_server, "InferenceSession") and time.monotonic() < deadline:
        time.sleep(0.2)  # the server frees when it next looks at its queue
    assert alive(masks_server, "InferenceSession") == 0
    again = masks_server.run(prompt)
    np.testing.assert_array_equal(shown(again, "2"), shown(run, "2"))


def test_another_threshold_does_not_run_the_network_again(masks_server: Server) -> None:
    def prompt(threshold: float) -> Prompt:
        inputs = {"image": ["1", 0], "estimator": "u2netp.pth", "grow": 1, "feather": 0}
        return wanted("scene.png", node("CnC_SalientMask", **inputs, threshold=threshold))

    network, refinement = "2.0.0.1", "2.0.0.2"
    first = masks_server.run(prompt(0.31))
    assert first.error is None and {network, refinement} <= set(first.executed)
    second = masks_server.run(prompt(0.32))
    assert second.error is None and refinement in second.executed and network not in second.executed


def test_an_alpha_channel_is_the_mask_when_asked(masks_server: Server) -> None:
    np.testing.assert_array_equal(shown(masks_server.run(salience("alpha", "rgba.npy")), "2")[0] > 127, disc())
    joined = salience("alpha", "disc.png")
    joined["3"] = node("JoinImageWithAlpha", image=["1", 0], alpha=["1", 1])
    joined["2"]["inputs"]["image"] = ["3", 0]  # type: ignore[index]
    np.testing.assert_array_equal(shown(masks_server.run(joined), "2")[0] > 127, ~disc())
    error = masks_server.run(salience("alpha", "disc.png")).error
    assert error is not None and "no alpha channel" in error and "Load Image" in error


@pytest.mark.parametrize("estimator", ["mini", "isnet.onnx"])
def test_alpha_is_left_out_otherwise_and_grey_is_repeated(masks_server: Server, estimator: str) -> None:
    plain = shown(masks_server.run(salience(estimator)), "2")
    np.testing.assert_array_equal(shown(masks_server.run(salience(estimator, "rgba.npy")), "2"), plain)
    assert shown(masks_server.run(salience(estimator, "grey.npy")), "2").shape == (1, HEIGHT, WIDTH)


@pytest.mark.parametrize("estimator", ["mini", "isnet.onnx", "u2netp.pth"])
def test_a_single_pixel(masks_server: Server, estimator: str) -> None:
    assert shown(masks_server.run(salience(estimator, "pixel.png")), "2").shape == (1, 1, 1)


def test_a_picture_of_48_megapixels(masks_server: Server) -> None:
    run = masks_server.run(salience("mini", "huge.png"))
    assert shown(run, "2").shape == (1, 384, 512)  # what the node shows of it is small
    assert run.outputs["9"]["shape"] == [[1, 6000, 8000]]


def test_a_batch_shows_its_progress(masks_server: Server) -> None:
    one = shown(masks_server.run(salience("isnet.onnx")), "2")
    prompt = salience("isnet.onnx")
    prompt["3"] = node("RepeatImageBatch", image=["1", 0], amount=3)
    prompt["2"]["inputs"]["image"] = ["3", 0]  # type: ignore[index]
    run = masks_server.run(prompt)
    np.testing.assert_array_equal(shown(run, "2"), np.repeat(one, 3, axis=0))
    steps = [data["value"] for kind, data in run.messages if kind == "progress" and data["node"] == "2"]
    assert [step for step in steps if step] == [1, 2, 3]


@pytest.mark.parametrize(
    ("estimator", "file", "message"),
    [
        ("mini", "nan.npy", "192 values that are not a number"),
        ("isnet.onnx", "nan.npy", "192 values that are not a number"),
        ("mini", "two.npy", "(1, 8, 8, 2)"),
        ("migan.onnx", "scene.png", "migan.onnx is no salience model"),
        ("truncated.onnx", "scene.png", "truncated.onnx is no ONNX model"),
        ("sd.pth", "scene.png", "sd.pth does not hold the U2-Net"),
    ],
)
def test_what_is_wrong_is_told(masks_server: Server, estimator: str, file: str, message: str) -> None:
    error = masks_server.run(salience(estimator, file)).error
    assert error is not None and message in error, error


def test_a_name_is_looked_up_and_never_a_path(masks_server: Server) -> None:
    error = masks_server.run(salience("../sam2/tiny/model.safetensors")).error
    assert error is not None and ("not in list" in error.lower() or "there is no saliency estimator" in error)


def test_refine_mask(masks_server: Server) -> None:
    inside = shown(masks_server.run(refined(grow=-5, invert=True)), "2")[0] == 0
    assert inside[50, 60] and not (inside & ~disc()).any()
    assert 0.6 < inside.sum() / disc().sum() < 0.8


def test_an_empty_and_a_full_mask_stay_so(masks_server: Server) -> None:
    cleaned = {"grow": 9, "fill_holes": True, "largest_only": True, "feather": 8}
    empty = shown(masks_server.run(refined("scene.png", **cleaned)), "2")
    assert empty.shape == (1, 64, 64) and not empty.any()
    full = shown(masks_server.run(refined("scene.png", invert=True, **cleaned)), "2")
    assert (full == 255).all()


def test_points_and_a_box_select_what_the_core_selects(masks_server: Server) -> None:
    from cnc_core.perception import Box, Point, load_selector, select

    found = shown(masks_server.run(selected(points="60,50; -140,10", box="20,10,120,90")), "2")
    picture = torch.from_numpy(scene()).float()[None] / 255
    selector = load_selector("tiny", [masks_server.models / "sam2"])
    ours = select(selector, picture, (Point(60, 50), Point(140, 10, inside=False)), Box(20, 10, 120, 90))
    assert 0.02 < ours.mean() < 0.98
    np.testing.assert_array_equal(found > 127, ours.numpy() > 0.5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"points": ""}, "nothing shows the object"),
        ({"points": "60;50"}, "is no point"),
        ({"points": "160,50"}, "outside of the picture of 160 x 96"),
        ({"box": "9,9,3,3"}, "has to be left, top, right, bottom"),
        ({"points": "1,1", "file": "nan.npy"}, "not a number"),
    ],
)
def test_a_selection_that_cannot_be_is_told(masks_server: Server, inputs: dict[str, str], message: str) -> None:
    error = masks_server.run(selected(**inputs)).error
    assert error is not None and message in error, error


# What the server cannot show: called in this process.


def test_the_hosts_layers_give_what_plain_ones_give(host) -> None:
    from cnc_core.perception import estimate, load_saliency

    hosted = host.pack.part("nodes.host.perception").saliency_estimator("mini")
    image = torch.rand(2, 40, 56, 3)
    host_result = host.pack.part("cnc_core.perception").estimate(hosted.estimator, image, run=hosted.run)
    assert torch.allclose(host_result, estimate(load_saliency("mini"), image), atol=1e-5)


def test_sessions_are_dropped_with_their_models_after_the_host_has_unloaded_them(
    host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_management as management
    import folder_paths

    for name in ("first.onnx", "second.onnx"):
        salience_files.isnet(tmp_path / name)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "saliency", ([str(tmp_path)], {".onnx"}))
    estimator = host.pack.part("nodes.host.perception").saliency_estimator
    patchers = []

    def session(name: str) -> weakref.ref[object]:
        hosted = estimator(name)
        patchers.append(weakref.ref(hosted.patcher))
        for _ in range(3):
            hosted.run(hosted.estimator.prepare(torch.rand(1, 8, 8, 3)))
            assert estimator(name) is hosted
        return weakref.ref(hosted.estimator.network.session)

    sessions = [session("first.onnx"), session("second.onnx")]
    gc.collect()
    assert all(kept() is not None for kept in sessions)
    assert {patcher() for patcher in patchers} <= set(management.loaded_models())
    management.unload_all_models()
    left = [model for model in management.loaded_models() if model is not None]  # of other tests, maybe
    assert not any(patcher() in left for patcher in patchers)
    gc.collect()
    assert all(kept() is None for kept in sessions)
