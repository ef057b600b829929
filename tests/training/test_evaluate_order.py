"""The order measure on true renders (its ceiling), on planted failures, and what each arm is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.config import ConfigError
from training.evaluate import order
from training.evaluate.choice import Chosen, choose
from training.evaluate.order import WAYS, OrderConfig, Way, captions_of, judged, level, requests, score
from training.evaluate.sampling import Arm, Request, Settings
from training.mini.finished import FinishedMini


@pytest.fixture(scope="module")
def found() -> Chosen:
    return choose(5)


@pytest.fixture(scope="module")
def main_arm(root: Path) -> Arm:
    return Arm.load(root / "models" / "mini", root / "models" / "mini")


def share(found: Chosen, pictures: torch.Tensor, way: Way) -> float:
    scores = score(judged(found.outlines, found.indices, pictures), way)["both"]
    return sum(scores) / len(scores)


def test_true_renders_pass_and_exchanged_ones_fail(found: Chosen) -> None:
    assert found.misread <= 0.1 * (found.drawn - found.too_small) + 1
    for way in WAYS:
        right, wrong = (found.layers, found.exchanged) if way == "as asked" else (found.exchanged, found.layers)
        assert share(found, right.image, way) == 1.0
        assert share(found, wrong.image, way) == 0.0


def test_a_blend_of_both_orders_and_a_picture_without_the_front_are_failures(found: Chosen) -> None:
    assert share(found, found.layers.background, "as asked") == 0.0
    blend = 0.35 * found.layers.image + 0.65 * found.exchanged.image
    assert share(found, blend, "as asked") == 0.0


def test_the_choice_does_not_depend_on_how_many_are_chosen(found: Chosen) -> None:
    fewer = choose(2)
    assert fewer.indices == found.indices[:2]
    assert torch.equal(fewer.layers.image, found.layers.image[:2])


def asked(arm: Arm, found: Chosen, way: Way, **how: bool) -> Request:
    ((_, request),) = requests(arm, found, way, "full", exemplars=True, batch=16, **how)
    return request


def test_what_is_asked_follows_the_definitions(main_arm: Arm, found: Chosen) -> None:
    plain, roles, maps, told = (asked(main_arm, found, way) for way in WAYS)
    layers, other = found.layers, found.exchanged
    assert plain.fg_depth is layers.fg_depth or torch.equal(plain.fg_depth, layers.fg_depth)  # type: ignore[arg-type]
    for request, expected in (
        (plain, (layers.fg_depth, layers.bg_depth, layers.image, layers.background, layers.mask)),
        (roles, (other.fg_depth, other.bg_depth, other.image, other.background, other.mask)),
        (maps, (layers.bg_depth, layers.fg_depth, layers.background, layers.image, layers.back_mask)),
    ):
        given = (request.fg_depth, request.bg_depth, request.fg_exemplar, request.bg_exemplar, request.mask)
        assert all(torch.equal(one, want) for one, want in zip(given, expected, strict=True) if one is not None)
        assert None not in [None if one is None else 1 for one in given]
    assert maps.captions == plain.captions == [scene.caption for scene in found.scenes]
    assert told.captions == roles.captions == [scene.exchanged().caption for scene in found.scenes]
    assert plain.places == roles.places == maps.places, "the same noise"


@pytest.mark.parametrize("kind", ["whole", "z", "max", "none"])
def test_arms_with_one_map_get_it(main_arm: Arm, found: Chosen, kind: str) -> None:
    arm = Arm("other", main_arm.mini, kind)  # type: ignore[arg-type]
    fg_depth, bg_depth = arm.maps(found.layers)
    if kind == "none":
        assert fg_depth is None and bg_depth is None
        return
    assert fg_depth is not None and bg_depth is not None
    expected = torch.maximum(found.layers.fg_depth, found.layers.bg_depth) if kind == "max" else found.layers.depth
    assert torch.equal(bg_depth, expected)
    assert torch.equal(fg_depth, found.layers.depth) if kind == "whole" else not fg_depth.any()
    if kind in ("whole", "max"):
        assert torch.equal(bg_depth, arm.maps(found.layers, True)[1]), "nothing to exchange"  # type: ignore[arg-type]


def test_neutral_captions_do_not_tell_the_order(found: Chosen) -> None:
    for scene in found.scenes:
        neutral = scene.attributes.neutral_caption()
        assert neutral == scene.exchanged().attributes.neutral_caption()
        assert scene.caption != scene.exchanged().caption
    assert captions_of(found.scenes, "as asked", "empty") == [""] * 5


def test_levelled_objects_have_one_mean_depth_and_all_else_stays(found: Chosen) -> None:
    flat = level(found.layers)
    for depth, was, shape in (
        (flat.fg_depth, found.layers.fg_depth, found.layers.mask),
        (flat.bg_depth, found.layers.bg_depth, found.layers.back_mask),
    ):
        means = (depth * shape).sum((1, 2, 3)) / shape.sum((1, 2, 3))
        assert torch.allclose(means, torch.full_like(means, order.EQUAL_LEVEL), atol=0.03)
        assert torch.equal(depth * (1 - shape), was * (1 - shape))


def test_sampling_agrees_with_the_finished_minis_own(main_arm: Arm, found: Chosen) -> None:
    request = asked(main_arm, found, "as asked")
    two = Request(
        request.captions[:2], [0, 1],
        *(value[:2] for value in (request.fg_depth, request.bg_depth, request.fg_exemplar, request.bg_exemplar,
                                  request.mask) if value is not None),
        0.5, 1.5,
    )  # fmt: skip
    settings = Settings(steps=3, cfg=2.0)
    from training.evaluate.sampling import initial_noise

    mini: FinishedMini = main_arm.mini
    expected = mini.sample(
        initial_noise([0, 1], settings.seed, torch.Size((128, 128))), two.captions, two.fg_depth, two.bg_depth,
        fg_embed=mini.embed(two.fg_exemplar), bg_embed=mini.embed(two.bg_exemplar), mask=two.mask,  # type: ignore[arg-type]
        lambda_fg=0.5, lambda_bg=1.5, steps=3, cfg=2.0,
    )  # fmt: skip
    assert torch.allclose(main_arm.sample(two, settings), expected, atol=1e-4)


def test_a_mask_of_ones_is_no_mask_for_the_foreground_but_not_for_the_background(main_arm: Arm, found: Chosen) -> None:
    request = asked(main_arm, found, "as asked")
    guidance = Arm("open", main_arm.mini, mask=False)._guidance(request, lambda value: value)
    assert guidance is not None
    from cnc_core.guidance import token_mask

    assert (token_mask(guidance, 16, 16) == 1).all(), "every token everywhere"


def test_a_run_is_resumed_without_sampling(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mini = root / "models" / "mini"
    ablation = tmp_path / "ablation"
    ablation.mkdir()
    (ablation / "arm.json").write_text('{"name": "ablation", "conditions": "whole"}')
    config = OrderConfig(
        arms=(mini, ablation), lacking=mini, out=tmp_path / "run", limit=2, steps=1, cfg=1.0, captions=("empty",),
        rows=("as asked", "maps exchanged"), device="cpu",
    )  # fmt: skip
    first = order.measure(config)
    assert [(row["arm"], row["way"]) for row in first["rows"]] == [
        (arm, way) for arm in ("main", "ablation") for way in ("as asked", "maps exchanged")
    ]
    pictures = {path.name for path in (tmp_path / "run").glob("*.png")}
    assert pictures == {"order_main.png", "order_ablation.png"}

    def never(*_: object) -> None:
        raise AssertionError("sampled again")

    monkeypatch.setattr(Arm, "sample", never)
    assert order.measure(config) == first


def test_arms_that_cannot_be_measured_are_refused(root: Path, tmp_path: Path) -> None:
    mini = root / "models" / "mini"
    with pytest.raises(ConfigError, match="no folder"):
        Arm.load(tmp_path / "nowhere", mini)
    for told, words in (
        ("{", "not JSON"),
        ('{"conditions": "both"}', "one of layers"),
        ('{"mask": 1}', "true or false"),
    ):
        (tmp_path / "arm.json").write_text(told)
        with pytest.raises(ConfigError, match=words):
            Arm.load(tmp_path, mini)
    (tmp_path / "arm.json").write_text("{}")
    (tmp_path / "unet.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="cannot be read as an arm"):
        Arm.load(tmp_path, mini)
    with pytest.raises(ConfigError, match="same name"):
        OrderConfig(arms=(mini, mini), lacking=mini).start()
    with pytest.raises(ConfigError, match="no arm 'other'"):
        config = OrderConfig(arms=(mini,), lacking=mini, against="other")
        config.compared(config.start())


def test_the_baselines_are_compared_with_the_model_of_their_budget(root: Path, tmp_path: Path) -> None:
    mini, folders = root / "models" / "mini", []
    for name in ("together", "ablation"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "arm.json").write_text(f'{{"name": "{name}"}}')
        folders.append(tmp_path / name)
    config = OrderConfig(arms=(mini, *folders), lacking=mini, variants=("no_fuser",))
    arms = config.start()
    assert [arm.name for arm in arms] == ["main", "main, no_fuser", "together", "ablation"]
    assert config.compared(arms) == "together" and config.compared([arms[0], arms[3]]) == "main"
    assert arms[1].conditions == "none" and arms[1].mini is arms[0].mini
