"""Stage "encoders": the text and the image encoder, trained together.

Each exemplar's embedding must tell what the global fuser needs of it: I_s its front thing, I_b what
stands behind. Linear heads on image_embeds ask for these attributes (and are thrown away), one on the
patches asks where the front thing is, which telling front from back needs; a contrastive term ties
I_s to its caption.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cache import SceneCache
from .clip import ImageEncoder, TextEncoder
from .loop import Draw, Plan, Training
from .scenes import draw_scene
from .words import rows as token_rows
from .world import BACKDROPS, GROUNDS, LIGHTS, MATERIALS, SOLIDS

PLAN = Plan("encoders", steps=800, batch=32, learning_rate=1.5e-3, seed=12, save_every=400)

CLASSES = {
    "front_solid": len(SOLIDS),
    "front_material": len(MATERIALS),
    "back_solid": len(SOLIDS),
    "back_material": len(MATERIALS),
    "ground": len(GROUNDS),
    "backdrop": len(BACKDROPS),
    "light": len(LIGHTS),
}
# What is asked of each picture, and how much it matters.
SOURCE = {"front_material": 1.0, "front_solid": 0.5, "back_material": 0.3, "ground": 0.2, "backdrop": 0.2}
BACKGROUND = {"back_material": 1.0, "back_solid": 0.4, "ground": 1.0, "backdrop": 1.0, "light": 0.4}


@cache
def _known(seed: int, index: int) -> tuple[tuple[int, ...], str]:
    scene = draw_scene(seed, index)
    return tuple(getattr(scene.attributes, name) for name in CLASSES), scene.caption


def described(cache_: SceneCache, rows: np.ndarray) -> tuple[dict[str, Tensor], list[str]]:
    """Attributes, each (B,), and captions of rows."""
    known = [_known(cache_.seed, int(row)) for row in rows]
    values = torch.tensor([attributes for attributes, _ in known])
    return dict(zip(CLASSES, values.unbind(1), strict=True)), [caption for _, caption in known]


class Encoders(nn.Module):
    """Both encoders and the heads that teach the image encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.image = TextEncoder(), ImageEncoder()
        width = self.image.config.projection_dim
        self.source = nn.ModuleDict({name: nn.Linear(width, CLASSES[name]) for name in SOURCE})
        self.background = nn.ModuleDict({name: nn.Linear(width, CLASSES[name]) for name in BACKGROUND})
        self.where = nn.Linear(self.image.config.hidden_size, 1)
        self.log_scale = nn.Parameter(torch.tensor(2.3))


def _contrast(pictures: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    logits = F.normalize(pictures, dim=-1) @ F.normalize(texts, dim=-1).T * log_scale.clamp(max=4.6).exp()
    same = torch.arange(len(logits))
    return 0.5 * (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same))


def _asked(
    heads: nn.ModuleDict, weights: dict[str, float], embeds: Tensor, truth: dict[str, Tensor], prefix: str
) -> tuple[Tensor, dict[str, float]]:
    value, right = embeds.new_zeros(()), {}
    for name, weight in weights.items():
        logits = heads[name](embeds)
        value = value + weight * F.cross_entropy(logits, truth[name])
        right[prefix + name] = float((logits.argmax(1) == truth[name]).float().mean())
    return value, right


def train(cache_: SceneCache, folder: Path, resume: bool = True, plan: Plan = PLAN) -> Encoders:
    """Train to the plan's end; returns the averaged weights."""
    torch.manual_seed(plan.seed)
    model = Encoders()
    training = Training(plan, model, folder, resume)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        rows = draw.rows(cache_.ready)
        truth, captions = described(cache_, rows)
        pictures = torch.cat([cache_.read("image", rows), cache_.read("background", rows)])
        with torch.autocast("cpu", torch.bfloat16):
            states = model.image.states(model.image.prepare(pictures))
            source, background = model.image.project(states).float().chunk(2)
            places = model.where(states[: len(rows), 1:]).float().mT
            tokens = token_rows(captions)
            texts = model.text.pooled(tokens, model.text(tokens)).float()
        about_source, right = _asked(model.source, SOURCE, source, truth, "s.")
        about_background, more = _asked(model.background, BACKGROUND, background, truth, "b.")
        contrast = _contrast(source, texts, model.log_scale)
        mask = (cache_.read("fg_depth", rows) > 0).float()
        covered = F.adaptive_avg_pool2d(mask, model.image.config.image_size // model.image.config.patch_size).flatten(2)
        where = F.binary_cross_entropy_with_logits(places, covered)
        value = about_source + about_background + 0.3 * contrast + 3 * where
        return value, {**right, **more, "contrast": contrast.item(), "where": where.item()}

    training.run(loss)
    training.use_average()
    return model


@torch.no_grad()
def measure(model: Encoders, cache_: SceneCache, rows: np.ndarray) -> dict[str, float]:
    """Share of attributes told right on these rows."""
    truth, _ = described(cache_, rows)
    source = model.image(model.image.prepare(cache_.read("image", rows)))
    background = model.image(model.image.prepare(cache_.read("background", rows)))
    _, right = _asked(model.source, SOURCE, source, truth, "s.")
    _, more = _asked(model.background, BACKGROUND, background, truth, "b.")
    return {**right, **more}


def restore(folder: Path) -> Encoders:
    """Both encoders as far as the stage has come."""
    model = Encoders()
    Training(PLAN, model, folder).use_average()
    return model.requires_grad_(False)
