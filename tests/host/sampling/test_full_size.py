"""One step at the released size, made-up weights: the host's way is the core's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ...core.golden import relative_error

if TYPE_CHECKING:
    from ..conftest import Host

TOLERANCE = 1e-5
SIZE = 128
"""Pixels: the layers are those of the released size, only fewer places go through them."""
SIGMA = 5.0


@pytest.mark.slow
def test_a_step_at_full_size(host: Host, tmp_path: Path) -> None:
    from benchmarks import contenders

    torch.manual_seed(3)
    core = host.core
    given = contenders.pictures(SIZE)
    base = contenders.plain_model()
    path = tmp_path / "fusers.safetensors"
    contenders.write_fusers(path, host.pack)
    fusers = host.pack.part("nodes.host.fusers").load(path)
    ours = contenders.with_fusers(base, host.pack, fusers, given, guided=True)
    x = torch.randn(1, 4, SIZE // 8, SIZE // 8)

    with torch.inference_mode():
        denoised = one_step(ours, x)

        unet = core.UNet(core.FuserConfig(), device="meta")
        unet.load_state_dict(base.model.diffusion_model.state_dict(), assign=True)
        local_fuser, global_fuser = fusers.local_fuser.model, fusers.global_fuser.model
        fg, bg = global_fuser(*(style["image_embeds"] for style in given.styles))
        guidance = core.Guidance((core.Region(fg, given.mask[:, None], 1.0), core.Region(bg, None, 0.6)))
        scaled = x * SIGMA / (1 + SIGMA**2) ** 0.5
        timestep = base.model.model_sampling.timestep(torch.tensor([SIGMA]))
        text = given.positive[0][0]
        residuals = local_fuser(
            scaled, timestep, text, *(depth.movedim(-1, 1) for depth in given.depths), guidance=guidance
        )
        eps = unet(scaled, timestep, text, residuals=residuals, guidance=guidance)
    assert relative_error(denoised, x * SIGMA - eps * SIGMA) < TOLERANCE


def one_step(contender: Any, x: torch.Tensor) -> torch.Tensor:
    """The positive side's prediction of x0 at SIGMA, from x of unit variance times SIGMA, by the host's guider."""
    import comfy.samplers

    seen: list[torch.Tensor] = []

    def sampler(model: Any, noise: torch.Tensor, sigmas: torch.Tensor, extra_args: Any, **_: Any) -> torch.Tensor:
        seen.append(model(x * SIGMA, sigmas[:1], **extra_args))
        return noise

    guider = comfy.samplers.CFGGuider(contender.model)
    guider.set_conds(contender.positive, contender.negative)
    guider.set_cfg(1.0)
    latent = torch.zeros_like(x)
    guider.sample(x, latent, comfy.samplers.KSAMPLER(sampler), torch.tensor([SIGMA, 0.0]), seed=0, disable_pbar=True)
    return seen[0]
