"""A node pack for servers that run templates with CnC-Mini: a ControlNet of the Mini's size, with made-up weights.

The host's own loader knows the full size alone. comfy is imported in the function alone, where there is one.
"""

from __future__ import annotations

from typing import Any


class TestControlNet:
    """The host's ControlNet for the U-Net of a model."""

    RETURN_TYPES = ("CONTROL_NET",)
    FUNCTION = "load"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The model that gives the size."""
        return {"required": {"model": ("MODEL",)}}

    def load(self, model: Any) -> tuple[Any]:
        """The same small weights each time: they change a picture, and teach it nothing."""
        import comfy.cldm.cldm
        import comfy.controlnet
        import comfy.model_management
        import comfy.ops
        import torch

        device = comfy.model_management.get_torch_device()
        config = {**model.model.model_config.unet_config, "hint_channels": 3, "dtype": torch.float32}
        del config["out_channels"]
        network = comfy.cldm.cldm.ControlNet(**config, operations=comfy.ops.manual_cast)
        generator = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
        return (comfy.controlnet.ControlNet(network, load_device=device),)


NODE_CLASS_MAPPINGS = {"TestControlNet": TestControlNet}
