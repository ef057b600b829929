"""The three networks that training would otherwise run at every step: autoencoder, image encoder, text encoder.

Each is named "mini" (the repository's own) or by a path: a folder in the layout of diffusers or transformers, or for
the autoencoder a single-file checkpoint as well. Nothing is fetched.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnc_core.perception.registry import MINI_FOLDER
from cnc_core.weight_files import CheckpointError, open_weights
from training.mini.autoencoder import Autoencoder
from training.mini.clip import DEVIATION, MEAN, ImageEncoder, TextConfig, TextEncoder, VisionConfig
from training.mini.words import END, LENGTH, START, table, used_ids

from ..files import file_hash

MINI = "mini"
SD_SCALE = 0.18215
_WEIGHTS = (".safetensors", ".bin", ".json", ".txt", ".model", ".onnx", ".pt", ".pth", ".ckpt")
_Model = TypeVar("_Model")


class EncoderError(ValueError):
    """An encoder that is not there or not what it should be; the message says what was expected."""


class LatentEncoder:
    """Pictures to latents, in the U-Net's scale."""

    def __init__(self, name: str, device: str, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        if name == MINI:
            mini = _mini_network(Autoencoder(), "autoencoder.safetensors").taesd_encoder.to(device, dtype)
            self._encode: Callable[[Tensor], tuple[Tensor, Tensor]] = lambda x: (y := mini(x), torch.zeros_like(y))
            return
        vae = _vae(name, device, dtype)

        def encode(pictures: Tensor) -> tuple[Tensor, Tensor]:
            posterior = vae.encode(pictures * 2 - 1).latent_dist
            return posterior.mean * vae.config.scaling_factor, posterior.std * vae.config.scaling_factor

        self._encode = encode

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1] to the posterior's mean and deviation, (B, 4, H/8, W/8) each, float32 on the CPU.

        On a CPU one by one: its caches hold one picture's activations, eight together took 1.3 to 1.8 times as long.
        """
        at_once = 1 if torch.device(self.device).type == "cpu" else len(pictures)
        parts = [self._encode(part.to(self.device, self.dtype).contiguous()) for part in pictures.split(at_once)]
        mean, deviation = (torch.cat(part).float().cpu() for part in zip(*parts, strict=True))
        return mean, deviation


class LatentDecoder:
    """Latents in the U-Net's scale to pictures: the other way of `LatentEncoder`."""

    def __init__(self, name: str, device: str, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        if name == MINI:
            self._decode: Callable[[Tensor], Tensor] = _mini_network(
                Autoencoder(), "autoencoder.safetensors"
            ).taesd_decoder.to(device, dtype)
            return
        vae = _vae(name, device, dtype)
        self._decode = lambda latents: vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        """(B, 4, h, w) to (B, 3, 8h, 8w) in [0, 1], float32 on the CPU."""
        return self._decode(latents.to(self.device, self.dtype)).float().clamp(0, 1).cpu()


class PictureEncoder:
    """Pictures to CLIP's image_embeds: projected, not normalised."""

    def __init__(self, name: str, device: str, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        if name == MINI:
            mini = _mini_network(ImageEncoder(), "image_encoder.safetensors").to(device, dtype)
            self.size = mini.config.image_size
            self._embed: Callable[[Tensor], Tensor] = mini
            return
        from transformers import CLIPVisionModelWithProjection

        folder = _subfolder(name, "image_encoder")
        clip = _frozen(_loaded(folder, CLIPVisionModelWithProjection.from_pretrained), device, dtype)
        self.size = clip.config.image_size
        self._embed = lambda x: clip(pixel_values=x).image_embeds

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Square pictures (B, 3, H, W) in [0, 1] to (B, D), float32 on the CPU."""
        small = F.interpolate(
            pictures.to(self.device).float().contiguous(), (self.size, self.size), mode="bicubic", antialias=True
        )
        small = (small * 255).clamp(0, 255).round() / 255  # as CLIP's own preprocessing, which works on bytes
        mean, deviation = (small.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        return self._embed(((small - mean) / deviation).to(self.dtype)).float().cpu()


class CaptionEncoder:
    """Captions to the text encoder's last states, which the U-Net attends to."""

    def __init__(self, name: str, device: str, dtype: torch.dtype) -> None:
        self.device = device
        if name == MINI:
            mini = _MiniWords().to(device, dtype)
            self._states: Callable[[list[str]], Tensor] = mini.states
            return
        from transformers import CLIPTextModel, CLIPTokenizer

        clip = _frozen(_loaded(_subfolder(name, "text_encoder"), CLIPTextModel.from_pretrained), device, dtype)
        tokenizer = _loaded(_subfolder(name, "tokenizer"), CLIPTokenizer.from_pretrained)

        def states(captions: list[str]) -> Tensor:
            tokens = tokenizer(
                captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
            ).input_ids
            return clip(tokens.to(device)).last_hidden_state

        self._states = states

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> Tensor:
        """Captions to (B, 77, C), float32 on the CPU."""
        return self._states(captions).float().cpu()


def picture_dim(name: str) -> int:
    """The width of a picture encoder's embeddings, from its config alone."""
    if name == MINI:
        return VisionConfig().projection_dim
    from transformers import CLIPVisionConfig

    return int(_loaded(_subfolder(name, "image_encoder"), CLIPVisionConfig.from_pretrained).projection_dim)


def caption_dim(name: str) -> int:
    """The width of a caption encoder's states, from its config alone."""
    if name == MINI:
        return TextConfig().hidden_size
    from transformers import CLIPTextConfig

    return int(_loaded(_subfolder(name, "text_encoder"), CLIPTextConfig.from_pretrained).hidden_size)


def model_facts(name: str, path: Path | None) -> dict[str, str]:
    """What the manifest keeps of a model: its name and the SHA-256 of its file, or of its folder's files."""
    if path is None:
        return {"name": name}
    if path.is_file():
        return {"name": name, "sha256": file_hash(path)}
    total = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.suffix in _WEIGHTS and file.is_file()):
        total.update(f"{file.relative_to(path).as_posix()} {file_hash(file)}\n".encode())
    return {"name": name, "sha256": total.hexdigest()}


def encoder_path(name: str, part: str) -> Path:
    """The file or folder that an encoder is read from; part: autoencoder, image_encoder or text_encoder."""
    if name == MINI:
        return MINI_FOLDER / f"{part}.safetensors"
    return Path(name) if Path(name).is_file() else _subfolder(name, "vae" if part == "autoencoder" else part)


class _MiniWords(nn.Module):
    """The Mini's text encoder behind any caption: a word that its world lacks is one token without a meaning, the mean
    of those that it knows, as `mini.clip.whole_vocabulary` gives it to hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _mini_network(TextEncoder(), "text_encoder.safetensors", without=("token_ids",))
        tokens = self.encoder.get_submodule("text_model.embeddings.token_embedding")
        known = tokens.get_parameter("weight").detach()
        tokens.weight = nn.Parameter(torch.cat((known, known.mean(0, keepdim=True))), requires_grad=False)
        self._place = {token: row for row, token in enumerate(used_ids())}

    def states(self, captions: list[str]) -> Tensor:
        rows = torch.tensor([self._row(caption) for caption in captions])
        return self.encoder(rows.to(next(self.parameters()).device))

    def _row(self, caption: str) -> list[int]:
        known, place, unknown = table(), self._place, len(self._place)
        rows = [place[START]]
        for word in re.findall(r"\w+|[^\w\s]", caption.lower()):
            rows += [place[token] for token in known[word]] if word in known else [unknown]
        rows = rows[: LENGTH - 1]
        return rows + [place[END]] * (LENGTH - len(rows))


def _mini_network(network: _Model, file: str, without: tuple[str, ...] = ("vae_scale", "vae_shift")) -> _Model:
    path = MINI_FOLDER / file
    state = {name: value.float() for name, value in open_weights(path, ("",)).tensors.items() if name not in without}
    assert isinstance(network, nn.Module)  # noqa: S101 - tells the type checker
    network.load_state_dict(state)
    network.eval().requires_grad_(False)
    return network


def _frozen(network: Any, device: str, dtype: torch.dtype) -> Any:
    return network.eval().requires_grad_(False).to(device=device, dtype=dtype)


def _subfolder(name: str, part: str) -> Path:
    """The folder of a part of a Stable Diffusion folder, or the folder itself where it is the part's own."""
    folder = Path(name)
    if not folder.is_dir():
        raise EncoderError(f"{name}: expected 'mini' or a folder on this machine with a {part}; models are not fetched")
    return folder / part if (folder / part).is_dir() else folder


def _loaded(folder: Path, load: Callable[..., Any]) -> Any:
    try:
        return load(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise EncoderError(f"{folder} cannot be loaded: {error}") from error


def _vae(name: str, device: str, dtype: torch.dtype) -> Any:
    return _frozen(_single_file_vae(Path(name)) if Path(name).is_file() else _vae_folder(name), device, dtype)


def _vae_folder(name: str) -> Any:
    return _loaded(_subfolder(name, "vae"), _autoencoder_kl().from_pretrained)


def _single_file_vae(path: Path) -> Any:
    """SD 1.5's autoencoder out of a checkpoint in one file. Raises EncoderError where it is not in there."""
    autoencoder_kl = _autoencoder_kl()
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    try:
        found = open_weights(path, ("first_stage_model.", "encoder.", "decoder.", "quant_conv.", "post_quant_conv."))
        tensors = {name.removeprefix("first_stage_model."): value.float() for name, value in found.tensors.items()}
    except CheckpointError as error:
        raise EncoderError(str(error)) from error
    levels = (tensors.get(f"encoder.down.{k}.block.0.conv2.bias") for k in range(4))
    widths = tuple(len(bias) for bias in levels if bias is not None)
    if len(widths) < 4:
        raise EncoderError(f"{path} holds no autoencoder of Stable Diffusion 1.5, among {len(found.names)} tensors")
    vae = autoencoder_kl(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths, layers_per_block=2, latent_channels=4, scaling_factor=SD_SCALE,
    )  # fmt: skip
    converted: Mapping[str, Tensor] = convert_ldm_vae_checkpoint(tensors, dict(vae.config))
    try:
        vae.load_state_dict(converted)
    except RuntimeError as error:
        raise EncoderError(f"{path}: its autoencoder is not Stable Diffusion 1.5's: {error}") from error
    return vae


def _autoencoder_kl() -> Any:
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise EncoderError(
            "an autoencoder other than the Mini's needs diffusers: `pip install diffusers transformers`"
        ) from error
    return AutoencoderKL
