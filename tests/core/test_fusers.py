"""What the fusers and the U-Net promise beside their numbers: sizes, batches, absent layers, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cnc_core import FuserConfig, GlobalFuser, Guidance, GuidedContext, LocalFuser, Region, UNet

from .golden import Golden, relative_error

Inputs = tuple[Tensor, Tensor, Tensor]


def inputs(config: FuserConfig, batch: int, height: int, width: int, text: int = 77) -> Inputs:
    """Return x, timesteps and text."""
    x = torch.randn(batch, config.in_channels, height, width)
    return x, torch.randint(0, 1000, (batch,)), torch.randn(batch, text, config.context_dim)


def depths(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return two depth maps for a latent of height x width."""
    fg, bg = torch.rand(2, batch, 3, 8 * height, 8 * width)
    return fg, bg


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_depth_encoded_once_equals_depth_given_each_time(local_fuser: LocalFuser, config: FuserConfig) -> None:
    x, t, text = inputs(config, 2, 8, 8)
    fg, bg = depths(2, 8, 8)
    encoding = local_fuser.encode_depth(fg, bg)
    for given, encoded in zip(local_fuser(x, t, text, fg, bg), local_fuser(x, t, text, depth=encoding), strict=True):
        assert torch.equal(given, encoded)


def test_one_depth_map_serves_a_batch(local_fuser: LocalFuser, config: FuserConfig) -> None:
    x, t, text = inputs(config, 3, 8, 8)
    fg, bg = depths(1, 8, 8)
    one = local_fuser(x, t, text, fg, bg)
    repeated = local_fuser(x, t, text, fg.repeat(3, 1, 1, 1), bg.repeat(3, 1, 1, 1))
    mixed = local_fuser(x, t, text, fg.repeat(3, 1, 1, 1), bg)
    for first, *others in zip(one, repeated, mixed, strict=True):
        for other in others:
            assert relative_error(first, other) < 1e-5


def test_the_memory_layout_of_images_does_not_reach_the_residuals(local_fuser: LocalFuser, config: FuserConfig) -> None:
    """Channels last, as images come, would make each injected convolution rearrange its weights at every step."""
    x, t, text = inputs(config, 2, 8, 8)
    fg, bg = (depth.to(memory_format=torch.channels_last) for depth in depths(1, 8, 8))
    encoding = local_fuser.encode_depth(fg, bg)
    assert all(feature.is_contiguous() for feature in encoding.features)
    assert all(part.is_contiguous() for norms in encoding.modulations for norm in norms for part in norm)
    assert all(residual.is_contiguous() for residual in local_fuser(x, t, text, depth=encoding))


def test_depth_maps_serve_each_chunk_of_the_batch(local_fuser: LocalFuser, config: FuserConfig) -> None:
    """Two images under cond and uncond are a batch of four for two depth maps."""
    x, t, text = inputs(config, 4, 8, 8)
    fg, bg = depths(2, 8, 8)
    once = local_fuser(x, t, text, fg, bg)
    repeated = local_fuser(x, t, text, fg.repeat(2, 1, 1, 1), bg.repeat(2, 1, 1, 1))
    for first, other in zip(once, repeated, strict=True):
        assert relative_error(first, other) < 1e-5


def test_a_batch_equals_its_items(local_fuser: LocalFuser, unet: UNet, config: FuserConfig) -> None:
    x, t, text = inputs(config, 2, 8, 8)
    fg, bg = depths(2, 8, 8)
    tokens, mask = torch.randn(2, 4, config.context_dim), torch.rand(2, 1, 64, 64)

    def predict(rows: slice) -> Tensor:
        guidance = Guidance((Region(tokens[rows], mask[rows], 0.7),))
        residuals = local_fuser(x[rows], t[rows], text[rows], fg[rows], bg[rows], guidance=guidance)
        return unet(x[rows], t[rows], text[rows], residuals=residuals, guidance=guidance)

    together = predict(slice(0, 2))
    for item in range(2):
        assert relative_error(together[item : item + 1], predict(slice(item, item + 1))) < 1e-5


@pytest.mark.parametrize(("height", "width"), [(21, 13), (8, 24), (9, 9)])
@pytest.mark.parametrize("resize", ["area", "release"])
def test_any_latent_size(
    local_fuser: LocalFuser, unet: UNet, config: FuserConfig, height: int, width: int, resize: str
) -> None:
    x, t, text = inputs(config, 1, height, width, text=154)
    regions = (Region(torch.randn(1, 4, config.context_dim), torch.rand(1, 1, 50, 70).round()),)
    guidance = Guidance(regions, resize=resize)  # type: ignore[arg-type]
    residuals = local_fuser(x, t, text, *depths(1, height, width), guidance=guidance)
    sizes = [tuple(residual.shape[2:]) for residual in residuals]
    half, quarter = (-(-height // 2), -(-width // 2)), (-(-height // 4), -(-width // 4))
    eighth = (-(-height // 8), -(-width // 8))
    assert sizes == [(height, width)] * 3 + [half] * 3 + [quarter] * 3 + [eighth] * 4
    prediction = unet(x, t, text, residuals=residuals, guidance=guidance)
    assert prediction.shape == x.shape
    assert prediction.isfinite().all()


def test_an_absent_layer_is_a_map_of_zeros(local_fuser: LocalFuser, config: FuserConfig) -> None:
    x, t, text = inputs(config, 1, 8, 8)
    fg, bg = depths(1, 8, 8)
    zeros = torch.zeros_like(fg)
    for absent, given in (((fg, None), (fg, zeros)), ((None, bg), (zeros, bg))):
        for first, other in zip(local_fuser(x, t, text, *absent), local_fuser(x, t, text, *given), strict=True):
            assert torch.equal(first, other)


def test_the_layers_are_not_exchangeable(local_fuser: LocalFuser, config: FuserConfig) -> None:
    x, t, text = inputs(config, 1, 8, 8)
    fg, bg = depths(1, 8, 8)
    asked, swapped = local_fuser(x, t, text, fg, bg), local_fuser(x, t, text, bg, fg)
    assert torch.equal(asked[0], swapped[0])  # a convolution of x alone
    assert all(relative_error(first, other) > 1e-4 for first, other in zip(asked[1:], swapped[1:], strict=True))


def test_guidance_reaches_the_fuser_from_the_first_attention_on(local_fuser: LocalFuser, config: FuserConfig) -> None:
    x, t, text = inputs(config, 1, 8, 8)
    fg, bg = depths(1, 8, 8)
    guidance = Guidance((Region(torch.randn(1, 4, config.context_dim), None),))
    plain, guided = local_fuser(x, t, text, fg, bg), local_fuser(x, t, text, fg, bg, guidance=guidance)
    assert torch.equal(plain[0], guided[0])  # a convolution of x alone
    assert all(relative_error(first, other) > 1e-4 for first, other in zip(guided[1:], plain[1:], strict=True))


def test_a_fresh_local_fuser_changes_nothing(config: FuserConfig) -> None:
    x, t, text = inputs(config, 1, 8, 8)
    with torch.no_grad():
        residuals = LocalFuser(config)(x, t, text, *depths(1, 8, 8))
    assert len(residuals) == 13
    assert not any(residual.any() for residual in residuals)


def test_encode_then_decode_is_forward(unet: UNet, local_fuser: LocalFuser, config: FuserConfig) -> None:
    x, t, text = inputs(config, 2, 8, 8)
    guidance = Guidance((Region(torch.randn(1, 4, config.context_dim), torch.rand(1, 1, 64, 64)),))
    residuals = local_fuser(x, t, text, *depths(2, 8, 8), guidance=guidance)
    context = GuidedContext(text, guidance)
    apart = unet.decode(unet.encode(x, t, context), context, residuals)
    assert torch.equal(apart, unet(x, t, text, residuals=residuals, guidance=guidance))


@pytest.mark.parametrize("mode", ["release", "paper"])
def test_gradients_reach_both_fusers(unet: UNet, config: FuserConfig, mode: str) -> None:
    """As in training: through the frozen decoder to the residuals, through its attention to the tokens."""
    local_fuser, global_fuser = LocalFuser(config), GlobalFuser(config)
    for block in local_fuser.modules():
        if isinstance(block, torch.nn.Conv2d) and not block.weight.any():
            torch.nn.init.normal_(block.weight, std=0.02)  # behind zero convolutions nothing learns at first
    x, t, text = inputs(config, 2, 8, 8)
    embeds = torch.randn(2, 2, config.context_dim)
    fg_tokens, bg_tokens = global_fuser(*embeds)
    regions = (Region(fg_tokens, torch.rand(2, 1, 64, 64).round()), Region(bg_tokens, None))
    guidance = Guidance(regions, mode=mode)  # type: ignore[arg-type]
    context = GuidedContext(text, guidance)
    residuals = local_fuser(x, t, text, *depths(2, 8, 8), guidance=guidance)
    with torch.no_grad():
        encoded = unet.encode(x, t, context)
    unet.decode(encoded, context, residuals).square().mean().backward()
    for fuser in (local_fuser, global_fuser):
        for name, parameter in fuser.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def test_kernels_given_by_the_host_are_the_ones_that_run(local_fuser: LocalFuser, config: FuserConfig) -> None:
    lengths: dict[str, list[int]] = {"self": [], "cross": []}

    def kernel(name: str):  # type: ignore[no-untyped-def]
        def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
            lengths[name].append(k.shape[1])
            assert (mask is None) == (name == "self")
            return torch.zeros_like(q)

        return attend

    x, t, text = inputs(config, 1, 8, 8, text=5)
    guidance = Guidance((Region(torch.randn(1, 4, config.context_dim), None),))
    local_fuser(x, t, text, *depths(1, 8, 8), guidance=guidance, attention=(kernel("self"), kernel("cross")))
    assert lengths["self"] == [64, 64, 16, 16, 4, 4, 1]
    assert lengths["cross"] == [9] * 7


def test_global_fuser_streams_are_apart(global_fuser: GlobalFuser, released: Golden) -> None:
    fg, bg = released["in.fg_emb"], released["in.bg_emb"]
    fg_tokens, bg_tokens = global_fuser(fg, bg)
    assert torch.equal(global_fuser(fg, None)[0], fg_tokens)
    assert global_fuser(fg, None)[1] is None
    assert global_fuser(None, bg)[0] is None
    assert torch.equal(global_fuser(None, bg)[1], bg_tokens)
    assert relative_error(global_fuser(fg, fg)[1], fg_tokens) > 0.1


def test_errors_have_the_numbers(local_fuser: LocalFuser, global_fuser: GlobalFuser, config: FuserConfig) -> None:
    x, t, text = inputs(config, 3, 8, 8)
    fg, bg = depths(1, 8, 8)
    with pytest.raises(ValueError, match="64 x 64 for this latent of 8 x 8"):
        local_fuser(x, t, text, *depths(1, 9, 8))
    with pytest.raises(ValueError, match="or both"):
        local_fuser(x, t, text)
    with pytest.raises(ValueError, match=r"fg_depth must be \(B, 3, H, W\), got shape \(1, 1, 64, 64\)"):
        local_fuser(x, t, text, fg[:, :1], bg)
    with pytest.raises(ValueError, match=r"\(64, 64\) for fg_depth and \(64, 56\) for bg_depth"):
        local_fuser(x, t, text, fg, bg[..., :56])
    with pytest.raises(ValueError, match="batch 2 do not fit a latent of batch 3"):
        local_fuser(x, t, text, *depths(2, 8, 8))
    with pytest.raises(ValueError, match="batch 2, expected 1 or 3"):
        local_fuser.encode_depth(fg.expand(2, -1, -1, -1), bg.expand(3, -1, -1, -1))
    with pytest.raises(ValueError, match=r"x must be \(B, 4, h, w\)"):
        local_fuser(x[:, :3], t, text, fg, bg)
    with pytest.raises(ValueError, match=r"fg exemplar's embedding must be \(B, 64\), got shape \(1, 1280\)"):
        global_fuser(torch.zeros(1, 1280), None)
    with pytest.raises(ValueError, match=r"tokens of shape \(1, 4, 32\)"):
        GuidedContext(text, Guidance((Region(torch.zeros(1, 4, 32), None),)))


def test_unet_counts_its_residuals(unet: UNet, config: FuserConfig) -> None:
    x, t, text = inputs(config, 1, 8, 8)
    with pytest.raises(ValueError, match="expected 13 residuals, got 12"):
        unet(x, t, text, residuals=[torch.zeros(1)] * 12)


def test_config_refuses_sizes_that_no_network_has() -> None:
    with pytest.raises(ValueError, match="one entry for each level"):
        FuserConfig(inject_channels=(24, 32, 48))
    with pytest.raises(ValueError, match="num_heads = 7"):
        FuserConfig(num_heads=7)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"num_heads": -4}, "num_heads must be a whole number from 1"),
        ({"num_heads": 4.0}, "num_heads must be a whole number from 1 to 65536, got 4.0"),
        ({"num_heads": True}, "got True"),
        ({"num_heads": "4"}, "got '4'"),
        ({"model_channels": 0}, "model_channels"),
        ({"num_res_blocks": 0}, "num_res_blocks"),
        ({"context_dim": None}, "context_dim"),
        ({"global_tokens": 10**30}, "global_tokens"),
        ({"channel_mult": ()}, r"channel_mult must be whole numbers from 1 to 65536, got \(\)"),
        ({"channel_mult": 4}, "channel_mult must be whole numbers"),
        ({"channel_mult": "1244"}, "channel_mult must be whole numbers"),
        ({"channel_mult": (1, 2, -4, 4)}, "channel_mult must be whole numbers"),
        ({"inject_channels": (192, 256, 384, 512.0)}, "inject_channels must be whole numbers"),
        ({"channel_mult": (2, 2, 4, 4)}, r"channel_mult must begin with 1.*got \(2, 2, 4, 4\)"),
        ({"channel_mult": (1, 2, 4, 65536)}, "at most 65536 channels"),
        ({"num_res_blocks": 3_000}, "1000 blocks"),
    ],
)
def test_config_refuses_sizes_that_cannot_be_built(sizes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FuserConfig(**sizes)
