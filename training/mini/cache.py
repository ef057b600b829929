"""Rendered scenes as bytes: on a CPU in files, rendered once and read through memory maps; on a GPU in its memory."""

from __future__ import annotations

import json
import time
from dataclasses import astuple
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .render import render
from .scenes import GROUP, SEEDS, Scene, training_scene
from .words import rows as token_rows
from .world import Attributes

FIELDS = {"image": 3, "background": 3, "fg_depth": 1, "bg_depth": 1, "other_bg_depth": 1, "depth": 1}
SIZE = 128
_BATCH = {"cpu": 4, "cuda": 64}  # small batches stay in a processor's cache

CAPTIONS = ("full", "neutral", "shapes")
"""Kinds of captions that are kept of each scene."""


def to_bytes(picture: Tensor) -> Tensor:
    """A picture in [0, 1] as bytes."""
    return (picture * 255).round().to(torch.uint8)


class SceneCache:
    """The first `count` training scenes of a split; `ready` of them are rendered so far.

    Arrays are (count, channels, 128, 128) bytes. The mask is where fg_depth is not zero. On a CPU they lie in files
    under the folder, and rendering can be stopped and started again.
    """

    def __init__(self, folder: Path, split: str, count: int, device: torch.device | str = "cpu") -> None:
        self.folder, self.split, self.seed, self.count = folder / split, split, SEEDS[split], count
        self.device = torch.device(device)
        self._progress = self.folder / "progress.json"
        self._ready = 0
        self._attributes: dict[int, Attributes] = {}
        self.arrays: dict[str, Tensor] = {}
        if self.device.type == "cpu":
            self._open()
        else:
            for name, channels in FIELDS.items():
                self.arrays[name] = torch.empty(count, channels, SIZE, SIZE, dtype=torch.uint8, device=self.device)

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        recorded = json.loads(self._progress.read_text()) if self._progress.exists() else {}
        if recorded and (recorded["count"], recorded["seed"]) != (self.count, self.seed):
            raise ValueError(
                f"{self.folder} holds {recorded['count']} scenes of seed {recorded['seed']}, asked for {self.count} of "
                f"{self.seed}: remove it, or use another folder"
            )
        for name, channels in FIELDS.items():
            path = self.folder / f"{name}.npy"
            if recorded and path.exists():
                array = np.lib.format.open_memmap(path, "r+")
            elif recorded:
                raise ValueError(f"{self.folder} was rendered without {name}: remove it, or use another folder")
            else:
                array = np.lib.format.open_memmap(path, "w+", np.uint8, (self.count, channels, SIZE, SIZE))
            self.arrays[name] = torch.from_numpy(array)
        self._ready = recorded.get("ready", 0)
        if not recorded:
            self._record()

    def _record(self) -> None:
        temporary = self._progress.with_suffix(".new")
        temporary.write_text(json.dumps({"count": self.count, "seed": self.seed, "ready": self._ready}))
        temporary.replace(self._progress)

    @property
    def ready(self) -> int:
        """How many scenes are rendered."""
        return self._ready

    def scene(self, index: int) -> Scene:
        """The scene behind a row."""
        scene = training_scene(self.seed, index)
        self._attributes[index] = scene.attributes
        return scene

    def fill(self) -> None:
        """Render what is missing."""
        began, start = time.monotonic(), self._ready
        if start < self.count:
            print(f"rendering scenes {start} to {self.count}", flush=True)
        batch = _BATCH[self.device.type]
        for first in range(start, self.count, batch):
            last = min(first + batch, self.count)
            with self.device:
                layers = render([self.scene(index) for index in range(first, last)], SIZE)
            for name, array in self.arrays.items():
                array[first:last] = to_bytes(getattr(layers, name))
            self._ready = last
            if first % (64 * batch) == 0 or last == self.count:
                if self.device.type == "cpu":
                    self._record()
                rate = (last - start) / (time.monotonic() - began)
                print(f"scenes {last}/{self.count}, {rate:.1f} a second", flush=True)

    def read(self, name: str, rows: Tensor) -> Tensor:
        """Rows (B,) of an array as a float picture in [0, 1]."""
        return self.arrays[name][rows].float() / 255

    @cached_property
    def attributes(self) -> Tensor:
        """What each rendered scene shows, (ready, 7), in the order of `world.Attributes`."""
        return torch.tensor([astuple(known) for known in self._known], device=self.device)

    @cached_property
    def tokens(self) -> Tensor:
        """The captions of each rendered scene, (ready, 3, 77), in the order of `CAPTIONS`."""
        lines = [
            caption
            for row, known in enumerate(self._known)
            for caption in (known.caption(row // GROUP), known.neutral_caption(), known.shapes_caption())
        ]
        return token_rows(lines).unflatten(0, (-1, len(CAPTIONS))).to(self.device)

    @cached_property
    def _known(self) -> list[Attributes]:
        return [self._attributes.get(index) or self.scene(index).attributes for index in range(self._ready)]
