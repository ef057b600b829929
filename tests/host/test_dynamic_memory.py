"""What hosts with dynamic memory (0.33 and later) build without weights and load by what a connection carries."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .conftest import Host


@pytest.fixture
def dynamic(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's switch for dynamic memory, as it is on an NVIDIA card: layers are built without weights.

    Files are read without it, since its reader needs a card's driver.
    """
    memory_management = pytest.importorskip("comfy.memory_management", reason="this ComfyUI has no dynamic memory")
    import comfy.utils

    if not hasattr(memory_management, "aimdo_enabled"):
        pytest.skip("this ComfyUI has no dynamic memory")
    read = comfy.utils.load_torch_file

    def read_plainly(*args: Any, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as off:
            off.setattr(memory_management, "aimdo_enabled", False)
            return read(*args, **options)

    monkeypatch.setattr(comfy.utils, "load_torch_file", read_plainly)
    monkeypatch.setattr(memory_management, "aimdo_enabled", True)


@pytest.mark.usefixtures("dynamic")
@pytest.mark.parametrize("option", ["fp32_unet", "bf16_unet", "fp16_unet"])
def test_the_mini_runs_in_each_dtype(host: Host, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    """Its file is in half precision, whatever the host chooses for the model."""
    import comfy.model_management
    from comfy.cli_args import args

    monkeypatch.setattr(args, option, True)
    model: Any = host.pack.part("nodes.host.mini").load()[0]
    comfy.model_management.load_models_gpu([model])
    dtypes = {parameter.dtype for parameter in model.model.diffusion_model.parameters()}
    assert dtypes == {model.model.model_config.unet_config["dtype"]}
    width = model.model.model_config.unet_config["context_dim"]
    x, text = torch.randn(1, 4, 16, 16), torch.randn(1, 77, width)
    assert model.model.apply_model(x, torch.ones(1), c_crossattn=text).isfinite().all()


def test_fusers_and_mini_are_of_the_hosts_class(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """One plain patcher would take all networks of a run off dynamic memory. Each can be had once more without it."""
    import comfy.model_patcher
    from comfy.model_patcher import ModelPatcher

    if not hasattr(comfy.model_patcher, "PromptModelTracker"):
        pytest.skip("this ComfyUI has no dynamic memory")

    class Dynamic(ModelPatcher):  # type: ignore[misc]
        """What the host has on a card, as far as a CPU goes."""

        used = False

        def is_dynamic(self) -> bool:
            return True

        def set_in_use_by_current_prompt(self, in_use: bool) -> None:
            self.used = in_use

    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", Dynamic)
    model, clip, vae, clip_vision, fusers = host.pack.part("nodes.host.mini").load()
    networks = [fusers.local_fuser, fusers.global_fuser]
    for patcher in (model, clip.patcher, vae.patcher, clip_vision.patcher, *networks):
        assert type(patcher) is Dynamic
    assert comfy.model_patcher.is_model_patcher_output(fusers)
    comfy.model_patcher.PromptModelTracker().add((fusers,))
    assert all(network.used for network in networks)
    for patcher in (model, clip.patcher, vae.patcher, *networks):
        plain = patcher.clone(disable_dynamic=True)
        assert type(plain) is ModelPatcher and plain.model is not patcher.model
        again, ours = plain.model.state_dict(), patcher.model.state_dict()
        assert again.keys() == ours.keys()
        assert all(torch.equal(again[name], ours[name]) for name in ours)
