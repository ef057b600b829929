"""CnC-Mini from its finished files, for sampling without a host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from cnc_core import GlobalFuser, Guidance, LocalFuser, UNet
from cnc_core.perception.mini import MiniNet

from .autoencoder import Autoencoder
from .clip import ImageEncoder, TextEncoder
from .dataset import empty_tokens
from .diffusion import ddim, guided
from .model import CONFIG, Conditions, encode_depth, predict_v, soft_guidance
from .words import rows as token_rows

Repeated = Callable[[Tensor], Tensor]
"""What gives a tensor (B, ...) once for each half of a batch that is guided by its text."""
Guide = Callable[[Repeated], Guidance | None]


def _load(module: nn.Module, state: dict[str, Tensor]) -> None:
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    module.eval().requires_grad_(False)


def facts_of(path: Path) -> dict[str, str]:
    """How a finished file was made, by its header."""
    with safe_open(path, "pt") as opened:
        header = opened.metadata() or {}
    told = ("steps", "batch", "seeds", "prediction_type", "version", "started_from")
    return {name: header[name] for name in told if name in header}


def mini_net(path: Path) -> MiniNet:
    """An estimator from its file, in fp32."""
    network = MiniNet()
    _load(network, load_file(path))
    return network


@dataclass
class FinishedMini:
    """All networks of the finished files, in fp32."""

    unet: UNet
    text: TextEncoder
    local_fuser: LocalFuser
    global_fuser: GlobalFuser
    autoencoder: Autoencoder
    image_encoder: ImageEncoder | None
    facts: dict[str, str]

    @classmethod
    def load(cls, folder: Path, lacking: Path | None = None) -> FinishedMini:
        """Read a folder such as models/mini. The image encoder may be missing; other files that the folder lacks are
        taken from `lacking`."""

        def file(name: str) -> Path:
            own = folder / name
            return own if lacking is None or own.exists() else lacking / name

        unet, text, autoencoder = UNet(CONFIG), TextEncoder(), Autoencoder()
        local_fuser, global_fuser = LocalFuser(CONFIG), GlobalFuser(CONFIG)
        _load(unet, load_file(file("unet.safetensors")))
        fusers = load_file(file("fusers.safetensors"))
        for prefix, module in (("local_adapter.", local_fuser), ("global_adapter.", global_fuser)):
            _load(module, {k.removeprefix(prefix): v for k, v in fusers.items() if k.startswith(prefix)})
        words = load_file(file("text_encoder.safetensors"))
        words.pop("token_ids")
        _load(text, words)
        pictures = load_file(file("autoencoder.safetensors"))
        _load(autoencoder, {k: v for k, v in pictures.items() if not k.startswith("vae_")})
        image_encoder = None
        if file("image_encoder.safetensors").exists():
            image_encoder = ImageEncoder()
            _load(image_encoder, load_file(file("image_encoder.safetensors")))
        facts = facts_of(file("unet.safetensors"))
        return cls(unet, text, local_fuser, global_fuser, autoencoder, image_encoder, facts)

    def to(self, device: torch.device | str) -> FinishedMini:
        """Move all networks to a device; returns itself."""
        for module in vars(self).values():
            if isinstance(module, nn.Module):
                module.to(device)
        return self

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        captions: list[str],
        fg_depth: Tensor | None = None,
        bg_depth: Tensor | None = None,
        *,
        fg_embed: Tensor | None = None,
        bg_embed: Tensor | None = None,
        mask: Tensor | None = None,
        lambda_fg: float = 1.0,
        lambda_bg: float = 1.0,
        steps: int = 20,
        cfg: float = 2.5,
        bf16: bool = False,
    ) -> Tensor:
        """Pictures (B, 3, 8h, 8w) in [0, 1] from noise (B, 4, h, w).

        Conditions as in `model.Conditions`; as in the release, the unconditional half keeps all but the text.
        bf16: compute in it, about twice as fast on a processor that has it.
        """

        def guide(repeated: Repeated) -> Guidance | None:
            given = (None if value is None else repeated(value) for value in (fg_embed, bg_embed, mask))
            return soft_guidance(self.global_fuser, *given, lambda_fg=lambda_fg, lambda_bg=lambda_bg)

        return self.steered(noise, captions, fg_depth, bg_depth, guide, steps=steps, cfg=cfg, bf16=bf16)

    @torch.no_grad()
    def steered(
        self,
        noise: Tensor,
        captions: list[str],
        fg_depth: Tensor | None,
        bg_depth: Tensor | None,
        guide: Guide,
        *,
        steps: int,
        cfg: float,
        bf16: bool,
    ) -> Tensor:
        """As `sample`, with any guidance: `guide` makes it of what repeats a tensor for the unconditional half."""
        # The unconditional half has no weight at 1, and is the same as the other without words.
        halves = 1 if cfg == 1 or not any(captions) else 2

        def repeated(value: Tensor) -> Tensor:
            return value.to(noise.device).repeat(halves, *[1] * (value.ndim - 1))

        words = torch.cat((token_rows(captions), empty_tokens(len(captions))))[: halves * len(captions)]
        words = words.to(noise.device)
        context = self.text(words)
        with torch.autocast(noise.device.type, torch.bfloat16, enabled=bf16):
            maps = (None if depth is None else repeated(depth) for depth in (fg_depth, bg_depth))
            depth = encode_depth(self.local_fuser, Conditions(words, *maps))
            predict = predict_v(self.unet, self.local_fuser, context, depth, guide(repeated))
            *_, latent = ddim(predict if halves == 1 else guided(predict, cfg), noise, steps)
            return self.autoencoder.decode(latent).float().clamp(0, 1)

    @torch.no_grad()
    def embed(self, picture: Tensor) -> Tensor:
        """image_embeds (B, 96) of square pictures (B, 3, H, W) in [0, 1]."""
        if self.image_encoder is None:
            raise FileNotFoundError("the finished files hold no image_encoder.safetensors")
        return self.image_encoder(self.image_encoder.prepare(picture))
