"""A node pack for the test server that takes away what the perception extra brings: importing it fails from then on."""

from __future__ import annotations

import sys

LACKING = ("cv2", "onnxruntime", "spandrel", "timm", "transformers")


def take_away() -> None:
    """Python raises ImportError for a module that is None here."""
    sys.modules.update(dict.fromkeys(LACKING))  # type: ignore[arg-type]


if "folder_paths" in sys.modules:  # in ComfyUI; pytest imports this folder too
    take_away()

NODE_CLASS_MAPPINGS: dict[str, type] = {}
