"""Stages "base", "local", "global" and "joint": the U-Net, then the paper's three.

Departures from the paper, for a model that has no Stable Diffusion to start from:
- "base" trains U-Net, text encoder and local fuser together. A step in four runs without the fuser,
  so that the U-Net alone is a text-to-image model; "local" and "global" freeze it, as the paper does;
- the fuser's outputs start small and random, see `model.start_outputs`;
- "joint" trains the U-Net and the text encoder on, at half the rate: this small base has room to learn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .dataset import Dataset, empty_tokens
from .diffusion import STEPS, noised, v_loss, velocity
from .loop import Draw, Plan, Training
from .model import Conditions, Mini


@dataclass(frozen=True)
class Recipe:
    """One stage: what trains, and with which probability each condition is left out or changed."""

    plan: Plan
    trained: tuple[str, ...]  # of Mini's parts
    no_fuser: float  # steps without the local fuser
    guided: float  # steps with soft guidance
    drop_text: float
    drop_depth: float = 0.08  # each map
    drop_embed: float = 0.08  # each embedding
    full_scene: float = 0.2  # depth version v1 in the foreground stream


RECIPES = {
    "base": Recipe(
        Plan("base", steps=2800, batch=16, learning_rate=1e-3, seed=21, ema=0.997, log_every=50, save_every=100),
        ("unet", "text", "local_fuser"), no_fuser=0.25, guided=0.0, drop_text=0.15,
    ),
    "local": Recipe(
        Plan("local", steps=150, batch=16, learning_rate=3e-4, seed=22, warm_up=30, ema=0.99, log_every=50),
        ("local_fuser",), no_fuser=0.0, guided=0.0, drop_text=0.15,
    ),
    "global": Recipe(
        Plan("global", steps=120, batch=16, learning_rate=1e-3, seed=23, warm_up=30, ema=0.99, log_every=50),
        ("global_fuser",), no_fuser=0.3, guided=1.0, drop_text=0.55,
    ),
    "joint": Recipe(
        Plan(
            "joint", steps=800, batch=16, learning_rate=5e-4, seed=24, warm_up=50, ema=0.995, log_every=50,
            save_every=100,
        ),
        ("unet", "text", "local_fuser", "global_fuser"), no_fuser=0.1, guided=0.5, drop_text=0.3,
    ),
    "further": Recipe(
        Plan(
            "further", steps=5000, batch=16, learning_rate=5e-4, seed=25, warm_up=100, ema=0.998, log_every=100,
            save_every=250,
        ),
        ("unet", "text", "local_fuser", "global_fuser"), no_fuser=0.1, guided=0.5, drop_text=0.3,
    ),
}  # fmt: skip
BEFORE = {"local": "base", "global": "local", "joint": "global", "further": "joint"}


def _kept(draw: Draw, share: float) -> Tensor:
    return (draw.uniform(draw.plan.batch) >= share).float()


def altered(conditions: Conditions, full_depth: Tensor, recipe: Recipe, draw: Draw) -> Conditions:
    """Conditions with some left out, and with the whole scene's depth in some foreground streams."""
    batch = draw.plan.batch
    text = _kept(draw, recipe.drop_text).bool()[:, None]
    changed = replace(conditions, tokens=torch.where(text, conditions.tokens, empty_tokens(batch)))
    full = _kept(draw, 1 - recipe.full_scene)[:, None, None, None]
    keep_fg, keep_bg = (_kept(draw, recipe.drop_depth)[:, None, None, None] for _ in range(2))
    embed_fg, embed_bg = (_kept(draw, recipe.drop_embed)[:, None] for _ in range(2))
    with_fuser, with_guidance = draw.numbers.random() >= recipe.no_fuser, draw.numbers.random() < recipe.guided
    if with_fuser and conditions.fg_depth is not None and conditions.bg_depth is not None:
        fg_depth = torch.where(full > 0, full_depth, conditions.fg_depth)
        changed = replace(changed, fg_depth=fg_depth * keep_fg, bg_depth=conditions.bg_depth * keep_bg)
    else:
        changed = replace(changed, fg_depth=None, bg_depth=None)
    if with_guidance and conditions.fg_embed is not None and conditions.bg_embed is not None:
        return replace(changed, fg_embed=conditions.fg_embed * embed_fg, bg_embed=conditions.bg_embed * embed_bg)
    return replace(changed, fg_embed=None, bg_embed=None)


def train(name: str, model: Mini, data: Dataset, folder: Path, resume: bool = True, plan: Plan | None = None) -> Mini:
    """Train one stage to its plan's end, in place; the model ends with the averaged weights."""
    recipe = replace(RECIPES[name], plan=plan or RECIPES[name].plan)
    model.requires_grad_(False)
    trained = nn.ModuleDict({part: model.get_submodule(part) for part in recipe.trained}).requires_grad_(True)
    training = Training(recipe.plan, trained, folder, resume)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        rows = draw.rows(data.scenes.ready)
        latent, timesteps = data.latent(rows), draw.timesteps(STEPS)
        noise = draw.noise(*latent.shape)
        full_depth = data.scenes.read("depth", rows)
        conditions = altered(data.conditions(rows), full_depth, recipe, draw)
        x = noised(latent, noise, timesteps)
        with torch.autocast("cpu", torch.bfloat16):
            depth, guidance = model.encode_depth(conditions), model.guidance(conditions)
            context = model.text(conditions.tokens)
            predicted = model(x, timesteps, context, depth, guidance).float()
        return v_loss(predicted, velocity(latent, noise, timesteps), timesteps), {}

    training.run(loss)
    training.use_average()
    return model


def restore(name: str, model: Mini, folder: Path) -> None:
    """Put what a stage has reached into the model. Raises FileNotFoundError where it has not begun."""
    recipe = RECIPES[name]
    if not (folder / f"{name}.pt").exists():
        raise FileNotFoundError(f"stage {name} has not run in {folder}: run `python -m training mini --stage {name}`")
    parts = nn.ModuleDict({part: model.get_submodule(part) for part in recipe.trained})
    Training(recipe.plan, parts.requires_grad_(True), folder).use_average()
    model.requires_grad_(False)
