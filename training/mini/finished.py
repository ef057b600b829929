"""CnC-Mini from its finished files, for sampling without a host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from cnc_core import GlobalFuser, LocalFuser, UNet

from .autoencoder import Autoencoder
from .clip import ImageEncoder, TextEncoder
from .dataset import empty_tokens
from .diffusion import ddim, guided
from .model import CONFIG, Conditions, predict_v
from .words import rows as token_rows


def _load(module: nn.Module, state: dict[str, Tensor]) -> None:
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    module.eval().requires_grad_(False)


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
        with safe_open(file("unet.safetensors"), "pt") as opened:
            header = opened.metadata() or {}
        facts = {k: header[k] for k in ("steps", "prediction_type", "version") if k in header}
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
        halves = 1 if cfg == 1 else 2  # at 1 the unconditional half has no weight

        def repeated(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.repeat(halves, *[1] * (value.ndim - 1))

        tokens = torch.cat((token_rows(captions), empty_tokens(len(captions))))[: halves * len(captions)]
        conditions = Conditions(
            tokens, repeated(fg_depth), repeated(bg_depth), repeated(fg_embed), repeated(bg_embed), repeated(mask),
            lambda_fg, lambda_bg,
        )  # fmt: skip
        with torch.autocast(noise.device.type, torch.bfloat16, enabled=bf16):
            predict = predict_v(self.unet, self.text, self.local_fuser, self.global_fuser, conditions)
            *_, latent = ddim(predict if halves == 1 else guided(predict, cfg), noise, steps)
            return self.autoencoder.decode(latent).float().clamp(0, 1)

    @torch.no_grad()
    def embed(self, picture: Tensor) -> Tensor:
        """image_embeds (B, 96) of square pictures (B, 3, H, W) in [0, 1]."""
        if self.image_encoder is None:
            raise FileNotFoundError("the finished files hold no image_encoder.safetensors")
        return self.image_encoder(self.image_encoder.prepare(picture))
