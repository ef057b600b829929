"""Small CLIP encoders for text and pictures, in the key layout of CLIPTextModel and
CLIPVisionModelWithProjection, so that hosts and libraries load them with their own classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .words import END, LENGTH, START, VOCABULARY, used_ids

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the text encoder, under the names of its JSON."""

    hidden_size: int = 96
    intermediate_size: int = 384
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    max_position_embeddings: int = LENGTH
    vocab_size: int = VOCABULARY
    projection_dim: int = 96
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    bos_token_id: int = START
    eos_token_id: int = END
    pad_token_id: int = END
    model_type: str = "clip_text_model"

    def json(self) -> dict[str, object]:
        """What the host's class reads."""
        return {**asdict(self), "architectures": ["CLIPTextModel"]}


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the image encoder, under the names of its JSON."""

    hidden_size: int = 96
    intermediate_size: int = 384
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_channels: int = 3
    image_size: int = 64
    patch_size: int = 8
    projection_dim: int = 96
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    model_type: str = "clip_vision_model"

    def json(self) -> dict[str, object]:
        """What the host's class reads."""
        return {**asdict(self), "architectures": ["CLIPVisionModelWithProjection"]}


class _SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class _Perceptron(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        return self.fc2(hidden * torch.sigmoid(1.702 * hidden))


class _Layer(nn.Module):
    def __init__(self, config: TextConfig | VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size)
        self.self_attn = _SelfAttention(config.hidden_size, config.num_attention_heads)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size)
        self.mlp = _Perceptron(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), causal)
        return x + self.mlp(self.layer_norm2(x))


def _holder(**modules: nn.Module) -> nn.Module:
    """A module that only gives its parts their place in the key names."""
    holder = nn.Module()
    for name, module in modules.items():
        holder.add_module(name, module)
    return holder


def _layers(config: TextConfig | VisionConfig) -> nn.Module:
    return _holder(layers=nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers)))


class TextEncoder(nn.Module):
    """Captions to the U-Net's context. Only the used rows of the vocabulary are kept."""

    def __init__(self, config: TextConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TextConfig()
        width = config.hidden_size
        self.text_model = _holder(
            embeddings=_holder(
                token_embedding=nn.Embedding(len(used_ids()), width),
                position_embedding=nn.Embedding(config.max_position_embeddings, width),
            ),
            encoder=_layers(config),
            final_layer_norm=nn.LayerNorm(width),
        )
        self.text_projection = nn.Linear(width, config.projection_dim, bias=False)
        for table in (self._embedding("token"), self._embedding("position")):
            nn.init.normal_(table.weight, std=0.2)

    def _embedding(self, name: str) -> nn.Embedding:
        table = self.get_submodule(f"text_model.embeddings.{name}_embedding")
        assert isinstance(table, nn.Embedding)  # noqa: S101 - tells the type checker
        return table

    def forward(self, rows: Tensor) -> Tensor:
        """Positions in `words.used_ids` (B, 77) to the context (B, 77, 96), after the last norm."""
        x = self._embedding("token")(rows) + self._embedding("position").weight
        for layer in self.get_submodule("text_model.encoder.layers").children():
            x = layer(x, True)
        return self.get_submodule("text_model.final_layer_norm")(x)

    def pooled(self, rows: Tensor, context: Tensor) -> Tensor:
        """The projected state of each caption's first end token, (B, projection_dim)."""
        ends = (rows == used_ids().index(END)).int().argmax(1)
        return self.text_projection(context[torch.arange(len(rows), device=rows.device), ends])


def whole_vocabulary(rows: Tensor, ids: Tensor, size: int = VOCABULARY) -> Tensor:
    """The stored rows (n, D) of tokens `ids` (n,) as a whole table (size, D); all other tokens get
    the stored rows' mean, a word without a meaning."""
    table = rows.mean(0, keepdim=True).repeat(size, 1)
    table[ids] = rows
    return table


@cache
def _moments(device: torch.device) -> tuple[Tensor, Tensor]:
    """CLIP's mean and deviation of each channel, (3, 1, 1)."""
    mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, DEVIATION))
    return mean, deviation


class ImageEncoder(nn.Module):
    """Pictures to image_embeds."""

    def __init__(self, config: VisionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VisionConfig()
        width, side = config.hidden_size, config.image_size // config.patch_size
        patches = nn.Conv2d(config.num_channels, width, config.patch_size, config.patch_size, bias=False)
        embeddings = _holder(patch_embedding=patches, position_embedding=nn.Embedding(side * side + 1, width))
        embeddings.register_parameter("class_embedding", nn.Parameter(torch.randn(width) * 0.2))
        self.vision_model = _holder(
            embeddings=embeddings,
            pre_layrnorm=nn.LayerNorm(width),  # the layout's own spelling
            encoder=_layers(config),
            post_layernorm=nn.LayerNorm(width),
        )
        self.visual_projection = nn.Linear(width, config.projection_dim, bias=False)

    def prepare(self, picture: Tensor) -> Tensor:
        """CLIP's preprocessing of square pictures (B, 3, H, W) in [0, 1]."""
        size = self.config.image_size
        small = F.interpolate(picture, (size, size), mode="bicubic", antialias=True)
        small = (small * 255).clamp(0, 255).round() / 255
        mean, deviation = _moments(small.device)
        return (small - mean) / deviation

    def forward(self, prepared: Tensor) -> Tensor:
        """Prepared pictures (B, 3, 64, 64) to image_embeds (B, projection_dim), not normalised."""
        return self.project(self.states(prepared))

    def project(self, states: Tensor) -> Tensor:
        """image_embeds of the first of the last layer's states."""
        first: Tensor = self.get_submodule("vision_model.post_layernorm")(states[:, 0])
        return self.visual_projection(first)

    def states(self, prepared: Tensor) -> Tensor:
        """Prepared pictures to the last layer's states (B, 1 + patches, hidden_size)."""
        embeddings = self.get_submodule("vision_model.embeddings")
        patches = embeddings.get_submodule("patch_embedding")(prepared).flatten(2).mT
        first = embeddings.get_parameter("class_embedding").expand(len(prepared), 1, -1)
        x = torch.cat((first, patches), 1) + embeddings.get_parameter("position_embedding.weight")
        x = self.get_submodule("vision_model.pre_layrnorm")(x)
        for layer in self.get_submodule("vision_model.encoder.layers").children():
            x = layer(x, False)
        return x
