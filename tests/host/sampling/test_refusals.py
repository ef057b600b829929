"""What does not go together is refused where it meets, with what was given and what to do."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

import pytest
import torch

from .golden_model import GoldenModel


def small_sdxl(context_dim: int, model_channels: int = 32) -> Any:
    """The host's SDXL in miniature: two levels of attention, a deeper middle, a wider text."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    unet_config = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": model_channels,
        "num_res_blocks": [2, 2, 2],
        "channel_mult": (1, 2, 4),
        "num_heads": -1,
        "num_head_channels": 32,
        "transformer_depth": [0, 0, 2, 2, 3, 3],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 3, 3, 3],
        "transformer_depth_middle": 3,
        "context_dim": context_dim,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
        "use_temporal_attention": False,
        "legacy": False,
    }
    small = type("SmallSDXL", (comfy.supported_models.SDXL,), {"unet_config": unet_config})
    described = small(dict(unet_config))
    described.set_inference_dtype(torch.float32, None)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(described.get_model({}), load_device=device, offload_device=device)


def test_exemplars_of_another_image_encoder(one: GoldenModel) -> None:
    """CLIP ViT-H gives 1024 numbers, bigG 1280."""
    node = one.host.pack.part("nodes.fusers").ApplyGlobalFuser
    for width in (1024, 1280):
        style = {"image_embeds": torch.zeros(1, width)}
        with pytest.raises(ValueError, match=rf"^bg_style comes .* {width} numbers, .* takes 64: load the one"):
            node.execute(one.fusers, "automatic", None, style)


def test_soft_guidance_on_sdxl(one: GoldenModel) -> None:
    with pytest.raises(ValueError, match=r"64 wide .*SDXL, has a text width of 128\. Connect the base model"):
        one.guided(small_sdxl(128))


@pytest.mark.parametrize(("context_dim", "model_channels"), [(128, 32), (64, 32), (64, 64)])
def test_local_fuser_on_sdxl(one: GoldenModel, context_dim: int, model_channels: int) -> None:
    """Of as many channels as the fuser's own base too: SDXL has 320 as Stable Diffusion 1.5 does."""
    pooled = {"pooled_output": torch.zeros(1, 1280)}
    sides = tuple([[torch.zeros(1, 77, context_dim), pooled]] for _ in range(2))
    with pytest.raises(ValueError, match=r"steers a Stable Diffusion 1\.5 U-Net.*SDXL, is another kind, of .*Connect"):
        one.sample(small_sdxl(context_dim, model_channels), one.steered(*sides), steps=1)


def test_chained_guidances_that_differ(one: GoldenModel) -> None:
    model = one.guided(mode="release", resize="area")
    with pytest.raises(ValueError, match="mode 'release' and resize 'area', this one asks for 'paper' and 'area'"):
        one.guided(model, mode="paper", resize="area")
    with pytest.raises(ValueError, match="mode 'release' and resize 'area', this one asks for 'release' and 'release'"):
        one.guided(model, mode="release", resize="release")


@pytest.mark.parametrize("what", ["masks", "tokens", "fg_depth", "bg_depth"])
def test_batches_that_do_not_go_together(one: GoldenModel, what: str) -> None:
    """Both numbers are said: three of something, and two pictures to make."""
    x = one.released["in.x"].expand(2, -1, -1, -1)
    tokens = type(one.tokens)(*(t.expand(3 if what == "tokens" else 1, -1, -1) for t in (one.tokens.fg, one.tokens.bg)))
    mask = one.released["in.mask"][:, 0].expand(3 if what == "masks" else 1, -1, -1)
    maps = {what: one.image(what).expand(3, -1, -1, -1)} if what.endswith("depth") else {}
    with pytest.raises(ValueError, match=r"batch of 3, the latents one of 2; give one for all or one for each"):
        one.sample(one.guided(tokens=tokens, mask=mask), one.steered(*one.text(), **maps), x=x, steps=1)


def test_masks_that_do_not_go_with_the_exemplars(one: GoldenModel) -> None:
    tokens = type(one.tokens)(*(t.expand(2, -1, -1) for t in (one.tokens.fg, one.tokens.bg)))
    mask = one.released["in.mask"][:, 0].expand(3, -1, -1)
    with pytest.raises(ValueError, match=r"tokens has 2 exemplars for the foreground and mask has 3.*one mask for all"):
        one.guided(tokens=tokens, mask=mask)


def test_values_that_are_no_numbers(one: GoldenModel) -> None:
    mask, depth = torch.ones(1, 64, 64), torch.full((1, 64, 64, 3), math.inf)
    mask[0, 3, 4:6] = math.nan
    with pytest.raises(ValueError, match="the mask has 2 values that are not a number or infinite"):
        one.guided(mask=mask)
    for name in ("fg_depth", "bg_depth"):
        with pytest.raises(ValueError, match=f"{name} has 12288 values that are not a number or infinite"):
            one.steered(*one.text(), **{name: depth})


def test_fusers_that_a_file_does_not_have(one: GoldenModel) -> None:
    local_only = dataclasses.replace(one.fusers, global_fuser=None, name="local.safetensors")
    global_only = dataclasses.replace(one.fusers, local_fuser=None, name="global.safetensors")
    node = one.host.pack.part("nodes.fusers").ApplyGlobalFuser
    with pytest.raises(ValueError, match=r"local.safetensors has no global fuser.*load a checkpoint with one"):
        node.execute(local_only, "zero embedding")
    with pytest.raises(ValueError, match=r"global.safetensors has no local fuser.*load a checkpoint with one"):
        one.steered(*one.text(), fusers=global_only)


def test_another_aspect_ratio_is_said_once_a_run(one: GoldenModel, caplog: pytest.LogCaptureFixture) -> None:
    wide = torch.ones(1, 64, 128)
    with caplog.at_level(logging.WARNING):
        one.sample(one.guided(mask=wide), one.steered(*one.text()), steps=2)
    said = [record.getMessage() for record in caplog.records if "Compose and Conquer" in record.getMessage()]
    assert len(said) == 1 and "the mask is 128 x 64 pixels, the picture to make is 128 x 128" in said[0]


def test_the_wrong_kind_of_map_is_said(one: GoldenModel, caplog: pytest.LogCaptureFixture) -> None:
    """A file of depth is given edges, and one of edges depth; of what fits or is left out nothing is said."""
    lines = torch.zeros(1, 128, 128, 3)
    lines[:, 10::20, :], lines[:, :, 7::31] = 1, 1
    surface = torch.linspace(0, 1, 128).reshape(1, 128, 1, 1).expand(1, 128, 128, 3)
    of_edges = dataclasses.replace(one.fusers, metadata={"conditions": "canny"}, name="edges.safetensors")
    of_depth = dataclasses.replace(one.fusers, metadata={}, name="released.ckpt")
    cases = (
        (of_depth, lines, surface, ["released.ckpt was trained on depth maps, and fg_depth looks like a canny map"]),
        (of_edges, lines, surface, ["edges.safetensors was trained on canny maps, and bg_depth looks like a depth"]),
        (of_edges, lines, None, []),
        (of_depth, None, surface, []),
    )
    for fusers, fg_depth, bg_depth, expected in cases:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            one.steered(*one.text(), fusers=fusers, fg_depth=fg_depth, bg_depth=bg_depth)
        said = [record.getMessage() for record in caplog.records if "Compose and Conquer" in record.getMessage()]
        assert len(said) == len(expected)
        assert all(part in message for part, message in zip(expected, said, strict=True))
