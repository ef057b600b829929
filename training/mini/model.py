"""The networks of the Mini together, and how a prediction is made of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnc_core import DepthEncoding, FuserConfig, GlobalFuser, Guidance, LocalFuser, Region, UNet
from cnc_core.attention import FUSED, Kernel
from cnc_core.blocks import zeroed

from .clip import TextEncoder
from .diffusion import Predict


def small_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention as cnc_core's kernel computes it, in plain products: for a few hundred queries with
    8 to 32 channels a head these train several times as fast on a CPU as the fused kernel."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    logits = (q * q.shape[-1] ** -0.5) @ k.mT
    if mask is not None:
        logits = logits + mask
    return (logits.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)


KERNELS = (small_attention, small_attention)


def kernels_for(device: torch.device) -> tuple[Kernel, Kernel]:
    """The attention that is fastest there for networks of this size: self and cross."""
    return KERNELS if device.type == "cpu" else FUSED


CONFIG = FuserConfig(
    in_channels=4,
    model_channels=32,
    channel_mult=(1, 2, 3, 4),
    num_res_blocks=2,
    num_heads=2,
    context_dim=96,
    local_channels=3,
    inject_channels=(24, 32, 48, 64),
    global_tokens=4,
)


@dataclass(frozen=True)
class Conditions:
    """What a batch is asked for. Depth maps (B, 1, 8h, 8w) in [0, 1], mask (B, 1, H, W), embeds (B, 96).

    Without depth the local fuser is not run; without embeds there is no soft guidance.
    """

    tokens: Tensor  # (B, 77), positions in words.used_ids
    fg_depth: Tensor | None = None
    bg_depth: Tensor | None = None
    fg_embed: Tensor | None = None
    bg_embed: Tensor | None = None
    mask: Tensor | None = None
    bg_mask: Tensor | None = None  # None: all that mask does not cover


class Mini(nn.Module):
    """U-Net, text encoder, local fuser and global fuser."""

    def __init__(self, config: FuserConfig = CONFIG) -> None:
        super().__init__()
        self.config = config
        self.text = TextEncoder()
        self.unet = UNet(config)
        self.local_fuser = LocalFuser(config)
        self.global_fuser = GlobalFuser(config)
        narrow_streams(self.local_fuser)
        start_outputs(self.local_fuser)

    def encode_depth(self, conditions: Conditions) -> DepthEncoding | None:
        """The part of the local fuser that depends on depth alone; None without depth."""
        return encode_depth(self.local_fuser, conditions)

    def guidance(self, conditions: Conditions) -> Guidance | None:
        """Soft guidance by the exemplars' tokens; None without exemplars."""
        embeds = conditions.fg_embed, conditions.bg_embed
        return soft_guidance(self.global_fuser, *embeds, conditions.mask, conditions.bg_mask)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        depth: DepthEncoding | None,
        guidance: Guidance | None,
        fuser_share: Tensor | None = None,
    ) -> Tensor:
        """v (B, 4, h, w) for noisy latents x (B, 4, h, w).

        fuser_share (B, 1, 1, 1) multiplies the local fuser's residuals: 0 where a sample does without.
        """
        kernels = kernels_for(x.device)
        residuals = None
        if depth is not None:
            residuals = self.local_fuser(x, timesteps, context, depth=depth, guidance=guidance, attention=kernels)
            if fuser_share is not None:
                residuals = [residual * fuser_share for residual in residuals]
        return self.unet(x, timesteps, context, residuals=residuals, guidance=guidance, attention=kernels)


def encode_depth(fuser: LocalFuser, conditions: Conditions) -> DepthEncoding | None:
    """What depends on depth alone, of maps with one channel; None without depth."""
    if conditions.fg_depth is None or conditions.bg_depth is None:
        return None
    maps = (conditions.fg_depth, conditions.bg_depth)
    return fuser.encode_depth(*(depth.expand(-1, fuser.config.local_channels, -1, -1) for depth in maps))


def soft_guidance(
    fuser: GlobalFuser,
    fg_embed: Tensor | None,
    bg_embed: Tensor | None,
    mask: Tensor | None,
    bg_mask: Tensor | None = None,
    *,
    lambda_fg: float = 1.0,
    lambda_bg: float = 1.0,
) -> Guidance | None:
    """The exemplars' tokens, each under its mask; None without exemplars. bg_mask None: all that mask leaves."""
    if fg_embed is None or bg_embed is None:
        return None
    fg_tokens, bg_tokens = fuser(fg_embed, bg_embed)
    return Guidance((Region(fg_tokens, mask, lambda_fg), Region(bg_tokens, bg_mask, lambda_bg)))


def predict_v(
    unet: UNet, local_fuser: LocalFuser, context: Tensor, depth: DepthEncoding | None, guidance: Guidance | None
) -> Predict:
    """The networks with what does not depend on x or t filled in."""
    kernels = kernels_for(context.device)

    def predict(x: Tensor, timesteps: Tensor) -> Tensor:
        residuals = None
        if depth is not None:
            residuals = local_fuser(x, timesteps, context, depth=depth, guidance=guidance, attention=kernels)
        return unet(x, timesteps, context, residuals=residuals, guidance=guidance, attention=kernels)

    return predict


NARROW = (8, 16, 16, 32)  # of the depth streams' released channels 32, 64, 64, 64


def narrow_streams(fuser: LocalFuser) -> None:
    """Leave most channels of the two depth streams out while training: they work at the picture's
    size and would take half of a step's time. `released_streams` puts them back as zeros, which
    changes nothing: SiLU(0) = 0, and nothing reads them."""
    extractor = fuser.feature_extractor
    for name in ("fg_extractor", "bg_extractor"):
        layers: list[nn.Module] = []
        channels = fuser.config.local_channels
        for width, stride in zip(NARROW, (1, 2, 1, 2), strict=True):
            layers += [nn.Conv2d(channels, width, 3, stride=stride, padding=1), nn.SiLU()]
            channels = width
        extractor.add_module(name, nn.Sequential(*layers))
    inject = fuser.config.inject_channels[0]
    first = nn.Sequential(nn.Conv2d(2 * NARROW[-1], inject, 3, stride=2, padding=1), nn.SiLU())
    extractor.extractors = nn.ModuleList([first, *list(extractor.extractors)[1:]])


def released_streams(state: dict[str, Tensor], config: FuserConfig) -> dict[str, Tensor]:
    """A local fuser's state with narrow depth streams in the released shapes."""
    wide = {}
    for key, full in LocalFuser(config, device="meta").state_dict().items():
        part = state[key]
        if part.shape == full.shape:
            wide[key] = part
            continue
        wide[key] = torch.zeros(full.shape, dtype=part.dtype)
        if key == "feature_extractor.extractors.0.0.weight":  # it reads the foreground's half, then the background's
            (mine, whole) = (part.shape[1] // 2, full.shape[1] // 2)
            wide[key][:, :mine], wide[key][:, whole : whole + mine] = part[:, :mine], part[:, mine:]
        else:
            wide[key][tuple(slice(0, n) for n in part.shape)] = part
    return wide


def narrowed_streams(state: dict[str, Tensor], config: FuserConfig) -> dict[str, Tensor]:
    """A local fuser's state in the released shapes with the depth streams that are trained: `released_streams` undone.

    Raises ValueError where what would be left out is not zero, as in weights that were not trained here.
    """
    with torch.device("meta"):
        narrow = LocalFuser(config)
        narrow_streams(narrow)
    own = {}
    for key, shape in ((k, v.shape) for k, v in narrow.state_dict().items()):
        full = state[key]
        if key == "feature_extractor.extractors.0.0.weight":
            mine = shape[1] // 2
            own[key] = torch.cat([half[:, :mine] for half in full.chunk(2, 1)], 1)
        else:
            own[key] = full[tuple(slice(0, n) for n in shape)].clone()
        if own[key].count_nonzero() != full.count_nonzero():
            raise ValueError(f"{key} has weights outside the {NARROW} channels that the depth streams are trained with")
    return own


def start_outputs(fuser: LocalFuser, share: float = 0.5) -> None:
    """Give the fuser's output convolutions small random weights in place of zeros.

    A departure from the paper, where they start at zero: trained from nothing, a fuser whose outputs
    are zero gets no gradient at first and learns late.
    """
    outputs = [*fuser.zero_convs.modules(), *fuser.middle_block_out.modules()]
    for module in (*outputs, *fuser.feature_extractor.zero_convs.modules()):
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
            with torch.no_grad():
                module.weight.mul_(share if module in outputs else 1.0)
                if module.bias is not None:
                    module.bias.zero_()


def zero_outputs(fuser: LocalFuser) -> None:
    """Give the fuser's output convolutions and those of its features zeros, the paper's start."""
    outputs = (fuser.zero_convs, fuser.middle_block_out, fuser.feature_extractor.zero_convs)
    for module in (module for group in outputs for module in group.modules()):
        if isinstance(module, nn.Conv2d):
            zeroed(module)


def start_from_base(fuser: LocalFuser, base: UNet) -> None:
    """Copy the base U-Net's encoder into the clone wherever keys and shapes agree (paper section 3.1)."""
    own = fuser.state_dict()
    shared = {k: v for k, v in base.state_dict().items() if k in own and own[k].shape == v.shape}
    fuser.load_state_dict({**own, **shared})
