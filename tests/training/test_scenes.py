"""The world: deterministic, with layers that agree with each other."""

from dataclasses import replace

import pytest
import torch

from training.mini.render import Layers, render
from training.mini.scenes import SEEDS, draw_scene, draw_scenes
from training.mini.world import BACKDROPS, MATERIALS

SCENES = draw_scenes(SEEDS["test"], range(6))


@pytest.fixture(scope="module")
def layers() -> Layers:
    return render(SCENES, size=64)


@pytest.fixture(scope="module")
def exchanged() -> Layers:
    return render([scene.exchanged() for scene in SCENES], size=64)


def test_a_scene_is_a_function_of_seed_and_index(layers: Layers) -> None:
    again = render(draw_scenes(SEEDS["test"], range(6)), size=64)
    assert torch.equal(again.image, layers.image)
    alone = render([draw_scene(SEEDS["test"], 3)], size=64)
    torch.testing.assert_close(alone.image[0], layers.image[3], atol=1e-5, rtol=0)


def test_splits_draw_different_scenes() -> None:
    assert len(set(SEEDS.values())) == len(SEEDS)
    first = [draw_scene(seed, 0) for seed in SEEDS.values()]
    assert len({scene.front.x for scene in first}) == len(SEEDS)


def test_values_are_pictures(layers: Layers) -> None:
    for name in ("image", "background", "mask", "depth", "fg_depth", "bg_depth", "other_bg_depth"):
        values = getattr(layers, name)
        assert values.min() >= 0 and values.max() <= 1, name
    for name in ("depth", "fg_depth", "bg_depth", "other_bg_depth"):
        assert torch.allclose(getattr(layers, name).amax((1, 2, 3)), torch.ones(6), atol=1e-4), name


def test_the_other_backdrops_depth_is_that_of_the_scene_rendered_before_it(layers: Layers) -> None:
    kinds = [backdrop.wall for backdrop in BACKDROPS]
    others = [replace(scene, backdrop=kinds.index(not kinds[scene.backdrop])) for scene in SCENES]
    assert {kinds[scene.backdrop] for scene in SCENES} == {True, False}
    rendered = render(others, size=64)
    assert torch.equal(layers.other_bg_depth, rendered.bg_depth)
    assert torch.equal(rendered.other_bg_depth, layers.bg_depth)
    assert ((layers.other_bg_depth - layers.bg_depth).abs().amax((1, 2, 3)) > 0.05).all()


def test_the_cut_out_is_the_image_under_the_mask(layers: Layers) -> None:
    assert torch.equal(layers.foreground, layers.image * layers.mask)
    assert torch.equal(layers.fg_depth > 0, layers.mask > 0)
    assert torch.equal(layers.mask, layers.mask.round())


def test_the_background_differs_only_at_the_object_and_below_its_shadow(layers: Layers) -> None:
    around = torch.nn.functional.max_pool2d(layers.mask, 3, 1, 1) > 0
    outside = ~around.expand(-1, 3, -1, -1)
    darker = layers.background - layers.image
    assert (darker[outside] >= -1e-5).all(), "outside the object only a shadow may differ"
    assert (darker[outside].abs() < 1e-5).float().mean() > 0.8
    assert (darker.abs() * layers.mask).amax((1, 2, 3)).min() > 0.1


def inside(shape: torch.Tensor) -> torch.Tensor:
    """Without the border pixels, whose depth is a mean of two surfaces."""
    return -torch.nn.functional.max_pool2d(-shape, 3, 1, 1) > 0


def test_the_front_is_nearer_than_the_back(layers: Layers, exchanged: Layers) -> None:
    for one in (layers, exchanged):
        assert (one.mask * one.back_mask).sum() > 0
        for depth, front, back in zip(one.depth, inside(one.mask), inside(one.back_mask * (1 - one.mask)), strict=True):
            if front.any() and back.any():
                assert depth[front].min() > depth[back].max()


def test_exchanging_roles_keeps_the_silhouettes(layers: Layers, exchanged: Layers) -> None:
    assert (exchanged.mask - layers.back_mask).abs().mean() < 2e-3
    assert (exchanged.back_mask - layers.mask).abs().mean() < 2e-3


def test_the_caption_names_front_then_back() -> None:
    scene = SCENES[0]
    words = scene.caption.split()
    front, back = MATERIALS[scene.front.material].name, MATERIALS[scene.back.material].name
    assert words.index(front) < words.index(back)
    other = scene.exchanged().caption.split()
    assert other.index(back) < other.index(front)
