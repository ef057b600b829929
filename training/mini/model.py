"""The networks of the Mini together, and how a prediction is made of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnc_core import DepthEncoding, FuserConfig, GlobalFuser, Guidance, LocalFuser, Region, UNet

from .clip import TextEncoder


def small_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention as cnc_core's kernel computes it, in plain products: for a few hundred queries with
    8 to 32 channels a head these train several times as fast on a CPU as the fused kernel."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    logits = (q * q.shape[-1] ** -0.5) @ k.mT
    if mask is not None:
        logits = logits + mask
    return (logits.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)


KERNELS = (small_attention, small_attention)

CONFIG = FuserConfig(
    in_channels=4,
    model_channels=32,
    channel_mult=(1, 2, 3, 4),
    num_res_blocks=2,
    num_heads=4,
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
    lambda_fg: float = 1.0
    lambda_bg: float = 1.0


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
        if conditions.fg_depth is None or conditions.bg_depth is None:
            return None
        channels = self.config.local_channels
        maps = (conditions.fg_depth, conditions.bg_depth)
        return self.local_fuser.encode_depth(*(depth.expand(-1, channels, -1, -1) for depth in maps))

    def guidance(self, conditions: Conditions) -> Guidance | None:
        """Soft guidance by the exemplars' tokens; None without exemplars."""
        if conditions.fg_embed is None or conditions.bg_embed is None:
            return None
        fg_tokens, bg_tokens = self.global_fuser(conditions.fg_embed, conditions.bg_embed)
        return Guidance(
            (
                Region(fg_tokens, conditions.mask, conditions.lambda_fg),
                Region(bg_tokens, None, conditions.lambda_bg),
            )
        )

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, depth: DepthEncoding | None, guidance: Guidance | None
    ) -> Tensor:
        """v (B, 4, h, w) for noisy latents x (B, 4, h, w)."""
        residuals = None
        if depth is not None:
            residuals = self.local_fuser(x, timesteps, context, depth=depth, guidance=guidance, attention=KERNELS)
        return self.unet(x, timesteps, context, residuals=residuals, guidance=guidance, attention=KERNELS)


NARROW = (16, 24, 24, 32)  # of the depth streams' released channels 32, 64, 64, 64


def narrow_streams(fuser: LocalFuser) -> None:
    """Leave most channels of the two depth streams out while training: they work at the picture's
    size and would take half of a step's time. `released_streams` puts them back as zeros, which
    changes nothing: SiLU(0) = 0, and nothing reads them."""
    extractor = fuser.feature_extractor
    for stream in (extractor.fg_extractor, extractor.bg_extractor):
        channels = fuser.config.local_channels
        for index, width in zip((0, 2, 4, 6), NARROW, strict=True):
            stride = stream[index].stride[0]
            stream[index] = nn.Conv2d(channels, width, 3, stride=stride, padding=1)
            channels = width
    first = extractor.extractors[0][0]
    extractor.extractors[0][0] = nn.Conv2d(2 * NARROW[-1], first.out_channels, 3, stride=2, padding=1)


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


def start_from_base(fuser: LocalFuser, base: UNet) -> None:
    """Copy the base U-Net's encoder into the clone wherever keys and shapes agree (paper section 3.1)."""
    own = fuser.state_dict()
    shared = {k: v for k, v in base.state_dict().items() if k in own and own[k].shape == v.shape}
    fuser.load_state_dict({**own, **shared})
