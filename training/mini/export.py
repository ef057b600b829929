"""The finished files of CnC-Mini: averaged weights in half precision, with what made them in the header."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from cnc_core import Fusers, LocalFuser, save_fusers

from . import stage_autoencoder, stage_diffusion, stage_encoders, stage_perception
from .clip import TextConfig, VisionConfig
from .finished import FinishedMini, facts_of
from .model import CONFIG, Mini, released_streams
from .scenes import SEEDS
from .words import VOCABULARY, used_ids

LICENCE = "MIT"
VERSION = "3"


def _write(path: Path, state: dict[str, Tensor], facts: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}
    header = {"format": "pt", "version": VERSION, "licence": LICENCE, "scenes_seed": str(SEEDS["train"]), **facts}
    temporary = path.with_suffix(".new")
    save_file(half, temporary, metadata=header)
    temporary.chmod(0o644)
    temporary.replace(path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)


def _facts(runs: Path, names: list[str]) -> dict[str, str]:
    """Steps, samples and seeds of stages of a folder of runs."""
    saved = {name: torch.load(runs / f"{name}.pt", weights_only=True, mmap=True) for name in names}
    return {
        "steps": json.dumps({name: run["step"] for name, run in saved.items()}),
        "batch": json.dumps({name: run["plan"]["batch"] for name, run in saved.items()}),
        "seeds": json.dumps({name: run["plan"]["seed"] for name, run in saved.items()}),
    }


def released_fusers(model: Mini) -> Fusers:
    """Both fusers in half precision and in the released shapes, depth streams included."""
    local_fuser = LocalFuser(model.config)
    local_fuser.load_state_dict(released_streams(model.local_fuser.state_dict(), model.config))
    return Fusers(local_fuser.half(), copy.deepcopy(model.global_fuser).half(), model.config, {})


def _started_from(start: Path | None, name: str) -> dict[str, str]:
    return {} if start is None else {"started_from": json.dumps(facts_of(start / name))}


def write(runs: Path, models: Path, device: torch.device, start: Path | None = None) -> None:
    """Write all files of what has been reached; `start` is the folder that "main" and the estimators went on from."""
    if (runs / "main").is_dir():
        write_arm("main", runs, models, start)
    if (runs / "autoencoder.pt").exists():
        state = stage_autoencoder.restore(runs, device).cpu().released_layout()
        _write(models / "autoencoder.safetensors", state, _facts(runs, ["autoencoder"]))
    if (runs / "encoders.pt").exists():
        image = stage_encoders.restore(runs).image.state_dict()
        _write(models / "image_encoder.safetensors", image, _facts(runs, ["encoders"]))
        (models / "image_encoder.json").write_text(json.dumps(VisionConfig().json(), indent=2) + "\n")
    for kind in stage_perception.PLANS:
        if (runs / f"{kind}.pt").exists():
            network, file = stage_perception.restore(kind, runs).state_dict(), f"{kind}.safetensors"
            _write(models / file, network, {**_facts(runs, [kind]), **_started_from(start, file)})


def write_arm(name: str, runs: Path, folder: Path, start: Path | None = None) -> None:
    """Write the files of one diffusion model: U-Net, fusers and text encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    finished = None if start is None else FinishedMini.load(start)
    model, recipes = stage_diffusion.restore(name, runs, finished), stage_diffusion.ARMS[name]
    facts = {
        **_facts(runs / name, [r.plan.name for r in recipes if (runs / name / f"{r.plan.name}.pt").exists()]),
        "arm": name,
        "prediction_type": "v_prediction",
        "num_heads": str(CONFIG.num_heads),
        **_started_from(start, "unet.safetensors"),
    }
    _write(folder / "unet.safetensors", model.unet.state_dict(), {**facts, "config": config_json()})
    told = {**facts, "licence": LICENCE, "scenes_seed": str(SEEDS["train"]), "conditions": "depth"}
    fusers = folder / "fusers.safetensors"
    save_fusers(fusers, released_fusers(model), told)
    print(f"{fusers}: {fusers.stat().st_size / 1e6:.1f} MB", flush=True)
    text = model.text.state_dict()
    text["token_ids"] = torch.tensor(used_ids())
    note = f"token_embedding holds the rows token_ids of {VOCABULARY}; the others are the rows' mean"
    _write(folder / "text_encoder.safetensors", text, {**facts, "rows": note})
    (folder / "text_encoder.json").write_text(json.dumps(TextConfig().json(), indent=2) + "\n")
    if name != "main":
        # A model without depth disentanglement is used as one with: what lies behind is not in a picture.
        maps = "layers" if recipes[-1].maps == "whole" else recipes[-1].maps
        told_of_use = {"name": name, "conditions": maps, "mask": recipes[-1].masked}
        (folder / "arm.json").write_text(json.dumps(told_of_use, indent=2) + "\n")


def config_json() -> str:
    """The model's sizes, for readers of the U-Net's header."""
    return json.dumps(asdict(CONFIG))
