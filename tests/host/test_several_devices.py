"""One run on several devices (0.33 and later): each has networks of its own and a thread that runs them.

Without a second card the devices are two names of the CPU, which the host tells apart.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from .conftest import Host

SECOND = torch.device("cpu", 0)


@pytest.fixture(scope="module")
def mini(host: Host) -> Any:
    import comfy.controlnet

    if not hasattr(comfy.controlnet.ControlBase, "deepclone_multigpu"):
        pytest.skip("this ComfyUI runs a model on one device")
    return host.pack.part("nodes.host.mini").load()


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def on_two(model: Any) -> Any:
    """The model as MultiGPU CFG Split makes it, on a machine with two devices."""
    model = model.clone()
    other = model.deepclone_multigpu(new_load_device=SECOND)
    other.is_multigpu_base_clone = True
    model.set_additional_models("multigpu", [other])
    model.match_multigpu_clones()
    return model


def sample(model: Any, positive: Any, negative: Any) -> Tensor:
    import comfy.samplers

    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    sampler = comfy.samplers.KSampler(
        model, 4, model.load_device, "ddim", "ddim_uniform", 1.0, model_options=model.model_options
    )
    with torch.inference_mode():
        result: Tensor = sampler.sample(x, positive, negative, 2.5, torch.zeros_like(x), disable_pbar=True, seed=0)
    return result


@pytest.mark.usefixtures("hasty")
def test_a_run_on_two_devices_is_the_run_on_one(host: Host, mini: Any) -> None:
    """Guidance with a curve and depth, the prompts on one device each: every device has a local fuser of its own."""
    model, clip, _, _, fusers = mini
    nodes = host.pack.part("nodes.fusers")
    texts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a red cone on grass", "")]
    width = fusers.config.context_dim
    tokens = host.pack.part("nodes.host.fusers").exemplar_tokens(fusers, torch.randn(1, width), torch.randn(1, width))
    mask = torch.zeros(1, 128, 128)
    mask[:, 30:100, 20:60] = 1
    curve = host.pack.part("nodes.curve").LambdaCurve.execute(
        points="0, 1.5; 1, 0.5", input=1.0, middle=1.0, output=1.0
    )
    percents = {"start_percent": 0.0, "end_percent": 1.0}
    guided = nodes.ApplySoftGuidance.execute(
        model, mask, 1.2, 0.8, mode="release", resize="area", apply_to="both", tokens=tokens, curve=curve.args[0],
        **percents,
    ).args[0]  # fmt: skip
    depths = {"fg_depth": mask[..., None].expand(-1, -1, -1, 3), "bg_depth": torch.rand(1, 128, 128, 3)}
    steered = nodes.ApplyLocalFuser.execute(
        *texts, fusers, strength=1.0, fg_depth_scale=1.0, bg_depth_scale=1.0, **depths, **percents
    ).args
    alone = sample(guided, *steered)
    for _ in range(3):
        torch.testing.assert_close(sample(on_two(guided), *steered), alone, rtol=1e-4, atol=1e-5)
    clone = steered[0][0][1]["control"].get_instance_for_device(SECOND)
    assert clone.fuser.load_device == SECOND and clone.fuser.model is not fusers.local_fuser.model


def run_schedule(host: Host) -> Any:
    made = host.pack.part("cnc_core.guidance").Schedule(curve=((0.0, 1.0), (1.0, 0.0)))
    sigmas = torch.linspace(1, 0, 5)
    return host.pack.part("nodes.host.run_schedule").RunSchedule([made], sigmas, lambda percent: 1.0 - percent)


def test_a_schedule_on_one_device_takes_nothing_from_another(host: Host) -> None:
    """The device without values stands for a second card: what is there cannot come back."""
    schedule = run_schedule(host)
    sigma = torch.tensor([0.5])
    expected = schedule.at(sigma)
    assert schedule.at(sigma.to("meta"))[0].device.type == "meta"
    for found, value in zip(schedule.at(sigma), expected, strict=True):
        assert torch.equal(found, value)


@pytest.mark.usefixtures("hasty")
def test_each_thread_gets_the_step_of_its_own_tokens(host: Host) -> None:
    import comfy.samplers

    core, ours = host.pack.part("cnc_core.guidance"), host.pack.part("nodes.host.guidance")
    model = host.pack.part("nodes.host.mini").load()[0]
    region = core.Region(torch.randn(1, 2, 8), None, 1.0, schedule=core.Schedule(end_percent=0.5))
    guider = comfy.samplers.CFGGuider(model)
    guider.conds = {name: [{"uuid": name, "model_conds": {}}] for name in ("positive", "negative")}
    state = ours.SamplingState(core.Guidance((region,)), guider, torch.linspace(1, 0, 5))
    found: dict[str, set[int]] = {name: set() for name in guider.conds}

    def forwards(name: str, side: int) -> None:
        for _ in range(4000):
            options = {"uuids": [name], "cond_or_uncond": [side], "sigmas": torch.tensor([0.5])}
            found[name].add(id(state.tokens(options, torch.empty(1, 4, 8, 8), 77, "c_crossattn").guidance))

    threads = [threading.Thread(target=forwards, args=(name, side)) for side, name in enumerate(guider.conds)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(own) for own in found.values()] == [1, 1] and not set.intersection(*found.values())
