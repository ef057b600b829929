"""Estimators by name: what there is to choose from, and loading the chosen one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn as nn

from .estimator import Inpainter, Kind, MapEstimator, PerceptionError
from .inpaint import OpenCVInpainter
from .mini_estimator import WEIGHTS, load_mini
from .transformers_depth import find_models, load_transformers_depth

MINI = "mini"
"""The name of the Mini's own depth and salience."""

MINI_FOLDER = Path(__file__).resolve().parents[2] / "models" / "mini"
"""Where this repository keeps the Mini's weights."""

INPAINTERS = ("telea", "navier-stokes")
"""Inpainters that need no model."""


def available(kind: Kind, folders: Iterable[Path] = ()) -> list[str]:
    """The names that `load_depth`, `load_saliency` or `load_inpainter` take.

    folders: where transformers depth models are looked for; the other kinds have none yet.
    """
    if kind == "depth":
        return [MINI, *find_models(list(folders))]
    if kind == "saliency":
        return [MINI]
    return list(INPAINTERS)


def model_path(kind: Literal["depth", "saliency"], name: str, folders: Iterable[Path] = ()) -> Path:
    """The file or folder that an estimator is read from; whether the Mini's file is there is not asked.

    Raises PerceptionError for an unknown name: a name is looked up among those found, never joined to a
    path.
    """
    if name == MINI:
        return MINI_FOLDER / WEIGHTS[kind]
    searched = list(folders)
    models = find_models(searched) if kind == "depth" else {}
    if name not in models:
        raise PerceptionError(_unknown(kind, name, searched))
    return models[name]


def load_depth(
    name: str,
    folders: Iterable[Path] = (),
    *,
    operations: Any = nn,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> MapEstimator:
    """The depth estimator of this name. Raises PerceptionError, with what to do, where it cannot be had.

    operations: where layers come from, for the networks that are ours.
    """
    path = model_path("depth", name, folders)
    if name == MINI:
        return load_mini("depth", path, operations=operations, dtype=dtype, device=device)
    return load_transformers_depth(path, dtype=dtype, device=device)


def load_saliency(
    name: str,
    *,
    operations: Any = nn,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> MapEstimator:
    """The salience estimator of this name. Raises PerceptionError where it cannot be had."""
    path = model_path("saliency", name)
    return load_mini("saliency", path, operations=operations, dtype=dtype, device=device)


def load_inpainter(name: str) -> Inpainter:
    """The inpainter of this name. Raises PerceptionError for an unknown one."""
    if name not in INPAINTERS:
        raise PerceptionError(_unknown("inpainting", name, []))
    return OpenCVInpainter(name)


def _unknown(kind: Kind, name: str, folders: list[Path]) -> str:
    names = ", ".join(available(kind, folders))
    message = f"there is no {kind} estimator named {name!r}; there is {names}"
    if kind == "depth":
        where = " or ".join(str(folder) for folder in folders) or "a folder of depth models (none was given)"
        message += (
            f". For a transformers depth model, put its folder (config.json, preprocessor_config.json, "
            f"model.safetensors) into {where}"
        )
    return message
