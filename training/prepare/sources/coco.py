"""COCO-Stuff: photographs, a label of every pixel, five captions each."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from .base import BrokenItem, Raw, SourceError, read_bytes, without_blank
from .listing import by_stem, pictures_below

NO_THINGS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91})
"""The 11 of COCO's first 91 category ids that its 80 things classes leave out."""
THINGS = tuple(category for category in range(1, 92) if category not in NO_THINGS)
"""COCO's 80 things classes, by category id."""

Labels = Literal["stuffthingmaps", "category ids"]


class CocoSource:
    """Pictures, label maps and captions of COCO-Stuff.

    pictures: such as train2017/. labels: PNGs of the same names, such as stuffthingmaps/train2017/. captions: such as
    annotations/captions_train2017.json. M is 1 where the label is one of the 80 things classes. numbering:
    "stuffthingmaps" stores a category's id less 1, with 255 for no label; "category ids" stores the id, with 0 for
    none, as the 10K set does.
    """

    def __init__(self, pictures: Path, labels: Path, captions: Path, numbering: Labels = "stuffthingmaps") -> None:
        listing = pictures_below(pictures, without=labels)
        self._pictures, self._notes = listing.pictures, listing.notes
        self._labels = by_stem(pictures_below(labels).pictures)
        self.numbering = numbering
        self._captions = _read_captions(captions)

    def ids(self) -> list[str]:
        return list(self._pictures)

    def read(self, item: str) -> Raw:
        path = self._pictures[item]
        labels = self._labels.get(item.rpartition(".")[0])
        if labels is None:
            raise BrokenItem("missing file", f"{item} has no label map")
        return Raw(read_bytes(path), self._captions.get(path.name, ()), {"mask": self._things(labels)})

    def notes(self) -> list[str]:
        return self._notes

    def facts(self) -> dict[str, Any]:
        return {"kind": "coco", "numbering": self.numbering}

    def _things(self, path: Path) -> np.ndarray:
        try:
            labels = np.array(Image.open(io.BytesIO(read_bytes(path))))
        except BrokenItem:
            raise
        except Exception as error:  # Pillow's decoders raise whatever their parsing meets
            raise BrokenItem("broken label map", f"{path}: {type(error).__name__}: {error}") from error
        if labels.ndim != 2:
            raise BrokenItem("broken label map", f"{path} has colours, not labels")
        first = 1 if self.numbering == "stuffthingmaps" else 0
        return np.isin(labels.astype(np.int64) + first, THINGS).astype(np.uint8) * 255


def _read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """Captions by file name. Raises SourceError for what is no captions file."""
    try:
        table = json.loads(path.read_bytes().decode()) if path.is_file() else {}
        names = {image["id"]: image["file_name"] for image in table["images"]}
        found: dict[str, list[str]] = defaultdict(list)
        for annotation in sorted(table["annotations"], key=lambda annotation: annotation["id"]):
            found[names[annotation["image_id"]]].append(annotation["caption"])
        return {name: without_blank(captions) for name, captions in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(
            f"{path} is no captions file of COCO, such as captions_train2017.json: it has no lists of images and "
            f"annotations that fit together ({type(error).__name__}: {error})"
        ) from error
