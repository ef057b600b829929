"""Other ControlNets before and after ours, networks partly loaded or in half precision, models used again."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from ...core.golden import made_state
from .golden_model import Conditioning, GoldenModel, check_equal

STEPS = 2
STRENGTH = 0.7


@pytest.fixture(scope="module")
def control_net(one: GoldenModel) -> Any:
    """The host's own ControlNet at the golden size, with made-up weights."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.model_management
    import comfy.ops

    config = one.unet.config
    network = comfy.cldm.cldm.ControlNet(
        image_size=32,
        in_channels=config.in_channels,
        model_channels=config.model_channels,
        hint_channels=3,
        num_res_blocks=[config.num_res_blocks] * 4,
        channel_mult=config.channel_mult,
        num_heads=config.num_heads,
        use_spatial_transformer=True,
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_middle=1,
        context_dim=config.context_dim,
        legacy=False,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    network.load_state_dict(made_state(network, "control_model."))
    device = comfy.model_management.get_torch_device()
    return comfy.controlnet.ControlNet(network.eval(), load_device=device)


def controlled(one: GoldenModel, control_net: Any, *sides: Conditioning) -> tuple[Conditioning, Conditioning]:
    """Both after the host's own node for ControlNets, with the background's depth as hint."""
    node = one.host.nodes.ControlNetApplyAdvanced()
    hint = one.image("bg_depth")
    applied: tuple[Conditioning, Conditioning] = node.apply_controlnet(*sides, control_net, hint, STRENGTH, 0.0, 1.0)
    return applied


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_residuals_add_up_in_either_order(one: GoldenModel, control_net: Any, first: str) -> None:
    if first == "theirs":
        sides = one.steered(*controlled(one, control_net, *one.text()))
    else:
        sides = controlled(one, control_net, *one.steered(*one.text()))
    run = one.sample(one.guided(), sides, steps=STEPS)

    def residuals(x: Tensor, timesteps: Tensor, text: Tensor) -> list[Tensor]:
        given = control_net.control_model(x=x, hint=one.released["in.bg_depth"], timesteps=timesteps, context=text)
        return [STRENGTH * residual for residual in (*given["output"], *given["middle"])]

    check_equal(run, one.expected(one.guidance(), steps=STEPS, others=residuals))


def test_two_local_fusers_add_up(one: GoldenModel) -> None:
    """A second one with the layers exchanged and half the strength."""
    sides = one.steered(*one.text())
    exchanged = {"fg_depth": one.image("bg_depth"), "bg_depth": one.image("fg_depth")}
    run = one.sample(one.guided(), one.steered(*sides, strength=0.5, **exchanged), steps=STEPS)

    def residuals(x: Tensor, timesteps: Tensor, text: Tensor) -> list[Tensor]:
        maps = [one.released[f"in.{name}"] for name in ("bg_depth", "fg_depth")]
        return [0.5 * r for r in one.local_fuser(x, timesteps, text, *maps, guidance=one.guidance())]

    check_equal(run, one.expected(one.guidance(), steps=STEPS, others=residuals))


def half_loaded(patcher: Any) -> Any:
    """The same network in a ModelPatcher which is never given more of the device than half of its weights' size."""
    budget = patcher.model_size() // 2

    class HalfLoaded(type(patcher)):  # type: ignore[misc]
        def partially_load(self, device_to: Any, extra_memory: int = 0, force_patch_weights: bool = False) -> Any:
            left = max(0, budget - self.model.model_loaded_weight_memory)
            return super().partially_load(device_to, min(extra_memory, left), force_patch_weights)

    made = HalfLoaded(patcher.model, patcher.load_device, patcher.offload_device)
    made.patches, made.patches_uuid = patcher.patches, patcher.patches_uuid
    return made


def with_lora(patcher: Any) -> Any:
    """A clone with every matrix of its cross-attention changed, as a LoRA does."""
    patched = patcher.clone()
    weights = {
        name: ("diff", (0.1 * weight.roll(1, 0),))
        for name, weight in patcher.model.state_dict().items()
        if ".attn2." in name and weight.ndim == 2
    }
    assert len(patched.add_patches(weights)) == len(weights) > 20
    return patched


def test_partly_loaded_networks(one: GoldenModel) -> None:
    """A layer that is not loaded gets its weights, patches included, only where the host casts them for a call."""
    node = one.host.pack.part("nodes.host.fusers")
    runs = []
    for partly in (False, True):
        model, fusers = with_lora(one.new_model()), node.load(one.path)
        local_fuser = with_lora(fusers.local_fuser)
        if partly:
            model, local_fuser = half_loaded(model), half_loaded(local_fuser)
        steered = one.steered(*one.text(), fusers=dataclasses.replace(fusers, local_fuser=local_fuser))
        runs.append(one.sample(one.guided(model), steered, steps=STEPS))
        for patcher in (model, local_fuser):
            assert patcher.model.model_lowvram == partly
            assert 0 < patcher.loaded_size() <= patcher.model_size() // (2 if partly else 1)
    check_equal(runs[1], runs[0])


def test_weights_in_half_precision_are_cast_for_each_call(one: GoldenModel) -> None:
    """As the host does where a machine has not the memory for wider weights or cannot compute in theirs."""
    import comfy.ops

    core = one.host.core
    loaded = core.load_fusers(one.path, operations=comfy.ops.manual_cast, dtype=torch.float16)
    patcher = type(one.model)(loaded.local_fuser, one.model.load_device, one.model.offload_device)
    fusers = dataclasses.replace(one.fusers, local_fuser=patcher, compute_dtype=torch.float32)
    run = one.sample(one.guided(), one.steered(*one.text(), fusers=fusers), steps=STEPS)
    rounded = core.load_fusers(one.path)
    rounded.local_fuser.half().float().requires_grad_(False)
    check_equal(run, dataclasses.replace(one, local_fuser=rounded.local_fuser).expected(one.guidance(), steps=STEPS))


def test_a_base_model_in_half_precision(one: GoldenModel) -> None:
    """Beside fusers in fp32: each takes tokens, masks and text in its own precision."""
    steered = one.steered(*one.text())
    run = one.sample(one.guided(one.new_model(dtype=torch.bfloat16)), steered, steps=STEPS)
    check_equal(run, one.sample(one.guided(), steered, steps=STEPS), tolerance=0.1)  # 0.9 without depth maps


def test_a_run_again_and_of_a_copy_is_the_same_to_the_bit(one: GoldenModel) -> None:
    model, steered = one.guided(), one.steered(*one.text())
    first = one.sample(model, steered, steps=STEPS)
    copied = model.clone().clone()
    copied.model_options = copy.deepcopy(copied.model_options)
    assert torch.equal(first, one.sample(model, steered, steps=STEPS))
    assert torch.equal(first, one.sample(copied, steered, steps=STEPS))


def test_a_changed_slider_and_back_is_the_same_to_the_bit(one: GoldenModel) -> None:
    runs = []
    for lambda_fg, depth_scale in ((1.0, 1.0), (0.3, 0.5), (1.0, 1.0)):
        steered = one.steered(*one.text(), fg_depth_scale=depth_scale)
        runs.append(one.sample(one.guided(lambda_fg=lambda_fg), steered, steps=STEPS))
    assert torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0], runs[1])
