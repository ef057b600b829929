"""Stage "encoders": the text and the image encoder, trained together.

Each exemplar's embedding must tell what the global fuser needs of it: I_s its front thing, I_b what
stands behind. Linear heads on image_embeds ask for these attributes (and are thrown away), one on the
patches asks where the front thing is, which telling front from back needs; a contrastive term ties
I_s to its caption.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cache import SceneCache
from .clip import ImageEncoder, TextEncoder
from .loop import Draw, Loss, Plan, Training, mixed
from .world import BACKDROPS, GROUNDS, LIGHTS, MATERIALS, SOLIDS

PLAN = Plan("encoders", steps=4000, batch=256, learning_rate=1.5e-3, seed=12, log_every=500)

CLASSES = {  # in the order of world.Attributes
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
    same = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same))


def _asked(
    heads: nn.ModuleDict, weights: dict[str, float], embeds: Tensor, truth: dict[str, Tensor], prefix: str
) -> tuple[Tensor, dict[str, Tensor]]:
    value, right = embeds.new_zeros(()), {}
    for name, weight in weights.items():
        logits = heads[name](embeds)
        value = value + weight * F.cross_entropy(logits, truth[name])
        right[prefix + name] = (logits.argmax(1) == truth[name]).float().mean()
    return value, right


def _truth(scenes: SceneCache, rows: Tensor) -> dict[str, Tensor]:
    return dict(zip(CLASSES, scenes.attributes[rows].unbind(1), strict=True))


def begin(scenes: SceneCache, folder: Path, resume: bool = True, plan: Plan = PLAN) -> tuple[Encoders, Training, Loss]:
    """The encoders, their training and what it minimises."""
    torch.manual_seed(plan.seed)
    model = Encoders().to(scenes.device)
    side = model.image.config.image_size // model.image.config.patch_size

    def loss(draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        rows = draw.rows(scenes.ready)
        truth, tokens = _truth(scenes, rows), scenes.tokens[rows, 0]
        pictures = torch.cat([scenes.read("image", rows), scenes.read("background", rows)])
        with mixed(scenes.device):
            states = model.image.states(model.image.prepare(pictures))
            source, background = model.image.project(states).float().chunk(2)
            places = model.where(states[: len(rows), 1:]).float().mT
            texts = model.text.pooled(tokens, model.text(tokens)).float()
        about_source, right = _asked(model.source, SOURCE, source, truth, "s.")
        about_background, more = _asked(model.background, BACKGROUND, background, truth, "b.")
        contrast = _contrast(source, texts, model.log_scale)
        mask = (scenes.read("fg_depth", rows) > 0).float()
        where = F.binary_cross_entropy_with_logits(places, F.adaptive_avg_pool2d(mask, side).flatten(2))
        value = about_source + about_background + 0.3 * contrast + 3 * where
        return value, {**right, **more, "contrast": contrast.detach(), "where": where.detach()}

    return model, Training(plan, model, folder, resume), loss


@torch.no_grad()
def measure(model: Encoders, scenes: SceneCache, rows: Tensor) -> dict[str, float]:
    """Share of attributes told right on these rows."""
    truth = _truth(scenes, rows)
    source = model.image(model.image.prepare(scenes.read("image", rows)))
    background = model.image(model.image.prepare(scenes.read("background", rows)))
    _, right = _asked(model.source, SOURCE, source, truth, "s.")
    _, more = _asked(model.background, BACKGROUND, background, truth, "b.")
    return {name: round(share.item(), 4) for name, share in {**right, **more}.items()}


def restore(folder: Path) -> Encoders:
    """Both encoders as far as the stage has come."""
    model = Encoders()
    Training(PLAN, model, folder).use_average()
    return model.requires_grad_(False)
