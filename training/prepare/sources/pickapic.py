"""Pick-a-Pic's parquet files: two generated pictures a row, a prompt, and which of the two was preferred."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from .base import Raw, SourceError, extra, without_blank

Ties = Literal["skip", "first", "both"]
_COLUMNS = ("caption", "label_0", "label_1", "image_0_uid", "image_1_uid")


class PickAPicSource:
    """The preferred picture of each row; one that wins several rows comes once, where it won first.

    ties: what a row without a preference gives: nothing, its first picture, or both. banned: words (of any case)
    whose prompts are left out; none by default. The id is file, row and the picture's own id, so that neighbours in
    a file are neighbours in order.
    """

    def __init__(self, folder: Path, ties: Ties = "skip", banned: tuple[str, ...] = ()) -> None:
        self.ties, self.banned = ties, banned
        parquet = _parquet()
        self._rows: dict[str, tuple[Path, int, int, str, str]] = {}
        self._filtered = 0
        seen: set[str] = set()
        files = sorted(folder.rglob("*.parquet")) if folder.is_dir() else [folder]
        for path in files:
            if not path.is_file():
                raise SourceError(f"{path} is no file: expected Pick-a-Pic's parquet")
            try:
                file = parquet.ParquetFile(path)
                missing = {*_COLUMNS, "jpg_0", "jpg_1"} - set(file.schema_arrow.names)
            except (OSError, extra("pyarrow", "Pick-a-Pic", "pyarrow", _arrow).ArrowInvalid) as error:
                raise SourceError(f"{path} is no parquet file: {error}") from error
            if missing:
                raise SourceError(f"{path} is not Pick-a-Pic: it has no columns {', '.join(sorted(missing))}")
            first = 0
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=list(_COLUMNS)).to_pylist()
                for row, told in enumerate(rows):
                    self._take(
                        path.relative_to(folder if folder.is_dir() else folder.parent),
                        path,
                        first,
                        group,
                        row,
                        told,
                        seen,
                    )
                first += len(rows)
        if not self._rows:
            raise SourceError(f"{folder} holds no parquet rows with a preference")

    def ids(self) -> list[str]:
        return list(self._rows)

    def read(self, item: str) -> Raw:
        path, group, row, column, caption = self._rows[item]
        return Raw(_pictures(path, group, column)[row], without_blank([caption]))

    def notes(self) -> list[str]:
        return []

    def facts(self) -> dict[str, Any]:
        return {"kind": "pickapic", "ties": self.ties, "banned": list(self.banned), "left out by words": self._filtered}

    def _take(
        self, name: Path, path: Path, first: int, group: int, row: int, told: dict[str, Any], seen: set[str]
    ) -> None:
        caption = told["caption"] or ""
        if any(re.search(rf"\b{re.escape(word)}\b", caption, re.IGNORECASE) for word in self.banned):
            self._filtered += 1
            return
        tie = told["label_0"] == told["label_1"]
        wins = (
            {"skip": (), "first": (0,), "both": (0, 1)}[self.ties] if tie else (int(told["label_1"] > told["label_0"]),)
        )
        for side in wins:
            uid = str(told[f"image_{side}_uid"])
            if uid not in seen:
                seen.add(uid)
                self._rows[f"{name.with_suffix('').as_posix()}/{first + row:07d}/{uid}"] = (
                    path, group, row, f"jpg_{side}", caption,
                )  # fmt: skip


def _arrow() -> Any:
    import pyarrow

    return pyarrow


def _parquet() -> Any:
    def load() -> Any:
        import pyarrow.parquet

        return pyarrow.parquet

    return extra("pyarrow", "Pick-a-Pic", "pyarrow", load)


@lru_cache(maxsize=4)
def _pictures(path: Path, group: int, column: str) -> list[bytes]:
    """One column of a row group; rows are read in order, so that a few groups are in use at a time."""
    column_read = _parquet().ParquetFile(path).read_row_group(group, columns=[column]).column(0)
    pictures: list[bytes] = column_read.to_pylist()
    return pictures
