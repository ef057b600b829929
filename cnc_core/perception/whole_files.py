"""Whether a file of weights is whole, by its format alone: what there is to go by where no checksum is known.

Each format says in its own bytes how long its parts are, so a file cut short, or with a piece missing, does not
add up. Nothing is read but directories and headers, and nothing runs.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from safetensors import SafetensorError, safe_open

from ..pickled import Refused
from ..torch_files import open_archive
from ..weight_files import CheckpointError, open_weights

_MOST_FIELDS = 1_000_000
"""Of an ONNX file's model and graph; a large one has some 10,000."""


class BrokenFileError(ValueError):
    """A file that is not whole, or of another format; the text says in what."""


def check_whole(path: Path, suffix: str) -> None:
    """Raise BrokenFileError unless a file is a whole one of the format that `suffix` (".onnx") stands for."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise BrokenFileError("it is empty")
    if head.startswith(b"version https://git-lfs"):
        raise BrokenFileError("it is a Git LFS pointer, a text that stands for the file")
    if re.match(rb"(\xef\xbb\xbf)?\s*<[!?a-z]", head, re.IGNORECASE):
        raise BrokenFileError("it is a web page")
    {".onnx": _check_onnx, ".safetensors": _check_safetensors, ".pt": _check_torch, ".pth": _check_torch}[suffix](path)


def _check_safetensors(path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            if not list(file.keys()):
                raise BrokenFileError("it is a safetensors file without tensors")
    except SafetensorError as error:
        raise BrokenFileError(f"it is no whole safetensors file: {error}") from error


def _check_torch(path: Path) -> None:
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if zipped:
        _check_zip(path)
        return
    try:  # of torch before 1.6: one pickle after the other, whose end nothing tells but reading it
        open_weights(path, ())
    except CheckpointError as error:
        raise BrokenFileError(f"it is no whole file of torch.save: {error}") from error


def _check_zip(path: Path) -> None:
    """A zip file's directory is its last part, and tells where every entry begins."""
    try:
        with open_archive(path) as archive, path.open("rb") as file:
            entries = archive.infolist()
            for entry in entries:
                file.seek(entry.header_offset)
                if file.read(4) != b"PK\x03\x04" or entry.header_offset + entry.compress_size > archive.start_dir:
                    raise BrokenFileError(f"{entry.filename} is not where the zip file's directory says")
    except Refused as error:
        raise BrokenFileError(f"it {error}") from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, OverflowError) as error:
        raise BrokenFileError(f"it is no whole zip file: {error}") from error
    if not any(entry.filename.endswith("/data.pkl") for entry in entries):
        raise BrokenFileError("it is a zip file, but not one of PyTorch: it has no data.pkl")


def _check_onnx(path: Path) -> None:
    """An ONNX file is one ModelProto: ir_version is its field 1, the graph its field 7.

    Of a graph, a node is field 1, an input 11, an output 12.
    """
    try:
        with path.open("rb") as file:
            model = list(_fields(file, 0, path.stat().st_size))
            graphs = [(begin, end) for number, begin, end in model if number == 7]
            inside = Counter(number for begin, end in graphs for number, _, _ in _fields(file, begin, end))
    except ValueError as error:
        raise BrokenFileError(f"it is no whole ONNX file: {error}") from error
    if len(graphs) != 1 or not all(inside[number] for number in (1, 11, 12)) or all(n != 1 for n, _, _ in model):
        raise BrokenFileError("it is no ONNX file: it has no graph with nodes, inputs and outputs")


def _fields(file: IO[bytes], begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a protobuf message between two places of a file: the number of each, its content's begin and end.

    Raises ValueError where they do not add up to the message.
    """
    place = begin
    for _ in range(_MOST_FIELDS):
        if place == end:
            return
        file.seek(place)
        head = file.read(20)
        key, after = _varint(head, 0)
        value, after_value = _varint(head, after) if key & 7 in (0, 2) else (0, after)
        length = {0: 0, 1: 8, 2: value, 5: 4}.get(key & 7)
        if length is None or key >> 3 == 0:
            raise ValueError(f"byte {place:,} begins no field")
        content = place + after_value
        if content + length > end:
            raise ValueError(f"the field at byte {place:,} ends at {content + length:,}, its message at {end:,}")
        yield key >> 3, content, content + length
        place = content + length
    raise ValueError(f"it has more than {_MOST_FIELDS:,} fields")


def _varint(head: bytes, at: int) -> tuple[int, int]:
    """A number of protobuf's variable length, and where it ends."""
    value = 0
    for count, byte in enumerate(head[at : at + 10]):
        value |= (byte & 127) << (7 * count)
        if byte < 128:
            return value, at + count + 1
    raise ValueError("it breaks off within a number")
