"""How a scene of several layers is given to CnC-Mini: as the pack does it, and as its rivals do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cnc_core import DepthEncoding, Guidance
from cnc_core.depth_layers import TEXT_WEIGHT, DepthLayer, depth_map, depth_streams, reduced, regions, visible_masks
from training.mini.dataset import empty_tokens
from training.mini.diffusion import Predict, ddim, guided
from training.mini.finished import FinishedMini
from training.mini.layered import LayeredPictures, LayeredScene, render_layered
from training.mini.layered_data import depth_layers_of
from training.mini.model import KERNELS, Conditions, encode_depth, predict_v
from training.mini.words import rows as token_rows
from training.mini.words import word_count

from .sampling import Settings, initial_noise

Method = Literal[
    "layers", "z-buffer", "z-buffer, regional prompts", "depth_map", "true depths", "closer ranges", "blended residuals"
]
"""What the local fuser gets, and how words by layer act.

layers: the pack's two depth streams, and words as masked keys.
z-buffer: the depth of the whole picture in the background stream, as a depth ControlNet gets it; words as in layers.
z-buffer, regional prompts: the same depth; words by the host's ConditioningSetMask, a forward for each region.
depth_map: the pack's own z-buffered map in the background stream; words as in layers.
true depths: the streams of layers with the true relative depths of what is behind the nearest layer.
closer ranges: the streams of layers with the ranges .6 to 1, .35 to .6, 0 to .35.
blended residuals: as layers; where two farther layers overlap, the residuals of a pass of its own, with the nearer of
    the two in the foreground stream.
"""
_CLOSER = ((1.0, 0.6), (0.6, 0.35), (0.35, 0.0))


@dataclass(frozen=True)
class LayeredRequest:
    """What a batch of pictures of N solids each is asked for.

    Args:
        scenes: B scenes, each solid's words as many tokens long as in the others.
        pictures: Their renders.
        captions: B captions of the whole picture.
        places: Each picture's noise is a function of its place alone.
        words: Whether each layer gets its own words.
        exemplars: (B, N, 3, H, W), each layer's exemplar; the backdrop's is its own picture. None without exemplars.
    """

    scenes: Sequence[LayeredScene]
    pictures: LayeredPictures
    captions: list[str]
    places: list[int]
    words: bool = True
    exemplars: Tensor | None = None


def word_lengths(scene: LayeredScene) -> tuple[int, ...]:
    """How many tokens each solid's words have: what the scenes of a batch have in common."""
    return tuple(word_count(words) for words in scene.prompts)


@torch.no_grad()
def layer_words(mini: FinishedMini, words: Sequence[str]) -> Tensor:
    """Equally long words as the text encoder's rows of them, without start, end and padding: (B, T, D)."""
    tokens = token_rows(list(words)).to(next(mini.text.parameters()).device)
    return mini.text(tokens)[:, 1 : 1 + word_count(words[0])]


@torch.no_grad()
def depth_layers(mini: FinishedMini, request: LayeredRequest, text_weight: float = TEXT_WEIGHT) -> list[DepthLayer]:
    """The request's layers, the nearest first, the backdrop last."""
    layers = depth_layers_of(request.pictures)
    if request.words:
        texts = [layer_words(mini, words) for words in zip(*(scene.prompts for scene in request.scenes), strict=True)]
        worded = zip(layers, texts, strict=False)  # the backdrop, the last, has none
        layers = [*(replace(one, text=text, text_weight=text_weight) for one, text in worded), layers[-1]]
    if request.exemplars is None:
        return layers
    given = [*request.exemplars.unbind(1), request.pictures.backdrop]
    embeds = [mini.embed(picture) for picture in given]
    fg_tokens = [mini.global_fuser(embed, embed)[0] for embed in embeds[:-1]]
    bg_tokens = mini.global_fuser(embeds[-1], embeds[-1])[1]
    return [replace(layer, exemplar=t) for layer, t in zip(layers, (*fg_tokens, bg_tokens), strict=True)]


def depth_maps(method: Method, request: LayeredRequest, layers: Sequence[DepthLayer]) -> tuple[Tensor, Tensor]:
    """The maps of the foreground and the background stream, each (B, 1, H, W)."""
    pictures = request.pictures
    none = torch.zeros_like(pictures.depth)
    if method.startswith("z-buffer"):
        return none, pictures.depth
    if method == "depth_map":
        return none, _given(depth_map(layers))
    if method == "true depths":
        behind = [replace(scene, solids=scene.solids[1:]) for scene in request.scenes]
        with pictures.depth.device:
            return pictures.layer_depths[:, :1], render_layered(behind, _size(pictures)).depth
    if method == "closer ranges":
        if len(layers) != len(_CLOSER) + 1:
            raise ValueError(f"closer ranges are of {len(_CLOSER)} layers, got {len(layers) - 1}")
        layers = [layers[0], *(replace(one, near_far=r) for one, r in zip(layers[1:], _CLOSER, strict=True))]
    fg_depth, bg_depth = depth_streams(layers)
    return _given(fg_depth), _given(bg_depth)


@torch.no_grad()
def sample(
    mini: FinishedMini, method: Method, request: LayeredRequest, settings: Settings, text_weight: float = TEXT_WEIGHT
) -> Tensor:
    """Sample pictures, (B, 3, H, W) in [0, 1]; the unconditional half keeps all but the text, as in the release."""
    device = request.pictures.depth.device
    layers = depth_layers(mini, request, text_weight)
    noise = initial_noise(request.places, settings.seed, _size(request.pictures)).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
        predict = _predictor(mini, method, request, layers, settings.cfg)
        *_, latent = ddim(predict, noise, settings.steps)
        return mini.autoencoder.decode(latent).float().clamp(0, 1)


def _predictor(
    mini: FinishedMini, method: Method, request: LayeredRequest, layers: list[DepthLayer], cfg: float
) -> Predict:
    """What predicts v (B, 4, h, w), classifier-free guidance within."""
    maps = depth_maps(method, request, layers)
    if method == "z-buffer, regional prompts":
        return _regional(mini, request, maps, cfg)
    has_text = any(request.captions) or request.words
    halves = 1 if cfg == 1 or not has_text else 2
    tokens = token_rows(request.captions).to(request.pictures.depth.device)
    context = mini.text(torch.cat((tokens, empty_tokens(len(tokens)).to(tokens.device)))[: halves * len(tokens)])
    guidance = guidance_of(layers, halves)
    if method == "blended residuals":
        predict = _blended(mini, request, layers, maps, context, guidance, halves)
    else:
        predict = predict_v(mini.unet, mini.local_fuser, context, _encoded(mini, maps, halves), guidance)
    return predict if halves == 1 else guided(predict, cfg)


def guidance_of(layers: Sequence[DepthLayer], halves: int) -> Guidance | None:
    """The layers' exemplars and words for a batch whose second half, if there is one, is unconditional."""
    found = [region for region in regions(layers) if region.tokens.shape[1]]
    if not found:
        return None
    # Explicit, since words have other masks than exemplars here: none of them in the unconditional half.
    shown = dict(zip(reduced(layers), visible_masks(layers), strict=True))
    left = 1 - torch.stack([mask for layer, mask in shown.items() if layer.mask is not None]).sum(0)
    made = []
    for region in found:
        mask = left if region.mask is None else region.mask
        unconditional = torch.zeros_like(mask) if region.positive_only else mask
        masks = torch.cat((mask, unconditional)[:halves])
        made.append(replace(region, tokens=region.tokens.repeat(halves, 1, 1), mask=masks, positive_only=False))
    return Guidance(tuple(made))


def _regional(mini: FinishedMini, request: LayeredRequest, maps: tuple[Tensor, Tensor], cfg: float) -> Predict:
    """The host's regional words: each layer's words, and the caption where no layer is, are entries of one
    conditioning, each with a mask by ConditioningSetMask at strength 1. Each gets a forward; their predictions are
    averaged by the masks, resized bilinearly to the latents, as the host's `calc_cond_batch` does."""
    pictures = request.pictures
    solids = pictures.visible
    captions = [*([scene.prompts[k] for scene in request.scenes] for k in range(solids.shape[1])), request.captions]
    masks = torch.cat((solids, 1 - solids.sum(1, keepdim=True)), 1)
    masks = F.interpolate(masks, [side // 8 for side in _size(pictures)], mode="bilinear", align_corners=False)
    depth = _encoded(mini, maps, 1)
    device = pictures.depth.device
    texts = [mini.text(token_rows(list(one)).to(device)) for one in (*captions, [""] * len(request.captions))]
    *regional, unconditional = (predict_v(mini.unet, mini.local_fuser, text, depth, None) for text in texts)

    def predict(x: Tensor, timesteps: Tensor) -> Tensor:
        weighted = sum(one(x, timesteps).float() * masks[:, k : k + 1] for k, one in enumerate(regional))
        positive = weighted / masks.sum(1, keepdim=True)
        negative = unconditional(x, timesteps).float()
        return negative + cfg * (positive - negative)

    return predict


def _blended(
    mini: FinishedMini, request: LayeredRequest, layers: list[DepthLayer], maps: tuple[Tensor, Tensor],
    context: Tensor, guidance: Guidance | None, halves: int,
) -> Predict:  # fmt: skip
    """As the pack's streams, but where two farther layers overlap the residuals come from a pass of these two."""
    fuser, kernels = mini.local_fuser, KERNELS
    solids = request.pictures.masks.shape[1]
    everywhere, visible = _encoded(mini, maps, halves), request.pictures.visible
    pairs: list[tuple[DepthEncoding | None, Tensor]] = []
    for k in range(1, solids - 1):
        overlap = visible[:, k] * request.pictures.masks[:, k + 1]
        fg_depth, bg_depth = depth_streams(layers[k:])
        encoded = _encoded(mini, (_given(fg_depth), _given(bg_depth)), halves)
        pairs.append((encoded, overlap[:, None].repeat(halves, 1, 1, 1)))

    def predict(x: Tensor, timesteps: Tensor) -> Tensor:
        def residuals(depth: DepthEncoding | None) -> list[Tensor]:
            return list(fuser(x, timesteps, context, depth=depth, guidance=guidance, attention=kernels))

        blended = residuals(everywhere)
        for depth, overlap in pairs:
            shares = [F.interpolate(overlap, one.shape[-2:], mode="area") for one in blended]
            blended = [a + share * (b - a) for a, b, share in zip(blended, residuals(depth), shares, strict=True)]
        return mini.unet(x, timesteps, context, residuals=blended, guidance=guidance, attention=kernels)

    return predict


def _encoded(mini: FinishedMini, maps: Sequence[Tensor], halves: int) -> DepthEncoding | None:
    fg_depth, bg_depth = (depth.repeat(halves, 1, 1, 1) for depth in maps)
    return encode_depth(mini.local_fuser, Conditions(fg_depth, fg_depth, bg_depth))


def _given(depth: Tensor | None) -> Tensor:
    if depth is None:
        raise ValueError("no layer has a depth map")
    return depth


def _size(pictures: LayeredPictures) -> tuple[int, int]:
    return pictures.depth.shape[-2], pictures.depth.shape[-1]
