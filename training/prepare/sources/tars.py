"""WebDataset shards: tar files in which the files of one sample share a key."""

from __future__ import annotations

import json
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

from .base import PICTURES, BrokenItem, Raw, SourceError, without_blank

_LAYERS = ("mask", "background", "fg_depth", "bg_depth", "source_depth")


class TarSource:
    """The samples of a .tar, or of all below a folder, found by where they begin, so that any can be read at any time.

    The picture is the file source.png (as `prepare` writes it) or else the first with a picture's ending; a mask is
    mask.png, and other layers likewise; captions are the lines of .txt, or captions, caption or text in .json. The id
    is the tar's name and the key.
    """

    def __init__(self, path: Path) -> None:
        folder = path if path.is_dir() else path.parent
        files = sorted(path.rglob("*.tar")) if path.is_dir() else [path]
        self._samples: dict[str, tuple[Path, dict[str, tuple[int, int]]]] = {}
        for file in files:
            name = file.relative_to(folder).with_suffix("").as_posix()
            for member in _members(file):
                place, _, base = member.name.rpartition("/")
                key, _, ending = base.partition(".")
                _, parts = self._samples.setdefault(f"{name}/{place}/{key}".replace("//", "/"), (file, {}))
                parts[ending.lower()] = (member.offset_data, member.size)
        self._samples = {key: value for key, value in self._samples.items() if _picture(value[1])}
        if not self._samples:
            raise SourceError(f"{path} holds no tar with pictures")

    def ids(self) -> list[str]:
        return list(self._samples)

    def read(self, item: str) -> Raw:
        path, parts = self._samples[item]
        picture = _picture(parts)
        given = {layer: self._part(path, parts[f"{layer}.png"]) for layer in _LAYERS if f"{layer}.png" in parts}
        return Raw(self._part(path, parts[picture]), self._captions(path, parts), dict(given))

    def notes(self) -> list[str]:
        return []

    def facts(self) -> dict[str, Any]:
        return {"kind": "webdataset"}

    def _part(self, path: Path, place: tuple[int, int]) -> bytes:
        try:
            with path.open("rb") as file:
                file.seek(place[0])
                content = file.read(place[1])
        except OSError as error:
            raise BrokenItem("missing file", f"{path}: {error.strerror}") from error
        if len(content) < place[1]:
            raise BrokenItem("missing file", f"{path} has become shorter than it was")
        return content

    def _captions(self, path: Path, parts: dict[str, tuple[int, int]]) -> tuple[str, ...]:
        try:
            if "txt" in parts:
                return without_blank(self._part(path, parts["txt"]).decode("utf-8-sig").splitlines())
            told = json.loads(self._part(path, parts["json"])) if "json" in parts else {}
        except (ValueError, RecursionError) as error:
            raise BrokenItem("broken caption", f"{path}: {error}") from error
        if not isinstance(told, dict):
            raise BrokenItem("broken caption", f"{path}: its .json is no object")
        captions: object = next((told[name] for name in ("captions", "caption", "text") if told.get(name)), [])
        return without_blank(list(map(str, captions)) if isinstance(captions, list) else [str(captions)])


def _members(path: Path) -> list[tarfile.TarInfo]:
    """The files in a tar. Raises SourceError for one that is compressed, damaged or cut short."""
    try:
        if not path.is_file():
            raise SourceError(f"{path} is no file: expected a tar")
        with tarfile.open(path, "r:") as tar, path.open("rb") as file:
            members = [member for member in tar if member.isfile()]
            # To tarfile a header that is damaged, or is not there, is the end; a whole tar ends in blocks of zeros.
            file.seek(tar.offset)
            end = file.read(tarfile.BLOCKSIZE)
            if len(end) < tarfile.BLOCKSIZE or any(end) or any(map(any, iter(partial(file.read, 1 << 20), b""))):
                raise SourceError(f"{path} is damaged or cut short at byte {tar.offset:,}: copy it again")
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path} is no whole, uncompressed tar: {error}") from error
    return members


def _picture(parts: dict[str, tuple[int, int]]) -> str:
    """The ending of a sample's picture, empty where it has none."""
    return next(
        (e for e in ("source.png", *sorted(parts)) if e in parts and f".{e}".endswith(PICTURES) and _is_source(e)), ""
    )


def _is_source(ending: str) -> bool:
    return ending.partition(".")[0] not in (*_LAYERS, "foreground")
