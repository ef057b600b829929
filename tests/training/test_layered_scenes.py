"""Scenes of one to four solids: what they are made of, and that they agree with the scenes of two."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.mini.clip import ImageEncoder
from training.mini.finished import FinishedMini
from training.mini.layered import MOST, LayeredPictures, LayeredScene, draw_layered_scene, render_layered
from training.mini.layered_data import SHAPES, LayeredDataset, LayeredGroup
from training.mini.render import render
from training.mini.scenes import SEEDS, Surroundings, draw_scenes
from training.mini.words import word_count

SEED = 9


def drawn(solids: int, count: int = 4) -> list[LayeredScene]:
    return [draw_layered_scene(SEED, index, solids) for index in range(count)]


def test_two_solids_are_rendered_as_the_scenes_of_two_are() -> None:
    pairs = draw_scenes(SEEDS["test"], range(6))
    surroundings = [{field.name: getattr(scene, field.name) for field in fields(Surroundings)} for scene in pairs]
    layered = [
        LayeredScene(**around, solids=(scene.front, scene.back))
        for around, scene in zip(surroundings, pairs, strict=True)
    ]
    two, found = render(pairs, 64), render_layered(layered, (64, 64))
    torch.testing.assert_close(found.image, two.image, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.depth, two.depth, atol=1e-6, rtol=0)
    assert torch.equal(found.visible[:, :1], two.mask) and torch.equal(found.masks[:, 1:], two.back_mask)
    alone = F.max_pool2d(two.back_mask, 3, 1, 1) == 0  # at an outline before the other solid its depth mixes in
    torch.testing.assert_close(found.layer_depths[:, :1][alone], two.fg_depth[alone], atol=1e-6, rtol=0)


@pytest.mark.parametrize("solids", range(1, MOST + 1))
def test_a_scene_is_a_function_of_seed_index_and_number(solids: int) -> None:
    scene = draw_layered_scene(SEED, 3, solids)
    again, other = draw_layered_scene(SEED, 3, solids), draw_layered_scene(SEED, 4, solids)
    assert scene.caption == again.caption and all(
        np.array_equal(one.rotation, two.rotation) for one, two in zip(scene.solids, again.solids, strict=True)
    )
    assert [one.x for one in scene.solids] != [one.x for one in other.solids]


@pytest.mark.parametrize("solids", [2, 3, 4])
def test_solids_stand_one_behind_another_before_the_wall(solids: int) -> None:
    for scene in drawn(solids, 100):
        distances = np.array([one.distance for one in scene.solids])
        steps = distances[1:] / distances[:-1]
        assert steps.min() >= 1.45 and steps.max() <= 1.6
        assert distances[-1] * (1 + max(one.size for one in scene.solids)) < scene.wall
        assert len({one.material for one in scene.solids}) == solids
    pictures = render_layered(drawn(solids), (64, 64))
    assert ((pictures.masks > 0).sum((2, 3)) > 0).all()


def test_a_scene_has_one_to_four_solids() -> None:
    for solids in (0, MOST + 1):
        with pytest.raises(ValueError, match="1 to 4 solids"):
            draw_layered_scene(SEED, 0, solids)


def test_reversed_scenes_keep_each_silhouette() -> None:
    scenes = drawn(4, 8)
    pictures, other = (render_layered(one, (64, 64)) for one in (scenes, [scene.reversed() for scene in scenes]))
    differing = (pictures.masks != other.masks.flip(1)).float().mean()
    assert differing < 1e-3  # rounding at an outline
    assert all(a.names == b.names[::-1] for a, b in zip(scenes, [scene.reversed() for scene in scenes], strict=True))
    assert (pictures.visible[:, 0] == pictures.masks[:, 0]).all() and (other.visible[:, 0] == other.masks[:, 0]).all()


@pytest.fixture(scope="module")
def pictures() -> LayeredPictures:
    return render_layered(drawn(3), (64, 64))


def test_visible_parts_are_what_nearer_solids_leave(pictures: LayeredPictures) -> None:
    first, second, third = pictures.masks.bool().unbind(1)
    shown = pictures.visible.bool().unbind(1)
    assert torch.equal(shown[0], first)
    assert torch.equal(shown[1], second & ~first)
    assert torch.equal(shown[2], third & ~first & ~second)


def test_values_are_pictures_and_depths_are_of_each_layer_alone(pictures: LayeredPictures) -> None:
    for field in fields(pictures):
        values = getattr(pictures, field.name)
        assert values.min() >= 0 and values.max() <= 1, field.name
    assert torch.equal(pictures.layer_depths > 0, pictures.masks > 0)
    assert torch.allclose(pictures.layer_depths.amax((2, 3)), torch.ones(4, 3), atol=1e-4)
    alone = render_layered([scene.reversed().reversed() for scene in drawn(3)], (64, 64))
    assert torch.equal(alone.image, pictures.image)
    outside = F.max_pool2d(pictures.masks.amax(1, keepdim=True), 3, 1, 1) == 0
    shadowed = (pictures.image <= pictures.backdrop + 1e-6) | ~outside
    assert shadowed.all()  # what is not a solid is the backdrop or its shadow


def test_wider_pictures_show_more_of_the_same() -> None:
    scenes = drawn(3)
    square, wide, tall = (render_layered(scenes, size) for size in ((64, 64), (64, 96), (96, 64)))
    torch.testing.assert_close(wide.image[..., 16:80], square.image, atol=2e-3, rtol=0)
    torch.testing.assert_close(tall.masks[..., 16:80, :], square.masks, atol=0, rtol=0)
    places = [thing.x for index in range(60) for thing in draw_layered_scene(SEED, index, 2, across=1.5).solids]
    assert max(places) > 0.5 and min(places) < -0.5


def test_captions_tell_what_they_say() -> None:
    scene = drawn(3, 1)[0]
    assert all(words in scene.caption for words in scene.names) and scene.caption.count("in front of") == 2
    assert all(words in scene.neutral_caption for words in scene.names) and "front" not in scene.neutral_caption
    assert not any(words in scene.surroundings_caption for words in scene.names)
    assert [word_count(words) for words in ("red cone", "checkered cone")] == [2, 3]


def test_training_groups_are_made_once_and_read_again(root: Path, tmp_path: Path) -> None:
    mini = FinishedMini.load(root / "models" / "mini")
    assert isinstance(mini.image_encoder, ImageEncoder)

    def made(count: int) -> LayeredDataset:
        assert mini.image_encoder is not None
        return LayeredDataset(tmp_path, SEED, count, mini.autoencoder, mini.image_encoder, torch.device("cpu"))

    first = made(12)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(times) == len(SHAPES) * MOST == len(first.groups)
    again = made(12)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times
    for one, other in zip(first.groups, again.groups, strict=True):
        assert all(torch.equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(LayeredGroup))
    for group, (height, width) in zip(first.groups[::MOST], SHAPES, strict=True):
        assert group.latents.shape[2:] == (height // 8, width // 8) and group.visible.shape[1] == 1
    assert sum(first.weights) == pytest.approx(1)
