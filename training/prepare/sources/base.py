"""What every source is: a list of ids, and what each stands for, read when its turn comes."""

from __future__ import annotations

import stat
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

    def notes(self) -> list[str]:
        """What a user should know of it before the work begins, a line each."""


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises BrokenItem where it cannot be read, and for what is no file, such as a pipe."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BrokenItem("no file", f"{path} is a folder, a pipe or a device")
        return path.read_bytes()
    except OSError as error:
        raise BrokenItem("missing file", f"{path}: {error.strerror}") from error


def printable(name: str) -> str:
    """A name as it can be written; bytes that are no UTF-8 come from the disk, or a tar, as surrogates."""
    return name.encode(errors="backslashreplace").decode()


def without_blank(captions: Collection[str]) -> tuple[str, ...]:
    """Captions that say something, with the space around them taken off."""
    return tuple(caption.strip() for caption in captions if caption.strip())


def extra(name: str, needs: str, install: str, load: Callable[[], Any]) -> Any:
    """A module that a source needs and that not everybody has. Raises SourceError, saying what to install."""
    try:
        return load()
    except ImportError as error:
        raise SourceError(f"{needs} needs {name}: install it with `pip install {install}`") from error
