"""The numbers of the released code, to 1e-5 relative in fp32, and its keys and shapes at full size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cnc_core import FuserConfig, GlobalFuser, Guidance, LocalFuser, UNet, guided_attention, token_mask
from cnc_core.blocks import Attention
from cnc_core.guidance import Mode

from .golden import DATA, Golden, made_state, relative_error

TOLERANCE = 1e-5


def test_global_tokens(released: Golden, global_fuser: GlobalFuser) -> None:
    tokens = torch.cat(global_fuser(released["in.fg_emb"], released["in.bg_emb"]), dim=1)
    assert relative_error(tokens, released["out.global_tokens"]) < TOLERANCE


def test_depth_features(released: Golden, local_fuser: LocalFuser) -> None:
    features = local_fuser.encode_depth(released["in.fg_depth"], released["in.bg_depth"]).features
    assert len(features) == 4
    for level, feature in enumerate(features):
        assert relative_error(feature, released[f"out.features.{level}"]) < TOLERANCE, level


@pytest.mark.parametrize("size", [16, 8, 4, 2])
def test_masks_exactly(released: Golden, guidance: Guidance, size: int) -> None:
    mask = token_mask(guidance, size, size)
    fg = released[f"out.mask.{size}"].flatten(2).transpose(1, 2).float()
    assert torch.equal(mask, torch.cat([fg.expand(-1, -1, 4), 1 - fg.expand(-1, -1, 4)], dim=2))


@pytest.mark.parametrize("form", ["plain", "masked", "hadamard"])
def test_one_attention_layer(released: Golden, config: FuserConfig, guidance: Guidance, form: str) -> None:
    queries = released["in.q"]
    layer = Attention(queries.shape[-1], config.context_dim, torch.nn)
    layer.load_state_dict(made_state(layer, "attention."))
    context = torch.cat([released["in.ctx"], guidance.tokens()], dim=1)
    mask = token_mask(guidance, 16, 16)
    if form == "plain":
        mask = torch.ones_like(mask)
    mode: Mode = "paper" if form == "hadamard" else "release"
    with torch.no_grad():
        q, k, v = layer(queries, context)
        attended = layer.to_out(guided_attention(q, k, v, config.num_heads, mask, mode))
    assert relative_error(attended, released[f"out.attention.{form}"]) < TOLERANCE


def test_residuals_and_prediction(released: Golden, local_fuser: LocalFuser, unet: UNet, guidance: Guidance) -> None:
    x, t, text = (released[f"in.{name}"] for name in ("x", "t", "ctx"))
    residuals = local_fuser(x, t, text, released["in.fg_depth"], released["in.bg_depth"], guidance=guidance)
    assert len(residuals) == 13
    for index, residual in enumerate(residuals):
        assert relative_error(residual, released[f"out.local_control.{index}"]) < TOLERANCE, index
    prediction = unet(x, t, text, residuals=residuals, guidance=guidance)
    assert relative_error(prediction, released["out.eps"]) < TOLERANCE


def test_a_whole_sampling_run(released: Golden, local_fuser: LocalFuser, unet: UNet, guidance: Guidance) -> None:
    """DDIM as the release runs it: eta 0, and an unconditional half that differs in the text alone."""
    steps = torch.arange(0, 1000, 1000 // released.steps) + 1
    assert torch.equal(steps.flip(0), released["out.ddim_timesteps"])
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0)
    depth = local_fuser.encode_depth(released["in.fg_depth"], released["in.bg_depth"])

    def predict(x: Tensor, step: Tensor, text: Tensor) -> Tensor:
        t = step.expand(x.shape[0])
        residuals = local_fuser(x, t, text, depth=depth, guidance=guidance)
        return unet(x, t, text, residuals=residuals, guidance=guidance)

    x = released["in.x"]
    with torch.inference_mode():
        for index in reversed(range(len(steps))):
            alpha = alphas[steps[index]]
            alpha_next = alphas[steps[index - 1] if index else 0]
            uncond = predict(x, steps[index], released["in.uctx"])
            eps = uncond + released.cfg * (predict(x, steps[index], released["in.ctx"]) - uncond)
            pred_x0 = ((x - (1 - alpha).sqrt() * eps) / alpha.sqrt()).float()
            x = (alpha_next.sqrt() * pred_x0 + (1 - alpha_next).sqrt() * eps).float()
    assert relative_error(x, released["out.ddim"]) < TOLERANCE
    assert relative_error(pred_x0, released["out.ddim_pred_x0"]) < TOLERANCE


def test_keys_and_shapes_of_the_released_size() -> None:
    lines = (DATA / "cnc_v1_keys.tsv").read_text().splitlines()
    expected = {key: tuple(map(int, shape.split("x"))) for key, shape in (line.split("\t") for line in lines)}
    assert len(expected) == 396
    config = FuserConfig()
    networks = {
        "local_adapter.": LocalFuser(config, device="meta"),
        "global_adapter.": GlobalFuser(config, device="meta"),
    }
    found = {
        prefix + key: tuple(value.shape)
        for prefix, network in networks.items()
        for key, value in network.state_dict().items()
    }
    assert found == expected
