"""Soft guidance as a patch on a MODEL.

What the model carries is data: the core's :class:`Guidance`, regions and their schedules. At the start of a sampling
run a wrapper makes the run's state; at each forward another wrapper adds the tokens behind the text (``attn2_patch``)
and the masked attention (``attn2_replace``), beside whatever other packs have put there. The local fuser finds the same
data in the run's transformer options.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...cnc_core.guidance import BlockGroup, Guidance
from ...cnc_core.guided_tokens import GuidedTokens
from .attention import host_kernel
from .run_schedule import RunSchedule
from .sizes import LATENT_SCALE, check_batch, crop, fit

GUIDANCE = "cnc_guidance"
"""Where a model's transformer options hold its :class:`Guidance`; also the key of our wrappers."""
STATE = "cnc_sampling_state"
"""Where they hold the :class:`SamplingState` of a run, while one is going on."""
_SPAN = "cnc_token_span"
"""Where one layer's extra options hold the columns of our tokens, from the patch to the replace."""

BlockKey = tuple[BlockGroup, int, int]


def with_guidance(model: ModelPatcher, guidance: Guidance) -> ModelPatcher:
    """Return a clone of the model with the regions added to those it has.

    Raises ValueError if mode or resize differ from those of the guidance it has, or if the model is no
    Stable Diffusion 1.5 for tokens of this width.
    """
    diffusion_model = model.model.diffusion_model
    keys = cross_attention_keys(diffusion_model)
    width = guidance.regions[0].tokens.shape[-1]
    found = context_width(diffusion_model)
    if not keys or found != width:
        raise ValueError(
            f"these tokens are {width} wide and made for Stable Diffusion 1.5's cross-attention; the model, "
            f"{type(model.model).__name__}, has "
            + (f"a text width of {found}" if found else "no such layers")
            + ". Connect the base model that the fusers were trained for"
        )
    model = model.clone()
    options = model.model_options["transformer_options"]
    before: Guidance | None = options.get(GUIDANCE)
    if before is not None:
        if (before.mode, before.resize) != (guidance.mode, guidance.resize):
            raise ValueError(
                f"a run has one mode and one resize: this model already has soft guidance with mode "
                f"{before.mode!r} and resize {before.resize!r}, this one asks for {guidance.mode!r} and "
                f"{guidance.resize!r}; set both nodes alike"
            )
        guidance = before.extended(guidance)
    options[GUIDANCE] = guidance
    wrappers = ((WrappersMP.OUTER_SAMPLE, _outer_sample), (WrappersMP.DIFFUSION_MODEL, _diffusion_model))
    for kind, wrapper in wrappers:
        model.remove_wrappers_with_key(kind, GUIDANCE)
        model.add_wrapper_with_key(kind, GUIDANCE, wrapper)
    return model


def cross_attention_keys(diffusion_model: torch.nn.Module) -> list[BlockKey]:
    """Return the (block, index, transformer index) of every cross-attention layer of a U-Net of the host."""
    keys: list[BlockKey] = []
    groups: list[tuple[BlockGroup, Any]] = [
        ("input", getattr(diffusion_model, "input_blocks", ())),
        ("middle", (getattr(diffusion_model, "middle_block", None) or (),)),
        ("output", getattr(diffusion_model, "output_blocks", ())),
    ]
    for name, blocks in groups:
        for index, layers in enumerate(blocks):
            for layer in layers:
                for transformer, _ in enumerate(getattr(layer, "transformer_blocks", ())):
                    keys.append((name, index, transformer))
    return keys


def context_width(diffusion_model: torch.nn.Module) -> int | None:
    """Return the width of the text that a U-Net of the host attends to, or None if it has no such layers."""
    for module in diffusion_model.modules():
        attention = getattr(module, "attn2", None)
        if attention is not None:
            return attention.to_k.in_features
    return None


def text_width(model: ModelPatcher) -> int:
    """Return the width of the text that a model attends to. Raises ValueError for one that is no U-Net with such."""
    unet = model.model.diffusion_model
    width = context_width(unet)
    if width is None or not cross_attention_keys(unet):
        raise ValueError(
            f"layers act through the cross-attention of a U-Net, and {type(model.model).__name__} has none: take a "
            "Stable Diffusion 1.5 or SDXL model"
        )
    return width


class _Chunk(NamedTuple):
    """What one chunk of a batch is of: which prompt, and how long its text was before the host made a batch."""

    negative: bool
    text_length: int


class SamplingState:
    """What one sampling run computes once: the schedules at its sigmas, and for each kind of batch its tokens.

    Several threads may ask, each for a device of its own, as newer hosts do.

    guider: the host's, whose ``conds`` are the run's conditioning, once it has begun. sigmas: the run's.
    """

    def __init__(self, guidance: Guidance, guider: Any, sigmas: Tensor) -> None:
        self.guidance = guidance.without_closed_gates()
        self.keys: list[BlockKey] | None = None
        self._guider = guider
        self._schedule: RunSchedule | None = None
        schedules = [region.schedule for region in guidance.regions]
        if not all(schedule.is_constant for schedule in schedules):
            sampling = guider.model_patcher.get_model_object("model_sampling")
            self._schedule = RunSchedule(schedules, sigmas, lambda percent: float(sampling.percent_to_sigma(percent)))
        self._tokens: dict[Any, GuidedTokens] = {}
        self._steps: dict[GuidedTokens, tuple[Tensor, GuidedTokens]] = {}

    def tokens(self, options: dict[str, Any], x: Tensor, text_length: int, text: str) -> GuidedTokens | None:
        """Return the tokens of a forward of x (B, C, h, w), or None if there are none.

        options are the forward's transformer options; text_length is that of the batched text, which the
        conditioning holds under the name ``text``.
        """
        uuids = options.get("uuids") or options.get("cond_or_uncond") or (0,)
        sides = options.get("cond_or_uncond") or (0,) * len(uuids)
        chunks = tuple(self._chunk(uuid, side, text, text_length) for uuid, side in zip(uuids, sides, strict=True))
        key = (chunks, tuple(x.shape), text_length, x.dtype, x.device)
        if key not in self._tokens:
            self._tokens[key] = self._make(chunks, x, text_length)
        tokens = self._tokens[key]
        if not tokens.count:
            return None
        return tokens if self._schedule is None else self._at_step(self._schedule, tokens, options["sigmas"])

    def _at_step(self, schedule: RunSchedule, tokens: GuidedTokens, sigmas: Tensor) -> GuidedTokens:
        """Return the tokens at a forward's sigmas; the U-Net and the local fuser share what is made of them."""
        step = self._steps.get(tokens)
        if step is None or step[0] is not sigmas:
            step = self._steps[tokens] = (sigmas, tokens.at_step(*schedule.at(sigmas.flatten()[:1])))
        return step[1]

    def _chunk(self, uuid: Any, side: int, text: str, text_length: int) -> _Chunk:
        """Say what one chunk of a batch is, by the uuid of its conditioning and its side, 0 cond and 1 uncond.

        Where a prompt has an area, the host may give the other prompt that area under the same uuid.
        """
        conds: dict[str, list[dict[str, Any]]] = self._guider.conds
        entries = {name: entry for name, own in conds.items() for entry in own if entry.get("uuid") == uuid}
        names = list(conds)
        name = names[side] if side < len(names) and names[side] in entries else next(iter(entries), "")
        held = entries[name]["model_conds"].get(text) if name else None
        negative = "negative" in name if any("negative" in other for other in names) else side == 1
        return _Chunk(negative, text_length if held is None else held.size()[1])

    def _make(self, chunks: tuple[_Chunk, ...], x: Tensor, text_length: int) -> GuidedTokens:
        images = x.shape[0] // len(chunks)
        fitted: dict[int, Tensor] = {}  # regions that share a mask share it when it is fitted, too
        regions = []
        for region in self.guidance.regions:
            check_batch(region.tokens, images, "the exemplars' tokens")
            tokens = _for_chunks(region.tokens.to(x.device, torch.float32), len(chunks))
            mask = region.mask
            if mask is not None:
                if id(mask) not in fitted:
                    fitted[id(mask)] = self._fitted(mask, x, images, len(chunks))
                mask = fitted[id(mask)]
            regions.append(replace(region, tokens=tokens, mask=mask))
        acts = [[float(not (region.positive_only and chunk.negative)) for region in regions] for chunk in chunks]
        # The host repeats a short text to the batch's length, which multiplies its attention weight.
        repeats = [[math.log(text_length / chunk.text_length)] for chunk in chunks]
        guidance = replace(self.guidance, regions=tuple(regions))
        count = sum(region.tokens.shape[1] for region in regions)

        def for_images(values: list[list[float]]) -> Tensor:
            return torch.tensor(values).repeat_interleave(images, 0).to(x.device)

        bias = for_images(repeats)[:, None].expand(-1, 1, count) if any(map(any, repeats)) else None
        return GuidedTokens(guidance, bias, None if all(map(all, acts)) else for_images(acts))

    def _fitted(self, mask: Tensor, x: Tensor, images: int, chunks: int) -> Tensor:
        """Return a mask at the size of the picture that is made, for each picture of the batch."""
        check_batch(mask, images, "the mask")
        height, width = x.shape[-2] * LATENT_SCALE, x.shape[-1] * LATENT_SCALE
        # The release resizes a mask of any size straight to each layer.
        resize = crop if self.guidance.resize == "release" else fit
        return _for_chunks(resize(mask, height, width, "the mask").to(x.device), chunks)


def _for_chunks(tensor: Tensor, chunks: int) -> Tensor:
    """Repeat what is given for each image over the chunks of a batch; what is one for all stays one."""
    return tensor if tensor.shape[0] == 1 else tensor.repeat(chunks, *(1,) * (tensor.ndim - 1))


def tokens_for(options: dict[str, Any], x: Tensor, text_length: int, text: str = "c_crossattn") -> GuidedTokens | None:
    """Return the tokens that act on a forward of x, for the U-Net and for the local fuser alike.

    text: the host's name for the text that it attends to, text_length of that in the batch.
    """
    state: SamplingState | None = options.get(STATE)
    return None if state is None else state.tokens(options, x, text_length, text)


def _outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Give one sampling run its state, and free it after."""
    guider = executor.class_obj
    options = guider.model_options["transformer_options"]
    sigmas = kwargs["sigmas"] if "sigmas" in kwargs else args[3]  # after noise, latent and sampler
    options[STATE] = SamplingState(options[GUIDANCE], guider, sigmas)
    try:
        return executor(*args, **kwargs)
    finally:
        del options[STATE]


def _diffusion_model(
    executor: Any,
    x: Tensor,
    timesteps: Any = None,
    context: Any = None,
    y: Any = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Run one forward of the U-Net with our tokens and masked attention added to a copy of its options."""
    options = transformer_options or {}
    tokens = tokens_for(options, x, context.shape[1])
    if tokens is not None:
        state: SamplingState = options[STATE]
        if state.keys is None:
            state.keys = cross_attention_keys(executor.class_obj)
        patches = dict(options.get("patches", {}))
        patches["attn2_patch"] = [*patches.get("attn2_patch", ()), _AppendTokens(tokens)]
        replaces = dict(options.get("patches_replace", {}))
        others = replaces.get("attn2", {})
        ours = {key: _GuidedReplace(tokens, key[0], others.get(key) or others.get(key[:2])) for key in state.keys}
        replaces["attn2"] = {**others, **ours}
        options = {**options, "patches": patches, "patches_replace": replaces}
    return executor(x, timesteps, context, y, control, options, **kwargs)


class _AppendTokens:
    """The ``attn2_patch`` of one forward: puts the tokens behind what a layer attends to."""

    def __init__(self, tokens: GuidedTokens) -> None:
        self._tokens = tokens
        self._last: tuple[Tensor, BlockGroup, Tensor] | None = None

    def __call__(
        self, n: Tensor, context: Tensor, value: Tensor, extra_options: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        group = extra_options["block"][0]
        extended = self._extend(context, group)
        extra_options[_SPAN] = (context.shape[1], extended.shape[1])
        return n, extended, extended if value is context else self._tokens.append_to(value, group)

    def _extend(self, context: Tensor, group: BlockGroup) -> Tensor:
        # Every layer is given the same context, unless another patch changes it.
        if self._last is None or self._last[0] is not context or self._last[1] != group:
            self._last = (context, group, self._tokens.append_to(context, group))
        return self._last[2]


class _GuidedReplace:
    """The ``attn2_replace`` of one layer: masked attention, plus what another pack's replace adds to the text."""

    def __init__(self, tokens: GuidedTokens, group: BlockGroup, other: Callable[..., Tensor] | None) -> None:
        self._tokens = tokens
        self._group: BlockGroup = group
        self._other = other

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], **kwargs: Any) -> Tensor:
        heads = extra_options["n_heads"]
        height, width = extra_options["activations_shape"][-2:]
        start, stop = extra_options[_SPAN]
        kernel = host_kernel()
        text_k, text_v = k[:, :start], v[:, :start]
        if stop < k.shape[1]:  # a later patch has put columns of its own behind ours
            text_k, text_v = torch.cat([text_k, k[:, stop:]], 1), torch.cat([text_v, v[:, stop:]], 1)
            k, v = torch.cat([text_k, k[:, start:stop]], 1), torch.cat([text_v, v[:, start:stop]], 1)
        out = self._tokens.attend(q, k, v, heads, height, width, kernel, self._group)
        if self._other is not None:
            # The other replace does plain attention to the text and something more; only that is wanted.
            added = self._other(q, text_k, text_v, extra_options, **kwargs) - kernel(q, text_k, text_v, heads)
            out = out + added
        return out
