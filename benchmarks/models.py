"""The model files that the benchmarks use: fetched once into .cache/models."""

from __future__ import annotations

from pathlib import Path

from cnc_core.perception.fetch import fetch
from cnc_core.perception.weights import named

from .host import ROOT

MODELS = ROOT / ".cache" / "models"


def fetched() -> Path:
    """A `models` folder with IS-Net and MI-GAN in it, and whatever else was put there."""
    MODELS.mkdir(parents=True, exist_ok=True)
    for name in ("isnet", "migan"):
        weights = named(name)
        print(f"{weights.name}: {weights.source}; licence: {weights.licence}", flush=True)
        fetch(weights, MODELS)
    return MODELS
