"""Draw docs/pictures/order.jpg and style.jpg: the first scenes that `evaluate` measures, as models make them.

    python -m devtools.documentation.measured_pictures [MODEL ...]

MODEL: folders as `evaluate order --arms` takes them, the first being the shipped one (default: models/mini alone). What
it stands beside is trained by `python -m training mini --stage local local_ablation global_no_mask export_baselines`.
Scenes, noise and settings are those of the measures, so that nothing is picked.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from training.evaluate import order, style
from training.evaluate.choice import choose
from training.evaluate.exemplars import Stage
from training.evaluate.folder import SHOWN, RunFolder
from training.evaluate.judge import Judge
from training.evaluate.sampling import Arm, Settings
from training.evaluate.settings import MODELS
from training.evaluate.sheet import strip, write_strips

from ..environment import ROOT, say

Strips = list[tuple[str, Image.Image]]
LAMBDAS = ((0.0, 1.0), (0.5, 1.0), (1.0, 0.0), (1.0, 0.5))


def order_strips(arms: list[Arm]) -> Strips:
    """Who stands in front, as asked and exchanged."""
    found = choose(SHOWN)
    shown = [
        ("true render of the scene, as asked", strip(found.layers.image)),
        ("true render, roles exchanged", strip(found.exchanged.image)),
    ]
    for arm in arms:
        for way in order.WAYS[:3]:
            part = order.run(arm, found, way, "full", Settings(), exemplars=False, equal_depth=False, batch=SHOWN)
            shown.append((f"{arm.name}: {way}", strip(part.shown)))
    return shown


def style_strips(arms: list[Arm]) -> Strips:
    """Two exemplars on two layers, and the shipped model's lambdas turned."""
    stage, config = Stage.build(SHOWN), style.StyleConfig()
    judge = Judge.load(config.judge)
    shown = [
        ("layout: its depth maps and M are given", strip(stage.layers.image)),
        ("the foreground's exemplar", strip(stage.fg)),
        ("the background's exemplar", strip(stage.bg)),
    ]
    turned = [(arm, 1.0, 1.0) for arm in arms] + [(arms[0], *lambdas) for lambdas in LAMBDAS]
    for arm, fg, bg in turned:
        part = style.run(config, judge, arm, stage, lambda_fg=fg, lambda_bg=bg)
        words = arm.name if fg == bg else f"{arm.name}, lambda_fg {fg:g}, lambda_bg {bg:g}"
        shown.append((words, strip(part.shown)))
    return shown


def main() -> None:
    """Draw both: of order the models with masks, of style the shipped one and those without."""
    parser = argparse.ArgumentParser(prog="python -m devtools.documentation.measured_pictures")
    parser.add_argument("models", nargs="*", type=Path, default=[MODELS], metavar="MODEL")
    options = parser.parse_args()
    arms = [Arm.load(folder, MODELS) for folder in options.models]
    drawn = {
        "order": order_strips([arm for arm in arms if arm.mask]),
        "style": style_strips([arms[0], *(arm for arm in arms if not arm.mask)]),
    }
    for name, strips in drawn.items():
        path = ROOT / "docs" / "pictures" / f"{name}.jpg"
        with tempfile.TemporaryDirectory() as folder:
            write_strips(RunFolder(Path(folder)), name, strips)
            with Image.open(Path(folder) / f"{name}.png") as sheet:
                sheet.save(path, quality=85, optimize=True)
        say(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
