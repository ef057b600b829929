"""evaluate layers: its figures on pictures that are known, and planted mistakes that lower them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cnc_core.depth_layers import DepthLayer, regions
from training.config import ConfigError, load_config
from training.evaluate import layered, layered_sampling
from training.evaluate.depth import ESTIMATOR, Reader
from training.evaluate.folder import Row
from training.evaluate.judge import PATH, Judge
from training.evaluate.layered import LayersConfig, Networks, measured, requests, scores
from training.evaluate.layered_sampling import LayeredRequest, depth_layers, depth_maps, guidance_of, sample
from training.evaluate.layered_scenes import LayeredTrials, render_scenes, select
from training.evaluate.sampling import Arm, Settings
from training.mini.world import MATERIALS

SEED = 5
COUNT = 6


@pytest.fixture(scope="module")
def networks(root: Path) -> Networks:
    return Networks(Judge.load(root / PATH), Reader(root / ESTIMATOR))


@pytest.fixture(scope="module")
def trials(networks: Networks) -> LayeredTrials:
    return select(COUNT, 3, SEED, networks.segmenter)


@pytest.fixture(scope="module")
def arm(root: Path) -> Arm:
    return Arm.load(root / "models" / "mini", root / "models" / "mini")


def figures(networks: Networks, trials: LayeredTrials, images: Tensor) -> dict[str, float]:
    lines = measured(networks, images, trials.scenes, trials.pictures, trials.indices)
    return {name: sum(values) / len(values) for name, values in scores(lines).items()}


def test_true_renders_are_read_right(networks: Networks, trials: LayeredTrials) -> None:
    found = figures(networks, trials, trials.pictures.image)
    assert found["all pairs"] == found["material, all"] == 1
    assert found["leakage"] < 0.02 and max(found[f"depth, layer {k}"] for k in (1, 2, 3)) < 0.06
    assert trials.ceiling > 0.8 and len(trials.scenes) == COUNT


def test_the_first_scenes_that_count_are_taken(networks: Networks, trials: LayeredTrials) -> None:
    fewer = select(2, 3, SEED, networks.segmenter, at_once=4)
    assert fewer.indices == trials.indices[:2]
    assert torch.equal(fewer.pictures.image, trials.pictures.image[:2])
    assert torch.equal(fewer.reversed.image, trials.reversed.image[:2])


def test_the_opposite_order_is_no_success(networks: Networks, trials: LayeredTrials) -> None:
    found = figures(networks, trials, trials.reversed.image)
    assert found["pair 1, 2"] == found["pair 2, 3"] == found["all pairs"] == 0


def test_two_exchanged_layers_fail_in_their_pair(networks: Networks, trials: LayeredTrials) -> None:
    def exchanged(first: int) -> Tensor:
        scenes = []
        for scene in trials.scenes:
            solids = list(scene.solids)
            near, far = solids[first], solids[first + 1]
            solids[first : first + 2] = [
                replace(far, distance=near.distance), replace(near, distance=far.distance)
            ]  # fmt: skip
            scenes.append(replace(scene, solids=tuple(solids)))
        return render_scenes(scenes).image

    first, second = (figures(networks, trials, exchanged(k)) for k in (0, 1))
    assert first["pair 1, 2"] == 0 and second["pair 2, 3"] == 0
    assert second["pair 1, 2"] == 1


def test_another_layers_material_is_named_and_leaks(networks: Networks, trials: LayeredTrials) -> None:
    def turned(shift: int) -> Tensor:
        scenes = []
        for scene in trials.scenes:
            materials = [solid.material for solid in scene.solids]
            turned = materials[shift:] + materials[:shift]
            solids = (replace(one, material=m) for one, m in zip(scene.solids, turned, strict=True))
            scenes.append(replace(scene, solids=tuple(solids)))
        return render_scenes(scenes).image

    found = figures(networks, trials, turned(1))
    assert found["material, mean"] == 0 and found["leakage"] > 0.9


def test_another_depth_is_an_error(networks: Networks, trials: LayeredTrials) -> None:
    right = figures(networks, trials, trials.pictures.image)
    flat = torch.where(trials.pictures.visible[:, :1] > 0, 0.5, trials.pictures.image)
    assert figures(networks, trials, flat)["depth, layer 1"] > right["depth, layer 1"]


def test_requests_have_each_scene_once_with_words_of_one_length(trials: LayeredTrials) -> None:
    for condition in ("as asked", "reversed", "looks"):
        places = []
        for rows, request in requests(trials, condition, 4):
            places += rows
            assert len({layered.word_lengths(scene) for scene in request.scenes}) == 1
            assert request.words == (condition != "looks") and (request.exemplars is None) == request.words
            names = {MATERIALS[solid.material].name for scene in request.scenes for solid in scene.solids}
            assert not any(name in caption.split() for name in names for caption in request.captions)
        assert sorted(places) == list(range(COUNT))


def test_exemplars_show_the_layers_materials(networks: Networks, trials: LayeredTrials) -> None:
    for exemplars, scene in zip(trials.exemplars, trials.scenes, strict=True):
        own = [solid.material for solid in scene.solids]
        assert [one.front.material for one in exemplars] == own
        assert not {one.back.material for one in exemplars} & set(own)
    assert trials.exemplar_pictures([0, 2]).shape == (2, 3, 3, 128, 128)


@pytest.fixture(scope="module")
def request_(trials: LayeredTrials) -> LayeredRequest:
    return next(requests(trials, "as asked", 4))[1]


def test_words_act_where_their_layer_shows_and_in_the_first_half_alone(arm: Arm, request_: LayeredRequest) -> None:
    layers = depth_layers(arm.mini, request_)
    found = guidance_of(layers, halves=2)
    assert found is not None and len(found.regions) == 3
    count = len(request_.scenes)
    for k, region in enumerate(found.regions):
        assert region.mask is not None
        assert torch.equal(region.mask[:count, 0], request_.pictures.visible[:, k])
        assert region.mask[count:].sum() == 0 and region.tokens.shape[0] == 2 * count
    whole = arm.mini.text(layered_sampling.token_rows([request_.scenes[0].prompts[1]]))
    length = found.regions[1].tokens.shape[1]
    torch.testing.assert_close(found.regions[1].tokens[0], whole[0, 1 : 1 + length])


def test_looks_leave_the_rest_to_the_backdrop(arm: Arm, trials: LayeredTrials) -> None:
    _, asked = next(requests(trials, "looks", 2))
    found = guidance_of(depth_layers(arm.mini, asked), halves=1)
    assert found is not None and len(found.regions) == 4
    masks = torch.stack([region.mask for region in found.regions if region.mask is not None])
    assert torch.equal(masks.sum(0), torch.ones_like(masks[0]))


def test_methods_differ_in_what_they_say(arm: Arm, request_: LayeredRequest) -> None:
    layers, pictures = depth_layers(arm.mini, request_), request_.pictures
    fg_depth, bg_depth = depth_maps("layers", request_, layers)
    assert torch.equal(fg_depth, pictures.layer_depths[:, :1])
    middle = pictures.masks[:, 1:2] > 0
    assert bg_depth[middle].min() >= 0.5  # also where the nearest layer hides it
    none, z_buffer = depth_maps("z-buffer", request_, layers)
    assert none.sum() == 0 and torch.equal(z_buffer, pictures.depth)
    _, true = depth_maps("true depths", request_, layers)
    assert (true[middle] - bg_depth[middle]).abs().max() > 0.01
    _, closer = depth_maps("closer ranges", request_, layers)
    torch.testing.assert_close(closer[middle], 0.6 + 0.4 * pictures.layer_depths[:, 1:2][middle])


@pytest.mark.parametrize("method", ["z-buffer, regional prompts", "depth_map", "blended residuals"])
def test_each_rival_samples(method: layered.Method, arm: Arm, request_: LayeredRequest) -> None:
    images = sample(arm.mini, method, request_, Settings(steps=2))
    assert images.shape == request_.pictures.image.shape and images.std() > 0.05


def test_regional_prompts_of_one_text_are_plain_guidance(arm: Arm, request_: LayeredRequest) -> None:
    """The weighted mean of equal predictions is the prediction."""
    one = replace(request_.scenes[0])
    same = replace(one, solids=(one.solids[0],) * 3)
    caption = same.prompts[0]
    asked = replace(request_, scenes=[same] * len(request_.scenes), captions=[caption] * len(request_.scenes))
    regional = sample(arm.mini, "z-buffer, regional prompts", asked, Settings(steps=2))
    plain = sample(arm.mini, "z-buffer", replace(asked, words=False), Settings(steps=2))
    torch.testing.assert_close(regional, plain, atol=1e-4, rtol=0)


def test_a_wrong_config_is_refused() -> None:
    for wrong, words in (
        ({"layers": 5}, "expected 2 to 4"),
        ({"layers": 3, "rows": ["ambiguous caption"]}, "of two layers"),
        ({"layers": 4, "methods": ["closer ranges"]}, "of 3 layers"),
        ({"text_weight": 0.0}, "more than 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_config(LayersConfig, None, wrong)


Mistake = Callable[[pytest.MonkeyPatch], None]


def layers_exchanged(patch: pytest.MonkeyPatch) -> None:
    def wrong(mini: object, request: LayeredRequest, text_weight: float = 4.0) -> list[DepthLayer]:
        first, second, *rest = depth_layers(mini, request, text_weight)  # type: ignore[arg-type]
        return [second, first, *rest]

    patch.setattr(layered_sampling, "depth_layers", wrong)


def words_of_another_layer(patch: pytest.MonkeyPatch) -> None:
    def wrong(mini: object, request: LayeredRequest, text_weight: float = 4.0) -> list[DepthLayer]:
        *layers, backdrop = depth_layers(mini, request, text_weight)  # type: ignore[arg-type]
        texts = [layer.text for layer in (*layers[1:], layers[0])]
        return [*(replace(one, text=text) for one, text in zip(layers, texts, strict=True)), backdrop]

    patch.setattr(layered_sampling, "depth_layers", wrong)


def masks_not_reduced(patch: pytest.MonkeyPatch) -> None:
    def wrong(layers: list[DepthLayer]) -> list[object]:
        masks = [layer.mask for layer in layers if layer.mask is not None]
        worded = [region for region in regions(layers) if region.tokens.shape[1]]
        return [replace(region, mask=mask) for region, mask in zip(worded, masks, strict=True)]

    patch.setattr(layered_sampling, "regions", wrong)


@pytest.mark.slow
def test_planted_mistakes_lower_the_figures(
    networks: Networks, arm: Arm, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself, small; then with each mistake in the pack's way."""
    monkeypatch.chdir(root)

    def run(name: str, mistake: Mistake | None = None) -> dict[str, float]:
        config = LayersConfig(
            layers=3, seed=SEED, limit=12, steps=8, rows=("as asked",), out=tmp_path / name, threads=1
        )
        with monkeypatch.context() as patch:
            if mistake is not None:
                mistake(patch)
            results = layered.measure(config)
        row: Row = results["rows"]["main: layers, as asked"]
        assert (config.out / "layers_3.png").exists() and "seed 5" in (config.out / "layers.md").read_text()
        (part,) = (config.out / "parts").glob("layers_main*layers*as_asked*.jsonl")
        lines = part.read_text().splitlines()[1:]
        assert [json.loads(line)["scene"] for line in lines] == sorted(json.loads(line)["scene"] for line in lines)
        assert len(lines) == 12
        return {name: float(figure["mean"]) for name, figure in row.items()}

    right = run("right")
    assert right["all pairs"] > 0.5 and right["material, mean"] > 0.6
    exchanged = run("exchanged", layers_exchanged)
    assert exchanged["pair 1, 2"] < right["pair 1, 2"] - 0.5
    worded = run("words", words_of_another_layer)
    assert worded["material, mean"] < right["material, mean"] - 0.4 and worded["leakage"] > right["leakage"] + 0.3
    whole = run("masks", masks_not_reduced)
    assert whole["leakage"] > right["leakage"] and whole["material, mean"] < right["material, mean"]
