"""Captions of pictures in files: a text beside each picture, or one table for all."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from .base import BrokenItem, SourceError, without_blank

_FILE_COLUMNS = ("file_name", "file", "image")
_TEXT_COLUMNS = ("text", "caption", "captions")


def beside(picture: Path) -> tuple[str, ...]:
    """The lines of the text file beside a picture, each a caption; none where there is no such file."""
    path = picture.with_suffix(".txt")
    if not path.is_file():
        return ()
    try:
        return without_blank(path.read_text(encoding="utf-8-sig").splitlines())
    except OSError as error:
        raise BrokenItem("broken caption", f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BrokenItem("broken caption", f"{path} is no UTF-8 ({error}): save it as UTF-8") from error


def read_table(path: Path) -> dict[str, tuple[str, ...]]:
    """Captions by file name from a table.

    .csv or .tsv with a header, or .jsonl with an object a line; a column file_name (or file, image) and one text (or
    caption, captions; a list in .jsonl). Several rows of one file are several captions. Quoted commas, tabs and line
    ends are part of the caption. Raises SourceError for anything else.
    """
    readers = {".csv": _rows_of_csv, ".tsv": _rows_of_csv, ".jsonl": _rows_of_jsonl}
    if path.suffix.lower() not in readers:
        raise SourceError(f"{path}: captions are a .csv, .tsv or .jsonl file")
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file of captions")
    found: dict[str, list[str]] = defaultdict(list)
    try:
        rows = readers[path.suffix.lower()](path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read: {error}; save it as a table in UTF-8") from error
    for line, row in rows:
        file, text = _column(row, _FILE_COLUMNS), _column(row, _TEXT_COLUMNS)
        if file is None or text is None:
            columns = " and ".join(" or ".join(names) for names in (_FILE_COLUMNS, _TEXT_COLUMNS))
            raise SourceError(
                f"{path}, row {line}: expected columns {columns}; got {', '.join(map(str, row)) or 'none'}"
            )
        found[str(file)].extend(text if isinstance(text, list) else [str(text)])
    return {file: without_blank([str(caption) for caption in captions]) for file, captions in found.items()}


def _rows_of_csv(path: Path) -> list[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        return [(reader.line_num, row) for row in reader]


def _rows_of_jsonl(path: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    # not splitlines(), which also splits at characters that JSON leaves as they are inside a text
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise SourceError(f"{path}, row {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise SourceError(f"{path}, row {number}: expected an object, got {line[:80]}")
        rows.append((number, row))
    return rows


def _column(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
