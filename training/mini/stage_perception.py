"""Stage "perception": the Mini's own depth and salience estimators, for pictures of the same world."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cnc_core.perception.mini import MiniNet

from .cache import SceneCache
from .finished import mini_net
from .loop import Draw, Loss, Plan, Training, channels_last, mixed

PLANS = {
    "depth": Plan("depth", steps=4000, batch=96, learning_rate=2e-3, seed=31, log_every=500),
    "salience": Plan("salience", steps=3000, batch=96, learning_rate=2e-3, seed=32, log_every=500),
}


def pairs(scenes: SceneCache, rows: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, H, W) and what to say of them (B, 1, H, W): a half and two quarters of I_s, which is the
    hardest, I_f and I_b for depth; I_s for salience."""
    if kind == "salience":
        return scenes.read("image", rows), (scenes.read("fg_depth", rows) > 0).float()
    whole, cut_out, behind = rows.tensor_split((len(rows) // 2, 3 * len(rows) // 4))
    fg_depth = scenes.read("fg_depth", cut_out)
    pictures = (scenes.read("image", whole), scenes.read("image", cut_out) * (fg_depth > 0))
    depths = (scenes.read("depth", whole), fg_depth, scenes.read("bg_depth", behind))
    return torch.cat((*pictures, scenes.read("background", behind))), torch.cat(depths)


def begin(
    kind: str,
    scenes: SceneCache,
    folder: Path,
    resume: bool = True,
    plan: Plan | None = None,
    start: Path | None = None,
) -> tuple[Training, Loss]:
    """The training of an estimator and what it minimises. It goes on from its finished file in `start`; without one,
    salience starts from depth where that has been trained: who is in front is what it has learned."""
    plan = plan or PLANS[kind]
    torch.manual_seed(plan.seed)
    model = MiniNet()
    if start is not None:
        model = mini_net(start / f"{kind}.safetensors").requires_grad_(True)
    elif kind == "salience" and (folder / "depth.pt").exists():
        model = restore("depth", folder)
    model = channels_last(model.to(scenes.device))

    def loss(draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        pictures, truth = pairs(scenes, draw.rows(scenes.ready), kind)
        mirrored = (draw.uniform(len(pictures)) < 0.5)[:, None, None, None]
        pictures, truth = (torch.where(mirrored, x.flip(-1), x) for x in (pictures, truth))
        with mixed(scenes.device):
            raw = model(pictures.contiguous(memory_format=torch.channels_last)).float()
        if kind == "salience":
            right = ((raw > 0) == (truth > 0.5)).float().mean()
            return F.binary_cross_entropy_with_logits(raw, truth), {"right": right}
        return F.l1_loss(raw, truth) + F.mse_loss(raw, truth), {"error": (raw.detach() - truth).abs().mean()}

    return Training(plan, model, folder, resume), loss


def restore(kind: str, folder: Path) -> MiniNet:
    """The estimator as far as it has been trained."""
    model = MiniNet()
    Training(PLANS[kind], model, folder).use_average()
    return model
