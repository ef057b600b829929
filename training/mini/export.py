"""The finished files of CnC-Mini: averaged weights in half precision, with what made them in the header."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from cnc_core import Fusers, LocalFuser, save_fusers

from . import stage_autoencoder, stage_encoders, stage_perception
from .clip import TextConfig, VisionConfig
from .model import CONFIG, Mini, released_streams
from .scenes import SEEDS
from .stage_diffusion import RECIPES
from .words import VOCABULARY, used_ids

LICENCE = "MIT"
VERSION = "1"


def _write(path: Path, state: dict[str, Tensor], facts: dict[str, str]) -> None:
    half = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}
    header = {"format": "pt", "version": VERSION, "licence": LICENCE, "scenes_seed": str(SEEDS["train"]), **facts}
    temporary = path.with_suffix(".new")
    save_file(half, temporary, metadata=header)
    temporary.chmod(0o644)
    temporary.replace(path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)


def _steps(runs: Path, names: list[str], before: Path | None = None) -> dict[str, str]:
    """Steps and seeds of the stages in this folder of runs, after those that a finished file tells of."""
    steps: dict[str, int] = {}
    if before is not None and before.exists():
        with safe_open(before, "pt") as opened:
            steps = json.loads((opened.metadata() or {}).get("steps", "{}"))
    steps |= {name: torch.load(runs / f"{name}.pt", weights_only=True, mmap=True)["step"] for name in names}
    return {"steps": json.dumps(steps), "seeds": json.dumps({n: RECIPES[n].plan.seed for n in steps if n in RECIPES})}


def released_fusers(model: Mini) -> Fusers:
    """Both fusers in half precision and in the released shapes, depth streams included."""
    local_fuser = LocalFuser(model.config)
    local_fuser.load_state_dict(released_streams(model.local_fuser.state_dict(), model.config))
    return Fusers(local_fuser.half(), copy.deepcopy(model.global_fuser).half(), model.config, {})


def write(runs: Path, models: Path, model: Mini, reached: list[str]) -> None:
    """Write all files of what has been reached."""
    models.mkdir(parents=True, exist_ok=True)
    if reached:
        facts = {
            **_steps(runs, reached, models / "unet.safetensors"),
            "prediction_type": "v_prediction",
            "num_heads": str(CONFIG.num_heads),
        }
        _write(models / "unet.safetensors", model.unet.state_dict(), {**facts, "config": config_json()})
        told = {**facts, "licence": LICENCE, "scenes_seed": str(SEEDS["train"]), "conditions": "depth"}
        fusers = models / "fusers.safetensors"
        save_fusers(fusers, released_fusers(model), told)
        print(f"{fusers}: {fusers.stat().st_size / 1e6:.1f} MB", flush=True)
        text = model.text.state_dict()
        text["token_ids"] = torch.tensor(used_ids())
        note = f"token_embedding holds the rows token_ids of {VOCABULARY}; the others are the rows' mean"
        _write(models / "text_encoder.safetensors", text, {**facts, "rows": note})
        (models / "text_encoder.json").write_text(json.dumps(TextConfig().json(), indent=2) + "\n")
    if (runs / "autoencoder.pt").exists():
        state = stage_autoencoder.restore_decoder(runs).released_layout()
        _write(models / "autoencoder.safetensors", state, _steps(runs, ["autoencoder"]))
    if (runs / "encoders.pt").exists():
        image = stage_encoders.restore(runs).image.state_dict()
        _write(models / "image_encoder.safetensors", image, _steps(runs, ["encoders"]))
        (models / "image_encoder.json").write_text(json.dumps(VisionConfig().json(), indent=2) + "\n")
    for kind in stage_perception.PLANS:
        if (runs / f"{kind}.pt").exists():
            network = stage_perception.restore(kind, runs).state_dict()
            _write(models / f"{kind}.safetensors", network, _steps(runs, [kind]))
    if (runs / "depth_further.pt").exists():
        depth = models / "depth.safetensors"
        _write(
            depth, stage_perception.restore("depth_further", runs).state_dict(), _steps(runs, ["depth_further"], depth)
        )


def config_json() -> str:
    """The model's sizes, for readers of the U-Net's header."""
    return json.dumps(asdict(CONFIG))
