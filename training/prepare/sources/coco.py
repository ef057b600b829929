"""COCO-Stuff: photographs, a label of every pixel, five captions each."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from .base import BrokenItem, Raw, SourceError, by_stem, pictures_below, read_bytes, without_blank

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
        self._pictures = pictures_below(pictures)
        self._labels = by_stem(pictures_below(labels))
        self.numbering = numbering
        told = json.loads(captions.read_text(encoding="utf-8")) if captions.is_file() else {}
        if not {"images", "annotations"} <= told.keys():
            raise SourceError(f"{captions} is no captions file of COCO: it has no lists of images and annotations")
        names = {image["id"]: image["file_name"] for image in told["images"]}
        found: dict[str, list[str]] = defaultdict(list)
        for annotation in sorted(told["annotations"], key=lambda annotation: annotation["id"]):
            found[names[annotation["image_id"]]].append(annotation["caption"])
        self._captions = {name: without_blank(captions) for name, captions in found.items()}

    def ids(self) -> list[str]:
        return list(self._pictures)

    def read(self, item: str) -> Raw:
        path = self._pictures[item]
        labels = self._labels.get(item.rpartition(".")[0])
        if labels is None:
            raise BrokenItem("missing file", f"{item} has no label map")
        return Raw(read_bytes(path), self._captions.get(path.name, ()), {"mask": self._things(labels)})

    def facts(self) -> dict[str, Any]:
        return {"kind": "coco", "numbering": self.numbering}

    def _things(self, path: Path) -> np.ndarray:
        try:
            labels = np.array(Image.open(io.BytesIO(read_bytes(path))))
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            raise BrokenItem("broken label map", f"{path}: {error}") from error
        if labels.ndim != 2:
            raise BrokenItem("broken label map", f"{path} has colours, not labels")
        first = 1 if self.numbering == "stuffthingmaps" else 0
        return np.isin(labels.astype(np.int64) + first, THINGS).astype(np.uint8) * 255
