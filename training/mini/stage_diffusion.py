"""The diffusion stages: CnC-Mini itself, and the models that it is measured against.

Each arm is a list of recipes. "main" departs from the paper, since there is no Stable Diffusion to start from:
U-Net, text encoder and both fusers learn together from nothing, and the local fuser's outputs start small and random
(`model.start_outputs`). "paper_order" is the paper's own order: the base model alone, then a local fuser on the
frozen base, cloned from its encoder with outputs of zero, then a global fuser, then both. The arms of `FROZEN` have the
paper's setting with a base that is trained already, the finished CnC-Mini's, and train one fuser on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from .dataset import Dataset, empty_tokens
from .diffusion import STEPS, noised, v_loss, velocity
from .finished import FinishedMini
from .layered_loss import LayeredDraws, layered_conditions
from .loop import Draw, Loss, Plan, Training, mixed
from .model import Conditions, Mini, narrowed_streams, start_from_base, zero_outputs

Part = Literal["unet", "text", "local_fuser", "global_fuser"]
PARTS: tuple[Part, ...] = ("unet", "text", "local_fuser", "global_fuser")
"""Of `Mini`."""
Maps = Literal["layers", "whole", "z", "max"]
"""What the depth streams are given: the two layers; depth of I_s in both; one map alone, in the background's stream,
depth of I_s ("z", a z-buffer) or the larger of the two layers' maps."""


@dataclass(frozen=True)
class Recipe:
    """One stage: what trains, and with which probability a sample's conditions are left out or changed."""

    plan: Plan
    trained: tuple[Part, ...] = PARTS
    maps: Maps = "layers"
    fuser: float = 0.85  # samples with the local fuser
    guided: float = 0.5  # samples with soft guidance
    masked: bool = True  # tokens act in their own layer only
    drop_text: float = 0.15
    drop_text_guided: float = 0.5
    neutral: float = 0.25  # captions that do not tell the order
    shapes: float = 0.15  # captions that tell the solids alone
    deceiving: float = 0.05  # captions that tell the order the wrong way round, depth being right
    drop_depth: float = 0.08  # each map
    drop_embed: float = 0.08  # each embedding
    sibling: float = 0.5  # exemplars that are another picture of the same materials and surroundings
    full_scene: float = 0.12  # layers: depth version v1 in the foreground's stream
    masked_depth: float = 0.08  # layers: depth version v3 there
    swapped: float = 0.15  # layers: the maps of the exchanged scene, each in the other stream
    backdrop: float = 0.3  # layers, guided: the background's map has a wall where the exemplar has a sky, or a sky
    layered: float = 0.0  # steps on scenes of one to four solids, in latents of several shapes


def _plan(name: str, steps: int, seed: int, batch: int = 128) -> Plan:
    return Plan(name, steps, batch, learning_rate=1e-3, seed=seed, ema=0.999, log_every=500, save_every=2000)


STEPS_OF_ARM = 5000
"""Of every arm that is compared with others at an equal budget."""

_LOCAL: dict[str, Maps] = {"local": "layers", "local_ablation": "whole", "local_max": "max"}
FROZEN: dict[str, tuple[Recipe, ...]] = {
    **{
        name: (Recipe(_plan(name, STEPS_OF_ARM, 25), ("local_fuser",), maps=maps, fuser=1.0, guided=0.0),)
        for name, maps in _LOCAL.items()
    },
    "global": (Recipe(_plan("global", STEPS_OF_ARM, 26), ("global_fuser",), guided=1.0),),
    "global_no_mask": (Recipe(_plan("global_no_mask", STEPS_OF_ARM, 26), ("global_fuser",), guided=1.0, masked=False),),
}
"""Arms that train one part and take the others from finished files, as they are."""

CONTINUED: dict[str, tuple[Recipe, ...]] = {
    "layers": (
        Recipe(
            Plan("layers", 20_000, 128, 2e-4, seed=27, ema=0.999, log_every=100, save_every=250, captured=False),
            layered=0.6,
        ),
    ),
}
"""Arms that go on from finished files, with all parts."""

ARMS: dict[str, tuple[Recipe, ...]] = {
    "main": (Recipe(_plan("main", 16000, 21, batch=256)),),
    "together": (Recipe(_plan("together", STEPS_OF_ARM, 21)),),
    "ablation": (Recipe(_plan("ablation", STEPS_OF_ARM, 21), maps="whole"),),
    "single_z": (Recipe(_plan("single_z", STEPS_OF_ARM, 21), maps="z"),),
    "single_max": (Recipe(_plan("single_max", STEPS_OF_ARM, 21), maps="max"),),
    "no_mask": (Recipe(_plan("no_mask", STEPS_OF_ARM, 21), masked=False),),
    "paper_order": (
        Recipe(_plan("base", STEPS_OF_ARM // 2, 21), ("unet", "text"), fuser=0.0, guided=0.0),
        Recipe(_plan("local", STEPS_OF_ARM // 4, 22), ("local_fuser",), fuser=1.0, guided=0.0),
        Recipe(_plan("global", STEPS_OF_ARM // 8, 23), ("global_fuser",), fuser=0.0, guided=1.0),
        Recipe(_plan("joint", STEPS_OF_ARM // 8, 24), ("local_fuser", "global_fuser"), fuser=1.0, guided=1.0),
    ),
    **FROZEN,
    **CONTINUED,
}


def conditions_of(data: Dataset, rows: Tensor, recipe: Recipe, draw: Draw, empty: Tensor) -> tuple[Conditions, Tensor]:
    """What a batch of rows is asked for, some of it left out or changed, and each sample's share of the local fuser.

    empty: the empty caption, (1, 77). Shapes do not depend on what is drawn. A sample without guidance has masks of
    zero, which in release mode is a region that was never given.
    """
    scenes, count = data.scenes, len(rows)

    def chance(share: float) -> Tensor:
        return draw.uniform(count) < share

    def picture(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    guided, with_fuser = chance(recipe.guided), chance(recipe.fuser)
    tokens = scenes.tokens[rows]
    kind = draw.uniform(count)
    caption = torch.where((kind < recipe.neutral)[:, None], tokens[:, 1], tokens[:, 0])
    caption = torch.where((kind > 1 - recipe.shapes)[:, None], tokens[:, 2], caption)
    if recipe.maps == "layers":
        deceived = chance(recipe.deceiving) & with_fuser
        caption = torch.where(deceived[:, None], scenes.tokens[rows ^ 1][:, 0], caption)
    dropped = torch.where(guided, chance(recipe.drop_text_guided), chance(recipe.drop_text))
    caption = torch.where(dropped[:, None], empty, caption)

    fg_depth, bg_depth = scenes.read("fg_depth", rows), scenes.read("bg_depth", rows)
    mask = (fg_depth > 0).float()
    bg_exemplar = ~chance(recipe.drop_embed)
    fg_depth, bg_depth = _maps(data, rows, fg_depth, bg_depth, recipe, draw, guided & bg_exemplar)
    fg_depth = fg_depth * picture(~chance(recipe.drop_depth))
    bg_depth = bg_depth * picture(~chance(recipe.drop_depth))

    exemplars = torch.where(chance(recipe.sibling), rows ^ 2, rows)
    fg_embed = data.source_embeds[exemplars] * ~chance(recipe.drop_embed)[:, None]
    bg_embed = data.background_embeds[exemplars] * bg_exemplar[:, None]
    here = picture(guided).float()
    everywhere = here.expand_as(mask)
    fg_mask, bg_mask = (mask * here, (1 - mask) * here) if recipe.masked else (everywhere, everywhere)
    conditions = Conditions(caption, fg_depth, bg_depth, fg_embed, bg_embed, fg_mask, bg_mask=bg_mask)
    return conditions, picture(with_fuser).float()


def _maps(
    data: Dataset, rows: Tensor, fg_depth: Tensor, bg_depth: Tensor, recipe: Recipe, draw: Draw, shown: Tensor
) -> tuple[Tensor, Tensor]:
    """What the two streams see of a batch's layers (B, 1, H, W); `shown` (B,): an exemplar tells what is behind."""
    whole = data.scenes.read("depth", rows)
    if recipe.maps == "whole":
        return whole, whole
    if recipe.maps != "layers":
        one = whole if recipe.maps == "z" else torch.maximum(fg_depth, bg_depth)
        return torch.zeros_like(one), one
    kind = draw.uniform(len(rows))[:, None, None, None]
    below = recipe.swapped
    swapped = kind < below
    mask = (fg_depth > 0).float()
    full = ~swapped & (kind < below + recipe.full_scene)
    third = ~swapped & ~full & (kind < below + recipe.full_scene + recipe.masked_depth)
    other_fg, other_bg = data.scenes.read("fg_depth", rows ^ 1), data.scenes.read("bg_depth", rows ^ 1)
    seen = torch.where(full, whole, torch.where(third, whole * mask, fg_depth))
    contradicted = ~swapped & ~full & (shown & (draw.uniform(len(rows)) < recipe.backdrop))[:, None, None, None]
    behind = torch.where(contradicted, data.scenes.read("other_bg_depth", rows), bg_depth)
    return torch.where(swapped, other_bg, seen), torch.where(swapped, other_fg, behind)


def run_arm(
    name: str,
    data: Dataset,
    folder: Path,
    resume: bool = True,
    planned: Callable[[Plan], Plan] = lambda plan: plan,
    start: FinishedMini | None = None,
) -> Iterator[tuple[Training, Loss]]:
    """The stages of an arm in order, all of one model, which has the averaged weights after each.

    start: the model to go on from, or whose base to train on; without one, from nothing.
    """
    torch.manual_seed(20)
    model = _started(name, start)
    model.to(data.scenes.device)
    for written in ARMS[name]:
        recipe = replace(written, plan=planned(written.plan))
        if recipe.trained == ("local_fuser",):
            start_from_base(model.local_fuser, model.unet)
            zero_outputs(model.local_fuser)
        training = begin(model, recipe, folder / name, resume)
        yield training, _loss(model, recipe, data)
        training.use_average()
        model.requires_grad_(False)


def _started(name: str, start: FinishedMini | None) -> Mini:
    """A model as an arm begins: new, but for what it takes from finished files."""
    model = Mini()
    if start is None:
        if name in FROZEN or name in CONTINUED:
            raise ValueError(f"{name} trains on a finished base: give its files")
        return model
    new = ARMS[name][0].trained if name in FROZEN else ()
    for part in (part for part in PARTS if part not in new):
        state = getattr(start, part).state_dict()
        own = narrowed_streams(state, model.config) if part == "local_fuser" else state
        model.get_submodule(part).load_state_dict(own)
    return model


def begin(model: Mini, recipe: Recipe, folder: Path, resume: bool = True) -> Training:
    """The training of one stage of a model, whose other parts are frozen."""
    model.requires_grad_(False)
    trained = nn.ModuleDict({part: model.get_submodule(part) for part in recipe.trained}).requires_grad_(True)
    return Training(recipe.plan, trained, folder, resume)


def _loss(model: Mini, recipe: Recipe, data: Dataset) -> Loss:
    empty = empty_tokens(1).to(data.scenes.device)
    with_fuser, with_guidance = recipe.fuser > 0, recipe.guided > 0

    def loss(draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        if recipe.layered and float(draw.uniform(1)) < recipe.layered:
            return layered_loss(model, data, draw, empty), {}
        rows = draw.rows(data.scenes.ready)
        latent, timesteps = data.latents[rows], draw.timesteps(STEPS)
        noise = draw.noise(*latent.shape)
        conditions, fuser_share = conditions_of(data, rows, recipe, draw, empty)
        if not with_fuser:
            conditions = replace(conditions, fg_depth=None, bg_depth=None)
        if not with_guidance:
            conditions = replace(conditions, fg_embed=None, bg_embed=None)
        x = noised(latent, noise, timesteps)
        with mixed(latent.device):
            depth, guidance = model.encode_depth(conditions), model.guidance(conditions)
            context = model.text(conditions.tokens)
            predicted = model(x, timesteps, context, depth, guidance, fuser_share).float()
        return v_loss(predicted, velocity(latent, noise, timesteps), timesteps), {}

    return loss


def layered_loss(model: Mini, data: Dataset, draw: Draw, empty: Tensor) -> Tensor:
    """The loss of a batch of scenes of one to four solids, all of one number and shape."""
    if data.layered is None:
        raise ValueError("the dataset has no layered scenes: see LayeredDataset")
    group = data.layered.draw(draw)
    rows = draw.rows(len(group))
    latent, timesteps = group.latents[rows], draw.timesteps(STEPS)
    noise = draw.noise(*latent.shape)
    x = noised(latent, noise, timesteps)
    with mixed(latent.device):
        conditions, guidance, fuser_share = layered_conditions(model, data, group, rows, LayeredDraws(), draw, empty)
        context = model.text(conditions.tokens)
        predicted = model(x, timesteps, context, model.encode_depth(conditions), guidance, fuser_share).float()
    return v_loss(predicted, velocity(latent, noise, timesteps), timesteps)


def restore(name: str, folder: Path, start: FinishedMini | None = None) -> Mini:
    """An arm's model as far as it has come; `start` as for `run_arm`.

    Raises FileNotFoundError where it has not begun.
    """
    model = _started(name, start)
    begun = [recipe for recipe in ARMS[name] if (folder / name / f"{recipe.plan.name}.pt").exists()]
    if not begun:
        raise FileNotFoundError(f"{name} has not run in {folder}: run `python -m training mini --stage {name}`")
    for recipe in begun:
        begin(model, recipe, folder / name).use_average()
    return model.requires_grad_(False)
