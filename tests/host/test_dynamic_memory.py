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
    import comfy.memory_management
    import comfy.utils

    if not hasattr(comfy.memory_management, "aimdo_enabled"):
        pytest.skip("this ComfyUI has no dynamic memory")
    read = comfy.utils.load_torch_file

    def read_plainly(*args: Any, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as off:
            off.setattr(comfy.memory_management, "aimdo_enabled", False)
            return read(*args, **options)

    monkeypatch.setattr(comfy.utils, "load_torch_file", read_plainly)
    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)


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
