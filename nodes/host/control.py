"""The local fuser as the host's ControlNet-like model: chains, schedule, strength and memory are the host's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import comfy.controlnet
import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.nn import functional

from ...cnc_core.attention import Kernels
from ...cnc_core.local_fuser import DepthEncoding, LocalFuser
from .attention import host_kernel
from .fusers import HostFusers, warn_of_other_maps
from .guidance import context_width, tokens_for
from .sizes import LATENT_SCALE, check_batch, fit


class LocalFuserControl(comfy.controlnet.ControlBase):
    """One use of a local fuser: its depth maps, strength and schedule.

    Args:
        fuser: the ModelPatcher of a LocalFuser.
        compute_dtype: what it computes in.
        fg_depth, bg_depth: (B or 1, local_channels, H, W) in [0, 1] of any size, or None for an absent layer.
        strength_map: (B or 1, 1, H, W) of any size, which multiplies the residuals place by place.
    """

    def __init__(
        self,
        fuser: ModelPatcher,
        compute_dtype: torch.dtype,
        fg_depth: Tensor | None,
        bg_depth: Tensor | None,
        strength_map: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.fuser = fuser
        self.compute_dtype = compute_dtype
        self.fg_depth = fg_depth
        self.bg_depth = bg_depth
        self.strength_map = strength_map
        self.model_sampling: Any = None
        self._encodings: dict[tuple[int, int], DepthEncoding] = {}
        self._strengths: dict[tuple[int, ...], Tensor] = {}

    def scheduled(self, strength: float, start_percent: float, end_percent: float) -> LocalFuserControl:
        """Set strength and schedule, and return self."""
        self.strength = strength
        self.timestep_percent_range = (start_percent, end_percent)
        return self

    def copy(self) -> LocalFuserControl:
        """Return a copy that shares the network and the depth maps, but nothing of a run."""
        other = LocalFuserControl(self.fuser, self.compute_dtype, self.fg_depth, self.bg_depth, self.strength_map)
        self.copy_to(other)
        return other

    def deepclone_multigpu(self, load_device: torch.device, autoregister: bool = False) -> LocalFuserControl:
        """Return a copy with a network of its own for another device, which newer hosts ask for.

        autoregister: whether this control keeps it for that device.
        """
        other = self.copy()
        other.fuser = self.fuser.deepclone_multigpu(new_load_device=load_device)
        if autoregister:
            self.multigpu_clones[load_device] = other
        return other

    def get_models(self) -> list[ModelPatcher]:
        """Return the networks that the host loads for a run."""
        return [*super().get_models(), self.fuser]

    def inference_memory_requirements(self, dtype: torch.dtype) -> int:
        """Estimate the bytes of a run beside the weights: the depth encoding and the maps' first features."""
        fuser: LocalFuser = self.fuser.model
        config = fuser.config
        channels = [config.model_channels, *config.channels]
        pixels = max((d.shape[-1] * d.shape[-2] for d in (self.fg_depth, self.bg_depth) if d is not None), default=0)
        batch = max((d.shape[0] for d in (self.fg_depth, self.bg_depth) if d is not None), default=0)
        encoding = sum(
            (config.inject_channels[level] + 2 * (channels[level] + channels[level + 1])) / 4**level
            for level in range(len(config.channels))
        )
        elements = batch * pixels * (encoding / LATENT_SCALE**2 + 4 * 32)
        size = comfy.model_management.dtype_size(self.compute_dtype)
        return int(elements * size) + super().inference_memory_requirements(dtype)

    def pre_run(self, model: Any, percent_to_timestep_function: Callable[[float], float]) -> None:
        """Start a run on the given base model. Raises ValueError if it is no match for the fuser."""
        super().pre_run(model, percent_to_timestep_function)
        self._clear()  # an interrupted run has had no cleanup
        self.model_sampling = model.model_sampling
        config = self.fuser.model.config
        asked = _sizes(config.model_channels, config.channel_mult, config.num_res_blocks, config.context_dim)
        unet = model.diffusion_model
        found = _sizes(
            getattr(unet, "model_channels", None),
            getattr(unet, "channel_mult", ()),
            (getattr(unet, "num_res_blocks", None) or [None])[0],
            context_width(unet),
        )
        if found != asked or model.latent_format.latent_channels != config.in_channels:
            raise ValueError(
                f"this local fuser steers a Stable Diffusion 1.5 U-Net of {asked}; the model that samples, "
                f"{type(model).__name__}, is another kind"
                + (f", of {found}" if found != asked else "")
                + ". Connect the base model that the fusers were trained for"
            )

    def cleanup(self) -> None:
        """End a run: what was computed for it is freed."""
        self._clear()
        self.model_sampling = None
        super().cleanup()

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: dict[str, Any], batched_number: int,
        transformer_options: dict[str, Any], **kwargs: Any,
    ) -> dict[str, list[Tensor | None]] | None:  # fmt: skip
        """Return the residuals of one step, merged with those of the controls chained before."""
        before = None
        if self.previous_controlnet is not None:
            before = self.previous_controlnet.get_control(
                x_noisy, t, cond, batched_number, transformer_options, **kwargs
            )
        if not self._acts_at(t):
            return before
        fuser: LocalFuser = self.fuser.model
        x = self.model_sampling.calculate_input(t, x_noisy).to(self.compute_dtype)
        timesteps = self.model_sampling.timestep(t).float()  # lower precision cannot tell 751 from 752
        text = "crossattn_controlnet" if "crossattn_controlnet" in cond else "c_crossattn"
        context = comfy.model_management.cast_to_device(cond[text], x.device, self.compute_dtype)
        kernel = host_kernel(transformer_options)
        residuals = fuser(
            x,
            timesteps,
            context,
            guidance=tokens_for(transformer_options, x, context.shape[1], text),
            depth=self._encoding(x, batched_number),
            attention=Kernels(kernel, kernel),
        )
        if self.strength_map is not None:
            strength, chunks = self.strength_map, batched_number
            residuals = [residual * self._strength_at(strength, residual, x, chunks) for residual in residuals]
        residuals = [residual.to(x_noisy.dtype) for residual in residuals]
        control = {"input": [], "middle": residuals[-1:], "output": residuals[:-1]}
        return self.control_merge(control, before, x_noisy.dtype)

    def _acts_at(self, t: Tensor) -> bool:
        if self.timestep_percent_range == (0.0, 1.0):
            return True  # no look at t, which would wait for the GPU at every step
        start, end = self.timestep_range
        return bool(end <= t[0] <= start)

    def _encoding(self, x: Tensor, batched_number: int) -> DepthEncoding:
        """Return the depth maps' encoding for latents of x's size, computed once a run."""
        size = (x.shape[-2], x.shape[-1])
        if size not in self._encodings:
            fuser: LocalFuser = self.fuser.model
            maps = []
            for depth, what in ((self.fg_depth, "fg_depth"), (self.bg_depth, "bg_depth")):
                if depth is not None:
                    check_batch(depth, x.shape[0] // batched_number, what)
                    depth = fit(depth, size[0] * LATENT_SCALE, size[1] * LATENT_SCALE, what).to(x)
                maps.append(depth)
            self._encodings[size] = fuser.encode_depth(*maps)
        return self._encodings[size]

    def _strength_at(self, strength_map: Tensor, residual: Tensor, x: Tensor, batched_number: int) -> Tensor:
        """Return the map of strength for a residual of latents x, (B or 1, 1, h, w), computed once a run."""
        key = (*x.shape, *residual.shape[-2:])
        if key not in self._strengths:
            check_batch(strength_map, x.shape[0] // batched_number, "the strength by layer")
            whole = fit(strength_map, x.shape[-2] * LATENT_SCALE, x.shape[-1] * LATENT_SCALE, "the layers")
            strength = functional.interpolate(whole.float(), residual.shape[-2:], mode="area").to(residual)
            repeats = 1 if len(strength) == 1 else batched_number
            self._strengths[key] = strength.repeat(repeats, 1, 1, 1)
        return self._strengths[key]

    def _clear(self) -> None:
        self._encodings.clear()
        self._strengths.clear()


def apply_local_fuser(
    positive: Any,
    negative: Any,
    fusers: HostFusers,
    maps: Sequence[Tensor | None],
    strength: float,
    percents: tuple[float, float] = (0.0, 1.0),
    strength_map: Tensor | None = None,
) -> tuple[Any, Any]:
    """Return both conditionings with the local fuser of ``fusers``, given maps of foreground and background.

    As they are where strength is 0 or both maps are None. Raises ValueError where there is no local fuser.
    """
    if strength == 0 or all(depth is None for depth in maps):
        return positive, negative
    if fusers.local_fuser is None:
        raise ValueError(
            f"{fusers.name} has no local fuser (keys 'local_adapter.*'), so it cannot take depth maps; load "
            "a checkpoint with one, as the released cnc_v1.ckpt or local_fuser_v1.ckpt"
        )
    warn_of_other_maps(fusers, fg_depth=maps[0], bg_depth=maps[1])
    control = LocalFuserControl(fusers.local_fuser, fusers.compute_dtype, *maps, strength_map)
    return add_control(positive, negative, control.scheduled(strength, *percents))


def _sizes(channels: int | None, mult: Sequence[int], res_blocks: int | None, context: int | None) -> str:
    """Say what of a U-Net must be as the fuser's: SDXL too begins with 320 channels."""
    levels = " x ".join(str(factor) for factor in mult)
    return f"{channels} channels (times {levels}), {res_blocks} res blocks a level, text of width {context}"


def add_control(positive: Any, negative: Any, control: LocalFuserControl) -> tuple[Any, Any]:
    """Return both conditionings with the control after those that they have.

    Entries with the same control before share one copy: the host puts cond and uncond into one batch only if
    their control is the same object.
    """
    copies: dict[Any, LocalFuserControl] = {}

    def extended(conditioning: Any) -> Any:
        entries = []
        for embedding, options in conditioning:
            before = options.get("control")
            if before not in copies:
                _warn_of_overlap(before, control)
                copies[before] = control.copy()
                copies[before].set_previous_controlnet(before)
            entries.append([embedding, {**options, "control": copies[before], "control_apply_to_uncond": False}])
        return entries

    return extended(positive), extended(negative)


def _warn_of_overlap(before: Any, control: LocalFuserControl) -> None:
    """Log where a local fuser acts at the same time as one before it: neither knows what the other hides."""
    start, end = control.timestep_percent_range
    while before is not None:
        if isinstance(before, LocalFuserControl):
            other_start, other_end = before.timestep_percent_range
            if max(start, other_start) < min(end, other_end):
                logging.warning(
                    "Compose and Conquer: two Apply Local Fusers act on one conditioning at the same time (from %g to "
                    "%g of the sampling), and things shine through each other: take Compose Layers for more than two "
                    "layers, or give the two nodes start and end percents one after the other.",
                    max(start, other_start), min(end, other_end),
                )  # fmt: skip
                return
        before = before.previous_controlnet
