"""The golden model on the host, and the same run in plain torch to compare with.

The base model is built by the host from the golden weights, as its checkpoint loader builds a Stable Diffusion 1.5;
the fusers come from a file, through the pack's own nodes; sampling is the host's KSampler.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...core.golden import Golden, golden, made_state, relative_error
from ..golden_pack.base_model import base_model

if TYPE_CHECKING:
    from ..conftest import Host

TOLERANCE = 1e-5
"""Relative error, in fp32, of what should be the same."""
LATENT_FACTOR = 0.18215
"""What the host divides Stable Diffusion 1.5's latents by at the end of a run."""

Conditioning = list[list[Any]]
Residuals = Callable[[Tensor, Tensor, Tensor], list[Tensor]]
"""(x, timesteps, text) -> what another ControlNet adds."""


@dataclasses.dataclass(frozen=True, eq=False)
class GoldenModel:
    """released: the golden values. model: the base model's ModelPatcher. fusers, tokens: as our nodes give them.

    path: the fusers' file. unet, local_fuser: the core's networks in plain torch, with the same weights.
    """

    host: Host
    released: Golden
    model: Any
    fusers: Any
    tokens: Any
    path: Path
    unet: Any
    local_fuser: Any

    def __repr__(self) -> str:
        return "GoldenModel"

    def first(self) -> GoldenModel:
        """The same for the first of the golden pictures alone."""
        values = {name: value[:1] for name, value in self.released.values.items()}
        tokens = type(self.tokens)(self.tokens.fg[:1], self.tokens.bg[:1])
        return dataclasses.replace(self, released=dataclasses.replace(self.released, values=values), tokens=tokens)

    def new_model(self, **attributes: Any) -> Any:
        """Another base model with the same weights; attributes: its dtype, settings of the host's model class."""
        state = {f"model.diffusion_model.{name}": tensor for name, tensor in self.unet.state_dict().items()}
        return base_model(state, self.unet.config, **attributes)

    def image(self, name: str) -> Tensor:
        """A golden depth map as the host's IMAGE."""
        return self.released[f"in.{name}"].movedim(1, -1)

    def guided(self, model: Any = None, **inputs: Any) -> Any:
        """The model after Soft Guidance, with the inputs of the golden run but for those given."""
        given = {
            "tokens": self.tokens,
            "mask": self.released["in.mask"][:, 0],
            "lambda_fg": self.released.lambda_fg,
            "lambda_bg": self.released.lambda_bg,
            "start_percent": 0.0,
            "end_percent": 1.0,
            "mode": "release",
            "resize": "release",
            "apply_to": "both",
        }
        node = self.host.pack.part("nodes.fusers").ApplySoftGuidance
        return node.execute(model or self.model, **{**given, **inputs}).args[0]

    def text(self) -> tuple[Conditioning, Conditioning]:
        """The golden positive and negative conditioning."""
        return [[self.released["in.ctx"], {}]], [[self.released["in.uctx"], {}]]

    def steered(
        self, positive: Conditioning, negative: Conditioning, **inputs: Any
    ) -> tuple[Conditioning, Conditioning]:
        """Both after Apply Local Fuser, with the inputs of the golden run but for those given."""
        given = {
            "fusers": self.fusers,
            "strength": 1.0,
            "start_percent": 0.0,
            "end_percent": 1.0,
            "fg_depth_scale": 1.0,
            "bg_depth_scale": 1.0,
            "fg_depth": self.image("fg_depth"),
            "bg_depth": self.image("bg_depth"),
        }
        node = self.host.pack.part("nodes.fusers").ApplyLocalFuser
        steered: tuple[Conditioning, Conditioning] = node.execute(positive, negative, **{**given, **inputs}).args
        return steered

    def sample(
        self,
        model: Any,
        conditioning: tuple[Conditioning, Conditioning],
        *,
        x: Tensor | None = None,
        steps: int | None = None,
        cfg: float | None = None,
        guider: Callable[[Any], Any] | None = None,
    ) -> Tensor:
        """Run the host's KSampler (`ddim`, `ddim_uniform`) from x of unit variance; return the last predicted x0.

        guider: the class to sample with instead of the host's own CFGGuider, as custom sampling nodes do.
        """
        import comfy.samplers

        x = self.released["in.x"] if x is None else x
        sampler = comfy.samplers.KSampler(
            model,
            steps or self.released.steps,
            model.load_device,
            sampler="ddim",
            scheduler="ddim_uniform",
            denoise=1.0,
            model_options=model.model_options,
        )
        first = float(sampler.sigmas[0])
        noise = x * math.sqrt(1 + first**2) / first  # the host multiplies it by the first sigma
        latent = torch.zeros_like(x)
        cfg = self.released.cfg if cfg is None else cfg
        with torch.inference_mode():
            if guider is None:
                out = sampler.sample(noise, *conditioning, cfg, latent_image=latent, disable_pbar=True, seed=0)
            else:
                made = guider(model)
                made.set_conds(*conditioning)
                made.set_cfg(cfg)
                method = comfy.samplers.sampler_object("ddim")
                out = made.sample(noise, latent, method, sampler.sigmas, disable_pbar=True, seed=0)
        result: Tensor = out * LATENT_FACTOR
        return result

    def golden_run(self, model: Any = None, **inputs: Any) -> Tensor:
        """The golden run; ``inputs`` are those of :meth:`sample`."""
        return self.sample(model or self.guided(), self.steered(*self.text()), **inputs)

    def guidance(self, *regions: Any, mode: str = "release", resize: str = "release") -> Any:
        """The core's guidance of these regions; of the golden run's, without any."""
        return self.host.core.Guidance(regions or tuple(self.regions()), mode, resize)

    def regions(self, mask: Tensor | None = None) -> list[Any]:
        """The golden run's two regions, with another mask (B, 1, H, W) if one is given."""
        fg, bg = self.released["out.global_tokens"].chunk(2, dim=1)
        mask = self.released["in.mask"] if mask is None else mask
        region = self.host.core.Region
        return [region(fg, mask, self.released.lambda_fg), region(bg, None, self.released.lambda_bg)]

    def expected(
        self,
        guidance: Any,
        *,
        x: Tensor | None = None,
        positive: Sequence[Tensor] | None = None,
        negative: Tensor | None = None,
        steps: int | None = None,
        cfg: float | None = None,
        fg_depth: Tensor | None = None,
        bg_depth: Tensor | None = None,
        steered: Callable[[int], bool] = lambda t: True,
        guide_negative: bool = True,
        others: Residuals | None = None,
        unet_text: Callable[[Tensor], Tensor] = lambda text: text,
        kernels: Any = None,
    ) -> Tensor:
        """The same run with the core's networks, one text at a time: the last predicted x0.

        guidance: the core's, None, or a function that gives either for a timestep; steered: at which timesteps the
        depth maps act. Each of ``positive`` is one text, and their predictions are averaged, as the host does.
        others: residuals of another ControlNet. unet_text: what other patches make of the text, in the U-Net alone;
        kernels: theirs, in the U-Net alone.
        """
        kernels = kernels or self.host.core.Kernels()
        released = self.released
        x = released["in.x"] if x is None else x
        cfg = released.cfg if cfg is None else cfg
        positive = [released["in.ctx"]] if positive is None else positive
        negative = released["in.uctx"] if negative is None else negative
        maps = [fg_depth, bg_depth]
        if fg_depth is None and bg_depth is None:
            maps = [released["in.fg_depth"], released["in.bg_depth"]]
        alphas = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
        timesteps = list(range(1, 1000, 1000 // (steps or released.steps)))

        def predict(x: Tensor, t: int, text: Tensor, guidance: Any) -> Tensor:
            steps = torch.full((x.shape[0],), t)
            guidance = guidance(t) if callable(guidance) else guidance
            residuals = None
            if steered(t):
                residuals = self.local_fuser(x, steps, text, *maps, guidance=guidance)
            if others is not None:
                more = others(x, steps, text)
                residuals = more if residuals is None else [a + b for a, b in zip(residuals, more, strict=True)]
            text = unet_text(text)
            return self.unet(x, steps, text, residuals=residuals, guidance=guidance, attention=kernels)

        with torch.inference_mode():
            for index in reversed(range(len(timesteps))):
                t, alpha = timesteps[index], alphas[timesteps[index]]
                cond = torch.stack([predict(x, t, text, guidance) for text in positive]).mean(0)
                eps = cond
                if cfg != 1:
                    uncond = predict(x, t, negative, guidance if guide_negative else None)
                    eps = uncond + cfg * (cond - uncond)
                x0 = ((x - (1 - alpha).sqrt() * eps) / alpha.sqrt()).float()
                after = alphas[timesteps[index - 1]]
                x = (after.sqrt() * x0 + (1 - after).sqrt() * eps).float()
        return x0


class Chunks:
    """A model that notes, by the host's own wrapper, the sides that each of its forwards is asked for."""

    def __init__(self, model: Any) -> None:
        from comfy.patcher_extension import WrappersMP

        self.seen: list[list[int]] = []
        self.model = model.clone()
        seen = self.seen  # a wrapper that held self would keep the model after its last user, and the host complains

        def note(executor: Any, *args: Any, **kwargs: Any) -> Any:
            options = args[5]  # after x, t, c_concat, c_crossattn and control
            seen.append(options["cond_or_uncond"])
            return executor(*args, **kwargs)

        self.model.add_wrapper(WrappersMP.APPLY_MODEL, note)


def check_equal(value: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Raise AssertionError, with the figure, unless the relative error is below the tolerance."""
    error = relative_error(value, expected)
    assert error < tolerance, f"relative error {error:.1e}, expected less than {tolerance:.0e}"


def build(host: Host, folder: Path) -> GoldenModel:
    """Make the golden model on the host; the fusers' file is written into ``folder``."""
    released = golden()
    core = host.core
    config = core.FuserConfig(**dataclasses.asdict(released.config))
    networks = {
        "local_adapter.": core.LocalFuser(config),
        "global_adapter.": core.GlobalFuser(config),
        "model.diffusion_model.": core.UNet(config),
    }
    state: dict[str, Tensor] = {}
    for prefix, network in networks.items():
        own = made_state(network, prefix, released.seed)
        network.load_state_dict(own)
        network.eval().requires_grad_(False)
        state |= {prefix + name: tensor for name, tensor in own.items()}
    fusers = {name: tensor for name, tensor in state.items() if "adapter." in name}
    path = folder / "golden_fusers.safetensors"
    save_file(fusers, path, metadata={"config": json.dumps(dataclasses.asdict(config))})
    loaded = host.pack.part("nodes.host.fusers").load(path)
    styles = [{"image_embeds": released[f"in.{layer}_emb"]} for layer in ("fg", "bg")]
    tokens = host.pack.part("nodes.fusers").ApplyGlobalFuser.execute(loaded, "automatic", *styles).args[0]
    unet, local_fuser = networks["model.diffusion_model."], networks["local_adapter."]
    return GoldenModel(host, released, base_model(state, config), loaded, tokens, path, unet, local_fuser)
