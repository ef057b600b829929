"""Layers on models in this process: words on an SDXL, strength by layer, where words end, models that are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ..conftest import Host
from .golden_model import GoldenModel, check_equal
from .test_refusals import small_sdxl

WIDTH = 2048
"""Of SDXL's text: 768 of one encoder, 1280 of the other."""


@pytest.fixture(scope="module")
def sdxl() -> Any:
    torch.manual_seed(1)
    model = small_sdxl(WIDTH)
    for name, parameter in model.model.diffusion_model.named_parameters():
        loud = "attn2.to_v" in name or "attn2.to_out" in name  # so that a change of the text is well seen
        torch.nn.init.normal_(parameter, std=0.3 if loud else 0.03)
    return model


def text(seed: int, length: int = 77, width: int = WIDTH) -> list[list[Any]]:
    rows = torch.randn(1, length, width, generator=torch.Generator().manual_seed(seed))
    return [[rows, {"pooled_output": rows[:, 0, :1280] if width == WIDTH else None}]]


def words(seed: int, length: int, width: int = WIDTH) -> list[list[Any]]:
    """A text whose rows but for the first are words."""
    embedding, options = text(seed, length + 1, width)[0]
    return [[embedding, {**options, "cnc_words": list(range(1, length + 1))}]]


def half(side: str, size: int = 64) -> Tensor:
    mask = torch.zeros(1, size, size)
    mask[..., : size // 2] = 1
    return mask if side == "left" else mask.flip(-1)


def layers(host: Host, *given: dict[str, Any]) -> tuple[Any, ...]:
    """The chain of layers, the farthest first."""
    layer = host.pack.part("nodes.host.layers").Layer
    return tuple(layer(**one) for one in given)


def applied(host: Host, model: Any, stack: tuple[Any, ...], positive: Any, negative: Any, **inputs: Any) -> Any:
    node = host.pack.part("nodes.stack").ApplyLayers
    return node.execute(model, positive, negative, stack, **{"strength": 1.0, **inputs}).args


def sample(model: Any, positive: Any, negative: Any, cfg: float = 3.0) -> Tensor:
    import comfy.samplers

    options = {"sampler": "ddim", "scheduler": "ddim_uniform", "denoise": 1.0, "model_options": model.model_options}
    sampler = comfy.samplers.KSampler(model, 2, model.load_device, **options)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        latent = torch.zeros_like(noise)
        out: Tensor = sampler.sample(noise, positive, negative, cfg, latent_image=latent, disable_pbar=True, seed=0)
    return out.clone()


def test_words_all_over_are_words_behind_the_prompt_on_sdxl(host: Host, sdxl: Any) -> None:
    """With weight 1, on the positive half: as the prompt with the words' rows after its own."""
    positive, negative, own = text(1), text(2), words(3, 12)
    joined = [[torch.cat([positive[0][0], own[0][0][:, 1:]], 1), positive[0][1]]]
    for stack in (
        layers(host, {"text": own, "text_weight": 1.0, "mask": torch.ones(1, 64, 64)}),
        layers(
            host,
            {"text": own, "text_weight": 1.0, "mask": half("left")},
            {"text": own, "text_weight": 1.0, "mask": half("right")},
        ),
    ):
        patched, *sides = applied(host, sdxl, stack, positive, negative)
        check_equal(sample(patched, *sides, cfg=1.0), sample(sdxl, joined, negative, cfg=1.0))
        assert (sample(patched, *sides) - sample(sdxl, positive, negative)).abs().max() > 1e-2


def test_words_act_where_their_layer_shows_on_sdxl(host: Host, sdxl: Any) -> None:
    """A layer that a nearer one hides takes the nearer one's words; an absent text leaves the model as it is."""
    positive, negative = text(1), text(2)
    front, behind = {"mask": half("left"), "text": words(3, 12)}, {"mask": half("left"), "text": words(4, 9)}
    both, *_ = applied(host, sdxl, layers(host, behind, front), positive, negative)
    alone, *_ = applied(host, sdxl, layers(host, front), positive, negative)
    other, *_ = applied(host, sdxl, layers(host, behind), positive, negative)
    outs = [sample(model, positive, negative) for model in (both, alone, other)]
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])
    plain, *sides = applied(host, sdxl, layers(host, {"mask": half("left")}), positive, negative)
    assert plain is sdxl and sides == [positive, negative]


def test_a_stack_without_fusers_gives_one_depth_map(host: Host) -> None:
    """Near is bright, what is nearer hides what is behind."""
    near, far = torch.rand(1, 64, 64, 3), torch.rand(1, 64, 64, 3)
    stack = layers(host, {"depth": far}, {"depth": near, "mask": half("left")})
    node = host.pack.part("nodes.stack").StackLayers
    *_, fg_depth, bg_depth, depth_map = node.execute(stack).args
    left = half("left")[..., None].bool().expand(-1, -1, -1, 3)
    assert torch.equal(fg_depth, near) and torch.equal(bg_depth, far)
    assert torch.allclose(depth_map[left], 0.6 + 0.4 * near[left])
    assert torch.allclose(depth_map[~left], 0.65 * far[~left])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"text": words(3, 5, 768)}, "^layer 1 'knight': text is 768 wide and the model's texts are 2048"),
        ({"text": [*text(1), *text(2)]}, "^layer 1 'knight': text has 2 entries"),
        ({"text": [[text(1)[0][0], {"hooks": object()}]]}, "^layer 1 'knight': text has hooks"),
        ({"exemplar": {"image_embeds": torch.zeros(1, 768)}}, "^layer 1 'knight' has an exemplar, which needs fusers"),
    ],
)
def test_what_does_not_go_with_sdxl_is_named(host: Host, sdxl: Any, inputs: dict[str, Any], message: str) -> None:
    stack = layers(host, {"mask": half("right")}, {"name": "knight", "mask": half("left"), **inputs})
    with pytest.raises(ValueError, match=message):
        applied(host, sdxl, stack, text(1), text(2))


def test_fusers_of_another_model_are_refused(one: GoldenModel, sdxl: Any) -> None:
    stack = layers(one.host, {"mask": half("left")})
    with pytest.raises(ValueError, match=r"trained for a model whose texts are 64 wide, and those of .*SDXL are 2048"):
        applied(one.host, sdxl, stack, text(1), text(2), fusers=one.fusers)


def test_an_exemplar_of_another_image_encoder_names_the_layer(one: GoldenModel) -> None:
    stack = layers(
        one.host, {"name": "knight", "mask": half("left"), "exemplar": {"image_embeds": torch.zeros(1, 1024)}}
    )
    with pytest.raises(ValueError, match=r"the exemplar of layer 1 'knight' comes from .* 1024 numbers"):
        applied(one.host, one.model, stack, *one.text(), fusers=one.fusers)


def test_a_model_without_cross_attention_is_refused(host: Host, sdxl: Any) -> None:
    class Transformer(torch.nn.Module):
        """A diffusion transformer's blocks have another kind of attention."""

    model = sdxl.clone()
    model.model = type("Flux", (), {"diffusion_model": Transformer()})()
    with pytest.raises(ValueError, match="through the cross-attention of a U-Net, and Flux has none"):
        applied(host, model, layers(host, {"mask": half("left")}), text(1), text(2))


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.7])
def test_one_strength_of_all_layers_is_the_strength(one: GoldenModel, strength: float) -> None:
    size = one.image("fg_depth").shape[1:3]
    mask = torch.zeros(1, *size)
    mask[:, 5:40, 10:30] = 1
    back = {"depth": one.image("bg_depth"), "strength": strength}
    front = {"depth": one.image("fg_depth"), "mask": mask, "strength": strength}
    by_layer = applied(one.host, one.model, layers(one.host, back, front), *one.text(), fusers=one.fusers)
    run = one.sample(one.model, by_layer[1:], steps=2)
    expected = one.sample(one.model, one.steered(*one.text(), strength=strength), steps=2)
    check_equal(run, expected)
    if strength == 0:
        assert torch.equal(run, one.sample(one.model, one.text(), steps=2))


def test_strength_by_layer_scales_each_residual_where_the_layer_shows(one: GoldenModel) -> None:
    """Of two pictures in one batch, positive and negative together; the map is each residual's own share of cells."""
    control = one.host.pack.part("nodes.host.control").LocalFuserControl
    device = one.model.load_device
    import comfy.model_management

    maps = [one.released[f"in.{name}"][:1].repeat(2, 1, 1, 1) for name in ("fg_depth", "bg_depth")]
    strength = torch.rand(2, 1, *maps[0].shape[-2:], generator=torch.Generator().manual_seed(5))
    comfy.model_management.load_models_gpu([one.fusers.local_fuser])
    x = one.released["in.x"][:1].repeat(4, 1, 1, 1).to(device)
    cond = {"c_crossattn": one.released["in.ctx"][:1].repeat(4, 1, 1)}

    def residuals(strength_map: Tensor | None) -> list[Tensor]:
        made = control(one.fusers.local_fuser, torch.float32, *maps, strength_map).scheduled(1.0, 0.0, 1.0)
        made.pre_run(one.model.model, lambda percent: percent)
        with torch.inference_mode():
            given = made.get_control(x, torch.full((4,), 3.0), cond, 2, {})
        made.cleanup()
        return [*given["output"], *given["middle"]]

    for plain, scaled in zip(residuals(None), residuals(strength), strict=True):
        cell = strength.shape[-1] // plain.shape[-1]
        shares = strength.unfold(2, cell, cell).unfold(3, cell, cell).mean((-1, -2)).repeat(2, 1, 1, 1)
        check_equal(scaled, plain * shares)


def test_words_are_found_by_the_tokenizer(host: Host) -> None:
    """Of any length, weighted, empty; start, end and padding are left out, in each section of 77."""
    mini = host.pack.part("nodes.host.mini")
    marked = host.pack.part("nodes.host.layers")
    clip = mini.load_clip()
    for prompt, expected in {
        "": [],
        "red sphere": [1, 2],
        "(red:1.3) sphere on grass": [1, 2, 3, 4],
        "red " * 75 + "green green": [*range(1, 76), 78, 79],
    }.items():
        encoded = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
        conditioning = marked.mark_words(encoded, clip, prompt)
        rows = marked.words(conditioning, encoded[0][0].shape[-1])
        if not expected:
            assert rows is None
        else:
            assert torch.equal(rows, encoded[0][0][:, expected])
        assert set(encoded[0][1]) == set(conditioning[0][1]) - {"cnc_words"}  # the given one is left as it is
    other = marked.mark_words(encoded, clip, "red sphere")  # not the text of this conditioning
    assert "cnc_words" not in other[0][1]
    assert marked.words(other, encoded[0][0].shape[-1]).shape[1] == encoded[0][0].shape[1] - 1
