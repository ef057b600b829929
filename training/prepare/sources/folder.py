"""A folder of pictures, with or without masks and captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .base import Raw, SourceError, read_bytes
from .captions import beside, read_table
from .listing import by_stem, pictures_below


class FolderSource:
    """All pictures below a folder; the id is the path within it.

    masks: a folder with a mask of the same name (of any format) for each picture, bright on the object. captions: a
    table (`captions.read_table`) by path or file name; without one, the text file beside each picture.
    """

    def __init__(self, folder: Path, masks: Path | None = None, captions: Path | None = None) -> None:
        self.folder = folder
        if masks is not None and masks.resolve() == folder.resolve():
            raise SourceError(f"data and masks are the same folder, {folder}: put the masks into one of their own")
        listing = pictures_below(folder, without=masks)
        self._pictures, self._notes = listing.pictures, listing.notes
        if not self._pictures:
            raise SourceError(f"{folder} holds no pictures")
        self._masks = by_stem(pictures_below(masks).pictures) if masks else {}
        self._captions = read_table(captions) if captions else None

    def ids(self) -> list[str]:
        return list(self._pictures)

    def read(self, item: str) -> Raw:
        path = self._pictures[item]
        if self._captions is None:
            captions = beside(path)
        else:
            captions = self._captions.get(item) or self._captions.get(path.name, ())
        mask = self._masks.get(item.rpartition(".")[0])
        return Raw(read_bytes(path), captions, {"mask": read_bytes(mask)} if mask else {})

    def notes(self) -> list[str]:
        return self._notes

    def facts(self) -> dict[str, Any]:
        return {"kind": "folder", "masks": bool(self._masks), "captions": "table" if self._captions else "beside"}
