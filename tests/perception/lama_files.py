"""LaMa as spandrel has it, with made-up weights, in the layouts of the files that people have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from devtools.launch import complete_torchvision


def make_lama() -> Any:
    """Spandrel's LaMa in its real size."""
    complete_torchvision()
    from spandrel.architectures.LaMa import LaMa

    torch.manual_seed(0)
    model = LaMa(in_nc=4, out_nc=3)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # the statistics of this one pass, so that its output is no flat grey
    with torch.no_grad():
        model(torch.rand(2, 3, 64, 64), (torch.rand(2, 1, 64, 64) > 0.7).float())
    return model.eval()


def write_safetensors(model: nn.Module, path: Path) -> Path:
    save_file(model.state_dict(), path)
    return path


def write_checkpoint(model: nn.Module, path: Path) -> Path:
    """As the authors' training leaves it: the generator beside other networks, in a `state_dict`."""
    state = {name.replace("model.model.", "generator.model."): value for name, value in model.state_dict().items()}
    state |= {"discriminator.model0.0.weight": torch.rand(4, 3, 4, 4), "loss_resnet_pl.mean_": torch.rand(3)}
    torch.save({"state_dict": state, "epoch": 3}, path)
    return path


def write_torchscript(model: Any, path: Path) -> Path:
    """As big-lama.pt: the program with its weights."""

    class Program(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.model

        def forward(self, image: Tensor, mask: Tensor) -> Tensor:
            filled: Tensor = self.model(image * (1 - mask), mask)
            return filled

    example = (torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32))
    torch.jit.trace(Program().eval(), example, check_trace=False).save(path)
    return path
