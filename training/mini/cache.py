"""Rendered scenes on disk, as bytes: rendered once, read by every stage through memory maps."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .render import Layers, render
from .scenes import SEEDS, Scene, draw_scene

FIELDS = {"image": 3, "background": 3, "fg_depth": 1, "bg_depth": 1, "depth": 1}
SIZE = 128
_BATCH = 4  # small batches stay in the processor's cache


def to_bytes(picture: Tensor) -> np.ndarray:
    """A picture in [0, 1] as bytes."""
    return (picture * 255).round().to(torch.uint8).numpy()


class SceneCache:
    """The first `count` scenes of a split under a folder; `ready` of them are rendered so far.

    Arrays are (count, channels, 128, 128) bytes. The mask is where fg_depth is not zero.
    """

    def __init__(self, folder: Path, split: str, count: int) -> None:
        self.folder, self.split, self.seed, self.count = folder / split, split, SEEDS[split], count
        self.folder.mkdir(parents=True, exist_ok=True)
        self._progress = self.folder / "progress.json"
        recorded = self._read()
        fresh = not recorded
        if recorded and (recorded["count"], recorded["seed"]) != (count, self.seed):
            raise ValueError(
                f"{self.folder} holds {recorded['count']} scenes of seed {recorded['seed']}, asked for {count} of "
                f"{self.seed}: remove it, or use another folder"
            )
        self.arrays: dict[str, np.ndarray] = {}
        for name, channels in FIELDS.items():
            path = self.folder / f"{name}.npy"
            if fresh or not path.exists():
                shape = (count, channels, SIZE, SIZE)
                self.arrays[name] = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            else:
                self.arrays[name] = np.lib.format.open_memmap(path, "r+")
        if fresh:
            self._write(0)

    def _read(self) -> dict[str, int]:
        return json.loads(self._progress.read_text()) if self._progress.exists() else {}

    def _write(self, ready: int) -> None:
        temporary = self._progress.with_suffix(".new")
        temporary.write_text(json.dumps({"count": self.count, "seed": self.seed, "ready": ready}))
        temporary.replace(self._progress)

    @property
    def ready(self) -> int:
        """How many scenes are rendered."""
        return self._read().get("ready", 0)

    def scene(self, index: int) -> Scene:
        """The scene behind a row."""
        return draw_scene(self.seed, index)

    def fill(self) -> None:
        """Render what is missing; can be stopped and started again."""
        began, start = time.monotonic(), self.ready
        for first in range(start, self.count, _BATCH):
            rows = range(first, min(first + _BATCH, self.count))
            layers = render([self.scene(i) for i in rows], SIZE)
            for name, array in self.arrays.items():
                array[rows.start : rows.stop] = to_bytes(getattr(layers, name))
            if first % (64 * _BATCH) == 0 or rows.stop == self.count:
                self._write(rows.stop)
                rate = (rows.stop - start) / (time.monotonic() - began)
                print(f"scenes {rows.stop}/{self.count}, {rate:.1f} a second", flush=True)

    def read(self, name: str, rows: np.ndarray) -> Tensor:
        """Rows of an array as a float picture in [0, 1]."""
        return torch.from_numpy(self.arrays[name][rows]).float() / 255


def rendered(scenes: list[Scene], size: int = SIZE) -> Iterator[Layers]:
    """Render many scenes in small batches."""
    for first in range(0, len(scenes), _BATCH):
        yield render(scenes[first : first + _BATCH], size)
