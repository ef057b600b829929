"""A node pack for the test server: pictures that no file format can hold, and what is alive in the process.

torch and numpy alone are imported here, since pytest imports this folder too.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import torch


class LoadArray:
    """A picture of any values and number of channels from an .npy file in the input folder, as IMAGE."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "load"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING", {})}}

    def load(self, name: str) -> tuple[torch.Tensor]:
        import folder_paths

        array = np.load(Path(folder_paths.get_input_directory()) / name, allow_pickle=False)
        return (torch.from_numpy(array).float(),)


class CountAlive:
    """How many objects of a class, by its name, this process holds; collect: after a garbage collection."""

    RETURN_TYPES = ()
    FUNCTION = "count"
    CATEGORY = "test"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"class_name": ("STRING", {})}, "optional": {"collect": ("BOOLEAN", {})}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        return float("nan")

    def count(self, class_name: str, collect: bool = False) -> dict[str, Any]:
        if collect:
            gc.collect()
        return {"ui": {"alive": [sum(type(thing).__name__ == class_name for thing in gc.get_objects())]}}


class Wanted:
    """An end for a mask, so that the host runs what makes it; it tells the mask's shape."""

    RETURN_TYPES = ()
    FUNCTION = "take"
    CATEGORY = "test"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK", {})}}

    def take(self, mask: torch.Tensor) -> dict[str, Any]:
        return {"ui": {"shape": [tuple(mask.shape)]}}


class PassOn:
    """Layers as they come, by a node that is none of the pack's."""

    RETURN_TYPES = ("CNC_LAYERS",)
    FUNCTION = "pass_on"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("CNC_LAYERS", {})}}

    def pass_on(self, value: Any) -> tuple[Any]:
        return (value,)


NODE_CLASS_MAPPINGS = {"LoadArray": LoadArray, "CountAlive": CountAlive, "Wanted": Wanted, "PassOn": PassOn}
