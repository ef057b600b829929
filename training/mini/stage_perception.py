"""Stage "perception": the Mini's own depth and salience estimators, for pictures of the same world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cnc_core.perception.mini import MiniNet

from .cache import SceneCache
from .loop import Draw, Plan, Training, channels_last

PLANS = {
    "depth": Plan("depth", steps=1500, batch=12, learning_rate=2e-3, seed=31, save_every=250),
    "salience": Plan("salience", steps=2300, batch=12, learning_rate=2e-3, seed=32, save_every=250),
}

DEPTH_FURTHER = Plan("depth_further", steps=1500, batch=24, learning_rate=1e-3, seed=33, warm_up=50, save_every=100)
"""More of depth, of whole scenes above all, where it is worst."""


def pairs(scenes: SceneCache, rows: np.ndarray, kind: str) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, H, W) and what to say of them (B, 1, H, W): a third each of I_s, I_f and I_b
    for depth, a half and two quarters for further depth; I_s for salience."""
    if kind == "salience":
        return scenes.read("image", rows), (scenes.read("fg_depth", rows) > 0).float()
    parts = 3 if kind == "depth" else (len(rows) // 2, 3 * len(rows) // 4)
    whole, cut_out, behind = np.array_split(rows, parts)
    fg_depth = scenes.read("fg_depth", cut_out)
    pictures = (scenes.read("image", whole), scenes.read("image", cut_out) * (fg_depth > 0))
    depths = (scenes.read("depth", whole), fg_depth, scenes.read("bg_depth", behind))
    return torch.cat((*pictures, scenes.read("background", behind))), torch.cat(depths)


def train(kind: str, scenes: SceneCache, folder: Path, resume: bool = True, plan: Plan | None = None) -> MiniNet:
    """Train one estimator; returns the averaged weights."""
    plan = plan or PLANS[kind]
    torch.manual_seed(plan.seed)
    model = MiniNet()
    if kind == "salience" and (folder / "depth.pt").exists():
        model = restore("depth", folder)  # who is in front is what it has learned
    return _train(kind, plan, model, scenes, folder, resume)


def train_depth_further(depth: MiniNet, scenes: SceneCache, folder: Path, resume: bool = True) -> MiniNet:
    """Train a depth estimator on from where it is; returns the averaged weights."""
    return _train("depth_further", DEPTH_FURTHER, depth.requires_grad_(True), scenes, folder, resume)


def _train(kind: str, plan: Plan, model: MiniNet, scenes: SceneCache, folder: Path, resume: bool) -> MiniNet:
    model = channels_last(model)
    training = Training(plan, model, folder, resume)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        pictures, truth = pairs(scenes, draw.rows(scenes.ready), kind)
        if draw.numbers.random() < 0.5:
            pictures, truth = pictures.flip(-1), truth.flip(-1)
        with torch.autocast("cpu", torch.bfloat16):
            raw = model(pictures.contiguous(memory_format=torch.channels_last)).float()
        if kind == "salience":
            right = float(((raw > 0) == (truth > 0.5)).float().mean())
            return F.binary_cross_entropy_with_logits(raw, truth), {"right": right}
        return F.l1_loss(raw, truth) + F.mse_loss(raw, truth), {"error": float((raw.detach() - truth).abs().mean())}

    training.run(loss)
    training.use_average()
    return model


def restore(kind: str, folder: Path) -> MiniNet:
    """The estimator as far as it has been trained."""
    model = MiniNet()
    Training(DEPTH_FURTHER if kind == "depth_further" else PLANS[kind], model, folder).use_average()
    return model
