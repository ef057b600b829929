"""Estimators inside the host: what artists connect, one network for all nodes, folders, interrupts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch


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
    with pytest.raises(ValueError, match="image has 2 pictures and mask has 3"):
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
