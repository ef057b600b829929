"""The ComfyUI that is measured on, in this process."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from devtools.inprocess import LoadedPack, enter_comfy, load_pack

ROOT = Path(__file__).resolve().parents[1]


def enter() -> LoadedPack:
    """Import ComfyUI (CNC_COMFY, else the test host) and load the pack as it does; on the CPU without a GPU."""
    comfy = Path(os.environ.get("CNC_COMFY") or ROOT / ".host" / "ComfyUI")
    if not (comfy / "main.py").is_file():
        raise SystemExit(f"no ComfyUI in {comfy}: `python3 dev.py bench` makes it")
    logging.getLogger().setLevel(logging.ERROR)
    arguments = [] if torch.cuda.is_available() else ["--cpu"]
    return load_pack(enter_comfy(comfy, arguments))
