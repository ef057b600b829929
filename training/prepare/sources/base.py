"""What every source is: a list of ids, and what each stands for, read when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""The endings of files that are taken for pictures."""

Layer = bytes | np.ndarray
"""An encoded picture file, or an array (H, W, 3) of bytes or (H, W) of bytes or floats in [0, 1]."""


class BrokenItem(Exception):
    """An item of a source that gives no sample, for a reason of few words; the text says what happened."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class SourceError(ValueError):
    """A source that cannot be used at all; the message says what was expected."""


@dataclass(frozen=True, eq=False)
class Raw:
    """An item as its source has it: the picture, its captions, and layers that are given, by name (mask, background,
    fg_depth, bg_depth, source_depth), of the picture's aspect."""

    picture: Layer
    captions: tuple[str, ...] = ()
    given: dict[str, Layer] = field(default_factory=dict)


class Source(Protocol):
    """Pictures to prepare. Travels to other processes by pickle."""

    def ids(self) -> list[str]:
        """Every item's id, each once, stable over runs. Items that are near on disk sort near each other."""

    def read(self, item: str) -> Raw:
        """One item. Raises BrokenItem where it cannot be had. Called from several threads."""

    def facts(self) -> dict[str, Any]:
        """What the manifest says about it."""


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises BrokenItem where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenItem("missing file", f"{path}: {error.strerror}") from error


def pictures_below(folder: Path) -> dict[str, Path]:
    """All pictures of a folder and those in it, by relative path with slashes, sorted."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder of pictures")
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.suffix.lower() in PICTURES}
    return dict(sorted(found.items()))


def by_stem(pictures: dict[str, Path]) -> dict[str, Path]:
    """The same by relative path without the ending, to find the mask of a picture of another format."""
    return {name.rpartition(".")[0]: path for name, path in pictures.items()}


def without_blank(captions: Collection[str]) -> tuple[str, ...]:
    """Captions that say something, with the space around them taken off."""
    return tuple(caption.strip() for caption in captions if caption.strip())


def extra(name: str, needs: str, install: str, load: Callable[[], Any]) -> Any:
    """A module that a source needs and that not everybody has. Raises SourceError, saying what to install."""
    try:
        return load()
    except ImportError as error:
        raise SourceError(f"{needs} needs {name}: install it with `pip install {install}`") from error
