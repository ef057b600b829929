"""The released implementation's folder tree: X/, X_mask/, X_background/, ..., X_captions.txt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .base import Raw, SourceError, read_bytes, without_blank
from .listing import by_stem, pictures_below

_FOLDERS = {
    "mask": "mask",
    "background": "background",
    "fg_depth": "foreground_depthmaps",
    "bg_depth": "background_depthmaps",
}


class ReleaseSource:
    """Pictures X/ with what the release's scripts have made of them.

    Its depth maps are JPEGs: they are used only where depth is "given", and better estimated anew. Its embeddings are
    not read, the embeddings of pictures that have been cropped anew differ. X_captions.txt has `uid:caption` lines;
    a caption keeps its own colons, and a line that begins with no picture's uid goes on with the caption before it.
    """

    def __init__(self, folder: Path) -> None:
        listing = pictures_below(folder)
        self._pictures, self._notes = by_stem(listing.pictures), listing.notes
        if lost := len(listing.pictures) - len(self._pictures):
            self._notes.append(f"{folder}: {lost} pictures have the name of another with another ending, not taken")
        self._given = {
            layer: by_stem(pictures_below(path).pictures)
            for layer, name in _FOLDERS.items()
            if (path := folder.with_name(f"{folder.name}_{name}")).is_dir()
        }
        path = folder.with_name(f"{folder.name}_captions.txt")
        if not path.is_file():
            raise SourceError(f"{folder} is not a picture folder of the release: {path} is missing")
        self._captions = self._read_captions(path)

    def ids(self) -> list[str]:
        return list(self._pictures)

    def read(self, item: str) -> Raw:
        given = {layer: read_bytes(paths[item]) for layer, paths in self._given.items() if item in paths}
        return Raw(read_bytes(self._pictures[item]), self._captions.get(item, ()), dict(given))

    def notes(self) -> list[str]:
        return self._notes

    def facts(self) -> dict[str, Any]:
        return {"kind": "release", "layers": sorted(self._given)}

    def _read_captions(self, path: Path) -> dict[str, tuple[str, ...]]:
        lines: list[list[str]] = []
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{path} cannot be read: {error}; save it as UTF-8") from error
        for line in text.split("\n"):
            uid, colon, caption = line.partition(":")
            stem = re.sub(r"\.\w+$", "", uid.strip())
            if colon and stem in self._pictures:
                lines.append([stem, caption])
            elif lines and line.strip():
                lines[-1][1] += "\n" + line
        found: dict[str, list[str]] = {}
        for stem, caption in lines:
            found.setdefault(stem, []).append(caption)
        return {stem: without_blank(captions) for stem, captions in found.items()}
